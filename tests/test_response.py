"""Responses as they are sent, what handlers may return, and the messages for what they may not."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from catzilla._core.messages import Reply
from catzilla.errors import HandlerReturnError
from catzilla.response import HTMLResponse, JSONResponse, RedirectResponse, Response, coerce_response
from tests.requests_made import make_head


def sent(response: Response) -> Reply:
    return response.reply(make_head())


def test_a_plain_response():
    reply = sent(Response(body="é"))
    assert (reply.status, reply.headers, reply.body) == (
        200,
        [(b"Content-Type", b"text/plain; charset=utf-8")],
        "é".encode(),
    )


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        ("text/csv", b"text/csv; charset=utf-8"),
        ("text/plain; charset=latin-1", b"text/plain; charset=latin-1"),
        ("application/json", b"application/json"),
        ("image/png", b"image/png"),
    ],
)
def test_text_says_that_it_is_utf_8(content_type, value):
    response = Response(content_type=content_type)
    assert response.reply(make_head()).headers == [(b"Content-Type", value)]
    response.content_type = content_type
    assert response.content_type == value.decode()


@pytest.mark.parametrize("body", [b"ab", bytearray(b"ab"), memoryview(b"ab"), "ab"])
def test_a_body_is_text_or_bytes(body):
    response = Response(body=body)
    assert response.body == b"ab"
    response.body = body
    assert sent(response).body == b"ab"


@pytest.mark.parametrize(
    ("body", "hint"), [({"a": 1}, "JSONResponse"), ([1], "JSONResponse"), (5, "StreamingResponse"), (None, "Streaming")]
)
def test_another_body_is_refused_with_what_to_write(body, hint):
    with pytest.raises(TypeError, match=f"not {type(body).__name__}: write {hint}"):
        Response(body=body)


def test_headers_are_mappings_or_pairs_and_may_name_the_content_type():
    assert sent(Response(headers={"content-type": "a/b", "X": "1"})).headers == [
        (b"content-type", b"a/b"),
        (b"X", b"1"),
    ]
    response = Response(headers=[("Link", "a"), ("Link", "b")])
    assert response.headers.getlist("link") == ["a", "b"]


def test_headers_can_be_changed():
    response = Response()
    response.set_header("X-One", "1")
    response.set_header("x-one", "2")
    assert response.get_header("X-One") == "2"
    assert response.get_header("X-Two", "none") == "none"
    response.headers.pop("content-type")
    assert response.content_type == ""
    assert sent(response).headers == [(b"x-one", b"2")]


def test_a_reply_is_a_copy_so_that_a_response_can_be_sent_again():
    response = Response()
    sent(response).headers.clear()
    assert len(sent(response).headers) == 1


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\0"])
def test_header_injection_is_refused_where_it_is_set(value):
    response = Response()
    for write in (
        lambda: Response(headers={"X-Name": value}),
        lambda: Response(content_type=value),
        lambda: response.set_header("X-Name", value),
        lambda: response.headers.add("X-Name", value),
        lambda: response.set_cookie("name", value),
        lambda: RedirectResponse(value),
        lambda: response.set_header(value, "x"),
    ):
        with pytest.raises(ValueError):
            write()
    assert len(sent(response).headers) == 1


def test_the_status_is_a_plain_int_and_may_be_changed():
    response = Response(HTTPStatus.CREATED)
    assert type(sent(response).status) is int
    response.status_code = 404
    assert sent(response).status == 404


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        ("hello", TypeError, r"write Response\(body='hello'\)"),
        (True, TypeError, "not bool"),
        (None, TypeError, "not NoneType"),
        (100, ValueError, "200 to 599, not 100"),
        (600, ValueError, "200 to 599, not 600"),
    ],
)
def test_what_is_no_status_is_refused(status, error, message):
    with pytest.raises(error, match=message):
        Response(status)
    response = Response()
    with pytest.raises(error, match=message):
        response.status_code = status
    assert response.status_code == 200


def test_cookies_are_set_beside_each_other_and_deleted():
    response = Response()
    response.set_cookie("a", "1", max_age=60, httponly=True)
    response.set_cookie("b", "2")
    response.delete_cookie("c", path="/x")
    assert response.headers.getlist("set-cookie") == [
        "a=1; Max-Age=60; Path=/; HttpOnly; SameSite=Lax",
        "b=2; Path=/; SameSite=Lax",
        "c=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/x; SameSite=Lax",
    ]


def test_the_kinds_of_response():
    json = sent(JSONResponse({"é": 1}, 201, {"X": "1"}))
    assert (json.status, json.headers, json.body) == (
        201,
        [(b"Content-Type", b"application/json"), (b"X", b"1")],
        '{"é":1}'.encode(),
    )
    html = sent(HTMLResponse("<p>", 404))
    assert (html.status, html.headers, html.body) == (404, [(b"Content-Type", b"text/html; charset=utf-8")], b"<p>")
    assert sent(RedirectResponse("/x?q=é#ü")).headers[-1] == (b"Location", b"/x?q=%C3%A9#%C3%BC")
    assert sent(RedirectResponse("/x")).status == 302
    assert sent(RedirectResponse("/x", 308)).status == 308


def test_a_redirect_has_a_status_that_redirects():
    with pytest.raises(ValueError, match="301, 302, 303, 307 or 308, not 200"):
        RedirectResponse("/x", 200)


class Model(dict):
    """A subclass, as ORMs and validators return them."""


@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ("<p>", 200, "text/html; charset=utf-8", b"<p>"),
        (b"\0", 200, "application/octet-stream", b"\0"),
        (bytearray(b"x"), 200, "application/octet-stream", b"x"),
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        (Model(a=1), 200, "application/json", b'{"a":1}'),
        ([1, 2], 200, "application/json", b"[1,2]"),
        (("made", 201), 201, "text/html; charset=utf-8", b"made"),
        (({"a": 1}, HTTPStatus.CREATED, {"X": "1"}), 201, "application/json", b'{"a":1}'),
        (("x", 200, [("Content-Type", "text/csv")]), 200, "text/csv", b"x"),
        (("x", 202, None), 202, "text/html; charset=utf-8", b"x"),
        ((Response(body="r"), 203), 203, "text/plain; charset=utf-8", b"r"),
    ],
)
def test_what_a_handler_may_return(value, status, content_type, body):
    response = coerce_response(value, "app.show")
    reply = sent(response)
    assert (reply.status, response.content_type, reply.body) == (status, content_type, body)


def test_a_response_is_passed_on():
    response = Response()
    assert coerce_response(response, "app.show") is response


@pytest.mark.parametrize("value", [None, 5, object(), {1}, iter([]), (), ("x",), ("x", 1, {}, 2), (("x", 200), 200)])
def test_anything_else_names_the_handler_and_what_it_may_return(value):
    with pytest.raises(HandlerReturnError, match=r"handler app\.show returned .*; it may return a Response, a str"):
        coerce_response(value, "app.show")


@pytest.mark.parametrize("value", [("x", "200"), ("x", {"X": "1"}), ("x", True), ("x", None, {})])
def test_a_tuple_without_a_status_says_what_to_write(value):
    with pytest.raises(HandlerReturnError, match=r"app\.show .*write \(body, status\) or \(body, status, headers\)"):
        coerce_response(value, "app.show")


def test_a_fallback_takes_what_is_not_plain():
    generator = (item for item in "ab")

    def fallback(value):
        return Response(body="streamed") if value is generator else None

    assert coerce_response(generator, "app.show", fallback).body == b"streamed"
    assert coerce_response((generator, 202), "app.show", fallback).status_code == 202
    with pytest.raises(HandlerReturnError, match="returned None"):
        coerce_response(None, "app.show", fallback)
