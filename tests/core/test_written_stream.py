"""A stream that is written to: `write` blocks while the client is behind, and every way out of that wait."""

from __future__ import annotations

import threading

import pytest

from catzilla._core.errors import Disconnected
from catzilla._core.http1 import LAST_CHUNK, Framing
from catzilla._core.limits import KIB, Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.stream import ITEM_COST, State
from tests.core.fakes import HEAD, Bench

START = 64 * KIB
FULL = b"x" * START


@pytest.fixture
def stream(bench):
    stream = bench.written()
    bench.begin(stream)
    return stream


class Writer(threading.Thread):
    """Writes on a thread of its own. `until_blocked` returns when it waits for room."""

    def __init__(self, stream, *data: bytes) -> None:
        super().__init__(daemon=True)
        self.stream, self.data = stream, data
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for each in self.data:
                self.stream.write(each)
        except BaseException as error:
            self.error = error

    def until_blocked(self) -> None:
        assert self.until_blocked_or_ended(), "it did not block"

    def until_blocked_or_ended(self) -> bool:
        """Whether it sleeps now: it has let go of the lock under which it looked at the room."""
        while self.is_alive():
            with self.stream._room:
                if self.stream._room._waiters:
                    return True
            self.join(0.0001)
        return False

    def finish(self) -> BaseException | None:
        self.join(10)
        assert not self.is_alive(), "the writer was not woken"
        return self.error


def test_what_is_written_goes_out_with_the_head_and_the_end_follows(bench, stream):
    stream.write(b"one")
    stream.write(b"")
    stream.write(b"two")
    assert bench.handle.names() == ["wake"]
    bench.settle()
    assert bench.sink.data == HEAD + b"6\r\nonetwo\r\n"
    stream.end()
    stream.end()
    bench.settle()
    assert bench.sink.data.endswith(LAST_CHUNK)
    assert bench.sink.outcome == ["ended"]
    assert stream.state is State.CLOSED
    assert bench.bridge.streams == set()


def test_nothing_written_at_all_is_an_empty_body(bench, stream):
    stream.end()
    bench.settle()
    assert bench.sink.data == HEAD + LAST_CHUNK
    assert bench.sink.outcome == ["ended"]


def test_a_write_after_the_end_is_refused(bench, stream):
    stream.end()
    with pytest.raises(ValueError, match="closed"):
        stream.write(b"x")
    bench.settle()
    assert bench.sink.body == b""


def test_a_failed_end_cuts_after_what_there_is(bench, stream):
    stream.write(b"partial")
    stream.end(failed=True)
    bench.settle()
    assert bench.sink.body == b"partial"
    assert not bench.sink.data.endswith(LAST_CHUNK)
    assert bench.sink.outcome == ["failed"]


def test_a_writer_waits_for_the_client_and_goes_on(bench, stream):
    bench.stall()
    writer = Writer(stream, FULL, b"after")
    writer.until_blocked()
    assert bench.handle.names() == ["wake", "_full"]
    bench.settle()
    assert stream.state is State.PARKED
    assert stream.pending == START + ITEM_COST
    bench.loop.advance(0.05)
    bench.resume(stream)
    assert writer.finish() is None
    assert stream.state is State.RUNNING
    assert stream.waiting_for_client == pytest.approx(0.05)
    stream.end()
    bench.settle()
    assert bench.sink.body == FULL + b"after"


def test_a_client_that_keeps_up_lets_the_writer_pass(bench, stream):
    """The loop has emptied the ring before it hears that the writer waits."""
    writer = Writer(stream, FULL)
    writer.until_blocked()
    bench.settle()
    assert writer.finish() is None
    assert stream.state is State.RUNNING


def test_the_window_grows_with_a_client_that_keeps_up(bench, stream):
    for _ in range(40):
        writer = Writer(stream, b"x" * stream.window.size)
        writer.until_blocked()
        bench.settle()
        assert writer.finish() is None
    assert stream.window.size > START


def test_several_writers_wait_and_all_go_on(bench, stream):
    bench.stall()
    first = Writer(stream, FULL)
    first.until_blocked()
    second = Writer(stream, b"y" * START)
    while stream.produced < 2 * START:
        second.join(0.0001)
    bench.settle()
    while bench.sink.paused:
        bench.resume(stream)
        bench.settle()
    assert first.finish() is None
    assert second.finish() is None
    assert sorted(bench.sink.body) == sorted(FULL + b"y" * START)


