"""Promise 4: when the client goes, its generator is closed at once on its own thread, and `finally` runs exactly once.

The promise is 50 ms; a test on a busy machine accepts a second, and prints what it measured: `pytest -rP`.
"""

from __future__ import annotations

import inspect
import queue
import threading
from time import perf_counter
from time import sleep as block

import pytest

from catzilla import EventStream, StreamingResponse, current_stream, sleep
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of, streams_of, wait_stalled

AT_MOST = 1.0  # seconds


class Watched:
    """What happened to the generators of one handler."""

    def __init__(self) -> None:
        self.suspended = threading.Event()  # they are about to suspend for long
        self.ended: queue.SimpleQueue[tuple[float, int, str]] = queue.SimpleQueue()
        self.home = 0

    def watch(self, items):
        """A generator that passes `items` on and notes how it ends."""
        how = "exhausted"
        try:
            yield from items
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self.ended.put((perf_counter(), threading.get_ident(), how))

    def assert_ended_once(self, left_at: float, hows: set[str], at_most: float = AT_MOST) -> float:
        ended_at, thread, how = self.ended.get(timeout=PATIENCE)
        assert how in hows
        assert thread == self.home, "finally ran on another thread"
        assert ended_at - left_at < at_most
        return ended_at - left_at


@pytest.fixture
def watched():
    return Watched()


def many(watched):
    watched.suspended.set()
    while True:
        yield b"x" * 8192


def paused(watched):
    yield "a"
    watched.suspended.set()
    yield sleep(60)
    yield "b"


def paused_before_the_first_item(watched):
    watched.suspended.set()
    yield sleep(60)
    yield "a"


def asleep(watched):
    yield "a"
    watched.suspended.set()
    current_stream().sleep(60)
    yield "b"


def getting(watched):
    yield "a"
    watched.suspended.set()
    yield current_stream().get(queue.Queue(), timeout=60)


def waiting(watched):
    yield "a"
    watched.suspended.set()
    current_stream().wait(threading.Event(), timeout=60)
    yield "b"


SUSPENSIONS = {
    # How it suspends, and what it sees when the client goes: at a `yield` GeneratorExit, in a wait Disconnected.
    "backpressure": (many, {"GeneratorExit"}),
    "yield sleep()": (paused, {"GeneratorExit"}),
    "yield sleep() first": (paused_before_the_first_item, {"GeneratorExit"}),
    "stream.sleep": (asleep, {"Disconnected"}),
    "stream.get": (getting, {"Disconnected"}),
    "stream.wait": (waiting, {"Disconnected"}),
}
LEAVING = {
    "close": RawClient.close,  # FIN, or RST where bytes lie unread
    "reset": RawClient.reset,
    "half-close": RawClient.half_close,
}


@pytest.fixture(params=SUSPENSIONS)
def suspension(request, app, watched):
    make, hows = SUSPENSIONS[request.param]

    @app.get("/")
    def handler():
        watched.home = threading.get_ident()
        return StreamingResponse(watched.watch(make(watched)))

    return request.param, hows


def connect_and_suspend(live, watched, suspension):
    client = RawClient(live, get("/"), receive_buffer_bytes=4096)
    assert watched.suspended.wait(PATIENCE)
    if suspension == "backpressure":
        wait_stalled(live)
    else:
        client.read_until(b"\r\n\r\n")
    return client


@pytest.mark.parametrize("leave", LEAVING)
def test_a_suspended_generator_is_closed(app, live_server, watched, suspension, leave):
    kind, hows = suspension
    live = live_server(app)
    client = connect_and_suspend(live, watched, kind)
    left_at = perf_counter()
    LEAVING[leave](client)
    print(f"seconds_to_finally={watched.assert_ended_once(left_at, hows):.4f}")
    eventually(lambda: not streams_of(live), "the stream is gone")
    eventually(lambda: not services_of(live).connections, "the connection is gone")
    assert watched.ended.empty(), "finally ran twice"
    client.close()


@pytest.mark.parametrize("leave", LEAVING)
def test_a_generator_in_user_code_gets_generator_exit_at_its_next_yield(app, live_server, watched, leave):
    """Nobody can reach into a blocking call; the moment it yields, it is over."""
    go_on = threading.Event()
    resumed = []

    def items():
        yield "a"
        watched.suspended.set()
        assert go_on.wait(PATIENCE)
        resumed.append(True)
        yield "b"
        resumed.append(False)

    @app.get("/")
    def handler():
        watched.home = threading.get_ident()
        return StreamingResponse(watched.watch(items()))

    live = live_server(app)
    client = connect_and_suspend(live, watched, "user code")
    LEAVING[leave](client)
    eventually(lambda: all(stream.cut_by is not None for stream in streams_of(live)), "the server notices")
    assert watched.ended.empty(), "it was closed while it was running"
    go_on.set()
    watched.assert_ended_once(perf_counter(), {"GeneratorExit"})
    assert resumed == [True]
    eventually(lambda: not streams_of(live), "the stream is gone")
    assert watched.ended.empty()


