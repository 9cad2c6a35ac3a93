"""Promise 1: handler, generator and `finally` run on one OS thread and in one `contextvars.Context`.

The objects that notice are real ones: a `sqlite3` connection refuses any thread but its own, and a `ContextVar` refuses
to `reset` a token in any context but its own.
"""

from __future__ import annotations

import itertools
import queue
import sqlite3
import threading
from contextvars import ContextVar

import pytest

from catzilla import EventStream, StreamingResponse, current_stream, sleep
from catzilla._core.pace import PROOF
from tests.promises.helpers import PATIENCE, eventually, services_of, streams_of, wait_stalled

CLIENTS = 16
ROWS = 400
ROW = 16_384  # bytes; a stream is 6.5 MB, far more than the buffers between generator and client

number: ContextVar[int] = ContextVar("number", default=-1)
step: ContextVar[int] = ContextVar("step", default=-1)
here = threading.local()


class Failures:
    """What generators found wrong, and how each of them ended."""

    def __init__(self) -> None:
        self.found: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.found.put(what)

    def assert_none(self) -> None:
        assert self.found.empty(), self.found.get()


@pytest.fixture
def failures():
    return Failures()


def sqlite_rows(n: int, failures: Failures):
    """A generator over a connection that this call has opened, which checks the contract at every step."""
    connection = sqlite3.connect(":memory:")
    connection.execute("create table rows (i integer, filling text)")
    connection.executemany("insert into rows values (?, ?)", ((i, "x") for i in range(ROWS)))
    home = threading.get_ident()
    token = number.set(n)
    here.n = n

    def rows():
        inner = None
        try:
            for (i,) in connection.execute("select i from rows order by i"):
                inner = step.set(i)
                yield f"{n}:{i}:".ljust(ROW, ".")
                failures.check(threading.get_ident() == home, f"row {i} of {n}: next() on another thread")
                failures.check(number.get() == n, f"row {i} of {n}: the handler's variable is {number.get()}")
                failures.check(step.get() == i, f"row {i} of {n}: the generator's variable is {step.get()}")
                failures.check(here.n == n, f"row {i} of {n}: the thread-local is {here.n}")
                step.reset(inner)
                inner = None
        finally:
            failures.check(threading.get_ident() == home, f"finally of {n} on another thread")
            try:
                connection.execute("select 1")
                connection.close()
                if inner is not None:
                    step.reset(inner)
                number.reset(token)
                failures.check(number.get() == -1, f"finally of {n}: another context")
            except Exception as error:
                failures.found.put(f"finally of {n}: {error!r}")
            failures.ended.put(n)

    return rows()


def expected(n: int) -> bytes:
    return "".join(f"{n}:{i}:".ljust(ROW, ".") for i in range(ROWS)).encode()


def upper(items):
    """A wrapper as a middleware would write it."""
    for item in items:
        yield item


SHAPES = {
    "generator": lambda n, failures: StreamingResponse(sqlite_rows(n, failures)),
    "bare generator": sqlite_rows,
    "function": lambda n, failures: StreamingResponse(lambda: sqlite_rows(n, failures)),
    "map": lambda n, failures: StreamingResponse(map(str.encode, sqlite_rows(n, failures))),
    "chain": lambda n, failures: StreamingResponse(itertools.chain(sqlite_rows(n, failures))),
}


@pytest.fixture(params=[*SHAPES, "wrapped"])
def shape(request, app, failures):
    """An app whose `/rows/{n}` streams sqlite rows in one of the shapes that a handler may return."""
    if request.param == "wrapped":

        @app.middleware(post_route=True)
        def wrap(request, response):
            response.wrap_stream(upper)

    make = SHAPES.get(request.param, SHAPES["generator"])

    @app.get("/rows/{n:int}")
    def rows(n):
        return make(n, failures)

    return request.param


@pytest.mark.parametrize("shared", [False, True], ids=["a home each", "shared homes"])
def test_parallel_sqlite_generators_that_park_and_resume(app, live_server, failures, shared):
    homes = set()

    @app.get("/rows/{n:int}")
    def rows(n):
        if n < 0:
            return "quick"
        homes.add(threading.get_ident())
        return StreamingResponse(unshared(sqlite_rows(n, failures), n))

    def unshared(items, n):
        for item in items:
            here.n = n  # streams that share a home share its thread-locals, so each brings its own
            yield item
            here.n = n

    live = live_server(app, home_threads=2 if shared else 2000)
    for _ in range(PROOF if shared else 0):
        live.get("/rows/-1")  # only streams of handlers that have proven quick share homes
    clients = [live.stream(f"/rows/{n}", receive_buffer_bytes=8192) for n in range(CLIENTS)]
    wait_stalled(live, CLIENTS)
    assert not shared or len(homes) < CLIENTS, "they did not share; this test proves nothing"
    pauses = services_of(live).bridge.backpressure_pauses
    bodies = [bytearray() for _ in clients]
    # In turn, so that every stream parks and resumes again and again while all the others do.
    remaining = set(range(CLIENTS))
    while remaining:
        for n in sorted(remaining):
            piece = next(clients[n], None)
            if piece is None:
                remaining.discard(n)
            else:
                bodies[n] += piece
    failures.assert_none()
    for n, body in enumerate(bodies):
        assert body == expected(n)
    assert sorted(failures.ended.get(timeout=PATIENCE) for _ in clients) == list(range(CLIENTS))
    failures.assert_none()
    assert services_of(live).bridge.backpressure_pauses - pauses > CLIENTS, "they did not park again"


