"""Promise 9: nothing is dropped in silence. Every byte arrives or somebody is told.

Random sizes, pauses and threads are Hypothesis's; the arithmetic of a single window is proved elsewhere, here it is the
whole way from a generator to a socket and back.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catzilla import BodyTooLarge, Catzilla, Disconnected, StreamingResponse, sleep
from catzilla._core import access_log
from catzilla.testing import LiveServer
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of

KIB = 1024
LIMITS = {"stream_buffer_start_bytes": 16 * KIB, "stream_buffer_bytes": 64 * KIB}

# What a producer does next: an item of a size that is around one of the sizes at which something changes, or a pause.
SIZES = st.one_of(st.integers(0, 80), st.sampled_from([4095, 4096, 4097, 16 * KIB, 64 * KIB, 200 * KIB]))
STEPS = st.lists(st.one_of(SIZES, st.just("pause")), max_size=40)
PROPERTY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def content(i: int, size: int) -> bytes:
    """Bytes of that size that nothing else has."""
    return random.Random(i).randbytes(size)


class Script:
    """What the next request is answered with, and how its client reads."""

    steps: list[int | str]
    declared: bool

    def items(self) -> list[bytes]:
        return [content(i, step) for i, step in enumerate(self.steps) if step != "pause"]

    def generate(self):
        for i, step in enumerate(self.steps):
            yield sleep(0.0005) if step == "pause" else content(i, step)

    def headers(self) -> dict[str, str]:
        return {"Content-Length": str(sum(map(len, self.items())))} if self.declared else {}


@pytest.fixture(scope="module")
def script():
    return Script()


@pytest.fixture(scope="module")
def scripted(script):
    """One server for all examples: the connections and threads of many streams in a row are part of the test."""
    app = Catzilla(production=True, show_banner=False)

    @app.get("/generator")
    def generator():
        return StreamingResponse(script.generate(), headers=script.headers())

    @app.get("/list")
    def items():
        return StreamingResponse(script.items(), headers=script.headers())

    @app.get("/writer")
    def writer():
        response = StreamingResponse(headers=script.headers())
        with response.writer() as w:
            w.writelines(script.items())
        return response

    with LiveServer(app, allow_leaks=True, **LIMITS) as live:
        yield live


@given(
    kind=st.sampled_from(["generator", "list", "writer"]),
    steps=STEPS,
    declared=st.booleans(),
    version=st.sampled_from(["1.0", "1.1"]),
    reads=st.lists(st.integers(1, 100_000), min_size=1, max_size=20),
)
@PROPERTY
def test_bytes_in_are_bytes_out(scripted, script, kind, steps, declared, version, reads):
    """Whatever the sizes of items and reads, the framing and the producer."""
    script.steps, script.declared = steps, declared
    expected = b"".join(script.items())
    if version == "1.1":
        with scripted.stream(f"/{kind}", receive_buffer_bytes=8192) as client:
            assert client.read_all() == expected
        return
    with RawClient(scripted, get(f"/{kind}", version="1.0"), receive_buffer_bytes=8192) as client:
        received = b""
        for size in reads:
            received += client.socket.recv(size)
        received += client.read_to_end()
    assert received.partition(b"\r\n\r\n")[2] == expected
    RawClient.opened.clear()


@given(steps=st.lists(STEPS, min_size=1, max_size=6))
@PROPERTY
def test_streams_on_one_connection_follow_each_other_whole(scripted, script, steps):
    script.declared = False
    with scripted.connect() as connection:
        for script.steps in steps:
            assert connection.get("/generator").body == b"".join(script.items())


def test_parallel_streams_do_not_mix(app, live_server):
    @app.get("/{n:int}")
    def handler(n):
        def items():
            numbers = random.Random(n)
            for i in range(300):
                yield bytes([n]) * numbers.randrange(1, 20_000)
                if i % 50 == 0:
                    yield sleep(0.001)

        return StreamingResponse(items())

    live = live_server(app, **LIMITS)
    wrong: queue.SimpleQueue[int] = queue.SimpleQueue()

    def read(n: int) -> None:
        numbers = random.Random(n)
        expected = sum(numbers.randrange(1, 20_000) for _ in range(300))
        body = live.get(f"/{n}").body
        if set(body) != {n} or len(body) != expected:
            wrong.put(n)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong.empty()


# Uploads.


class Uploads:
    """What happened to the uploads of one app."""

    def __init__(self) -> None:
        self.errors: queue.SimpleQueue[Exception] = queue.SimpleQueue()  # that handlers saw
        self.reading = threading.Semaphore(0)  # a piece was read
        self.begin = threading.Event()  # lets `/late` begin


@pytest.fixture
def uploads(app):
    """An app that takes uploads in several ways."""
    uploads = Uploads()

    @app.post("/whole")
    def whole(request):
        try:
            return {"size": len(request.body), "digest": hashlib.sha256(request.body).hexdigest()}
        except Exception as error:
            uploads.errors.put(error)
            raise

    @app.post("/pieces")
    def pieces(request):
        digest, size = hashlib.sha256(), 0
        try:
            for piece in request.stream():
                uploads.reading.release()
                digest.update(piece)
                size += len(piece)
        except Exception as error:
            uploads.errors.put(error)
            raise
        return {"size": size, "digest": digest.hexdigest()}

    @app.post("/late")
    def late(request):
        """Begins to read when the socket has long been paused."""
        assert uploads.begin.wait(PATIENCE)
        return whole(request)

    return uploads


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000, 5_000_000])
@pytest.mark.parametrize("path", ["/whole", "/pieces"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_an_upload_arrives_whole(app, live_server, uploads, path, size, chunked):
    body = content(size, size)
    with live_server(app).connect() as connection:
        for _ in range(2):  # the second one finds nothing of the first
            data = [body[i : i + 70_000] for i in range(0, size, 70_000)] if chunked else body
            response = connection.post(path, data=data)
            assert response.json() == {"size": size, "digest": hashlib.sha256(body).hexdigest()}


def test_an_upload_to_a_handler_that_is_slow_to_read_waits(app, live_server, uploads):
    """Under backpressure: the client is paused, then goes on, and nothing is missing."""
    live = live_server(app, body_buffer_bytes=64 * KIB)
    body = content(1, 8_000_000)
    answers: queue.SimpleQueue = queue.SimpleQueue()
    client = threading.Thread(target=lambda: answers.put(live.post("/late", data=body)))
    client.start()

    def paused() -> bool:
        return any(connection._body is not None and connection._body.is_full for connection in connections)

    connections = services_of(live).connections
    eventually(paused, "the upload is paused")
    (connection,) = connections
    assert len(connection._body._buffer) <= 64 * KIB + 256 * KIB, "more is held than the buffer and one read"
    uploads.begin.set()
    assert answers.get(timeout=PATIENCE).json() == {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}
    client.join(PATIENCE)


@given(sizes=st.lists(st.integers(1, 40_000), max_size=12), cuts=st.lists(st.integers(1, 30_000), max_size=8))
@PROPERTY
def test_an_upload_in_random_chunks_and_writes(echo, sizes, cuts):
    """However the chunks fall on the wire."""
    pieces = [content(i, size) for i, size in enumerate(sizes)]
    wire = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire += b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with echo.connect() as connection:
        for cut in cuts:
            connection.send_raw(wire[:cut])
            wire = wire[cut:]
        connection.send_raw(wire)
        assert connection.read_response("POST").body == b"".join(pieces)


@pytest.fixture(scope="module")
def echo():
    app = Catzilla(production=True, show_banner=False)

    @app.post("/")
    def handler(request):
        return StreamingResponse([request.body])

    with LiveServer(app, allow_leaks=True, body_buffer_bytes=16 * KIB) as live:
        yield live


LEAVING = {"close": RawClient.close, "reset": RawClient.reset, "half-close": RawClient.half_close}


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/whole", "/pieces"])
def test_a_client_that_leaves_inside_its_upload_is_an_error_in_the_handler(
    app, live_server, uploads, path, framing, leave
):
    live = live_server(app)
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % (path.encode(), framing)
    body = b"x" * 200_000
    client = RawClient(live, head + (body if b"Length" in framing else b"%x\r\n%s\r\n" % (len(body), body)))
    if path == "/pieces":
        assert uploads.reading.acquire(timeout=PATIENCE)
    else:
        eventually(lambda: services_of(live).workers.statistics().requests == 1, "the handler reads")
    LEAVING[leave](client)
    assert isinstance(uploads.errors.get(timeout=PATIENCE), Disconnected)
    eventually(lambda: not services_of(live).connections, "the connection is gone")


def test_a_client_that_leaves_inside_a_small_upload_never_reaches_the_handler(app, live_server, uploads):
    """What is not whole and fits into the buffer is not handed over at all."""
    live = live_server(app)
    for leave in LEAVING.values():
        client = RawClient(live, b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxxx")
        eventually(lambda: services_of(live).connections, "the request arrives")
        leave(client)
        eventually(lambda: not services_of(live).connections, "the connection is gone")
    assert services_of(live).workers.statistics().threads == 0
    assert uploads.errors.empty()


def test_a_chunked_upload_over_the_limit_is_a_413_and_an_error_in_the_handler(app, live_server, uploads):
    live = live_server(app, max_body_bytes=100_000)
    for path in ("/whole", "/pieces"):
        response = live.post(path, data=[b"x" * 30_000] * 10)
        assert response.status_code == 413
        error = uploads.errors.get(timeout=PATIENCE)
        assert isinstance(error, BodyTooLarge)
    assert live.post("/whole", data=[b"x" * 50_000] * 2).status_code == 200, "the limit itself is allowed"


def test_a_declared_upload_over_the_limit_is_refused_before_it_is_sent(app, live_server, uploads):
    live = live_server(app, max_body_bytes=1000)
    client = RawClient(live, b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    assert client.read_to_end().startswith(b"HTTP/1.1 413 ")
    assert uploads.errors.empty()


def test_an_upload_that_breaks_off_in_the_middle_of_its_framing_is_an_error_in_the_handler(app, live_server, uploads):
    live = live_server(app, body_buffer_bytes=1000)
    head = b"POST /pieces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = RawClient(live, head + b"%x\r\n%s\r\n" % (5000, b"x" * 5000))
    assert uploads.reading.acquire(timeout=PATIENCE)
    client.send(b"nonsense\r\n")
    assert client.read_to_end().startswith(b"HTTP/1.1 400 ")
    uploads.errors.get(timeout=PATIENCE)


def test_a_silent_upload_is_a_408(app, live_server, uploads):
    live = live_server(app, body_timeout=0.2)
    client = RawClient(live, b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxxx")
    assert client.read_to_end().startswith(b"HTTP/1.1 408 ")
    assert uploads.errors.empty()


# Pipelines.


@pytest.mark.parametrize("half_close", [False, True], ids=["open", "half-closed"])
def test_pipelined_requests_are_all_answered_in_order(app, live_server, half_close):
    order: list[int] = []

    @app.get("/{n:int}")
    def handler(n):
        order.append(n)
        if n % 3 == 0 and not half_close:
            return StreamingResponse(iter([f"{n};", sleep(0.001), ""]))
        return f"{n};"

    @app.post("/{n:int}")
    def echo(request, n):
        order.append(n)
        return request.body

    live = live_server(app)
    count = 60
    wire = b"".join(
        get(f"/{n}")
        if n % 4
        else b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%d;" % (n, len(f"{n};"), n)
        for n in range(count)
    )
    with live.connect() as connection:
        connection.send_raw(wire)
        if half_close:
            connection.wire.half_close()
        assert [connection.read_response().text for _ in range(count)] == [f"{n};" for n in range(count)]
    assert order == list(range(count))


def test_a_pipeline_longer_than_the_buffer_is_answered(app, live_server):
    """Behind a response that is under way, the socket is no longer read; then it is again."""
    release = threading.Event()

    @app.get("/first")
    def first():
        assert release.wait(PATIENCE)
        return "first"

    @app.get("/then")
    def then():
        return "then"

    live = live_server(app)
    request = b"GET /then HTTP/1.1\r\nHost: x\r\nX-Filling: %s\r\n\r\n" % (b"x" * 8000)
    with live.connect() as connection:
        sender = threading.Thread(target=connection.send_raw, args=(get("/first") + request * 100,))
        sender.start()
        connections = services_of(live).connections
        eventually(
            lambda: any(len(each._parser.pending) > 64 * KIB for each in connections if each._parser), "they wait"
        )
        release.set()
        sender.join(PATIENCE)
        answers = [connection.read_response().text for _ in range(101)]
    assert answers == ["first"] + ["then"] * 100


# The access log.


def test_the_access_log_counts_what_it_drops(app, live_server, monkeypatch):
    """A log that is written more slowly than requests come loses lines, and says how many."""
    monkeypatch.setattr(access_log, "MAX_QUEUED", 5)
    stuck, release = threading.Event(), threading.Event()
    lines: list[str] = []

    class Slow(logging.Handler):
        def emit(self, record):
            if not stuck.is_set():
                stuck.set()
                release.wait(PATIENCE)
            lines.append(record.getMessage())

    @app.get("/")
    def hello():
        return "hello"

    slow = Slow()
    access_log.logger.addHandler(slow)
    access_log.logger.setLevel(logging.INFO)
    try:
        live = live_server(app, access_log=True)
        with live.connect() as connection:
            assert connection.get("/").status_code == 200
            assert stuck.wait(PATIENCE)
            for _ in range(20):  # and no request waits for the log
                assert connection.get("/").status_code == 200
        release.set()
        live.stop()
    finally:
        access_log.logger.removeHandler(slow)
        access_log.logger.setLevel(logging.NOTSET)
    written = sum("GET /" in line for line in lines)
    dropped = [int(line.partition("access_log_dropped=")[2].partition(":")[0]) for line in lines if "dropped" in line]
    assert dropped, f"not a word about the lines that were dropped: {lines}"
    assert written + dropped[-1] == 21


def test_the_access_log_has_a_line_for_every_response(app, live_server, caplog):
    caplog.set_level(logging.INFO, logger="catzilla.access")

    @app.get("/{kind}")
    def handler(kind):
        if kind == "cut":
            return StreamingResponse(broken())
        return StreamingResponse(iter(["abc", "de"])) if kind == "stream" else "abcde"

    def broken():
        yield "abc"
        yield sleep(0.001)
        raise RuntimeError("on purpose")

    live = live_server(app, access_log=True)
    live.get("/plain")
    live.get("/stream")
    with pytest.raises(EOFError):
        live.get("/cut")
    RawClient(live, get("/plain", version="1.0")).read_to_end()
    RawClient(live, b"nonsense\r\n\r\n").read_to_end()

    def access_lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "catzilla.access"]

    eventually(lambda: len(access_lines()) >= 5, "all is logged")
    live.stop()
    lines = access_lines()
    assert len(lines) == 5
    plain, stream, cut, old, refused = lines
    assert '"GET /plain HTTP/1.1" status=200 bytes=5' in plain
    assert '"GET /stream HTTP/1.1" status=200 bytes=5' in stream
    assert '"GET /cut HTTP/1.1" status=200 bytes=3' in cut
    assert "cut=yes" in cut
    assert "cut=yes" not in plain + stream + old
    assert '"GET /plain HTTP/1.0" status=200 bytes=5' in old
    assert "status=400" in refused
