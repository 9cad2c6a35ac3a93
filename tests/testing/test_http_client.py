"""The test client's view of a response: whole, as it arrives, and cut."""

from __future__ import annotations

import threading

import pytest

from catzilla.testing.errors import IncompleteBody

OK = b"HTTP/1.1 200 OK\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(*pieces: bytes):
    """A script that reads one request head and says these pieces."""

    def script(peer):
        peer.read_head()
        peer.say(*pieces)

    return script


# --- whole responses -----------------------------------------------------------------------------------------------


def test_a_response(connect):
    response = connect(answer(OK + b"X-One: 1\r\nx-one: 2\r\nContent-Length: 5\r\n\r\nhello")).get("/")
    assert (response.status_code, response.reason, response.http_version) == (200, "OK", "1.1")
    assert response.headers["X-ONE"] == "1"
    assert response.headers.getlist("x-one") == ["1", "2"]
    assert response.body == b"hello"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (b"text/plain", "été".encode(), "été"),
        (b"text/plain; charset=iso-8859-1", b"\xe9t\xe9", "été"),
        (b'text/html; charset="utf-16-le"', "été".encode("utf-16-le"), "été"),
    ],
)
def test_text_is_decoded_as_its_content_type_says(connect, content_type, body, text):
    head = OK + b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n" % (content_type, len(body))
    assert connect(answer(head + body)).get("/").text == text


def test_json(connect):
    assert connect(answer(OK + b"Content-Length: 13\r\n\r\n" + b'{"a": [1, 2]}')).get("/").json() == {"a": [1, 2]}


def test_a_chunked_body(connect):
    response = connect(answer(OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b"ab"), chunk(b"c"), chunk(b""))).get(
        "/"
    )
    assert response.body == b"abc"


def test_a_body_that_ends_with_the_connection(connect):
    response = connect(answer(b"HTTP/1.0 200 OK\r\n\r\n", b"all of it")).get("/")
    assert (response.http_version, response.body) == ("1.0", b"all of it")


def test_a_head_response_has_no_body(connect):
    assert connect(answer(OK + b"Content-Length: 5\r\n\r\n")).head("/").body == b""


def test_interim_responses_are_passed_over(connect):
    script = answer(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"
    )
    assert connect(script).get("/").status_code == 200


def test_no_response(connect):
    with pytest.raises(ConnectionResetError, match="GET /x: the server closed the connection, no response"):
        connect(answer()).get("/x")


def test_half_a_head(connect):
    with pytest.raises(ConnectionResetError, match="GET /x: no response: peer unexpectedly closed connection"):
        connect(answer(b"HTTP/1.1 200 O")).get("/x")


def test_silence(connect):
    client = connect(lambda peer: peer.read_to_end(), timeout=60)
    with pytest.raises(TimeoutError, match=r"GET /x: .* kept it waiting for 0\.05 s"):
        client.get("/x", timeout=0.05)


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(connect):
    """A factory: sends a request and gives its head's lines and its body as the server saw them."""

    def send(method: str, path: str, **options) -> tuple[list[str], bytes]:
        seen = []

        def script(peer):
            head = peer.read_head().decode()
            seen.extend((head.split("\r\n")[:-2], peer.read_body(head)))
            peer.say(OK + b"Content-Length: 0\r\n\r\n")

        assert connect(script).request(method, path, **options).status_code == 200
        return tuple(seen)

    return send


def test_a_get_names_its_host_and_has_no_body(sent):
    (request, host), body = sent("GET", "/a?b=c")
    assert request == "GET /a?b=c HTTP/1.1"
    assert host.startswith("Host: 127.0.0.1:")
    assert body == b""


def test_headers_may_repeat_and_replace_the_usual_ones(sent):
    lines, _ = sent("GET", "/", headers=[("Host", "example.org"), ("X-A", "1"), ("X-A", "2")])
    assert lines[1:] == ["Host: example.org", "X-A: 1", "X-A: 2"]


def test_a_path_is_percent_encoded_where_it_must_be(sent):
    assert sent("GET", "/été and/%20?q=a b")[0][0] == "GET /%C3%A9t%C3%A9%20and/%20?q=a%20b HTTP/1.1"


def test_bytes_are_sent_as_they_are(sent):
    lines, body = sent("POST", "/", data=b"\x00\xff")
    assert lines[2:] == ["Content-Length: 2"]
    assert body == b"\x00\xff"


def test_an_empty_post_says_that_it_is_empty(sent):
    assert sent("POST", "/")[0][2:] == ["Content-Length: 0"]


