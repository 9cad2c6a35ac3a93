"""Promise 7: budgets are separate and refuse openly; a stalled client or a blocked handler delays nobody else.

Blocked handlers wait for an event of the test, so "blocked" has no length and "not delayed" needs no stopwatch: what
is answered while they block was not waiting for them.
"""

from __future__ import annotations

import inspect
import threading
from time import perf_counter

import pytest

from catzilla import EventStream, StreamingResponse, sleep, streaming_stats
from catzilla._core.pace import PROOF
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of, streams_of, wait_stalled

PROMPT = 2.0  # seconds: far above what a request takes here, far below what blocks


class Blocker:
    """Handlers that block until the test lets them go."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.running = threading.Semaphore(0)

    def block(self) -> None:
        self.running.release()
        assert self.release.wait(60), "the test did not let the handler go"

    def wait_running(self, count: int) -> None:
        for _ in range(count):
            assert self.running.acquire(timeout=PATIENCE)


@pytest.fixture
def blocker(live_server):
    """Asks for `live_server` so that the handlers are let go before the server is stopped."""
    blocker = Blocker()
    yield blocker
    blocker.release.set()


@pytest.fixture
def app(app, blocker):
    @app.get("/")
    def hello():
        return "hello"

    @app.get("/blocked")
    def blocked():
        blocker.block()
        return "released"

    @app.get("/blocked-stream")
    def blocked_stream():
        def items():
            yield "first"
            blocker.block()
            yield "last"

        return StreamingResponse(items())

    @app.get("/endless")
    def endless(request):
        def items():
            yield b"x"
            while not request.query_params:
                yield b"x" * 8192

        return StreamingResponse(items())

    return app


def seconds_of(live, path="/") -> float:
    began = perf_counter()
    assert live.get(path, timeout=PATIENCE).status_code == 200
    return perf_counter() - began


def prove_quick(live, path: str) -> None:
    """Only streams of handlers that have proven quick share homes."""
    for _ in range(PROOF):
        live.get(path + "?once=1")


def read_answer(client: RawClient) -> bytes:
    return client.read_until(b"\r\n\r\n")


# Full budgets.


def test_a_full_request_budget_is_a_503_at_once_and_recovers(app, live_server, blocker):
    limit = 4
    live = live_server(app, max_requests=limit)
    held = [RawClient(live, get("/blocked")) for _ in range(limit)]
    blocker.wait_running(limit)
    for path in ("/", "/blocked", "/endless"):
        began = perf_counter()
        response = live.get(path)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert perf_counter() - began < PROMPT
    assert streaming_stats().queued_requests == 0, "something queues in secret"
    blocker.release.set()
    for client in held:
        assert read_answer(client).startswith(b"HTTP/1.1 200 ")
    eventually(lambda: streaming_stats().running_requests == 0, "the handlers are through")
    assert seconds_of(live) < PROMPT


def test_a_refused_connection_can_ask_again(app, live_server, blocker):
    live = live_server(app, max_requests=1)
    held = RawClient(live, get("/blocked"))
    blocker.wait_running(1)
    with live.connect() as connection:
        assert [connection.get("/").status_code for _ in range(3)] == [503] * 3
        blocker.release.set()
        read_answer(held)
        eventually(lambda: streaming_stats().running_requests == 0, "the handler is through")
        assert connection.get("/").status_code == 200


def test_a_burst_beyond_the_budget_is_answered_to_the_last(app, live_server, blocker):
    """Far more requests than the budget, all of them to handlers that block: each is run or refused, none waits."""
    limit, burst = 8, 60
    live = live_server(app, max_requests=limit)
    clients = [RawClient(live, get("/blocked")) for _ in range(burst)]
    blocker.wait_running(limit)
    eventually(lambda: streaming_stats().queued_requests == 0, "the rest is refused")
    blocker.release.set()
    answers = [read_answer(client)[9:12] for client in clients]
    assert answers.count(b"200") >= limit
    assert answers.count(b"200") + answers.count(b"503") == burst


def test_a_full_stream_budget_is_a_503_before_any_head(app, live_server, blocker):
    limit = 3
    generators = []

    @app.get("/stream")
    def stream():
        def items():
            yield "never"

        generators.append(items())
        return StreamingResponse(generators[-1])

    live = live_server(app, max_streams=limit, max_requests=4)
    held = [RawClient(live, get("/blocked-stream")) for _ in range(limit)]
    for client in held:
        client.read_until(b"first")
    blocker.wait_running(limit)
    for _ in range(3):
        response = live.get("/stream")
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert inspect.getgeneratorstate(generators[-1]) == "GEN_CLOSED", "the refused generator was not closed"
    assert len(streams_of(live)) == limit
    assert seconds_of(live) < PROMPT, "a full stream budget refuses plain requests too"
    blocker.release.set()
    for client in held:
        client.read_until(b"0\r\n\r\n")
    eventually(lambda: not streams_of(live), "the streams are through")
    assert live.get("/stream").text == "never"


def test_parked_streams_do_not_count(app, live_server):
    """The budget is for what runs on a thread; a stalled client's stream does not."""
    live = live_server(app, max_streams=2)
    for i in range(6):
        RawClient(live, get("/endless"), receive_buffer_bytes=4096)
        wait_stalled(live, i + 1)
    assert streaming_stats().running_streams == 0


