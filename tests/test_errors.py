"""HTTPError refuses what is no error, and every error of catzilla's has one root."""

from __future__ import annotations

import pickle

import pytest

from catzilla import errors


def test_an_http_error_carries_status_detail_and_headers():
    error = errors.HTTPError(404, "no such item", {"X-Why": "gone"})
    assert (error.status_code, error.detail, error.headers) == (404, "no such item", {"X-Why": "gone"})
    assert str(error) == "404 no such item"
    assert pickle.loads(pickle.dumps(error)).detail == "no such item"


def test_forbidden_has_a_text_for_the_client_and_one_for_the_log():
    assert str(errors.Forbidden()) == "403 Forbidden"
    assert str(errors.Forbidden("not you")) == "403 not you"
    error = errors.Forbidden("not you", why="you are not on the list")
    assert (error.detail, error.why, str(error)) == (
        "not you",
        "you are not on the list",
        "403 you are not on the list",
    )


@pytest.mark.parametrize(("status", "detail"), [(404, "Not Found"), (503, "Service Unavailable"), (499, "Error")])
def test_the_detail_is_the_phrase_of_the_status_if_left_out(status, detail):
    assert errors.HTTPError(status).detail == detail


@pytest.mark.parametrize("status", [200, 302, 399, 600, 0])
def test_a_status_that_is_no_error_is_refused(status):
    with pytest.raises(ValueError, match="400 to 599"):
        errors.HTTPError(status)


def test_headers_are_checked_where_they_are_set():
    with pytest.raises(ValueError, match="CR"):
        errors.HTTPError(401, headers={"WWW-Authenticate": "Basic\r\nX: y"})


def test_every_error_has_the_same_root():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.CatzillaError)
    assert issubclass(errors.RouteError, ValueError)
    assert issubclass(errors.SettingsError, ValueError)
    assert issubclass(errors.HandlerReturnError, TypeError)
    assert issubclass(errors.Disconnected, ConnectionError)
