"""What all streams share: framing, accounts, the head's grace, the heartbeat, and repeated or late calls."""

from __future__ import annotations

import pytest

from catzilla._core.errors import Disconnected
from catzilla._core.http1 import LAST_CHUNK, Framing
from catzilla._core.limits import Limits
from catzilla._core.pulled_stream import Pause
from catzilla._core.stream import ITEM_COST, JOIN_BELOW, State, Stream, _join
from tests.core.fakes import HEAD, Tracked


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# Framing and the declared length.


@pytest.mark.parametrize(
    ("declared", "items", "sent", "outcome", "message"),
    [
        (6, [b"abc", b"def"], b"abcdef", "ended", None),
        (6, [b"abc"], b"abc", "failed", "ended 3 bytes short of its Content-Length; cut"),
        (6, [], b"", "failed", "ended 6 bytes short of its Content-Length; cut"),
        (0, [], b"", "ended", None),
        (2, [b"abc"], b"", "failed", "yielded 1 bytes more than its Content-Length; cut"),
    ],
)
def test_the_declared_length_is_checked(bench, caplog, declared, items, sent, outcome, message):
    stream = bench.pulled(iter(items))
    bench.begin(stream, Framing.LENGTH, declared)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.data.removeprefix(HEAD) == sent
    assert bench.sink.outcome == [outcome]
    assert stream.state is State.CLOSED
    assert (message in caplog.text) if message else caplog.text == ""


def test_the_excess_is_seen_after_some_of_the_body_has_gone_and_the_generator_is_closed(bench, caplog):
    tracked = Tracked()
    stream = bench.pulled(tracked.items(b"abc", Pause(1), b"def", b"ghi"))
    bench.begin(stream, Framing.LENGTH, 5)
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(1)
    bench.finish()
    assert bench.sink.data == HEAD + b"abc"
    assert bench.sink.outcome == ["failed"]
    assert tracked.closed == 1
    assert stream.state is State.CLOSED


def test_a_failed_stream_that_is_short_too_is_reported_once(bench, caplog):
    stream = bench.pulled(Tracked().items(b"abc", ValueError("broken")))
    bench.begin(stream, Framing.LENGTH, 5)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert len(caplog.records) == 1
    assert "short of" not in caplog.text


def test_close_delimited_bytes_go_as_they_are(bench):
    stream = bench.pulled(iter([b"abc", b"def"]))
    bench.begin(stream, Framing.CLOSE)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.data == HEAD + b"abcdef"
    assert bench.sink.outcome == ["ended"]


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        ([b"a"], False),
        ([b"x" * JOIN_BELOW] * 3, False),
        ([b"x" * (2 * JOIN_BELOW), b"y"], False),  # on average they are large
        ([b"x" * JOIN_BELOW, b"y"], True),
        ([b"a", b"b", b"c"], True),
        ([b"x"] * 1000, True),
    ],
)
def test_small_pieces_are_joined_and_large_ones_are_not(pieces, joined):
    result, size = _join(pieces)
    assert b"".join(result) == b"".join(pieces)
    assert size == sum(map(len, pieces))
    assert (len(result) == 1 and len(pieces) > 1) == joined
    if not joined:
        assert all(mine is theirs for mine, theirs in zip(result, pieces, strict=True))


# The head's grace.


def test_the_head_leaves_alone_when_the_first_item_takes_long(bench):
    stream = bench.pulled(iter([b"x"]))
    bench.begin(stream)
    bench.loop.advance(bench.limits.head_grace - 0.01)
    assert bench.sink.writes == []
    bench.loop.advance(0.01)
    assert bench.sink.writes == [HEAD]
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.data == HEAD + chunk(b"x") + LAST_CHUNK, "the head goes once"


def test_the_head_does_not_leave_twice_when_the_item_is_in_time(bench):
    stream = bench.pulled(Tracked().items(b"x", Pause(60)))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(1)
    assert bench.sink.data == HEAD + chunk(b"x")


def test_the_head_waits_for_a_client_that_is_behind(bench):
    # A pipelined answer before this one may still be on its way.
    stream = bench.pulled(iter([b"x"]))
    bench.sink.paused = True
    bench.begin(stream)
    bench.loop.advance(1)
    assert bench.sink.writes == []
    bench.sink.paused = False
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.data == HEAD + chunk(b"x") + LAST_CHUNK


def test_the_head_of_a_cut_stream_stays(bench):
    stream = bench.pulled(iter([b"x"]))
    bench.begin(stream)
    stream.cut(Disconnected())
    bench.loop.advance(1)
    assert bench.sink.writes == []


def test_a_client_that_stalls_on_the_head_alone(bench):
    stream = bench.pulled(iter([b"x"]))
    bench.begin(stream)
    bench.stall()
    bench.loop.advance(0.1)
    assert bench.sink.paused
    bench.resume(stream)
    assert stream.pending == 0
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["ended"]


# Heartbeats.

BEAT = 15.0


@pytest.fixture
def events(bench):
    """An event stream that has sent `data` and is asleep: `events(data)`."""

    def start(*data: bytes, heartbeat=BEAT, framing=Framing.CHUNKED, remaining=None):
        stream = bench.pulled(Tracked().items(*data, Pause(3600)), heartbeat=heartbeat, event_stream=True)
        bench.begin(stream, framing, remaining)
        stream.run(bench.worker)
        bench.settle()
        bench.loop.advance(0.2)  # the head's grace is over
        bench.sink.writes.clear()
        return stream

    return start