def test_a_writer_that_finds_the_room_taken_is_woken_again(bench, stream):
    """Between the notification and the first writer's waking, a second one writes: less than would block it, more than
    a low mark. Nobody would be told again, because the second one does not wait."""
    bench.stall()
    first = Writer(stream, FULL)
    first.until_blocked()
    bench.settle()
    with stream._room:  # the first writer cannot wake before this is let go of
        bench.resume(stream)
        stream.write(b"y" * 20_000)
    first.until_blocked_or_ended()
    bench.settle()
    assert first.finish() is None
    assert stream.pending == 0


def test_a_writer_that_waits_is_woken_by_the_end(bench, stream):
    """Another thread closes the stream while this one waits; what was put into the ring is sent all the same."""
    bench.stall()
    writer = Writer(stream, FULL)
    writer.until_blocked()
    stream.end()
    bench.settle()
    bench.resume(stream)
    bench.settle()
    assert writer.finish() is None
    assert bench.sink.body == FULL
    assert bench.sink.outcome == ["ended"]


# The client leaves.


def test_cut_while_a_writer_waits(bench, stream):
    bench.stall()
    writer = Writer(stream, FULL, b"never")
    writer.until_blocked()
    bench.settle()
    stream.cut(Disconnected(1001, "the server is stopping"))
    error = writer.finish()
    assert isinstance(error, Disconnected)
    assert error.code == 1001
    assert stream.state is State.CLOSED
    assert bench.bridge.streams == set()
    assert stream.ring == []


def test_cut_between_two_writes(bench, stream):
    stream.write(b"x")
    stream.cut(Disconnected())
    with pytest.raises(Disconnected):
        stream.write(b"y")
    bench.settle()
    assert bench.sink.writes == []
    stream.end()
    bench.settle()
    assert stream.state is State.CLOSED
    assert bench.sink.outcome == []


def test_cut_after_the_writer_has_looked_and_before_it_waits(bench, stream):
    """`write` has put its item into the full ring; the client leaves before it goes to sleep."""
    original = bench.handle.post

    def post(callback, *args):
        original(callback, *args)
        if callback.__name__ == "_full":
            stream.cut(Disconnected())

    bench.bridge.post = post
    with pytest.raises(Disconnected):
        stream.write(FULL)
    bench.settle()
    assert bench.sink.writes == []


def test_cut_after_the_end_was_posted(bench, stream):
    stream.write(b"x")
    stream.end()
    stream.cut(Disconnected())
    bench.settle()
    assert stream.state is State.CLOSED
    assert bench.sink.outcome == []


def test_cut_before_it_began(bench):
    stream = bench.written()
    stream.cut(Disconnected())
    with pytest.raises(Disconnected):
        stream.write(b"x")
    assert bench.bridge.streams == set()


# Framing.


def test_a_body_that_is_longer_than_declared_is_cut_and_the_writer_hears_of_it(bench, caplog):
    stream = bench.written()
    bench.begin(stream, Framing.LENGTH, 3)
    stream.write(b"four")
    bench.settle()
    assert "stream=handler yielded 1 bytes more than its Content-Length" in caplog.text
    assert bench.sink.outcome == ["failed"]
    with pytest.raises(Disconnected):
        stream.write(b"x")


def test_writing_to_head_is_for_nobody(bench):
    stream = bench.written()
    bench.begin(stream, Framing.NONE)
    stream.write(b"body")
    stream.end()
    bench.settle()
    assert bench.sink.data == HEAD
    assert bench.sink.outcome == ["ended"]


def test_many_threads_write_at_once_and_no_byte_is_lost():
    """Real threads against a loop that turns as fast as it can, through a small window."""
    bench = Bench(Limits(stream_buffer_start_bytes=600, stream_buffer_bytes=2400))
    handle = LoopHandle(bench.loop)
    bench.bridge.post = handle.post
    stream = bench.written()
    bench.begin(stream)
    writers = [Writer(stream, *[b"%d:%03d;" % (thread, n) for n in range(200)]) for thread in range(4)]
    while any(writer.is_alive() for writer in writers) or bench.loop.soon or not bench.bridge._ready.empty():
        bench.loop.turn()
        bench.drain()
        assert stream.pending <= 2400 + 4 * (6 + ITEM_COST)
    assert [writer.finish() for writer in writers] == [None] * 4
    stream.end()
    bench.loop.turn()
    bench.drain()
    items = bench.sink.body.decode().rstrip(";").split(";")
    for thread in range(4):
        mine = [item for item in items if item.startswith(f"{thread}:")]
        assert mine == [f"{thread}:{n:03d}" for n in range(200)]
    assert bench.sink.outcome == ["ended"]