def test_text(sent):
    lines, body = sent("PUT", "/", data="é")
    assert lines[2:] == ["Content-Type: text/plain; charset=utf-8", "Content-Length: 2"]
    assert body == "é".encode()


def test_json_with_a_content_type_of_its_own(sent):
    lines, body = sent("PATCH", "/", json={"a": 1}, headers={"content-type": "application/merge-patch+json"})
    assert lines[2:] == ["Content-Length: 8", "content-type: application/merge-patch+json"]
    assert body == b'{"a": 1}'


def test_a_form(sent):
    lines, body = sent("POST", "/", data={"a": ["1", "2"], "b": "x y", "c": "&"})
    assert "Content-Type: application/x-www-form-urlencoded" in lines
    assert body == b"a=1&a=2&b=x+y&c=%26"


def test_files(sent):
    lines, body = sent(
        "POST",
        "/",
        data={"title": "é"},
        files={"a": b"bytes", "b": ("b.txt", "text"), "c": ("c.csv", "1,2", "text/csv")},
    )
    (content_type,) = (line for line in lines if line.startswith("Content-Type"))
    boundary = content_type.partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    octets = b"Content-Type: application/octet-stream\r\n"
    assert parts[1:-1] == [
        b'\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + "é".encode() + b"\r\n",
        b'\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n' + octets + b"\r\nbytes\r\n",
        b'\r\nContent-Disposition: form-data; name="b"; filename="b.txt"\r\n' + octets + b"\r\ntext\r\n",
        b'\r\nContent-Disposition: form-data; name="c"; filename="c.csv"\r\nContent-Type: text/csv\r\n\r\n1,2\r\n',
    ]


def test_pieces_are_sent_in_chunks(sent):
    lines, body = sent("POST", "/", data=iter([b"ab", b"c"]))
    assert lines[2:] == ["Transfer-Encoding: chunked"]
    assert body == chunk(b"ab") + chunk(b"c") + chunk(b"")


@pytest.mark.parametrize(
    "options", [{"json": 1, "data": b""}, {"json": 1, "files": {}}, {"data": b"raw", "files": {"a": b""}}]
)
def test_two_bodies_are_refused(connect, options):
    client = connect(lambda peer: None)
    with pytest.raises(TypeError):
        client.post("/", **options)


def test_a_body_that_is_refused_early(connect):
    """The server answers and reads no more, and the answer is what the test sees."""
    done = threading.Event()

    def script(peer):
        peer.read_head()
        peer.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        done.wait(10)

    response = connect(script).post("/", data=(b"x" * 1_000_000 for _ in range(100)))
    done.set()
    assert response.status_code == 413


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_each_method_has_its_name(connect, method):
    seen = []

    def script(peer):
        seen.append(peer.read_head().split()[0].decode())
        peer.say(OK + b"Content-Length: 0\r\n\r\n")

    assert getattr(connect(script), method.lower())("/").status_code == 200
    assert seen == [method]


def test_a_content_length_of_its_own_is_kept(connect):
    seen = []

    def script(peer):
        seen.append(peer.read_head())
        peer.say(OK + b"Content-Length: 0\r\n\r\n")

    connect(script).open("POST", "/", headers={"Content-Length": "0"})
    assert seen[0].count(b"Content-Length") == 1


# --- one connection, several requests ------------------------------------------------------------------------------


def test_a_connection_is_reused(connect):
    def script(peer):
        for _ in range(2):
            target = peer.read_head().split()[1]
            peer.say(OK + b"Content-Length: %d\r\n\r\n" % len(target) + target)

    client = connect(script)
    assert client.get("/a").text == "/a"
    assert client.reusable
    assert client.get("/bc").text == "/bc"


