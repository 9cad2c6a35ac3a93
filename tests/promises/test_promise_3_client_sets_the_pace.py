"""Promise 3: a client that reads slowly pauses the generator, and memory per stream is bounded by a setting.

`Stream.pending` is what the server holds of a stream: in its ring and in the transport. The kernel's socket buffers
come on top, and are the kernel's to bound; clients here ask for small ones.
"""

from __future__ import annotations

import hashlib
import threading

import pytest

from catzilla import JSONLinesResponse, StreamingResponse, streaming_stats
from tests.promises.helpers import eventually, services_of, streams_of, wait_stalled

KIB = 1024
MIB = 1024 * KIB
ITEM = 8 * KIB
OVERHEAD = 64  # what an item is counted for beside its bytes


def socket_buffers() -> int:
    """The most that the kernel may hold between two sockets, in bytes."""
    with open("/proc/sys/net/ipv4/tcp_wmem") as file:
        return int(file.read().split()[2]) + 64 * KIB


class Producer:
    """A generator of numbered items that counts what it was asked for."""

    def __init__(self, count: int, size: int = ITEM) -> None:
        self.count = count
        self.size = size
        self.produced = 0
        self.closed = threading.Event()

    def item(self, i: int) -> bytes:
        return f"{i:08d}".encode().ljust(self.size, b"%d" % (i % 10))

    def items(self):
        try:
            for i in range(self.count):
                self.produced += 1
                yield self.item(i)
        finally:
            self.closed.set()

    def write_to(self, response):
        try:
            with response.writer() as w:
                for i in range(self.count):
                    self.produced += 1
                    w.write(self.item(i))
        finally:
            self.closed.set()
        return response

    def digest(self) -> str:
        whole = hashlib.sha256()
        for i in range(self.count):
            whole.update(self.item(i))
        return whole.hexdigest()


def serve(app, producer, kind="generator"):
    @app.get("/")
    def handler():
        if kind == "writer":
            return producer.write_to(StreamingResponse())
        if kind == "wrapped":
            response = StreamingResponse(producer.items())
            response.wrap_stream(lambda items: (item for item in items))
            return response
        return StreamingResponse(producer.items())


def digest_of(pieces) -> str:
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


