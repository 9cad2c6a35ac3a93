"""A room's event stream at each hand-over: what it says before its end, whoever ends it, and how fast its client is."""

from __future__ import annotations

import gc
import weakref

import pytest

from catzilla._core.errors import Disconnected
from catzilla._core.fanout import Fanout
from catzilla._core.fed_stream import FedStream
from catzilla._core.http1 import LAST_CHUNK, Framing
from catzilla._core.limits import Limits
from catzilla._core.messages import Feed
from catzilla._core.outbox import OnSlow
from catzilla._core.publication import Kind, Position, Publication
from catzilla._core.stream import State
from tests.core.fakes import HEAD, Bench, dechunk

OPENING = b"opening\n"
GAP = b"gap\n"


class Rules:
    """A room that nobody watches."""

    is_watched = False
    on_slow = OnSlow.DISCONNECT

    def joined(self, identity, principal) -> None:
        pass

    def left(self, identity, principal) -> None:
        pass


class Studio:
    """One room with one event stream, and everything around it standing still."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sink = bench.sink
        self.rules = Rules()
        self.fanout = Fanout(bench.loop, bench.timers, presence_delay=3.0)
        self.offset = 0

    def begin(self, framing: Framing = Framing.CHUNKED, expires_in: float | None = None) -> FedStream:
        feed = Feed(
            start=self._enter,
            encode=lambda publication: publication.payload + b"\n",
            gap=GAP,
            heartbeat=0,
            expires_in=expires_in,
        )
        stream = FedStream(
            self.bench.bridge,
            self.sink,
            feed,
            self.fanout,
            self.bench.waits,
            name="handler",
            heartbeat=0,
            member_id="1",
        )
        self.bench.begin(stream, framing)
        return stream

    def _enter(self, stream: FedStream) -> bytes:
        self.fanout.join(stream, "room", self.rules)
        return OPENING

    def publish(self, text: bytes, *, flushed: bool = True) -> None:
        self.offset += 1
        publication = Publication("room", Kind.TEXT, text, None, None, Position("e", self.offset), 0.0)
        self.fanout.posting(publication)
        self.fanout.deliver(publication)
        if flushed:
            self.bench.loop.turn()


@pytest.fixture
def studio(bench):
    return Studio(bench)


def is_over(studio: Studio, stream: FedStream) -> bool:
    assert studio.fanout.rooms == {}
    assert studio.bench.bridge.streams == set()
    return stream.state is State.CLOSED and studio.sink.outcome == ["ended"]


def test_an_end_leaves_the_room_and_is_a_whole_response(studio):
    stream = studio.begin()
    studio.publish(b"one")
    stream.end()
    assert studio.fanout.rooms == {}, "at once, and not only when the client has everything"
    studio.publish(b"not any more")
    studio.bench.settle()
    assert dechunk(studio.sink.data.removeprefix(HEAD)) == (OPENING + b"one\n", True)
    assert is_over(studio, stream)


def test_the_end_goes_with_a_head_that_has_not_left(studio):
    stream = studio.begin()
    stream.end()
    studio.bench.settle()
    assert studio.sink.writes == [HEAD + b"8\r\n" + OPENING + b"\r\n" + LAST_CHUNK]
    assert is_over(studio, stream)


def test_what_the_turn_has_brought_comes_before_the_end(studio):
    stream = studio.begin()
    studio.bench.settle()
    studio.publish(b"one", flushed=False)
    stream.end()
    studio.bench.settle()
    assert studio.sink.body == OPENING + b"one\n"
    studio.bench.loop.turn()  # the fan-out still has it on its list
    studio.bench.settle()
    assert studio.sink.data.endswith(LAST_CHUNK)
    assert is_over(studio, stream)


def test_the_end_of_a_connection_needs_no_mark(studio):
    stream = studio.begin(Framing.CLOSE)
    stream.end()
    studio.bench.settle()
    assert studio.sink.data == HEAD + OPENING
    assert is_over(studio, stream)


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_slow_client_gets_what_waits_and_then_the_end(studio, waiting):
    stream = studio.begin()
    studio.bench.stall()
    studio.bench.settle()
    for i in range(waiting):
        studio.publish(b"%d" % i)
    stream.end()
    stream.end()  # a stop, say, after it has expired
    studio.bench.settle()
    assert LAST_CHUNK not in studio.sink.data
    assert studio.sink.outcome == []
    studio.bench.resume(stream)
    studio.bench.settle()
    assert dechunk(studio.sink.data.removeprefix(HEAD)) == (OPENING + b"0\n1\n2\n"[: 2 * waiting], True)
    assert is_over(studio, stream)


def test_a_gap_is_told_before_the_end(make_bench):
    studio = Studio(make_bench(Limits(socket_outbox_messages=1)))
    studio.rules.on_slow = OnSlow.GAP
    stream = studio.begin()
    studio.bench.stall()
    studio.bench.settle()
    for i in range(3):
        studio.publish(b"%d" % i)
    stream.end()
    studio.bench.resume(stream)
    studio.bench.settle()
    assert dechunk(studio.sink.data.removeprefix(HEAD)) == (OPENING + b"0\n" + GAP, True)
    assert is_over(studio, stream)


def test_a_message_too_many_in_the_last_turn_is_no_orderly_end(make_bench):
    studio = Studio(make_bench(Limits(socket_outbox_messages=1)))
    stream = studio.begin()
    studio.bench.stall()
    studio.bench.settle()
    studio.publish(b"one")
    studio.publish(b"two", flushed=False)
    stream.end()
    studio.bench.settle()
    assert studio.sink.outcome == ["failed"]
    assert stream.state is State.CLOSED
    assert studio.fanout.rooms == {}


def test_a_client_that_leaves_before_it_has_the_end(studio):
    stream = studio.begin()
    studio.bench.stall()
    studio.bench.settle()
    studio.publish(b"one")
    stream.end()
    stream.cut(Disconnected())
    assert stream.state is State.CLOSED
    assert studio.bench.bridge.streams == set()


# Expiry.


def test_a_stream_expires(studio):
    stream = studio.begin(expires_in=60)
    studio.bench.settle()
    studio.bench.loop.advance(59)
    studio.publish(b"in time")
    studio.bench.settle()
    assert studio.sink.outcome == []
    studio.bench.loop.advance(1)
    studio.publish(b"too late")
    studio.bench.settle()
    assert dechunk(studio.sink.data.removeprefix(HEAD)) == (OPENING + b"in time\n", True)
    assert is_over(studio, stream)


@pytest.mark.parametrize("ending", ["end", "cut"])
def test_a_stream_that_ends_otherwise_is_not_kept_until_it_expires(studio, ending):
    stream = studio.begin(expires_in=3600)
    studio.bench.settle()
    timer = stream._expiry
    assert timer.callback is not None
    if ending == "end":
        stream.end()
    else:
        stream.cut(Disconnected())
    studio.bench.settle()
    assert stream.state is State.CLOSED
    assert timer.callback is None
    kept = weakref.ref(stream)
    del stream
    gc.collect()
    assert kept() is None


def test_without_an_expiry_there_is_no_timer(studio):
    assert studio.begin()._expiry is None