def test_a_connection_whose_server_says_close_closes_itself(connect):
    client = connect(answer(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n"))
    client.get("/a")
    assert client.wire.closed


def test_a_second_request_before_the_first_is_answered_is_refused(connect):
    client = connect(answer(OK + b"Content-Length: 5\r\n\r\n"))
    client.open("GET", "/a")
    with pytest.raises(RuntimeError, match="GET /b: the connection cannot take another request; GET /a is at"):
        client.get("/b")


def test_raw_bytes_and_their_answers_in_turn(connect):
    def script(peer):
        assert peer.read_head() == b"get / http/9\r\n\r\n"
        assert peer.read_head() == b"HEAD / HTTP/1.1\r\n\r\n"
        peer.say(b"HTTP/1.1 505 No\r\nContent-Length: 1\r\n\r\n!" + OK + b"Content-Length: 7\r\n\r\n")

    client = connect(script)
    client.send_raw(b"get / http/9\r\n\r\nHEAD / HTTP/1.1\r\n\r\n")
    first, second = client.read_response(), client.read_response("HEAD")
    assert (first.status_code, first.body) == (505, b"!")
    assert (second.status_code, second.body) == (200, b"")


# --- streams -------------------------------------------------------------------------------------------------------


def test_the_head_is_there_before_the_body(connect):
    go = threading.Event()

    def script(peer):
        peer.read_head()
        peer.say(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        go.wait(10)
        peer.say(chunk(b"late"), chunk(b""))

    with connect(script).open("GET", "/") as stream:
        assert (stream.status_code, stream.headers["transfer-encoding"]) == (200, "chunked")
        assert stream.arrivals == []
        go.set()
        assert list(stream) == [b"late"]


def test_each_item_is_what_one_read_brought(connect):
    """The peer says each piece only after the test has had the one before it, so no two can arrive together."""
    turn = threading.Semaphore(0)

    def script(peer):
        peer.read_head()
        peer.say(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"with the head"))
        for pieces in (chunk(b"a") + chunk(b"b"), chunk(b"c"), chunk(b"")):
            turn.acquire(timeout=10)
            peer.say(pieces)

    stream = connect(script).open("GET", "/")
    items = []
    for item in stream:
        items.append(item)
        turn.release()
    assert items == [b"with the head", b"ab", b"c"]
    assert len(stream.arrivals) == 3
    assert stream.arrivals == sorted(stream.arrivals)
    assert stream.arrivals[0] >= 0


def test_a_chunk_in_two_reads_is_two_items(connect):
    turn = threading.Event()

    def script(peer):
        peer.read_head()
        peer.say(OK + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabc")
        turn.wait(10)
        peer.say(b"def\r\n" + chunk(b""))

    stream = connect(script).open("GET", "/")
    assert next(stream) == b"abc"
    turn.set()
    assert stream.read_all() == b"def"
    assert stream.read_all() == b""


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"Content-Length: 9\r\n\r\nabc"])
def test_a_body_that_is_cut_is_not_taken_for_the_whole(connect, head):
    stream = connect(answer(OK + head)).open("GET", "/cut")
    assert next(stream) == b"abc"
    with pytest.raises(IncompleteBody, match="the body of GET /cut was cut after 3 bytes") as raised:
        next(stream)
    assert raised.value.received_bytes == 3
    assert stream.wire.closed


def test_a_body_that_is_reset_is_not_taken_for_the_whole(connect):
    """Also where the connection's end is the body's end: a reset is no end."""
    turn = threading.Event()

    def script(peer):
        peer.read_head()
        peer.say(b"HTTP/1.0 200 OK\r\n\r\nabc")
        turn.wait(10)
        peer.reset()

    stream = connect(script).open("GET", "/")
    assert next(stream) == b"abc"
    turn.set()
    with pytest.raises(IncompleteBody, match="cut after 3 bytes"):
        stream.read_all()


def test_nonsense_in_a_body_comes_after_what_arrived_before_it(connect):
    stream = connect(answer(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"abc") + b"nonsense\r\n")).open(
        "GET", "/"
    )
    assert next(stream) == b"abc"
    with pytest.raises(IncompleteBody, match="cut after 3 bytes"):
        next(stream)


def test_a_whole_response_is_not_made_of_a_cut_one(connect):
    with pytest.raises(IncompleteBody):
        connect(answer(OK + b"Content-Length: 9\r\n\r\nabc")).get("/")


def test_leaving_a_stream_closes_its_connection(connect):
    def script(peer):
        peer.read_head()
        peer.say(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"abc"))
        assert peer.read_to_end() == b""

    with connect(script).open("GET", "/") as stream:
        assert next(stream) == b"abc"
    assert stream.wire.closed
    assert list(stream) == []


def test_leaving_a_finished_stream_keeps_the_connection(connect):
    with connect(answer(OK + b"Content-Length: 3\r\n\r\nabc")).open("GET", "/") as stream:
        assert stream.read_all() == b"abc"
    assert not stream.wire.closed


def test_a_repr_shows_the_state(connect):
    stream = connect(answer(OK + b"Content-Length: 3\r\n\r\nabc")).open("GET", "/x")
    assert repr(stream) == "<ClientStream GET /x: 200, 0 bytes so far, open>"
    stream.read_all()
    assert repr(stream) == "<ClientStream GET /x: 200, 3 bytes so far, over>"
