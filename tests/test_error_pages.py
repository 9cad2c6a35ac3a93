"""What an error looks like to the client: as it accepts, and with nothing of ours in production."""

from __future__ import annotations

import json

import pytest

from catzilla._core.limits import Limits
from catzilla.error_pages import error_response, exception_response
from catzilla.errors import HTTPError
from catzilla.request import Request
from tests.requests_made import Body, make_head


def request(accept: str = "", target: str = "/a") -> Request:
    return Request(make_head(target=target, headers={"Accept": accept} if accept else {}), Body(), {}, Limits())


def failure() -> ValueError:
    try:
        raise ValueError("secret <b>")
    except ValueError as error:
        return error


def test_a_line_of_text_by_default():
    response = error_response(request(), HTTPError(404, "nothing here"))
    assert (response.status_code, response.body) == (404, b"404 Not Found\nnothing here\n")
    assert response.content_type.startswith("text/plain")


def test_a_detail_that_says_no_more_than_the_status_is_said_once():
    assert error_response(request(), HTTPError(404)).body == b"404 Not Found\n"


def test_json_for_who_accepts_it():
    response = error_response(request("application/problem+json"), HTTPError(409, "taken"))
    assert response.content_type == "application/json"
    assert json.loads(response.body) == {"error": "Conflict", "status": 409, "detail": "taken"}


def test_a_page_for_a_browser():
    response = error_response(request("text/html,application/json"), HTTPError(404, "no <i>such</i> thing"))
    page = response.body.decode()
    assert response.content_type.startswith("text/html")
    assert "<h1>404 Not Found</h1>" in page
    assert "no &lt;i&gt;such&lt;/i&gt; thing" in page
    assert "<pre>" not in page


def test_the_headers_of_an_error_are_sent():
    response = error_response(request(), HTTPError(405, "no", {"Allow": "GET"}))
    assert response.get_header("Allow") == "GET"


@pytest.mark.parametrize("accept", ["", "application/json", "text/html"])
def test_production_says_nothing_of_the_exception(accept):
    response = exception_response(request(accept), failure(), production=True)
    assert response.status_code == 500
    assert b"secret" not in response.body
    assert b"Traceback" not in response.body
    assert b"ValueError" not in response.body


@pytest.mark.parametrize(
    ("accept", "seen"),
    [
        ("", "ValueError: secret <b>"),
        ("application/json", "ValueError: secret <b>"),
        ("text/html", "ValueError: secret &lt;b&gt;"),
    ],
)
def test_development_shows_the_traceback(accept, seen):
    response = exception_response(request(accept, "/a?x=<script>"), failure(), production=False)
    text = response.body.decode()
    assert response.status_code == 500
    assert seen in text
    assert "Traceback (most recent call last)" in text
    assert "<script>" not in text
