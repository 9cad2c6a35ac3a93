"""The parser three ways (whole, byte by byte, with trailing data), what it refuses and how, and the heads it writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.errors import RemoteProtocolError
from catzilla._core.http1 import (
    END_OF_REQUEST,
    MAX_EMPTY_LINES,
    NEED_DATA,
    BodyData,
    Framing,
    RequestParser,
    RequestStart,
    frame_chunk,
    has_no_body,
    response_head,
    stream_framing,
)
from catzilla._core.limits import Limits

LIMITS = Limits(max_head_bytes=2000, max_headers=5, max_target_bytes=100, max_body_bytes=1000)


@dataclass
class Parsed:
    """One request as the events told it."""

    start: RequestStart
    body: bytes = b""
    ended: bool = False


def events(parser: RequestParser, requests: list[Parsed]) -> None:
    """Act on every event there is, as a connection does that answers at once."""
    while True:
        event = parser.next_event()
        if event is NEED_DATA:
            return
        if isinstance(event, RequestStart):
            assert not requests or requests[-1].ended
            requests.append(Parsed(event, ended=event.length == 0))
        elif isinstance(event, BodyData):
            assert event.data
            requests[-1].body += event.data
        else:
            assert event is END_OF_REQUEST
            requests[-1].ended = True


def parse(*pieces: bytes, limits: Limits = LIMITS, **options) -> list[Parsed]:
    parser = RequestParser(limits, **options)
    requests: list[Parsed] = []
    for piece in pieces:
        parser.receive_data(piece)
        events(parser, requests)
    return requests


def single(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


GET = b"GET /path?a=b HTTP/1.1\r\nHost: example.org\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n"
)
OLD = b"GET /old HTTP/1.0\r\n\r\n"


# Whole, byte by byte, with trailing data.


@pytest.mark.parametrize(
    ("data", "body"), [(GET, b""), (POST, b"hello"), (CHUNKED, b"hello world"), (OLD, b"")], ids=lambda each: None
)
def test_each_shape_three_ways(data, body):
    (whole,) = parse(data)
    assert whole.body == body
    assert whole.ended
    assert parse(*single(data)) == [whole]
    after = parse(data + GET)
    assert after[0] == whole
    assert after[1] == parse(GET)[0]
    (begun,) = parse(data + GET[:10])
    assert begun == whole


def test_a_head_says_everything():
    (request,) = parse(GET, scheme="https", client=("192.0.2.9", 4711), server=("192.0.2.1", 443))
    head = request.start.head
    assert (head.method, head.target, head.path, head.query) == ("GET", "/path?a=b", "/path", "a=b")
    assert head.headers == [(b"host", b"example.org")]
    assert (head.http_version, head.scheme) == ("1.1", "https")
    assert (head.client, head.server) == (("192.0.2.9", 4711), ("192.0.2.1", 443))
    assert head.header(b"host") == b"example.org"
    assert head.header(b"accept") is None
    assert (request.start.length, request.start.expects_continue, request.start.keep_alive) == (0, False, True)


def test_what_is_left_over_is_shown():
    parser = RequestParser(LIMITS)
    parser.receive_data(GET + b"GET /ne")
    assert isinstance(parser.next_event(), RequestStart)
    assert parser.pending == b"GET /ne"


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n\r\n"])
def test_empty_lines_before_a_request_are_nothing(empty):
    # RFC 9112 section 2.2
    assert parse(empty + GET) == parse(GET)
    assert parse(*single(empty + GET)) == parse(GET)
    assert parse(GET + empty + GET) == parse(GET) * 2


def test_a_few_empty_lines_are_ignored_and_many_are_not():
    assert parse(b"\r\n" * (MAX_EMPTY_LINES - 1) + GET) == parse(GET)
    with pytest.raises(RemoteProtocolError) as caught:
        parse(b"\r\n" * 100 + GET)
    assert caught.value.status == 400


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(edges)]


TOKEN = st.text("abcdefgXYZ019-_", min_size=1, max_size=8)
TARGET = st.one_of(
    st.text("abc/?&=%20._~", max_size=20).map(lambda text: "/" + text),
    st.integers(80, 100).map(lambda size: "/" + "t" * (size - 1)),
)


@st.composite
def requests(draw) -> tuple[bytes, bytes]:
    """A valid request, and its body."""
    method, target = draw(st.sampled_from(["GET", "POST", "DELETE", "PURGE"])), draw(TARGET)
    lines = [f"{method} {target} HTTP/1.1", "Host: a"]
    lines += [f"X-{name}: {value}" for name, value in draw(st.lists(st.tuples(TOKEN, TOKEN), max_size=2))]
    body, framed = b"", b""
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    if kind == "length":
        body = framed = draw(st.binary(max_size=60))
        lines.append(f"Content-Length: {len(body)}")
    elif kind == "chunked":
        pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
        body = b"".join(pieces)
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + framed, body


@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=40))
def test_any_split_of_a_stream_of_requests_gives_the_same(made, cuts):
    data = b"".join(raw for raw, _ in made)
    whole = parse(data)
    assert [request.body for request in whole] == [body for _, body in made]
    assert all(request.ended for request in whole)
    assert parse(*split(data, cuts)) == whole


@given(
    st.lists(requests(), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.lists(st.integers(0, 3), max_size=60),
)
def test_a_reader_that_takes_its_time_sees_the_same(made, cuts, pace):
    """Between two pieces only so many events are taken: a body that is full is not read on."""
    data = b"".join(raw for raw, _ in made)
    parser, seen, bodies = RequestParser(LIMITS), [], []

    def take(most: int) -> None:
        for _ in range(most):
            event = parser.next_event()
            if event is NEED_DATA:
                return
            if isinstance(event, RequestStart):
                seen.append(event)
                bodies.append(b"")
            elif isinstance(event, BodyData):
                bodies[-1] += event.data

    steps = iter(pace)
    for piece in split(data, cuts):
        parser.receive_data(piece)
        take(next(steps, 1))
    take(1000)
    assert bodies == [body for _, body in made]
    assert seen == [request.start for request in parse(data)]


# What the head decides.


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive, close", False),
        ("1.1", "keep-alive", True),
        ("1.1", "upgrade", True),
        ("1.1", "not-close", True),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "close", False),
    ],
)
def test_who_keeps_the_connection(version, connection, keep_alive):
    extra = f"Connection: {connection}\r\n" if connection else ""
    (request,) = parse(f"GET / HTTP/{version}\r\nHost: a\r\n{extra}\r\n".encode())
    assert request.start.keep_alive is keep_alive
    assert request.start.head.http_version == version


def test_two_connection_fields_are_one_list():
    (request,) = parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n")
    assert not request.start.keep_alive


@pytest.mark.parametrize(
    ("head", "expects"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", False),
        (b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", False),
    ],
)
def test_who_waits_for_100_continue(head, expects):
    (request,) = parse(head)
    assert request.start.expects_continue is expects


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%20b", "/a b", ""),
        ("/%C3%A9?x=%C3%A9", "/é", "x=%C3%A9"),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//a", "//a", ""),
        ("http://other.example/a/b?c=d", "/a/b", "c=d"),
        ("HTTPS://other.example", "/", ""),
        ("http://other.example?c=d", "/", "c=d"),
        ("/%FF", "/\ufffd", ""),
    ],
)
def test_targets(target, path, query):
    (request,) = parse(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (request.start.head.path, request.start.head.query) == (path, query)
    assert request.start.head.target == target


def test_options_of_everything():
    (request,) = parse(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert request.start.head.path == "*"


# Refusals.

HOST = b"Host: a\r\n"
BAD = {
    # Lines and methods
    "no HTTP at all": (400, b"\x16\x03\x01\x02\x00\x01\x00"),
    "garbage": (400, b"(){}\r\n\r\n"),
    "a space first": (400, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "bare LF in the head": (400, b"GET / HTTP/1.1\n" + HOST + b"\r\n"),
    "bare LF between fields": (400, b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    "bare LF, unfinished": (400, b"GET / HTTP/1.1\nHost"),
    "a field without a colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n"),
    "a space before the colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X : b\r\n\r\n"),
    "a NUL in a field": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n"),
    "a folded field": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n"),
    "HTTP/2": (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    "HTTP/0.9": (505, b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
    # Host
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "a Host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "a Host with a user": (400, b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n"),
    # Targets
    "a target outside ASCII": (400, "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".encode()),
    "a target without slash": (400, b"GET path HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a fragment": (400, b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a fragment in a URL": (400, b"GET http://a/b#c HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a URL that is none": (400, b"GET http://[a HTTP/1.1\r\n" + HOST + b"\r\n"),
    "an ftp URL": (400, b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a star for GET": (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "CONNECT": (501, b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    # Smuggling
    "both framings": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "both framings, turned": (
        400,
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ),
    "two lengths": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    "a list of lengths": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 6\r\n\r\n"),
    "a signed length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\n"),
    "a huge length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 50 + b"\r\n\r\n"),
    "chunked in 1.0": (400, b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"),
    "another coding": (501, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "a coding on top": (501, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "a folded coding": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding\r\n : chunked\r\n\r\n"),
    "another expectation": (417, b"POST / HTTP/1.1\r\n" + HOST + b"Expect: a miracle\r\n\r\n"),
    # Sizes
    "a long target": (414, b"GET /" + b"x" * 100 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a long target, unfinished": (414, b"GET /" + b"x" * 300),
    "a long head": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 2000 + b"\r\n\r\n"),
    "a long head, unfinished": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 2000),
    "many fields": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 5 + b"\r\n"),
    "a long body": (413, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1001\r\n\r\n"),
}
CHUNKED_HEAD = CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4]
BAD_BODY = {
    "a size that is none": (400, CHUNKED_HEAD + b"x\r\n"),
    "a negative size": (400, CHUNKED_HEAD + b"-1\r\n"),
    "a chunk that is longer than it says": (400, CHUNKED_HEAD + b"1\r\nab\r\n"),
    "a bare LF after a size": (400, CHUNKED_HEAD + b"1\na\r\n0\r\n\r\n"),
    "a bare LF at the end": (400, CHUNKED_HEAD + b"1\r\na\r\n0\r\n\n"),
    "bare LFs at the end": (400, CHUNKED_HEAD + b"0\n\n\r\n"),
    "trailers": (400, CHUNKED_HEAD + b"0\r\nX: y\r\n\r\n"),
    "a long chunked body": (413, CHUNKED_HEAD + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize(("status", "data"), [*BAD.values(), *BAD_BODY.values()], ids=[*BAD, *BAD_BODY])
@pytest.mark.parametrize("how", ["whole", "byte by byte", "after another"])
def test_refusals_and_their_statuses(status, data, how):
    pieces = {"whole": [data], "byte by byte": single(data), "after another": [GET + data]}[how]
    with pytest.raises(RemoteProtocolError) as caught:
        parse(*pieces)
    assert caught.value.status == status, str(caught.value)
    assert str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 99 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 4 + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000,
        CHUNKED_HEAD + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * (2000 - 32) + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    ],
    ids=["target", "fields", "length", "chunked", "head", "the same length twice"],
)
def test_just_within_each_limit(data):
    (whole,) = parse(data)
    assert whole.ended
    assert parse(*single(data)) == [whole]


def test_a_head_just_at_the_limit_is_exact():
    data = b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n\r\n"
    assert parse(data, limits=replace(LIMITS, max_head_bytes=len(data)))
    with pytest.raises(RemoteProtocolError) as caught:
        parse(data, limits=replace(LIMITS, max_head_bytes=len(data) - 1))
    assert caught.value.status == 431


def test_an_endless_chunk_header_is_refused():
    with pytest.raises(RemoteProtocolError):
        parse(CHUNKED_HEAD + b"1;" + b"x" * 100_000)


# Responses.

DATE = b"Mon, 01 Jan 2024 00:00:00 GMT"


def head(status=200, headers=(), **changed) -> bytes:
    options = {
        "framing": Framing.LENGTH,
        "length": 5,
        "keep_alive": True,
        "http_version": "1.1",
        "date": DATE,
        **changed,
    }
    return response_head(status, list(headers), **options)


def fields(raw: bytes) -> dict[bytes, bytes]:
    """A head as h11 reads it; none of its fields may be there twice."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    event = client.next_event()
    assert isinstance(event, h11.Response)
    names = [name for name, _ in event.headers]
    assert len(names) == len(set(names))
    return dict(event.headers)


