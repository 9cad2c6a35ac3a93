"""Promise 6 within a process: `Server.stop()` ends open work within the grace and a second.

Signals and exit codes are tested on real processes, in `tests/test_shutdown_process.py`.
"""

from __future__ import annotations

import queue
import threading
from time import perf_counter

import pytest

from catzilla import Catzilla, Disconnected, EventStream, Server, Settings, StreamingResponse, current_stream, sleep
from catzilla._core.limits import Limits
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of, wait_stalled

SECOND = 1.0
MARGIN = 1.0  # for a busy machine


@pytest.fixture
def ended():
    """Names of generators whose `finally` has run."""
    return queue.SimpleQueue()


def names(ended) -> list[str]:
    return sorted(ended.get() for _ in range(ended.qsize()))


def noting(items, name, ended):
    try:
        yield from items
    finally:
        ended.put(name)


def endless():
    while True:
        yield b"x" * 8192


def events():
    yield "hello"
    yield sleep(60)


def waiting():
    yield "hello"
    current_stream().sleep(60)


@pytest.mark.parametrize("grace", [0.0, 0.3])
def test_open_streams_end_within_the_grace_and_a_second(app, live_server, ended, grace):
    makers = {"endless": endless, "waiting": waiting}

    @app.get("/events")
    def event_stream():
        return EventStream(noting(events(), "events", ended))

    @app.get("/stream/{name}")
    def stream(name):
        return StreamingResponse(noting(makers[name](), name, ended))

    @app.get("/hello")
    def hello():
        return "hello"

    live = live_server(app, shutdown_grace=grace)
    clients = [RawClient(live, get(path)) for path in ("/events", "/stream/waiting", "/hello")]
    for client in clients:
        client.read_until(b"hello")
    stalled = RawClient(live, get("/stream/endless"), receive_buffer_bytes=4096)
    RawClient(live)  # says nothing
    RawClient(live, b"GET / HT")  # has begun to say something
    live.server.request_stop()
    # The stalled client is the one that takes the whole grace.
    began = perf_counter()
    live.server.stop()
    assert perf_counter() - began < grace + SECOND + MARGIN
    assert names(ended) == ["endless", "events", "waiting"]
    for client in [*clients, stalled]:
        try:
            assert b"0\r\n\r\n" not in client.read_to_end(), "a stream that was cut looks whole"
        except ConnectionResetError:
            pass


def test_a_thousand_streams_end_in_time(app, live_server):
    count = 300
    ended = []

    @app.get("/")
    def handler():
        return EventStream(noting(events(), "events", finished))

    finished: queue.SimpleQueue[str] = queue.SimpleQueue()
    live = live_server(app)
    clients = [RawClient(live, get("/")) for _ in range(count)]
    for client in clients:
        client.read_until(b"hello")
    began = perf_counter()
    live.server.stop()
    assert perf_counter() - began < SECOND + MARGIN
    ended = names(finished)
    assert len(ended) == count


def test_a_blocked_handler_does_not_keep_the_server(app, live_server):
    running, release = threading.Event(), threading.Event()

    @app.get("/")
    def handler():
        running.set()
        release.wait(PATIENCE)
        return "late"

    live = live_server(app, allow_leaks=True)
    RawClient(live, get("/"))
    assert running.wait(PATIENCE)
    began = perf_counter()
    live.server.stop(grace=0.2)
    assert perf_counter() - began < 0.2 + SECOND + MARGIN
    release.set()


def test_a_blocked_generator_is_named_and_left_behind(app, live_server):
    running, release = threading.Event(), threading.Event()

    @app.get("/")
    def handler():
        def items():
            yield "hello"
            running.set()
            release.wait(PATIENCE)

        return StreamingResponse(items())

    live = live_server(app, allow_leaks=True)
    RawClient(live, get("/")).read_until(b"hello")
    assert running.wait(PATIENCE)
    server = live.server
    server.stop(grace=0.1)
    (name,) = server.unclosed_streams()
    assert "handler" in name
    release.set()