def test_silence_on_an_event_stream_is_broken_by_a_comment(bench, events):
    events(b"data: x\n\n")
    bench.loop.advance(BEAT - 0.3)
    assert bench.sink.writes == []
    bench.loop.advance(0.3)
    assert bench.sink.writes == [chunk(b":\n\n")]
    bench.loop.advance(BEAT)
    assert bench.sink.writes == [chunk(b":\n\n")] * 2


def test_a_stream_without_an_event_yet_has_a_heartbeat_too(bench, events):
    events()
    bench.loop.advance(BEAT)
    assert bench.sink.writes == [chunk(b":\n\n")]


def test_an_event_in_between_moves_the_comment(bench):
    stream = bench.pulled(
        Tracked().items(b"data: 1\n\n", Pause(10), b"data: 2\n\n", Pause(3600)), heartbeat=BEAT, event_stream=True
    )
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(10)
    bench.finish()
    bench.sink.writes.clear()
    bench.loop.advance(14.9)
    assert bench.sink.writes == []
    bench.loop.advance(0.2)
    assert bench.sink.writes == [chunk(b":\n\n")]


@pytest.mark.parametrize(
    ("data", "comment"),
    [
        ([b"data: x\n"], b":\n"),  # between two lines of an event
        ([b"data: x\n", b"\n"], b":\n\n"),
        ([b"\n"], b":\n\n"),
        ([b"data: x\n\n", b"d"], b""),  # in the middle of a line
        ([b"d"], b""),
    ],
)
def test_a_comment_goes_only_where_one_may_stand(bench, events, data, comment):
    events(*data)
    bench.loop.advance(BEAT + 0.1)
    assert bench.sink.writes == ([chunk(comment)] if comment else [])


def test_the_tail_is_kept_over_bursts(bench):
    stream = bench.pulled(Tracked().items(b"data: x\n", Pause(1), b"\n", Pause(3600)), heartbeat=BEAT)
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(1)
    bench.finish()
    assert stream.tail == b"\n\n"


def test_in_the_middle_of_a_line_it_looks_again_soon(bench, events):
    stream = events(b"half a li")
    bench.loop.advance(BEAT)
    assert bench.sink.writes == []
    stream.tail = b"\n\n"
    bench.loop.advance(BEAT / 10)
    assert bench.sink.writes == [chunk(b":\n\n")]


def test_no_comment_for_a_client_that_is_behind(bench):
    stream = bench.pulled(Tracked().items(b"data: x\n\n", Pause(3600)), heartbeat=BEAT, event_stream=True)
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(BEAT * 3)
    assert len(bench.sink.writes) == 1
    bench.resume(stream)
    bench.loop.advance(BEAT / 10)
    assert bench.sink.writes[1:] == [chunk(b":\n\n")]


def test_a_comment_that_stalls_the_client_costs_no_byte(bench, events):
    stream = events(b"data: x\n\n")
    bench.stall()
    bench.loop.advance(BEAT)
    assert bench.sink.paused
    bench.resume(stream)
    assert stream.pending == 0
    assert stream.state is State.SLEEPING


def test_no_comment_where_the_length_is_declared(bench, events):
    events(b"data: x\n\n", framing=Framing.LENGTH, remaining=100)
    bench.loop.advance(BEAT * 3)
    assert bench.sink.writes == []


def test_a_close_delimited_event_stream_has_bare_comments(bench, events):
    events(b"data: x\n\n", framing=Framing.CLOSE)
    bench.loop.advance(BEAT)
    assert bench.sink.writes == [b":\n\n"]


@pytest.mark.parametrize("heartbeat", [0, 0.0, None])
def test_no_heartbeat_unless_asked_for(bench, events, heartbeat):
    events(b"data: x\n\n", heartbeat=heartbeat)
    bench.loop.advance(1000)
    assert bench.sink.writes == []


def test_a_closed_stream_has_no_heartbeat(bench, events):
    stream = events(b"data: x\n\n")
    stream.cut(Disconnected())
    bench.finish()
    bench.loop.advance(1000)
    assert bench.sink.writes == []
    assert stream.timer is None


# Late and repeated calls.


def test_closed_counts_once(bench):
    stream = bench.pulled(iter([b"x"]))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    stream.window.size += 1000  # closing again would give this back
    stream.closed()
    assert bench.bridge.allowance.left == bench.limits.stream_buffer_extra_bytes


def test_a_ready_stream_that_has_closed_writes_nothing(bench):
    stream = bench.pulled(iter([b"x"]))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    bench.sink.writes.clear()
    assert stream.write_burst() == 0
    assert bench.sink.writes == []


def test_a_ready_stream_with_nothing_to_write_is_no_harm(bench):
    stream = bench.pulled(Tracked().items(b"x", Pause(10)))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    bench.sink.writes.clear()
    bench.bridge.make_ready(stream)
    bench.settle()
    assert bench.sink.writes == []
    assert stream.state is State.SLEEPING


def test_pending_counts_what_the_transport_holds(bench):
    stream = bench.pulled(Tracked().items(b"abc", Pause(10)))
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    assert stream.pending == 3 + ITEM_COST
    bench.settle()
    assert stream.ring == []
    assert stream.pending == 3 + ITEM_COST
    bench.resume(stream)
    assert stream.pending == 0


def test_many_small_items_are_bounded_by_what_each_weighs(make_bench):
    bench = make_bench(Limits(stream_buffer_start_bytes=6500, stream_buffer_bytes=6500))
    stream = bench.pulled(iter([b"x"] * 1000))
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    assert len(stream.ring) == 100


def test_the_base_has_no_producer(bench):
    stream = Stream(bench.bridge, bench.sink, "handler", None)
    with pytest.raises(NotImplementedError):
        stream._has_room()
    with pytest.raises(NotImplementedError):
        stream.cut(Disconnected())