@pytest.mark.parametrize("kind", ["generator", "wrapped", "writer"])
def test_a_client_that_does_not_read_pauses_the_generator(app, live_server, kind):
    producer = Producer(count=64 * MIB // ITEM)
    serve(app, producer, kind)
    limit = 128 * KIB
    live = live_server(app, stream_buffer_bytes=limit)
    client = live.stream("/", receive_buffer_bytes=4096)
    wait_stalled(live)
    (stream,) = streams_of(live)
    assert stream.pending <= limit + ITEM + OVERHEAD
    assert producer.produced * ITEM <= limit + ITEM + socket_buffers()
    (row,) = streaming_stats().streams
    assert row.state == "waiting for the client"
    if kind != "writer":  # a thread that writes is blocked, which is its way to be paused
        assert streaming_stats().parked_streams == 1
        assert services_of(live).workers.statistics().idle >= 1, "a parked stream holds a thread"

    # It goes on when the client reads, as far as the client reads, and no further.
    before, received = producer.produced, 0
    while producer.produced == before:  # the kernel asks for more only when a good part of its buffer is empty
        received += len(next(client))
        assert received < 2 * socket_buffers(), "the generator does not go on"
    client.close()
    assert producer.closed.wait(10)
    assert producer.produced < producer.count


@pytest.mark.parametrize("kind", ["generator", "wrapped", "writer"])
@pytest.mark.parametrize(
    ("limit", "size"),
    [(16 * KIB, 1), (16 * KIB, 700), (64 * KIB, ITEM), (MIB, ITEM), (64 * KIB, 300 * KIB)],
    ids=["1 byte", "700 bytes", "8 KiB", "8 KiB in a large buffer", "items over the buffer"],
)
def test_every_byte_arrives_in_order_after_many_pauses(app, live_server, kind, limit, size):
    producer = Producer(count=min(20_000, 12 * MIB // max(size, 8)), size=size)
    serve(app, producer, kind)
    live = live_server(app, stream_buffer_bytes=limit, stream_buffer_start_bytes=min(limit, 64 * KIB))
    with live.stream("/", receive_buffer_bytes=16 * KIB) as client:
        if producer.count * max(size, 8) > 8 * MIB:
            wait_stalled(live)
        assert digest_of(client) == producer.digest()
    assert producer.produced == producer.count


def test_a_slow_reader_gets_everything(app, live_server):
    """Slow all the time, rather than stalled and then quick."""
    producer = Producer(count=1000, size=2000)
    serve(app, producer)
    live = live_server(app, stream_buffer_bytes=16 * KIB, stream_buffer_start_bytes=16 * KIB)
    client = live.stream("/", receive_buffer_bytes=4096)
    live.throttle(client, 4 * MIB)
    assert digest_of(client) == producer.digest()


@pytest.mark.parametrize(
    ("size", "bound"),
    [
        (1, 32 * KIB + OVERHEAD + 8),  # tiny items are bounded by what each of them costs beside its bytes
        (ITEM, 32 * KIB + OVERHEAD + ITEM),
        (MIB, MIB + OVERHEAD + 32 * KIB),  # an item that exists already is held whole, and no second one
    ],
    ids=["1 byte", "8 KiB", "1 MiB"],
)
def test_the_bound_holds_whatever_the_size_of_the_items(app, live_server, size, bound):
    producer = Producer(count=10**9, size=size)
    serve(app, producer)
    live = live_server(app, stream_buffer_bytes=32 * KIB, stream_buffer_start_bytes=32 * KIB)
    client = live.stream("/", receive_buffer_bytes=4096)
    wait_stalled(live)
    (stream,) = streams_of(live)
    assert stream.pending <= bound
    assert len(stream.ring) <= 32 * KIB // OVERHEAD + 1, "the ring is not bounded in items"
    client.close()
    assert producer.closed.wait(10)


def test_many_stalled_clients_hold_what_the_settings_say(app, live_server):
    """Clients that read well, so that their buffers grow, and then all stop at once."""
    clients, start, most, extra = 100, 16 * KIB, 256 * KIB, MIB
    closed = threading.Semaphore(0)

    @app.get("/")
    def handler():
        def items():
            try:
                while True:
                    yield b"x" * 4096
            finally:
                closed.release()

        return StreamingResponse(items())

    live = live_server(app, stream_buffer_start_bytes=start, stream_buffer_bytes=most, stream_buffer_extra_bytes=extra)
    streams = [live.stream("/", receive_buffer_bytes=32 * KIB) for _ in range(clients)]
    for _ in range(40):
        for stream in streams:
            next(stream)
    wait_stalled(live, clients)
    held = sum(stream.pending for stream in streams_of(live))
    assert held <= clients * (start + 4096 + OVERHEAD) + extra
    statistics = streaming_stats()
    assert statistics.parked_streams == clients
    assert statistics.running_streams == 0, "a parked stream runs on a thread"
    for stream in streams:
        stream.close()
    for _ in streams:
        assert closed.acquire(timeout=10)


def test_rows_that_are_encoded_are_paced_too(app, live_server):
    asked = 0

    def rows():
        nonlocal asked
        while True:
            asked += 1
            yield {"n": asked, "filling": "x" * 1000}

    @app.get("/")
    def handler():
        return JSONLinesResponse(rows())

    live = live_server(app, stream_buffer_bytes=64 * KIB)
    client = live.stream("/", receive_buffer_bytes=4096)
    wait_stalled(live)
    assert asked * 1000 <= 64 * KIB + 1100 + socket_buffers()
    client.close()
    eventually(lambda: not streams_of(live), "the stream is closed")


def test_a_list_needs_no_thread_and_is_paced(app, live_server):
    rows = [b"%08d" % i + b"x" * ITEM for i in range(2000)]

    @app.get("/")
    def handler():
        return StreamingResponse(rows)

    live = live_server(app, stream_buffer_bytes=64 * KIB)
    with live.stream("/", receive_buffer_bytes=4096) as client:
        wait_stalled(live)
        (stream,) = streams_of(live)
        assert stream.pending <= 64 * KIB + ITEM + 8 + OVERHEAD
        assert services_of(live).workers.statistics().streams == 0
        assert digest_of(client) == hashlib.sha256(b"".join(rows)).hexdigest()


def test_several_threads_that_write_are_paced_together(app, live_server):
    """Each writer may add one item to a full buffer, and no more."""
    writers, limit = 8, 32 * KIB
    ended = threading.Semaphore(0)

    @app.get("/")
    def handler():
        response = StreamingResponse()
        w = response.writer()
        w.flush()

        def write():
            try:
                while True:
                    w.write(b"x" * 1024)
            except ConnectionError:
                ended.release()

        for _ in range(writers):
            threading.Thread(target=write, daemon=True).start()
        return response

    live = live_server(app, stream_buffer_bytes=limit, stream_buffer_start_bytes=limit)
    client = live.stream("/", receive_buffer_bytes=4096)
    wait_stalled(live)
    (stream,) = streams_of(live)
    assert stream.pending <= limit + writers * (1024 + OVERHEAD)
    client.close()
    for _ in range(writers):
        assert ended.acquire(timeout=10)


def test_a_client_that_takes_nothing_for_the_stall_timeout_is_cut(app, live_server):
    producer = Producer(count=10**9)
    serve(app, producer)
    live = live_server(app, write_stall_timeout=0.4)
    live.stream("/", receive_buffer_bytes=4096)
    wait_stalled(live)
    assert producer.closed.wait(10), "a client that accepts nothing keeps its generator"
    eventually(lambda: not services_of(live).connections, "the connection is cut")