def test_who_waits_on_the_facade_is_told_that_the_server_stops(app, live_server):
    told: queue.SimpleQueue[Disconnected] = queue.SimpleQueue()
    running = threading.Semaphore(0)

    @app.get("/{kind}")
    def handler(kind):
        stream = current_stream()
        response = StreamingResponse()
        try:
            with response.writer() as w:
                w.write("hello")
                running.release()
                if kind == "sleep":
                    stream.sleep(60)
                elif kind == "wait":
                    stream.wait(threading.Event())
                elif kind == "get":
                    stream.get(queue.Queue())
                while True:
                    w.write("x" * 8192)
        except Disconnected as error:
            told.put(error)
            raise

    live = live_server(app)
    kinds = ("sleep", "wait", "get", "write")
    for kind in kinds:
        RawClient(live, get(f"/{kind}"), receive_buffer_bytes=4096)
    for _ in kinds:
        assert running.acquire(timeout=PATIENCE)
    began = perf_counter()
    live.server.stop(grace=0.2)
    assert perf_counter() - began < 0.2 + SECOND + MARGIN
    errors = [told.get(timeout=PATIENCE) for _ in kinds]
    assert {error.code for error in errors} == {1001}


def test_a_short_response_is_finished_and_its_connection_closed(app, live_server):
    running, release = threading.Event(), threading.Event()

    @app.get("/")
    def handler():
        running.set()
        assert release.wait(PATIENCE)
        return "in time"

    live = live_server(app)
    client = RawClient(live, get("/"))
    assert running.wait(PATIENCE)
    live.server.request_stop(grace=PATIENCE)
    eventually(lambda: services_of(live).stopping, "the server is stopping")
    release.set()
    answer = client.read_to_end()
    assert answer.endswith(b"in time")
    assert b"connection: close" in answer.lower()
    assert live.server.wait(PATIENCE)


def test_a_finite_stream_is_finished_within_the_grace(app, live_server):
    release = threading.Event()

    @app.get("/")
    def handler():
        def items():
            yield "first"
            assert release.wait(PATIENCE)
            yield "last"

        return StreamingResponse(items())

    live = live_server(app)
    with live.stream("/") as client:
        assert next(client) == b"first"
        live.server.request_stop(grace=PATIENCE)
        eventually(lambda: services_of(live).stopping, "the server is stopping")
        release.set()
        assert client.read_all() == b"last"
    assert live.server.wait(PATIENCE)


def test_stop_from_many_threads_and_twice(app, live_server):
    hooks = []
    app.on_shutdown(lambda: hooks.append("once"))
    server = Server(app, Settings(port=0, limits=Limits(shutdown_grace=0.1)))
    server.start()
    threads = [threading.Thread(target=server.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    server.stop()
    assert hooks == ["once"]


def test_a_server_that_never_started_stops(app):
    Server(app, Settings(port=0)).stop()


def test_stopping_while_streams_begin(app, live_server, ended):
    """Requests that are on their way when the stop comes: every generator that began is closed."""
    began = []

    @app.get("/")
    def handler():
        def items():
            began.append(True)
            try:
                yield "x"
                yield sleep(60)
            finally:
                ended.put("x")

        return EventStream(items())

    for _ in range(10):
        live = live_server(app)
        clients = [RawClient(live, get("/")) for _ in range(20)]
        started = perf_counter()
        live.server.stop(grace=0.2)
        assert perf_counter() - started < 0.2 + SECOND + MARGIN
        for client in clients:
            client.close()
    assert ended.qsize() == len(began)


def test_a_stop_closes_parked_generators_on_their_threads(app, live_server, ended):
    wrong = []

    @app.get("/")
    def handler():
        home = threading.get_ident()

        def items():
            try:
                yield from endless()
            finally:
                if threading.get_ident() != home:
                    wrong.append(True)
                ended.put("endless")

        return StreamingResponse(items())

    live = live_server(app)
    for _ in range(20):
        RawClient(live, get("/"), receive_buffer_bytes=4096)
    wait_stalled(live, 20)
    live.server.stop(grace=0.1)
    assert ended.qsize() == 20
    assert wrong == []


def test_the_grace_holds_also_once_the_server_was_without_connections(live_server):
    """An earlier client that has come and gone changes nothing for the one that is being answered."""
    app = Catzilla(production=True)
    began, release = threading.Event(), threading.Event()

    @app.get("/")
    def quick():
        return "quick"

    @app.get("/slow")
    def slow():
        began.set()
        release.wait(PATIENCE)
        return "in time"

    live = live_server(app, shutdown_grace=PATIENCE)
    services = services_of(live)
    assert live.get("/").text == "quick"
    eventually(lambda: not services.connections, "the first client is gone")
    answers: queue.SimpleQueue = queue.SimpleQueue()
    client = threading.Thread(target=lambda: answers.put(live.get("/slow").text))
    client.start()
    assert began.wait(PATIENCE)
    live.server.request_stop()
    eventually(lambda: services.stopping, "the server is stopping")
    release.set()
    assert answers.get(timeout=PATIENCE) == "in time"
    client.join(PATIENCE)