def test_the_budgets_are_separate(app, live_server, blocker):
    """Blocked streams leave the request budget alone, and blocked requests the streams that are running."""
    live = live_server(app, max_requests=2, max_streams=8)
    streams = [RawClient(live, get("/blocked-stream")) for _ in range(6)]
    for client in streams:
        client.read_until(b"first")
    blocker.wait_running(6)
    assert seconds_of(live) < PROMPT
    for _ in range(2):
        RawClient(live, get("/blocked"))
    blocker.wait_running(2)
    assert live.get("/").status_code == 503
    assert live.get("/nowhere").status_code == 503
    assert len(streams_of(live)) == 6


def test_a_handler_that_writes_counts_as_a_stream(app, live_server, blocker):
    """From its first write on: then it leaves the request budget, and a full stream budget refuses it."""

    @app.get("/writer")
    def writer():
        response = StreamingResponse()
        with response.writer() as w:
            w.write("first")
            blocker.block()
            w.write("last")
        return response

    live = live_server(app, max_requests=2, max_streams=3)
    held = [RawClient(live, get("/writer")) for _ in range(3)]
    blocker.wait_running(3)
    assert seconds_of(live) < PROMPT
    response = live.get("/writer")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    blocker.release.set()
    for client in held:
        client.read_until(b"last")


# Blocked handlers and stalled clients delay nobody.


def test_blocked_handlers_do_not_delay_others(app, live_server, blocker):
    live = live_server(app, max_requests=32)
    for _ in range(24):
        RawClient(live, get("/blocked"))
    blocker.wait_running(24)
    assert all(seconds_of(live) < PROMPT for _ in range(20))


def test_blocked_generators_do_not_delay_others(app, live_server, blocker):
    live = live_server(app)
    for _ in range(40):
        RawClient(live, get("/blocked-stream"))
    blocker.wait_running(40)
    assert all(seconds_of(live) < PROMPT for _ in range(20))


def test_a_request_behind_a_handler_that_begins_to_block_is_not_stuck(app, live_server, blocker):
    """One worker drains the queue; when it is stuck in user code another one takes over what it left."""
    live = live_server(app)
    for _ in range(10):
        RawClient(live, get("/blocked"))
        assert seconds_of(live) < PROMPT
    blocker.wait_running(10)


