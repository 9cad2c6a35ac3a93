"""Looking header fields up, and refusing what must never be sent."""

from __future__ import annotations

import re

import pytest

from catzilla.headers import Headers, ResponseHeaders, content_disposition, encode_header

RAW = [(b"host", b"example.com"), (b"accept", b"a"), (b"x-name", b"Zo\xeb"), (b"accept", b"b")]


def test_request_headers_are_case_insensitive_and_in_order():
    headers = Headers(RAW)
    assert headers["HOST"] == "example.com"
    assert headers["Accept"] == "a"
    assert headers["x-name"] == "Zoë"
    assert headers.getlist("ACCEPT") == ["a", "b"]
    assert list(headers) == ["host", "accept", "x-name"]
    assert len(headers) == 3
    assert "Host" in headers
    assert "cookie" not in headers
    assert repr(Headers(RAW[:1])) == "Headers([('host', 'example.com')])"
    assert 5 not in headers
    assert headers.get("cookie") is None
    assert dict(headers) == {"host": "example.com", "accept": "a", "x-name": "Zoë"}
    with pytest.raises(KeyError):
        headers["cookie"]


def test_a_name_outside_latin_1_is_simply_not_there():
    assert Headers(RAW).get("x-名") is None


def test_response_headers_replace_add_and_remove():
    raw = [(b"Content-Type", b"text/plain")]
    headers = ResponseHeaders(raw)
    headers["content-type"] = "text/html"
    headers.add("Vary", "Accept")
    headers.add("vary", "Cookie")
    headers.setdefault("VARY", "never")
    headers["X-Count"] = 5
    assert raw == [(b"content-type", b"text/html"), (b"Vary", b"Accept"), (b"vary", b"Cookie"), (b"X-Count", b"5")]
    assert headers.pop("vary") == "Accept"
    assert headers.pop("vary", "none") == "none"
    del headers["x-count"]
    with pytest.raises(KeyError):
        del headers["x-count"]
    assert headers.raw is raw
    assert raw == [(b"content-type", b"text/html")]


def test_update_keeps_repeated_pairs_and_changes_nothing_when_one_is_refused():
    headers = ResponseHeaders([(b"Link", b"old"), (b"Age", b"1")])
    headers.update([("link", "a"), ("Link", "b")])
    assert headers.getlist("link") == ["a", "b"]
    with pytest.raises(ValueError):
        headers.update({"Age": "2", "X": "a\nb"})
    assert headers["age"] == "1"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("a\rb", "CR at position 1"),
        ("a\n", "LF"),
        ("\0", "NUL"),
        ("a\x0bb", "a control character"),
        ("\x7f", "control"),
    ],
)
def test_control_characters_in_a_value_are_refused(value, what):
    with pytest.raises(ValueError, match=f"header X-Thing: the value has .*{what}|header X-Thing.*{what}"):
        encode_header("X-Thing", value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "naïve", "a\0"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        encode_header(name, "x")


def test_values_are_latin_1_without_surrounding_space():
    assert encode_header("X", "  Zoë\t") == (b"X", b"Zo\xeb")
    with pytest.raises(ValueError, match="'名' at position 1 is not Latin-1; percent-encode"):
        encode_header("X", "a名")


@pytest.mark.parametrize("value", [None, True, b"x", 1.5, ["a"]])
def test_other_types_are_refused(value):
    with pytest.raises(TypeError, match=f"header X: .* not {type(value).__name__}"):
        encode_header("X", value)


@pytest.mark.parametrize(
    ("filename", "value"),
    [
        ("data.csv", 'attachment; filename="data.csv"'),
        ('a "b"\\c.txt', 'attachment; filename="a \\"b\\"\\\\c.txt"'),
        ("50%.txt", "attachment; filename=\"50%.txt\"; filename*=UTF-8''50%25.txt"),
        ("naïve €.txt", "attachment; filename=\"na?ve ?.txt\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt"),
    ],
)
def test_content_disposition(filename, value):
    assert content_disposition(filename) == value
    encode_header("Content-Disposition", value)


@pytest.mark.parametrize("filename", ["a\r\nX: y", "a\tb", "a\0"])
def test_a_file_name_with_control_characters_is_refused(filename):
    with pytest.raises(ValueError, match="control character"):
        content_disposition(filename)
