"""What bad input gets: a message that says what to write instead, or a refusal that no handler ever sees.

The first half is what programmers do wrong, the second half what arrives on the wire. Everything malformed is answered
with a status and a closed connection, and nothing that follows it on the connection is executed.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from catzilla import (
    Catzilla,
    HTTPError,
    JSONResponse,
    Response,
    RouteError,
    RouterGroup,
    Server,
    Settings,
    StreamingResponse,
    StreamingWriter,
    sleep,
)

ROOT = Path(__file__).parent.parent
TIMEOUT = 10.0

served = Catzilla()  # what the command line is asked to run


@pytest.fixture
def app():
    return Catzilla(production=True, show_banner=False)


@pytest.fixture
def log(caplog) -> Callable[[], str]:
    caplog.set_level(logging.ERROR, logger="catzilla")
    return lambda: "\n".join(
        f"{record.getMessage()}\n{record.exc_info[1] if record.exc_info else ''}" for record in caplog.records
    )


# What programmers do wrong.


@pytest.mark.parametrize("first", [True, False], ids=["first item", "later item"])
@pytest.mark.parametrize(("value", "kind"), [(42, "int"), (None, "NoneType"), ({"a": 1}, "dict"), (["x"], "list")])
def test_yield_42(app, live_server, log, first, value, kind):
    """The log names the handler, the type, and what may be yielded."""

    @app.get("/")
    def the_answer():
        def items():
            if not first:
                yield "fine"
                yield sleep(0.001)
            yield value

        return StreamingResponse(items())

    live = live_server(app)
    if first:
        assert live.get("/").status_code == 500
    else:
        with pytest.raises(EOFError):
            live.get("/")
    assert "the_answer" in log()
    assert f"of type {kind}" in log()
    assert "a stream may yield str, bytes, bytearray, memoryview or sleep(seconds)" in log()


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\0b", "\r\n"])
def test_header_values_that_would_split_the_head(value):
    """A `ValueError` where they are set, so that the traceback points at the line that did it."""
    with pytest.raises(ValueError):
        Response(headers={"X-Name": value})
    with pytest.raises(ValueError):
        Response().set_header("X-Name", value)
    with pytest.raises(ValueError):
        Response().headers["X-Name"] = value
    with pytest.raises(ValueError):
        StreamingResponse([], headers={"X-Name": value})
    with pytest.raises(ValueError):
        JSONResponse({}, headers={"X-Name": value})
    with pytest.raises(ValueError):
        HTTPError(400, headers={"X-Name": value})
    with pytest.raises(ValueError):
        Response().set_cookie("name", value)


def test_a_header_that_would_split_the_head_is_a_500_on_the_wire(app, live_server):
    @app.get("/")
    def handler():
        return Response(headers={"X-Name": "a\r\nSet-Cookie: stolen=1"})

    @app.get("/tuple")
    def returns_a_tuple():
        return "body", 200, {"X-Name": "a\r\nSet-Cookie: stolen=1"}

    live = live_server(app)
    for path in ("/", "/tuple"):
        response = live.get(path)
        assert response.status_code == 500
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("path", "handler", "name"),
    [
        ("/", lambda request, item_id: None, "item_id"),
        ("/items/{id}", lambda request, item_id: None, "item_id"),
        ("/items/{item_id}", lambda request, item_id, more: None, "more"),
        ("/items/{item_id}", lambda request, *, q: None, "q"),
    ],
)
def test_a_handler_with_parameters_that_its_path_does_not_have(app, path, handler, name):
    with pytest.raises(RouteError, match=name):
        app.get(path)(handler)
    with pytest.raises(RouteError, match=name):
        group = RouterGroup()
        group.get(path)(handler)
        app.include_routes(group)
    assert app.routes() == []


def test_async_handlers_are_refused_with_what_to_write_instead(app):
    with pytest.raises(RouteError, match="write plain def"):

        @app.get("/")
        async def handler():
            return ""

    with pytest.raises(RouteError, match="write plain def"):

        @app.get("/stream")
        async def generator():
            yield ""


@pytest.mark.parametrize("live", [True, False], ids=["in a request", "outside"])
def test_write_on_a_closed_writer(app, live_server, live):
    """`ValueError`, as a file raises it; closing twice is fine, as for a file."""
    found = []

    def use() -> StreamingResponse:
        response = StreamingResponse()
        w = StreamingWriter(response)
        w.write("all")
        w.close()
        for method in (lambda: w.write("more"), w.flush, lambda: w.writelines(["more"])):
            try:
                method()
            except ValueError as error:
                found.append(str(error))
        w.close()
        return response

    if live:
        app.get("/")(use)
        assert live_server(app).get("/").text == "all"
    else:
        assert use().body == b"all"
    assert len(found) == 3
    assert all("closed" in text for text in found)


@pytest.mark.parametrize("value", [42, None, object()])
def test_write_of_what_is_no_text(value):
    with pytest.raises(TypeError, match=type(value).__name__):
        StreamingResponse().writer().write(value)


def test_a_handler_that_returns_nothing_is_named(app, live_server, log):
    @app.get("/")
    def forgets_to_return():
        pass

    assert live_server(app).get("/").status_code == 500
    assert "forgets_to_return" in log()
    assert "None" in log()


def test_a_port_in_use_is_an_os_error_that_names_the_address(app, live_server):
    live = live_server(app)
    server = Server(app, Settings(port=live.port))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{live.port}"):
        server.start()
    assert live.get("/").status_code == 404


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "catzilla", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("target", ["nosuch:app", "catzilla:nosuch", "catzilla.nosuch:app", "json:loads"])
def test_catzilla_run_of_what_is_not_there(target):
    """One line, what was looked for, exit code 2."""
    ran = run_cli("run", target, "--port", "0")
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert "nosuch" in ran.stderr or "loads" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_catzilla_run_on_a_port_in_use(app, live_server):
    """One line, exit code 1."""
    live = live_server(app)
    ran = run_cli("run", "tests.test_bad_input:served", "--port", str(live.port))
    assert ran.returncode == 1
    assert len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert str(live.port) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_body_that_is_no_json_is_a_400_with_the_position(app, live_server):
    @app.post("/")
    def handler(request):
        return request.json()

    response = live_server(app).post("/", data=b'{"a": }', headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert "column 7" in response.text
    assert "Traceback" not in response.text


# What arrives on the wire.


class Victim:
    """A server, and which requests reached a handler of it."""

    def __init__(self, live, calls: list[str]) -> None:
        self.live = live
        self.calls = calls

    def send(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Everything that the server answers until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.live.port), TIMEOUT) as client:
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while piece := client.recv(65536):
                    received += piece
            except ConnectionResetError:
                pass
        return received


LIMITS = {"max_head_bytes": 4096, "max_target_bytes": 1024, "max_headers": 20, "max_body_bytes": 1000}


@pytest.fixture
def victim(app, live_server):
    calls: list[str] = []

    def handler(request):
        calls.append(request.path)
        return request.body

    for path in ("/", "/{path:path}"):
        app.route(path, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])(handler)

    return Victim(live_server(app, head_timeout=0.3, body_timeout=0.3, **LIMITS), calls)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def request(line: bytes = b"GET / HTTP/1.1", *fields: bytes, host: bytes = b"Host: x", body: bytes = b"") -> bytes:
    lines = [line, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return request(b"POST / HTTP/" + version, *fields, body=body)


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


MALFORMED = {
    # The request line.
    "nonsense": (400, b"nonsense\r\n\r\n"),
    "a TLS hello": (400, bytes.fromhex("160301020001") + b"\0" * 40 + b"\r\n\r\n"),
    "an HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no version": (400, b"GET /\r\nHost: x\r\n\r\n"),
    "HTTP/2.0": (505, request(b"GET / HTTP/2.0")),
    "HTTP/3.0": (505, request(b"GET / HTTP/3.0")),
    "HTTP/0.9": (505, request(b"GET / HTTP/0.9")),
    "HTTP/1.10": (400, request(b"GET / HTTP/1.10")),
    "http/1.1": (400, request(b"GET / http/1.1")),
    "two spaces": (400, request(b"GET  / HTTP/1.1")),
    "a tab": (400, request(b"GET\t/ HTTP/1.1")),
    "a space in front": (400, request(b" GET / HTTP/1.1")),
    "a space in the target": (400, request(b"GET /a b HTTP/1.1")),
    "a control character in the target": (400, request(b"GET /\x01 HTTP/1.1")),
    "NUL in the target": (400, request(b"GET /\0 HTTP/1.1")),
    "bytes in the target": (400, request("GET /é HTTP/1.1".encode())),
    "a fragment": (400, request(b"GET /#top HTTP/1.1")),
    "a target without a slash": (400, request(b"GET index HTTP/1.1")),
    "a foreign scheme": (400, request(b"GET ftp://x/ HTTP/1.1")),
    "a method of brackets": (400, request(b"G(E)T / HTTP/1.1")),
    "CONNECT": (501, request(b"CONNECT example.com:443 HTTP/1.1")),
    "a long target": (414, request(b"GET /" + b"x" * 1100 + b" HTTP/1.1")),
    "a long target without an end": (414, b"GET /" + b"x" * 1100),
    # Header fields.
    "a bare LF": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "a bare LF in one line": (400, b"GET / HTTP/1.1\r\nHost: x\nX-A: 1\r\n\r\n"),
    "a bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: x\r\n\n"),
    "a bare CR": (400, request(b"GET / HTTP/1.1", b"X-A: 1\rX-B: 2")),
    "NUL in a value": (400, request(b"GET / HTTP/1.1", b"X-A: \0")),
    "NUL in a name": (400, request(b"GET / HTTP/1.1", b"X\0A: 1")),
    "a space before the colon": (400, request(b"GET / HTTP/1.1", b"X-A : 1")),
    "a tab before the colon": (400, request(b"GET / HTTP/1.1", b"X-A\t: 1")),
    "a line without a colon": (400, request(b"GET / HTTP/1.1", b"X-A")),
    "no name": (400, request(b"GET / HTTP/1.1", b": 1")),
    "a space in a name": (400, request(b"GET / HTTP/1.1", b"X A: 1")),
    "a folded line": (400, request(b"GET / HTTP/1.1", b"X-A: 1\r\n 2")),
    "a folded line of a tab": (400, request(b"GET / HTTP/1.1", b"X-A: 1\r\n\t2")),
    "a folded first line": (400, b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    "a folded Content-Length": (400, post(b"Content-Length:\r\n 5", body=b"12345")),
    "many fields": (431, request(b"GET / HTTP/1.1", *[b"X-%d: 1" % i for i in range(30)])),
    "a long field": (431, request(b"GET / HTTP/1.1", b"X-A: " + b"x" * 5000)),
    "a long head without an end": (431, b"GET / HTTP/1.1\r\nX-A: " + b"x" * 5000),
    "no Host": (400, request(host=b"")),
    "two Hosts": (400, request(b"GET / HTTP/1.1", b"Host: y")),
    "two equal Hosts": (400, request(b"GET / HTTP/1.1", b"Host: x")),
    "a Host with a path": (400, request(host=b"Host: x/y")),
    "a Host with a user": (400, request(host=b"Host: a@b")),
    "a Host with a space": (400, request(host=b"Host: a b")),
    "another expectation": (417, post(b"Content-Length: 2", b"Expect: 200-ok", body=b"ab")),
    # Lengths.
    "a length and chunks": (400, post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "chunks and a length": (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")),
    "two lengths": (400, post(b"Content-Length: 5", b"Content-Length: 6", body=b"12345")),
    "a list of lengths": (400, post(b"Content-Length: 5, 6", body=b"12345")),
    "a negative length": (400, post(b"Content-Length: -1")),
    "a length with a sign": (400, post(b"Content-Length: +5", body=b"12345")),
    "a length in hexadecimal": (400, post(b"Content-Length: 0x5", body=b"12345")),
    "a length with an underscore": (400, post(b"Content-Length: 1_0", body=b"1234567890")),
    "a length of Arabic digits": (400, post("Content-Length: ٥".encode(), body=b"12345")),
    "a length of nothing": (400, post(b"Content-Length:")),
    "a length and a half": (400, post(b"Content-Length: 5.0", body=b"12345")),
    "a length with a space": (400, post(b"Content-Length: 5 5", body=b"12345")),
    "a length beyond all limits": (413, post(b"Content-Length: 1001")),
    "a length beyond all integers": (413, post(b"Content-Length: " + b"9" * 19)),
    # Encodings.
    "chunks in HTTP/1.0": (400, post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0")),
    "gzip": (501, post(b"Transfer-Encoding: gzip", body=b"0\r\n\r\n")),
    "gzip, chunked": (501, post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "chunked, gzip": (501, post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    "identity": (501, post(b"Transfer-Encoding: identity")),
    "chunked, chunked": (501, post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    "chunked twice": (501, post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "chunked, identity": (501, post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n")),
    "xchunked": (501, post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    "a space before TE's colon": (400, post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    "a vertical tab before chunked": (400, post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    "a form feed after chunked": (400, post(b"Transfer-Encoding: chunked\x0c", body=b"0\r\n\r\n")),
    "a quoted chunked": (501, post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n")),
    "an empty encoding": (501, post(b"Transfer-Encoding:", body=b"0\r\n\r\n")),
    "a parameter of chunked": (501, post(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n")),
    # Chunks.
    "a size of 0x5": (400, chunked(b"0x5\r\n12345\r\n0\r\n\r\n")),
    "a size of +5": (400, chunked(b"+5\r\n12345\r\n0\r\n\r\n")),
    "a size of -1": (400, chunked(b"-1\r\n12345\r\n0\r\n\r\n")),
    "a size of 5_0": (400, chunked(b"5_0\r\n" + b"x" * 80 + b"\r\n0\r\n\r\n")),
    "a size of nothing": (400, chunked(b"\r\n12345\r\n0\r\n\r\n")),
    "a size of letters": (400, chunked(b"five\r\n12345\r\n0\r\n\r\n")),
    "a space before the size": (400, chunked(b" 5\r\n12345\r\n0\r\n\r\n")),
    "a size of 25 digits": (400, chunked(b"f" * 25 + b"\r\n12345\r\n0\r\n\r\n")),
    "a chunk over the limit": (413, chunked(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")),
    "chunks over the limit": (413, chunked((b"64\r\n" + b"x" * 100 + b"\r\n") * 11 + b"0\r\n\r\n")),
    "a chunk longer than its size": (400, chunked(b"5\r\n1234567\r\n0\r\n\r\n")),
    "a chunk shorter than its size": (400, chunked(b"5\r\n123\r\n0\r\n\r\n")),
    "a bare LF after a size": (400, chunked(b"5\n12345\r\n0\r\n\r\n")),
    "a bare LF after a chunk": (400, chunked(b"5\r\n12345\n0\r\n\r\n")),
    "a bare LF in an extension": (400, chunked(b"5;a\nb\r\n12345\r\n0\r\n\r\n")),
    "a bare CR after a size": (400, chunked(b"5\r12345\r\n0\r\n\r\n")),
    "bare LFs at the end": (400, chunked(b"5\r\n12345\r\n0\r\n\n")),
    "bare LFs after the last size": (400, chunked(b"5\r\n12345\r\n0\n\r\n")),
    "a trailer": (400, chunked(b"5\r\n12345\r\n0\r\nX-A: 1\r\n\r\n")),
    "a trailer that frames": (400, chunked(b"5\r\n12345\r\n0\r\nContent-Length: 9\r\n\r\n")),
}


@pytest.fixture(params=MALFORMED)
def malformed(request):
    return MALFORMED[request.param]


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_malformed_requests_are_answered_and_reach_no_handler(victim, malformed):
    """One status, a closed connection, and not a call; what follows on the connection is not executed either."""
    status, data = malformed
    answer = victim.send(data + SMUGGLED)
    assert statuses(answer) == [status], answer
    assert b"connection: close" in answer.lower()
    assert victim.calls == []


def test_malformed_requests_that_arrive_byte_by_byte(victim, malformed):
    """The verdict does not depend on how the bytes fall into packets."""
    status, data = malformed
    with socket.create_connection(("127.0.0.1", victim.live.port), TIMEOUT) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(TIMEOUT)
        received = b""
        try:
            for i in range(len(data)):
                client.send(data[i : i + 1])
            client.sendall(SMUGGLED)
            while piece := client.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
    if received:  # what is sent to a connection that is closed already may cost its answer
        assert statuses(received) == [status]
    assert victim.calls == []


def test_a_malformed_request_behind_good_ones(victim, malformed):
    """The good ones are answered, the malformed one is refused, and that is the end."""
    status, data = malformed
    answer = victim.send(request(b"GET /one HTTP/1.1") + request(b"GET /two HTTP/1.1") + data + SMUGGLED)
    assert statuses(answer) == [200, 200, status], answer
    assert victim.calls == ["/one", "/two"]


WELL_FORMED = {
    "plain": request(),
    "an empty line in front": b"\r\n" + request(),
    "an absolute target": request(b"GET http://x/ HTTP/1.1"),
    "an empty value": request(b"GET / HTTP/1.1", b"X-A:"),
    "spaces around a value": request(b"GET / HTTP/1.1", b"X-A: \t 1 \t "),
    "a length": post(b"Content-Length: 5", body=b"12345"),
    "equal lengths": post(b"Content-Length: 5", b"Content-Length: 5", body=b"12345"),
    "chunks": chunked(b"5\r\n12345\r\n0\r\n\r\n"),
    "chunks with an extension": chunked(b"5;a=b\r\n12345\r\n0\r\n\r\n"),
    "chunks in capitals": post(b"TRANSFER-ENCODING: CHUNKED", body=b"5\r\n12345\r\n0\r\n\r\n"),
    "chunks of hexadecimal sizes": chunked(b"00A\r\n1234567890\r\n0\r\n\r\n"),
    "HTTP/1.0 with keep-alive": request(b"GET / HTTP/1.0", b"Connection: keep-alive", host=b""),
    "a body as large as allowed": post(b"Content-Length: 1000", body=b"x" * 1000),
}


@pytest.mark.parametrize("data", WELL_FORMED.values(), ids=WELL_FORMED)
def test_well_formed_requests_are_served_so_the_tests_above_mean_something(victim, data):
    answer = victim.send(data + request(b"GET /next HTTP/1.1", b"Connection: close"))
    assert statuses(answer) == [200, 200], answer
    assert victim.calls == ["/", "/next"]


UNFINISHED = {
    "part of a line": b"GET / HT",
    "part of a head": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "part of a body": post(b"Content-Length: 5", body=b"123"),
    "no body at all": post(b"Content-Length: 5"),
    "part of a chunk": chunked(b"5\r\n123"),
    "no last chunk": chunked(b"5\r\n12345\r\n"),
    "a huge chunk": chunked(b"f" * 16 + b"\r\n12345"),
}


@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED)
def test_what_does_not_arrive_in_time_is_a_408(victim, data):
    answer = victim.send(data)
    assert statuses(answer) == [408], answer
    assert victim.calls == []


@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED)
def test_what_breaks_off_reaches_no_handler(victim, data):
    answer = victim.send(data, half_close=True)
    assert 200 not in statuses(answer)
    assert victim.calls == []


def test_a_connection_that_says_nothing_is_closed(victim):
    assert victim.send(b"") == b""


def test_a_head_that_trickles_in_is_a_408(victim):
    """The time is for the whole head: a byte now and then does not buy more of it."""
    with socket.create_connection(("127.0.0.1", victim.live.port), TIMEOUT) as client:
        client.settimeout(0.05)
        received = b""
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"x" * 1000:
            try:
                client.send(bytes([byte]))
                received = client.recv(65536)
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                pass
            break
        else:
            pytest.fail("a head could trickle in for ever")
    if received:
        assert statuses(received) == [408]


def test_refusals_tell_no_secrets_and_are_plain_text(victim):
    """What was sent is not played back as something that a browser would run."""
    answer = victim.send(request(b"GET / HTTP/1.1", b"<script>alert(1)</script>"))
    assert b"content-type: text/plain" in answer.lower()
    assert b"Traceback" not in answer