def test_time_sleep_is_user_code_too(app, live_server, watched):
    def items():
        yield "a"
        watched.suspended.set()
        block(0.3)
        yield "b"

    @app.get("/")
    def handler():
        watched.home = threading.get_ident()
        return StreamingResponse(watched.watch(items()))

    live = live_server(app)
    client = connect_and_suspend(live, watched, "user code")
    left_at = perf_counter()
    client.close()
    watched.assert_ended_once(left_at, {"GeneratorExit"}, at_most=0.3 + AT_MOST)
    assert watched.ended.empty()


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("where", ["write", "stream.sleep"])
def test_a_handler_that_writes_is_told(app, live_server, watched, where, leave):
    @app.get("/")
    def handler():
        watched.home = threading.get_ident()
        response = StreamingResponse()
        try:
            with response.writer() as w:
                w.write("a")
                watched.suspended.set()
                if where == "stream.sleep":
                    current_stream().sleep(60)
                while True:
                    w.write("x" * 8192)
        except BaseException as error:
            watched.ended.put((perf_counter(), threading.get_ident(), type(error).__name__))
            raise

    live = live_server(app)
    client = connect_and_suspend(live, watched, "backpressure" if where == "write" else "")
    left_at = perf_counter()
    LEAVING[leave](client)
    watched.assert_ended_once(left_at, {"Disconnected"})
    eventually(lambda: not streams_of(live), "the stream is gone")


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("then", ["first item", "pause"])
def test_a_client_that_leaves_before_the_handler_returns(app, live_server, watched, leave, then):
    """The stream begins for nobody: it ends as soon as it begins, and does not sit out its pause."""
    running, return_now = threading.Event(), threading.Event()

    @app.get("/")
    def handler():
        watched.home = threading.get_ident()
        running.set()
        assert return_now.wait(PATIENCE)
        items = paused(watched) if then == "first item" else paused_before_the_first_item(watched)
        generators.append(watched.watch(items))
        return StreamingResponse(generators[0])

    generators = []
    live = live_server(app)
    client = RawClient(live, get("/"))
    assert running.wait(PATIENCE)
    (connection,) = services_of(live).connections
    exchange = connection._exchange
    LEAVING[leave](client)
    eventually(lambda: exchange.waits.interrupted is not None, "the server notices")
    return_now.set()
    eventually(lambda: generators and inspect.getgeneratorstate(generators[0]) == "GEN_CLOSED", "it is closed", AT_MOST)
    eventually(lambda: not streams_of(live), "the stream is gone")
    if not watched.ended.empty():  # it had begun; a generator that never did has no `finally` to run
        watched.assert_ended_once(perf_counter(), {"GeneratorExit"})
    assert watched.ended.empty()
    client.close()


def test_what_goes_wrong_after_the_client_has_left_is_logged(app, live_server, watched, caplog):
    """The generator is told that its client is gone, and fails at putting things away: somebody must hear of it."""

    def items():
        yield "a"
        watched.suspended.set()
        try:
            current_stream().sleep(60)
        except ConnectionError:
            raise RuntimeError("cannot save the progress") from None

    @app.get("/")
    def handler():
        watched.home = threading.get_ident()
        return StreamingResponse(watched.watch(items()))

    live = live_server(app)
    client = connect_and_suspend(live, watched, "stream.sleep")
    client.close()
    watched.assert_ended_once(perf_counter(), {"RuntimeError"})
    eventually(lambda: "handler" in caplog.text and "cannot save the progress" in caplog.text, "it is logged")


class Closable:
    """An iterable that counts how often it was begun and closed: each must be exactly once, at home."""

    def __init__(self, made: queue.SimpleQueue) -> None:
        self.began = 0
        self.closed = 0
        self.threads = {threading.get_ident()}
        made.put(self)

    def __iter__(self):
        return self

    def __next__(self):
        self.began += 1
        self.threads.add(threading.get_ident())
        return b"x" * 1000

    def close(self) -> None:
        self.closed += 1
        self.threads.add(threading.get_ident())


