"""Promise 2: the first byte leaves before the second `next()`; nothing waits for the end, nothing is collected.

Every producer here stops after its first item until the test has read that item. A server that holds anything back
never opens the gate, and the client's wait ends in a `TimeoutError`.
"""

from __future__ import annotations

import csv
import json
import queue
import threading

import pytest

from catzilla import CSVResponse, Event, EventStream, JSONLinesResponse, StreamingResponse, StreamingWriter
from tests.promises.helpers import PATIENCE, RawClient, get, services_of


class Gate:
    """Lets a producer go on once the test has seen what it gave."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self.passed = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def wait(self) -> None:
        assert self._opened.wait(PATIENCE), "the client never saw the first item"
        self.passed.set()


@pytest.fixture
def gate():
    return Gate()


def two(gate, first, second):
    yield first
    gate.wait()
    yield second


class Two:
    """An iterator that is no generator."""

    def __init__(self, gate) -> None:
        self._items = two(gate, "one\n", "two\n")

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._items)


def with_writer(gate):
    response = StreamingResponse(content_type="text/plain")
    with response.writer() as w:
        w.write("one\n")
        gate.wait()
        w.write("two\n")
    return response


def with_streaming_writer(gate):
    response = StreamingResponse()
    w = StreamingWriter(response)
    w.write("one\n")
    gate.wait()
    w.write("two\n")
    w.close()
    return response


def with_csv_writer(gate):
    response = StreamingResponse(content_type="text/csv")
    with response.writer() as w:
        rows = csv.writer(w, lineterminator="\n")
        rows.writerow(["one"])
        gate.wait()
        rows.writerow(["two"])
    return response


def with_print(gate):
    response = StreamingResponse()
    with response.writer() as w:
        print("one", file=w)
        gate.wait()
        print("two", file=w)
    return response


def with_json_dump(gate):
    response = StreamingResponse()
    with response.writer() as w:
        json.dump("one", w)
        gate.wait()
        json.dump("two", w)
    return response


def wrapped(gate):
    response = StreamingResponse(two(gate, "One\n", "Two\n"))
    response.wrap_stream(lambda items: (item.lower() for item in items))
    return response


PLAIN = (b"one\n", b"two\n")
EVENTS = (b"data: one\n\n", b"data: two\n\n")
PRODUCERS = {
    "generator": (lambda gate: StreamingResponse(two(gate, "one\n", "two\n")), *PLAIN),
    "bytes": (lambda gate: StreamingResponse(two(gate, b"one\n", bytearray(b"two\n"))), *PLAIN),
    "bare generator": (lambda gate: two(gate, "one\n", "two\n"), *PLAIN),
    "function": (lambda gate: StreamingResponse(lambda: two(gate, "one\n", "two\n")), *PLAIN),
    "iterator": (lambda gate: StreamingResponse(Two(gate)), *PLAIN),
    "map": (lambda gate: StreamingResponse(map(str.lower, two(gate, "ONE\n", "TWO\n"))), *PLAIN),
    "wrapped": (wrapped, *PLAIN),
    "writer": (with_writer, *PLAIN),
    "StreamingWriter": (with_streaming_writer, *PLAIN),
    "csv.writer": (with_csv_writer, *PLAIN),
    "print": (with_print, *PLAIN),
    "json.dump": (with_json_dump, b'"one"', b'"two"'),
    "text/event-stream": (
        lambda gate: StreamingResponse(two(gate, "data: one\n\n", "data: two\n\n"), "text/event-stream"),
        *EVENTS,
    ),
    "EventStream": (lambda gate: EventStream(two(gate, Event("one"), "two")), *EVENTS),
    "EventStream of a function": (lambda gate: EventStream(lambda: two(gate, "one", "two")), *EVENTS),
    "JSONLinesResponse": (lambda gate: JSONLinesResponse(two(gate, {"n": 1}, [2])), b'{"n":1}\n', b"[2]\n"),
    "CSVResponse": (lambda gate: CSVResponse(two(gate, ["one", 1], ["two", 2])), b"one,1\r\n", b"two,2\r\n"),
    "declared length": (
        lambda gate: StreamingResponse(two(gate, "one\n", "two\n"), headers={"Content-Length": "8"}),
        *PLAIN,
    ),
}


@pytest.fixture(params=PRODUCERS)
def producer(request, app, gate):
    """Serves one producer at `/`; gives what its two items are on the wire."""
    make, first, second = PRODUCERS[request.param]

    @app.get("/")
    def handler():
        return make(gate)

    return first, second


def see_first_then_second(live, gate, producer):
    first, second = producer
    with live.stream("/") as client:
        assert client.status_code == 200
        assert next(client) == first
        assert not gate.passed.is_set(), "the gate did not hold the producer; this test proves nothing"
        gate.open()
        assert client.read_all() == second
        return client


def test_the_first_item_leaves_before_the_second_is_asked_for(live_server, app, gate, producer):
    see_first_then_second(live_server(app, client_timeout=5), gate, producer)


def test_middleware_collects_nothing(live_server, app, gate, producer):
    """With middleware before and after, global and of a group, the head has what they set and the bytes still flow."""

    @app.middleware
    def before(request):
        request.state.began = True

    @app.middleware(post_route=True, priority=10)
    def after(request, response):
        response.set_header("X-After", str(request.state.began))

    @app.middleware(post_route=True)
    def same(request, response):
        return response

    client = see_first_then_second(live_server(app, client_timeout=5), gate, producer)
    assert client.headers["X-After"] == "True"


def test_http_1_0_streams_too(live_server, app, gate, producer):
    first, second = producer
    live = live_server(app)
    with RawClient(live, get("/", version="1.0")) as client:
        assert client.read_until(first).endswith(b"\r\n\r\n" + first)
        gate.open()
        assert client.read_to_end() == second


def test_a_header_line_of_csv_does_not_wait_for_the_first_row(live_server, app, gate):
    def rows():
        gate.wait()
        yield ["Ada", 36]

    @app.get("/")
    def handler():
        return CSVResponse(rows(), header=["name", "age"], filename="people.csv")

    with live_server(app, client_timeout=5).stream("/") as client:
        assert next(client) == b"name,age\r\n"
        gate.open()
        assert client.read_all() == b"Ada,36\r\n"


@pytest.mark.parametrize("kind", ["generator", "EventStream", "flushed writer"])
def test_the_head_leaves_alone_when_the_first_item_is_slow(live_server, app, gate, kind):
    def items():
        gate.wait()
        yield "data: late\n\n" if kind == "generator" else "late"

    @app.get("/")
    def handler():
        if kind == "flushed writer":
            response = StreamingResponse(content_type="text/event-stream")
            with response.writer() as w:
                w.flush()
                gate.wait()
                w.write("data: late\n\n")
            return response
        if kind == "EventStream":
            return EventStream(items())
        return StreamingResponse(items(), content_type="text/event-stream")

    with live_server(app, client_timeout=5).stream("/") as client:
        assert client.status_code == 200
        assert client.headers["content-type"].startswith("text/event-stream")
        assert not gate.passed.is_set()
        gate.open()
        assert client.read_all() == b"data: late\n\n"


def test_the_grace_of_the_head_is_the_setting(live_server, app, gate):
    """With a grace that never ends, the head waits for the first item; so the test above sees the setting at work."""

    @app.get("/")
    def handler():
        def items():
            gate.wait()
            yield "late"

        return StreamingResponse(items())

    live = live_server(app, head_grace=3600.0)
    with RawClient(live, get("/")) as client:
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        gate.open()
        client.socket.settimeout(PATIENCE)
        assert client.read_until(b"0\r\n\r\n").endswith(b"4\r\nlate\r\n0\r\n\r\n")


@pytest.mark.parametrize("kind", ["generator", "writer"])
def test_a_lone_item_is_never_held_back_to_be_joined(live_server, app, kind):
    """Two hundred items, each asked for only when the one before has been read."""
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    count = 200

    def items():
        for i in range(count):
            assert asked.get(timeout=PATIENCE) == i
            yield f"{i}\n"

    @app.get("/")
    def handler():
        if kind == "generator":
            return StreamingResponse(items())
        response = StreamingResponse()
        with response.writer() as w:
            w.writelines(items())
        return response

    live = live_server(app)
    asked.put(0)
    with live.stream("/") as client:
        for i in range(count):
            assert next(client) == f"{i}\n".encode()
            asked.put(i + 1)
        assert next(client, None) is None
    # A tenth of a second for each would be 20 s; this is generous by two orders of magnitude against the real cost.
    assert client.arrivals[-1] < 10


def test_an_endless_stream_holds_little(live_server, app):
    """What has passed through is not kept anywhere."""

    @app.get("/")
    def handler():
        def items():
            while True:
                yield b"x" * 8192

        return StreamingResponse(items())

    live = live_server(app, stream_buffer_bytes=128 * 1024)
    with live.stream("/") as client:
        received = 0
        while received < 32 * 1024 * 1024:
            received += len(next(client))
            (stream,) = services_of(live).bridge.streams
            assert stream.pending <= 128 * 1024 + 2 * 8192 + 4096