def test_every_shape_of_a_stream_keeps_the_contract(app, live_server, failures, shape):
    live = live_server(app)
    with live.stream("/rows/1", receive_buffer_bytes=8192) as client:
        wait_stalled(live)
        assert client.read_all() == expected(1)
    assert failures.ended.get(timeout=PATIENCE) == 1
    failures.assert_none()


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_finally_runs_at_home_when_the_client_leaves(app, live_server, failures, shape, leave):
    live = live_server(app)
    client = live.stream("/rows/2", receive_buffer_bytes=8192)
    next(client)
    wait_stalled(live)
    getattr(client.wire, leave)()
    assert failures.ended.get(timeout=PATIENCE) == 2
    failures.assert_none()
    assert failures.ended.empty(), "finally ran twice"


def test_finally_runs_at_home_after_a_pause_without_a_thread(app, live_server, failures):
    """`yield sleep()` gives the thread away; the way back must lead to the same one."""
    runs: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()

    @app.get("/naps")
    def naps():
        connection = sqlite3.connect(":memory:")
        token = number.set(7)
        runs.put((threading.get_ident(), number.get()))

        def events():
            try:
                for i in range(20):
                    yield str(connection.execute("select ?", (i,)).fetchone()[0])
                    yield sleep(0.002)
                    runs.put((threading.get_ident(), number.get()))
            finally:
                connection.close()
                number.reset(token)
                runs.put((threading.get_ident(), 7))

        return EventStream(events())

    live = live_server(app)
    clients = [live.events("/naps") for _ in range(12)]
    assert [[event.data for event in client] for client in clients] == [[str(i) for i in range(20)]] * 12
    seen = [runs.get(timeout=PATIENCE) for _ in range(12 * 22)]
    assert {variable for _, variable in seen} == {7}
    per_thread = [list(group) for _, group in itertools.groupby(sorted(thread for thread, _ in seen))]
    assert {len(runs_there) % 22 for runs_there in per_thread} == {0}, "some stream has changed its thread"


def test_middleware_handler_and_generator_share_one_context(app, live_server):
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()

    @app.middleware
    def before(request):
        number.set(41)

    @app.middleware(post_route=True)
    def after(request, response):
        seen.put(number.get())

    class Rows:
        """An iterable whose `__iter__` is the user's code too."""

        def __iter__(self):
            seen.put(number.get())
            number.set(43)
            return self.rows()

        def rows(self):
            seen.put(number.get())
            yield "row"
            seen.put(number.get())

    @app.get("/")
    def handler():
        seen.put(number.get())
        number.set(42)
        return StreamingResponse(Rows())

    live = live_server(app)
    assert live.get("/").text == "row"
    assert [seen.get(timeout=PATIENCE) for _ in range(5)] == [41, 42, 42, 43, 43]


def test_requests_do_not_see_each_others_context(app, live_server):
    @app.get("/{n:int}")
    def handler(n):
        found = number.get()
        number.set(n)
        return StreamingResponse(iter([str(found)]))

    with live_server(app).connect() as connection:
        assert [connection.get(f"/{n}").text for n in range(20)] == ["-1"] * 20


@pytest.mark.parametrize("rounds", range(3))
def test_an_error_in_the_generator_is_cleaned_up_at_home(app, live_server, failures, rounds, caplog):
    @app.get("/")
    def handler():
        home = threading.get_ident()
        token = number.set(5)

        def rows():
            try:
                yield "x" * 100
                yield sleep(0.001)
                raise RuntimeError("on purpose")
            finally:
                failures.check(threading.get_ident() == home, "finally on another thread")
                number.reset(token)
                failures.ended.put(5)

        return StreamingResponse(rows())

    live = live_server(app)
    client = live.stream("/")
    with pytest.raises(EOFError):
        client.read_all()
    assert failures.ended.get(timeout=PATIENCE) == 5
    failures.assert_none()


def test_current_stream_belongs_to_the_request_at_every_step(app, live_server):
    """It is found through the thread, which many streams share."""
    stops: queue.SimpleQueue[bool] = queue.SimpleQueue()

    @app.get("/")
    def handler():
        own = current_stream()._waits

        def rows():
            try:
                while True:
                    yield "x"
                    stops.put(current_stream()._waits is own)
                    yield sleep(0.001)
            finally:
                stops.put(current_stream()._waits is own)

        return StreamingResponse(rows())

    live = live_server(app, home_threads=2)
    clients = [live.stream("/") for _ in range(8)]
    assert all(stops.get(timeout=PATIENCE) for _ in range(200))
    for client in clients:
        client.close()
    eventually(lambda: not streams_of(live), "all streams are closed")
    while not stops.empty():
        assert stops.get()