def test_stalled_clients_do_not_delay_others(app, live_server):
    live = live_server(app)
    for _ in range(60):
        RawClient(live, get("/endless"), receive_buffer_bytes=4096)
    eventually(lambda: len(streams_of(live)) == 60, "all streams are there")
    wait_stalled(live, 60)
    assert all(seconds_of(live) < PROMPT for _ in range(20))


def test_clients_that_say_nothing_or_crawl_do_not_delay_others(app, live_server):
    live = live_server(app)
    for i in range(100):
        RawClient(live, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nxxx"[: i % 60])
    assert all(seconds_of(live) < PROMPT for _ in range(20))
    assert services_of(live).workers.statistics().requests == 0, "a request that has not arrived holds a thread"


def test_greedy_streams_do_not_delay_others(app, live_server):
    """Clients that read as fast as they can, from generators that are always ready."""
    live = live_server(app)
    over = threading.Event()

    def drain(client: RawClient) -> None:
        while not over.is_set():
            client.socket.recv(65536)

    threads = [threading.Thread(target=drain, args=(RawClient(live, get("/endless")),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(seconds_of(live) < PROMPT for _ in range(20))
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)


# Shared homes.


def test_streams_that_share_a_home_all_make_progress(app, live_server):
    """Twelve endless streams on few threads: a greedy neighbour must give the thread away now and then."""
    live = live_server(app, home_threads=2)
    prove_quick(live, "/endless")
    count = 12
    clients = [live.stream("/endless", receive_buffer_bytes=16384) for _ in range(count)]
    received = [0] * count

    def read(i: int) -> None:
        while received[i] < 8 * 1024 * 1024 and min(received) < 256 * 1024:
            received[i] += len(next(clients[i]))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert min(received) > 0, f"some stream got nothing: {received}"
    assert services_of(live).workers.statistics().threads < count, "they did not share; this test proves nothing"


def test_sleepers_that_share_a_home_wake_in_time(app, live_server):
    late: list[float] = []

    @app.get("/ticks")
    def ticks(request):
        def items():
            yield "0"
            if request.query_params:
                return
            due = perf_counter() + 0.05
            for i in range(10):
                yield sleep(max(0.0, due - perf_counter()))
                late.append(perf_counter() - due)
                due += 0.05
                yield str(i)

        return EventStream(items())

    live = live_server(app, home_threads=2)
    prove_quick(live, "/ticks")
    clients = [live.events("/ticks") for _ in range(40)]
    for client in clients:
        assert len(list(client)) == 11
    assert len(late) == 400
    assert sorted(late)[200] < 0.25, "half of the sleepers are late"


def test_a_generator_that_blocks_a_shared_home_holds_up_no_other_thread(app, live_server, blocker):
    """Its neighbours at home must wait for it; requests and streams elsewhere must not."""
    live = live_server(app, home_threads=2)
    prove_quick(live, "/endless")
    for _ in range(6):
        RawClient(live, get("/endless"), receive_buffer_bytes=4096)
    eventually(lambda: len(streams_of(live)) == 6, "all streams are there")
    wait_stalled(live, 6)
    blocked = [RawClient(live, get("/blocked-stream")) for _ in range(3)]
    blocker.wait_running(3)
    assert all(seconds_of(live) < PROMPT for _ in range(20))
    with live.stream("/endless") as client:
        assert next(client)
    blocker.release.set()
    for client in blocked:
        client.read_until(b"last")


def test_what_needs_no_user_code_needs_no_thread(app, live_server, blocker):
    """Heartbeats and parked pauses go on while every thread is blocked."""

    @app.get("/events")
    def events():
        def items():
            yield "hello"
            yield sleep(60)

        return EventStream(items(), heartbeat=0.05)

    live = live_server(app, max_requests=3)
    client = RawClient(live, get("/events"))
    client.read_until(b"data: hello\n\n")
    for _ in range(3):
        RawClient(live, get("/blocked"))
    blocker.wait_running(3)
    for _ in range(3):
        client.read_until(b":\n\n")