def test_a_plain_head():
    assert head(200, [(b"Content-Type", b"text/plain")]) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ndate: " + DATE + b"\r\nserver: catzilla\r\n"
        b"content-length: 5\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {b"content-length": b"5"}),
        ({"keep_alive": False}, {b"content-length": b"5", b"connection": b"close"}),
        ({"http_version": "1.0"}, {b"content-length": b"5", b"connection": b"keep-alive"}),
        ({"http_version": "1.0", "keep_alive": False}, {b"content-length": b"5", b"connection": b"close"}),
        ({"framing": Framing.CHUNKED, "length": None}, {b"transfer-encoding": b"chunked"}),
        ({"framing": Framing.CLOSE, "length": None, "keep_alive": False}, {b"connection": b"close"}),
        ({"framing": Framing.NONE, "length": None}, {}),
        ({"framing": Framing.NONE, "length": 0}, {b"content-length": b"0"}),
        ({"status": 204, "framing": Framing.NONE, "length": 0}, {}),
        ({"status": 304, "framing": Framing.NONE, "length": 7}, {b"content-length": b"7"}),
    ],
)
def test_how_a_message_is_framed(changed, expected):
    assert fields(head(**changed)) == {b"date": DATE, b"server": b"catzilla", **expected}


def test_the_handlers_own_framing_is_dropped():
    ours = [
        (b"Connection", b"upgrade"),
        (b"Transfer-Encoding", b"gzip"),
        (b"Content-Length", b"99"),
        (b"Keep-Alive", b"5"),
        (b"Upgrade", b"x"),
        (b"X-Mine", b"kept"),
    ]
    assert fields(head(200, ours)) == {
        b"x-mine": b"kept",
        b"content-length": b"5",
        b"date": DATE,
        b"server": b"catzilla",
    }