def test_head_closes_the_generator_unstarted(app, live_server):
    made: queue.SimpleQueue[Closable] = queue.SimpleQueue()
    generators = []

    @app.get("/closable")
    def closable():
        return StreamingResponse(Closable(made))

    @app.get("/generator")
    def generator():
        generators.append(item for item in ["never asked for"])
        return StreamingResponse(generators[0])

    @app.get("/function")
    def function():
        return StreamingResponse(lambda: Closable(made))

    live = live_server(app)
    for path in ("/closable", "/function"):
        assert live.head(path).body == b""
        items = made.get(timeout=PATIENCE)
        assert (items.began, items.closed, len(items.threads)) == (0, 1, 1)
    assert live.head("/generator").status_code == 200
    assert inspect.getgeneratorstate(generators[0]) == "GEN_CLOSED"


def test_a_status_without_a_body_closes_the_generator_unstarted(app, live_server):
    made: queue.SimpleQueue[Closable] = queue.SimpleQueue()

    @app.get("/")
    def handler():
        return StreamingResponse(Closable(made), status_code=204)

    assert live_server(app).get("/").status_code == 204
    items = made.get(timeout=PATIENCE)
    assert (items.began, items.closed) == (0, 1)


def test_closed_exactly_once_in_every_race(app, live_server):
    """Clients leave at every point of a stream's life; whoever finds out first closes, and nobody else does."""
    made: queue.SimpleQueue[Closable] = queue.SimpleQueue()

    @app.get("/")
    def handler():
        return StreamingResponse(Closable(made))

    live = live_server(app)
    rounds = 150
    for i in range(rounds):
        client = RawClient(live, get("/"), receive_buffer_bytes=4096)
        if i % 3:
            client.socket.recv(1 + i * 500)
        (RawClient.reset, RawClient.close, RawClient.half_close)[i % 3](client)
        client.close()
    eventually(lambda: made.qsize() == rounds and not streams_of(live), "every stream has come and gone")
    for _ in range(rounds):
        items = made.get()
        assert items.closed == 1
        assert len(items.threads) == 1


def test_closed_exactly_once_when_the_server_stops_as_clients_leave(app, live_server):
    made: queue.SimpleQueue[Closable] = queue.SimpleQueue()

    @app.get("/")
    def handler():
        return StreamingResponse(Closable(made))

    live = live_server(app, shutdown_grace=0.0)
    clients = [RawClient(live, get("/"), receive_buffer_bytes=4096) for _ in range(30)]
    wait_stalled(live, len(clients))
    leaver = threading.Thread(target=lambda: [client.reset() for client in clients])
    leaver.start()
    live.stop()
    leaver.join()
    assert made.qsize() == len(clients)
    for _ in clients:
        assert made.get().closed == 1


def test_a_hundred_clients_that_leave_at_once(app, live_server):
    """All of them in one moment: `finally` of the last one is not late either."""
    ended: queue.SimpleQueue[float] = queue.SimpleQueue()
    count = 100

    @app.get("/")
    def handler():
        def events():
            try:
                yield "hello"
                yield sleep(60)
            finally:
                ended.put(perf_counter())

        return EventStream(events())

    live = live_server(app)
    clients = [live.stream("/") for _ in range(count)]
    for client in clients:
        next(client)
    left_at = perf_counter()
    for client in clients:
        client.close()
    last = max(ended.get(timeout=PATIENCE) for _ in range(count)) - left_at
    print(f"seconds_to_finally={last:.4f}")
    assert last < AT_MOST
    assert ended.empty()


UNREAD = {
    # A request, and what arrives behind it: enough to keep the server from reading the socket any further.
    "an upload that nobody reads": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"x" * 300_000),
    "requests in a queue": (get("/"), get("/" + "x" * 7900) * 12),
}


@pytest.mark.parametrize(("request_head", "behind"), UNREAD.values(), ids=UNREAD)
def test_a_socket_that_is_not_read_does_not_hide_that_the_client_left(app, live_server, watched, request_head, behind):
    @app.route("/", methods=["GET", "POST"])
    def handler():
        watched.home = threading.get_ident()
        return StreamingResponse(watched.watch(paused(watched)))

    live = live_server(app, body_buffer_bytes=1000)
    client = RawClient(live, request_head + (behind if request_head.startswith(b"POST") else b""))
    client.read_until(b"\r\n\r\n")
    assert watched.suspended.wait(PATIENCE)
    if request_head.startswith(b"GET"):
        client.send(behind)
    left_at = perf_counter()
    client.reset()
    watched.assert_ended_once(left_at, {"GeneratorExit"})
