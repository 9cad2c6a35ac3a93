"""What a request says about itself, how its body is read, and which errors are the client's."""

from __future__ import annotations

import pytest

from catzilla.errors import Disconnected, HTTPError
from catzilla.request import Request
from tests.requests_made import Body, make_head


def make(target: str = "/", headers=None, body=b"", method: str = "POST", **head) -> Request:
    return Request(make_head(method, target, headers, **head), Body(body))


def test_the_head():
    request = make("/caf%C3%A9?q=1", {"Host": "example.com", "X-One": "1"}, method="GET", path="/café", scheme="https")
    assert (request.method, request.path, request.http_version, request.scheme) == ("GET", "/café", "1.1", "https")
    assert request.url == "https://example.com/caf%C3%A9?q=1"
    assert request.client_ip == "203.0.113.7"
    assert request.headers["x-one"] == "1"
    assert request.get_header("X-ONE") == "1"
    assert request.get_header("X-Two") is None
    assert request.get_header("X-Two", "2") == "2"
    assert request.content_type == ""
    assert request.path_params == {}
    assert repr(request) == "<Request GET /caf%C3%A9?q=1>"


@pytest.mark.parametrize(
    ("target", "headers", "server", "url"),
    [
        ("/a", {}, ("192.0.2.1", 8000), "http://192.0.2.1:8000/a"),
        ("/a", {}, ("::1", 8000), "http://[::1]:8000/a"),
        ("/a", {}, None, "http://localhost/a"),
        ("*", {"Host": "h"}, None, "http://h"),
        ("http://other/a", {"Host": "h"}, None, "http://other/a"),
    ],
)
def test_the_url_of_every_kind_of_target(target, headers, server, url):
    assert make(target, headers, server=server).url == url


def test_a_unix_socket_has_no_client_address():
    assert make(client=None).client_ip is None


def test_forwarded_addresses_are_not_trusted():
    assert make(headers={"X-Forwarded-For": "1.2.3.4"}).client_ip == "203.0.113.7"


def test_query_parameters():
    query = make("/?a=1&b=%C3%A9+x&a=2&empty=&flag&bad=%FF").query_params
    assert query["a"] == "1"
    assert query.getlist("a") == ["1", "2"]
    assert query["b"] == "é x"
    assert query["empty"] == query["flag"] == ""
    assert query["bad"] == "\ufffd"
    assert query.get("none", "x") == "x"


def test_cookies_of_all_headers():
    assert make(headers=[("Cookie", "a=1; b=2"), ("Cookie", "c=3")]).cookies == {"a": "1", "b": "2", "c": "3"}
    assert make().cookies == {}


def test_context_and_state_belong_to_one_request():
    first, second = make(), make()
    first.context["user"] = first.state.user = "ann"
    assert first.context == {"user": "ann"}
    assert first.state.user == "ann"
    assert second.context == {}
    assert not hasattr(second.state, "user")


def test_is_disconnected_asks_the_connection():
    body = Body()
    request = Request(make_head(), body)
    assert not request.is_disconnected()
    body.disconnected = True
    assert request.is_disconnected()


def test_nothing_reads_the_body_until_it_is_asked_for():
    body = Body(b"x")
    request = Request(make_head(headers={"Content-Type": "text/plain"}), body)
    assert dict(request.form()) == {}
    assert dict(request.files) == {}
    assert body.reads == 0


def test_the_body_is_kept():
    request = make(body=[b"ab", b"cd"])
    assert request.body == request.body == b"abcd"
    assert request.text() == "abcd"
    assert list(request.stream()) == [b"abcd"]
    assert list(request.stream()) == [b"abcd"]


def test_an_empty_body_streams_nothing():
    request = make()
    assert request.body == b""
    assert list(request.stream()) == []


def test_a_streamed_body_is_gone_and_the_error_says_so():
    request = make("/up", body=[b"ab", b"cd"])
    assert list(request.stream()) == [b"ab", b"cd"]
    for read in (lambda: request.body, request.stream, request.text, request.json):
        with pytest.raises(RuntimeError, match=r"body of POST /up was taken piece by piece .* read request\.body"):
            read()


def test_a_client_that_leaves_is_seen_by_whoever_reads():
    request = Request(make_head(), Body([b"half"], Disconnected()))
    with pytest.raises(Disconnected):
        request.body  # noqa: B018


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("", "é".encode(), "é"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; Charset="UTF-16"', "é".encode("utf-16"), "é"),
    ],
)
def test_text_is_decoded_as_the_content_type_says(content_type, body, text):
    assert make(headers={"Content-Type": content_type}, body=body).text() == text


@pytest.mark.parametrize(
    ("content_type", "status", "detail"),
    [
        ("text/plain", 400, "not valid utf-8: invalid start byte at byte 2"),
        ("text/plain; charset=klingon", 415, "'klingon' is not known"),
        ("text/plain; charset=base64", 415, "'base64' is not known"),
    ],
)
def test_text_that_is_none_is_the_clients_fault(content_type, status, detail):
    with pytest.raises(HTTPError) as error:
        make(headers={"Content-Type": content_type}, body=b"ab\xff").text()
    assert error.value.status_code == status
    assert detail in error.value.detail


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "utf-8-sig"])
def test_json_in_every_unicode_encoding(encoding):
    assert make(body='{"a": ["é", 1]}'.encode(encoding)).json() == {"a": ["é", 1]}


def test_json_is_parsed_once_also_when_it_is_null():
    request = make(body=b'{"a": 1}')
    assert request.json() is request.json()
    assert make(body=b"null").json() is None


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "empty where JSON was expected"),
        (b" \n", "empty where JSON was expected"),
        (b'{"a": "\xff"}', "not utf-8 at byte 7"),
        (b"[" * 200_000, "nested too deeply"),
        (b"9" * 5000, "not valid JSON"),
    ],
)
def test_json_that_is_none_is_the_clients_fault(body, detail):
    with pytest.raises(HTTPError) as error:
        make(body=body).json()
    assert error.value.status_code == 400
    assert detail in error.value.detail


def test_a_form_and_its_files_are_parsed_together_once():
    body = (
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\nfile\r\n--b--\r\n'
    )
    request = make(headers={"Content-Type": "multipart/form-data; boundary=b"}, body=[body[:50], body[50:]])
    assert request.files["f"].read() == b"file"
    assert request.form()["a"] == "1"
    assert request.form() is request.form()
    with pytest.raises(RuntimeError, match="taken piece by piece"):
        request.body  # noqa: B018
    request.close()
    assert request.files["f"].file.closed


def test_a_form_can_be_read_after_the_body():
    request = make(headers={"Content-Type": "application/x-www-form-urlencoded"}, body=b"a=1")
    assert request.body == b"a=1"
    assert request.form()["a"] == "1"


def test_closing_a_request_without_a_form_does_nothing():
    request = make()
    request.close()
    assert request.body == b""