@pytest.mark.parametrize("name", [b"Date", b"date", b"SERVER"])
def test_the_handlers_own_date_and_server_stand(name):
    seen = fields(head(200, [(name, b"mine")]))
    assert seen[name.lower()] == b"mine"
    assert set(seen) == {b"date", b"server", b"content-length"}


def test_both_of_them_at_once():
    assert fields(head(200, [(b"Server", b"mine"), (b"Date", b"now")])) == {
        b"server": b"mine",
        b"date": b"now",
        b"content-length": b"5",
    }


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"HTTP/1.1 200 OK"), (418, b"HTTP/1.1 418 I'm a Teapot"), (299, b"HTTP/1.1 299 "), (599, b"HTTP/1.1 599 ")],
)
def test_status_lines(status, line):
    raw = head(status)
    assert raw.partition(b"\r\n")[0] == line
    assert fields(raw)


@pytest.mark.parametrize(
    ("status", "expected"), [(199, True), (204, True), (304, True), (200, False), (205, False), (404, False)]
)
def test_which_statuses_have_no_body(status, expected):
    assert has_no_body(status) is expected


@pytest.mark.parametrize(
    ("status", "headers", "method", "version", "expected"),
    [
        (200, [], "GET", "1.1", (Framing.CHUNKED, None)),
        (200, [(b"X-Mine", b"7")], "GET", "1.1", (Framing.CHUNKED, None)),
        (200, [], "GET", "1.0", (Framing.CLOSE, None)),
        (200, [(b"Content-Length", b"7")], "GET", "1.1", (Framing.LENGTH, 7)),
        (200, [(b"content-length", b"7")], "GET", "1.0", (Framing.LENGTH, 7)),
        (200, [(b"Content-Length", b"7")], "HEAD", "1.1", (Framing.NONE, 7)),
        (200, [], "HEAD", "1.1", (Framing.NONE, None)),
        (204, [], "GET", "1.1", (Framing.NONE, None)),
        (304, [], "GET", "1.1", (Framing.NONE, None)),
    ],
)
def test_how_a_stream_is_framed(status, headers, method, version, expected):
    assert stream_framing(status, headers, method, version) == expected


@pytest.mark.parametrize("value", [b"seven", b"-1", b"", b"1.5"])
def test_a_declared_length_must_be_a_number(value):
    with pytest.raises(ValueError, match="it must be a number of bytes"):
        stream_framing(200, [(b"Content-Length", value)], "GET", "1.1")


def test_a_chunk_of_large_pieces_does_not_copy_them():
    pieces = [b"x" * 5000, b"y" * 5000]
    framed = frame_chunk(pieces, 10_000)
    assert b"".join(framed) == b"2710\r\n" + b"".join(pieces) + b"\r\n"
    assert all(any(piece is each for each in framed) for piece in pieces)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=10))
def test_a_chunk_is_what_h11_takes_it_for(pieces):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head(framing=Framing.CHUNKED, length=None))
    assert isinstance(client.next_event(), h11.Response)
    framed = frame_chunk(pieces, sum(map(len, pieces)))
    client.receive_data(b"".join(framed) + b"0\r\n\r\n")
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"".join(pieces)
