"""A pulled stream at each hand-over between its home thread and the loop.

`bench` stands still: `settle` is the loop, `go_home` the home thread, and between them a test does what it likes.
"""

from __future__ import annotations

import contextvars

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.current import current
from catzilla._core.errors import Disconnected
from catzilla._core.http1 import LAST_CHUNK
from catzilla._core.limits import KIB, Limits
from catzilla._core.messages import Reply
from catzilla._core.pulled_stream import Pause
from catzilla._core.stream import ITEM_COST, State
from tests.core.fakes import HEAD, Bench, Tracked, dechunk

GONE = Disconnected()
START = 64 * KIB


@pytest.fixture
def tracked():
    return Tracked()


@pytest.fixture(autouse=True)
def clean_thread():
    yield
    current.waits = None


def endless(size=1000):
    while True:
        yield b"x" * size


# The straight way.


def test_items_go_out_in_order_and_the_end_follows(bench, tracked):
    stream = bench.pulled(tracked.items("é", b"b", bytearray(b"c"), memoryview(b"d")))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.data.startswith(HEAD)
    assert bench.sink.body == "ébcd".encode()
    assert bench.sink.data.endswith(LAST_CHUNK)
    assert bench.sink.outcome == ["ended"]
    assert (tracked.started, tracked.closed) == (1, 1)
    assert bench.workers.released == [bench.worker]
    assert bench.bridge.streams == set()


def test_the_head_and_the_first_item_leave_in_one_write(bench):
    items = iter([b"first", b"second"])
    stream = bench.pulled(items)
    bench.begin(stream)
    stream.run(bench.worker)
    bench.turn()
    assert bench.sink.writes[0].startswith(HEAD + b"b\r\nfirstsecond\r\n")


def test_a_burst_is_one_wake_up_and_one_chunk(bench):
    stream = bench.pulled(b"%d\n" % n for n in range(100))
    bench.begin(stream)
    stream.run(bench.worker)
    assert bench.handle.names() == ["wake", "_over"]
    bench.settle()
    body, ended = dechunk(bench.sink.data.removeprefix(HEAD))
    assert body == b"".join(b"%d\n" % n for n in range(100))
    assert ended
    assert bench.sink.data.count(b"\r\n0\r\n\r\n") == 1
    assert len(bench.sink.writes) == 1


def test_a_turn_between_two_items_sends_the_first_at_once(bench):
    stream = bench.pulled(Tracked().items(b"one", lambda: (bench.turn(), b"two")[1]))
    bench.begin(stream)
    stream.run(bench.worker)
    assert bench.sink.writes == [HEAD + b"3\r\none\r\n"]
    bench.settle()
    assert bench.sink.body == b"onetwo"


def test_empty_items_are_nothing(bench):
    stream = bench.pulled(["", b"", b"x", ""], home=False)
    bench.begin(stream)
    stream.run(None)
    bench.settle()
    assert bench.sink.data == HEAD + b"1\r\nx\r\n" + LAST_CHUNK


def test_no_items_at_all_is_an_empty_body(bench):
    stream = bench.pulled(iter(()))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.data == HEAD + LAST_CHUNK
    assert bench.sink.outcome == ["ended"]


def test_large_items_are_passed_on_as_they_are(bench):
    big = b"x" * 40_000
    seen = []
    bench.sink.write = lambda buffers: seen.extend(buffers) or True
    stream = bench.pulled(iter([big]))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    assert any(each is big for each in seen)


def test_items_are_encoded_where_the_source_says_how(bench):
    stream = bench.pulled(iter([1, 2]), encode=lambda n: b"%d;" % n)
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.body == b"1;2;"


def test_a_buffer_that_the_generator_fills_again_was_copied(bench):
    def items():
        buffer = bytearray(b"a")
        yield buffer
        buffer[:] = b"b"
        yield buffer

    stream = bench.pulled(items())
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.body == b"ab"


def test_a_subclass_of_str_is_text(bench):
    class Text(str):
        __slots__ = ()

    stream = bench.pulled(iter([Text("ä")]))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.body == "ä".encode()


def test_a_list_is_pulled_by_the_loop_without_a_home(bench):
    stream = bench.pulled([b"x" * 30_000] * 10, home=False)
    bench.begin(stream)
    stream.run(None)
    bench.settle()
    assert bench.sink.body == b"x" * 300_000
    assert bench.sink.outcome == ["ended"]
    assert not bench.workers.homeward
    assert bench.workers.released == []


def test_a_list_that_is_cut_is_simply_dropped(bench):
    stream = bench.pulled([b"x" * 70_000] * 3, home=False)
    bench.begin(stream)
    bench.stall()
    stream.run(None)
    bench.settle()
    assert stream.state is State.PARKED
    stream.cut(GONE)
    bench.settle()
    assert stream.state is State.CLOSED
    assert bench.bridge.streams == set()


# The thread contract.


def test_everything_runs_in_the_context_of_the_request(bench):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    def items():
        token = variable.set("inside")
        try:
            yield b"x"
            yield Pause(1)
            seen.append(variable.get())
        finally:
            seen.append(variable.get())
            variable.reset(token)

    stream = bench.pulled(items())
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(1)
    bench.finish()
    assert seen == ["inside", "inside"]
    assert variable.get() == "outside"


def test_an_iterable_is_iterated_in_the_context_of_the_request(bench):
    variable = contextvars.ContextVar("variable", default="outside")

    class Rows:
        def __iter__(self):
            return iter([variable.get().encode()])

    bench.context.run(variable.set, "inside")
    stream = bench.pulled(Rows())
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.body == b"inside"


def test_an_iterable_that_cannot_be_iterated_fails_like_its_first_item(bench):
    class Broken:
        def __iter__(self):
            raise LookupError("no rows")

    stream = bench.pulled(Broken(), fail_early=lambda error: Reply(500, [], repr(error).encode()))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert [reply.body for reply in bench.sink.replies] == [b"LookupError('no rows')"]
    assert bench.workers.released == [bench.worker]


def test_the_waits_of_the_request_are_current_in_the_generator(bench):
    seen = []

    def items():
        seen.append(current.waits)
        yield b"x"

    stream = bench.pulled(items())
    bench.begin(stream)
    stream.run(bench.worker)
    assert seen == [bench.waits]


# Backpressure.


def test_a_stalled_client_parks_the_generator(bench):
    stream = bench.pulled(endless())
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    assert bench.handle.names() == ["wake", "_parked"]
    bench.settle()
    assert stream.state is State.PARKED
    assert START <= stream.pending <= START + 1000 + ITEM_COST
    assert not bench.workers.homeward, "it holds no thread"
    assert bench.bridge.backpressure_pauses == 1


def test_it_goes_on_at_home_when_the_client_has_read(bench):
    stream = bench.pulled(endless())
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    bench.loop.advance(0.05)
    bench.resume(stream)
    assert bench.workers.homeward == type(bench.workers.homeward)([(bench.worker, stream)])
    assert stream.state is State.QUEUED
    assert stream.waiting_for_client == pytest.approx(0.05)
    assert stream.pending == 0
    bench.loop.advance(0.02)
    bench.go_home()
    assert stream.waiting_for_thread == pytest.approx(0.02)
    assert stream.pending >= START


def test_what_is_left_in_the_ring_goes_first_when_the_client_has_read(bench):
    """The client stalls on the first burst while more is in the ring: the generator stays parked over it."""
    stream = bench.pulled(Tracked().items(b"first", lambda: (bench.stall(), bench.turn(), b"y" * START)[2], b"end"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    assert stream.state is State.PARKED
    assert stream.ring
    bench.resume(stream)
    assert not bench.workers.homeward
    bench.settle()
    assert bench.workers.homeward
    bench.finish()
    assert bench.sink.body == b"first" + b"y" * START + b"end"
    assert bench.sink.outcome == ["ended"]


def test_room_made_while_it_runs_is_used_without_a_hand_over(bench):
    """The loop empties the ring before the window is full: the producer goes on, it is not parked."""
    runs = []

    def items():
        for _ in range(5):
            runs.append(len(bench.sink.writes))
            yield b"z" * (START - ITEM_COST)
            bench.turn()

    stream = bench.pulled(items())
    bench.begin(stream)
    # The loop has to come between the item and the look at the room; so it does when it is another thread.
    original = bench.bridge.post

    def post(callback, *args):
        original(callback, *args)
        bench.turn()

    bench.bridge.post = post
    stream.run(bench.worker)
    assert stream.state is State.CLOSED
    assert len(runs) == 5
    assert not bench.workers.homeward


def test_the_window_grows_while_the_client_keeps_up_and_shrinks_when_it_stalls(bench):
    stream = bench.pulled(endless())
    bench.begin(stream)
    stream.run(bench.worker)
    sizes = set()
    for _ in range(400):
        bench.settle()
        bench.go_home()
        sizes.add(stream.window.size)
    assert sizes == {START << n for n in range(6)}
    extra = bench.bridge.allowance
    assert extra.left == bench.limits.stream_buffer_extra_bytes - (bench.limits.stream_buffer_bytes - START)
    bench.stall()
    bench.settle()
    bench.loop.advance(1.0)
    bench.resume(stream)
    bench.settle()
    assert stream.window.size == START
    assert extra.left == bench.limits.stream_buffer_extra_bytes


def test_a_stream_that_closes_returns_its_share_of_the_allowance(bench):
    stream = bench.pulled(endless())
    bench.begin(stream)
    stream.run(bench.worker)
    for _ in range(50):
        bench.settle()
        bench.go_home()
    assert stream.window.size > START
    stream.cut(GONE)
    bench.finish()
    assert stream.state is State.CLOSED
    assert bench.bridge.allowance.left == bench.limits.stream_buffer_extra_bytes


def test_another_stream_at_home_gets_its_turn_after_a_burst(bench):
    other = object()

    def slow():
        while True:
            bench.loop.advance(0.01)
            yield b"x"

    stream = bench.pulled(slow())
    bench.begin(stream)
    bench.worker.inbox.put(other)
    stream.run(bench.worker)
    assert len(stream.ring) == 1
    assert bench.handle.names() == ["wake", "_parked"]
    bench.settle()
    assert bench.workers.homeward, "its client is not behind: it goes on after the other"
    assert bench.worker.inbox.get_nowait() is other


def test_without_a_home_there_is_nobody_to_be_fair_to(bench):
    def slow():
        for _ in range(3):
            bench.loop.advance(0.01)
            yield b"x"

    stream = bench.pulled(slow(), home=False)
    bench.begin(stream)
    stream.run(None)
    assert bench.handle.names() == ["wake", "_over"]


# Pauses.


def test_a_pause_parks_without_a_thread_until_its_time(bench, tracked):
    stream = bench.pulled(tracked.items(b"one", Pause(2.5), b"two"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    assert stream.state is State.SLEEPING
    assert bench.sink.body == b"one"
    bench.loop.advance(2.4)
    assert not bench.workers.homeward
    bench.loop.advance(0.1)
    bench.finish()
    assert bench.sink.body == b"onetwo"
    assert bench.sink.outcome == ["ended"]
    assert tracked.closed == 1


def test_a_pause_passes_while_the_client_is_behind(bench):
    stream = bench.pulled(Tracked().items(b"one", Pause(1), b"two"))
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    assert stream.state is State.SLEEPING
    bench.loop.advance(1)
    bench.finish()
    assert stream.state is State.QUEUED or stream.ended
    assert bench.sink.body == b"one"
    bench.resume(stream)
    bench.finish()
    assert bench.sink.body == b"onetwo"
    assert bench.sink.outcome == ["ended"]


def test_a_client_that_catches_up_does_not_shorten_a_pause(bench):
    stream = bench.pulled(Tracked().items(b"one", Pause(5), b"two"))
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    bench.resume(stream)
    bench.settle()
    assert stream.state is State.SLEEPING
    assert not bench.workers.homeward


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_pause_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="write a number that is not negative"):
        Pause(seconds)


def test_a_pause_shows_itself():
    assert repr(Pause(2)) == "sleep(2.0)"


# The client leaves, at every moment.


def leaves(bench: Bench, stream, tracked: Tracked, *, suspended: bool = True) -> None:
    """After a cut: everything is closed, once, at home, and nobody holds anything."""
    bench.finish()
    assert stream.state is State.CLOSED
    assert tracked.closed == tracked.started
    if suspended:
        assert tracked.seen == ["GeneratorExit"]
    assert bench.workers.released == [bench.worker]
    assert bench.bridge.streams == set()
    assert stream._iterator is None
    assert "ended" not in bench.sink.outcome
    assert stream.timer is None
    assert bench.bridge.errors == 0, "a client that leaves is no failure of the stream"


def test_cut_before_it_began(bench, tracked):
    stream = bench.pulled(tracked.items(b"x"))
    stream.cut(GONE)  # the connection was gone when the head would have been sent
    stream.run(bench.worker)
    leaves(bench, stream, tracked, suspended=False)
    assert tracked.started == 0
    assert bench.sink.writes == []


def test_cut_between_the_head_and_the_first_pull(bench, tracked):
    stream = bench.pulled(tracked.items(b"x"))
    bench.begin(stream)
    stream.cut(GONE)
    stream.run(bench.worker)
    leaves(bench, stream, tracked, suspended=False)
    assert tracked.started == 0


def test_cut_while_it_runs_ends_at_the_next_yield(bench, tracked):
    stream = bench.pulled(tracked.items(b"one", lambda: (stream.cut(GONE), b"two")[1], b"three"))
    bench.begin(stream)
    stream.run(bench.worker)
    assert stream._iterator is None, "closed on the spot, by the home thread"
    leaves(bench, stream, tracked)
    assert b"two" not in bench.sink.data


def test_cut_while_it_runs_and_it_yields_a_pause(bench, tracked):
    stream = bench.pulled(tracked.items(b"one", lambda: (stream.cut(GONE), Pause(3600))[1]))
    bench.begin(stream)
    stream.run(bench.worker)
    leaves(bench, stream, tracked)


def test_cut_while_it_runs_and_it_is_exhausted_then(bench):
    def items():
        yield b"one"
        stream.cut(GONE)

    stream = bench.pulled(items())
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert stream.state is State.CLOSED
    assert bench.workers.released == [bench.worker]
    assert bench.sink.outcome == []


def test_cut_while_it_runs_and_it_fails_then(bench, tracked, caplog):
    def fail():
        stream.cut(GONE)
        raise ValueError("because of the cut")

    stream = bench.pulled(tracked.items(b"one", fail))
    bench.begin(stream)
    stream.run(bench.worker)
    leaves(bench, stream, tracked, suspended=False)
    assert "failed after" not in caplog.text


def test_cut_after_parked_was_posted_and_before_the_loop_sees_it(bench, tracked):
    stream = bench.pulled(tracked.items(*[b"x" * START] * 3))
    bench.begin(stream)
    stream.run(bench.worker)
    assert bench.handle.names() == ["wake", "_parked"]
    stream.cut(GONE)  # the state is still RUNNING: the loop must not send it home yet
    assert not bench.workers.homeward
    bench.settle()
    assert len(bench.workers.homeward) == 1
    leaves(bench, stream, tracked)


def test_cut_after_asleep_was_posted_and_before_the_loop_sees_it(bench, tracked):
    stream = bench.pulled(tracked.items(Pause(3600), b"x"))
    bench.begin(stream)
    stream.run(bench.worker)
    stream.cut(GONE)
    bench.settle()
    assert len(bench.workers.homeward) == 1
    leaves(bench, stream, tracked)
    assert [left for left in bench.loop.armed() if left > 1] == []


def test_cut_while_parked_is_sent_home_once(bench, tracked):
    stream = bench.pulled(tracked.items(*[b"x" * START] * 3))
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    stream.cut(GONE)
    stream.cut(GONE)
    assert len(bench.workers.homeward) == 1
    leaves(bench, stream, tracked)


def test_cut_while_asleep_cancels_the_sleep(bench, tracked):
    stream = bench.pulled(tracked.items(b"x", Pause(10), b"y"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    stream.cut(GONE)
    assert len(bench.workers.homeward) == 1
    leaves(bench, stream, tracked)
    bench.loop.advance(20)
    assert not bench.workers.homeward
    assert b"y" not in bench.sink.data


def test_cut_while_on_its_way_home(bench, tracked):
    stream = bench.pulled(tracked.items(*[b"x" * START] * 3))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.settle()
    assert stream.state is State.QUEUED
    stream.cut(GONE)
    assert len(bench.workers.homeward) == 1, "it is on its way: not sent twice"
    leaves(bench, stream, tracked)


def test_cut_after_its_last_item_and_before_the_loop_knows(bench, tracked):
    stream = bench.pulled(tracked.items(b"x"))
    bench.begin(stream)
    stream.run(bench.worker)
    stream.cut(GONE)
    leaves(bench, stream, tracked, suspended=False)


def test_cut_while_its_end_is_being_sent(bench, tracked):
    stream = bench.pulled(tracked.items(b"x"))
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    assert stream.state is State.ENDING
    stream.cut(GONE)
    leaves(bench, stream, tracked, suspended=False)
    stream.drained()  # a late call of the transport changes nothing
    assert bench.sink.outcome == []


def test_cut_after_its_end_changes_nothing(bench, tracked):
    stream = bench.pulled(tracked.items(b"x"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    stream.cut(GONE)
    assert stream.cut_by is None
    assert bench.sink.outcome == ["ended"]


def test_cut_interrupts_what_the_generator_waits_for(bench):
    def items():
        yield b"x"
        stream.cut(GONE)
        bench.waits.check()
        yield b"y"

    stream = bench.pulled(items())
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert stream.state is State.CLOSED
    assert bench.bridge.errors == 0


def test_a_cut_stream_in_the_queue_of_ready_ones_writes_nothing(bench):
    stream = bench.pulled(iter([b"x"]))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.handle.run_all()
    assert stream.queued
    stream.cut(GONE)
    bench.drain()
    assert bench.sink.writes == []


# Failures.


def test_a_failure_after_the_first_item_cuts_without_the_end(bench, tracked, caplog):
    stream = bench.pulled(tracked.items(b"partial", RuntimeError("secret")), fail_early=lambda error: None)
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert bench.sink.body == b"partial"
    assert not bench.sink.data.endswith(LAST_CHUNK)
    assert b"secret" not in bench.sink.data
    assert "stream=handler failed after 0 bytes; cut" in caplog.text
    assert "secret" in caplog.text
    assert bench.bridge.errors == 1
    assert bench.workers.released == [bench.worker]


def test_a_failure_before_the_first_item_is_an_error_response(bench, tracked):
    reply = Reply(503, [], b"no")
    errors = []
    stream = bench.pulled(tracked.items(ValueError("early")), fail_early=lambda error: (errors.append(error), reply)[1])
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.replies == [reply]
    assert bench.sink.writes == [], "the head did not leave"
    assert [str(error) for error in errors] == ["early"]
    assert stream.state is State.CLOSED
    assert bench.workers.released == [bench.worker]


def test_an_early_failure_after_the_grace_of_the_head_cuts(bench, tracked):
    stream = bench.pulled(tracked.items(Pause(1), ValueError("late")), fail_early=lambda error: Reply(503, [], b"no"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.handle.run_all()
    bench.loop.advance(1)
    assert bench.sink.writes == [HEAD]
    bench.finish()
    assert bench.sink.replies == []
    assert bench.sink.outcome == ["failed"]
    assert bench.sink.data == HEAD
    assert bench.bridge.errors == 1


def test_an_early_failure_whose_head_leaves_at_that_very_moment(bench, tracked, caplog):
    stream = bench.pulled(tracked.items(ValueError("early")), fail_early=lambda error: Reply(503, [], b"no"))
    bench.begin(stream)
    stream.run(bench.worker)
    assert bench.handle.names() == ["_replace"]
    bench.loop.advance(bench.limits.head_grace)
    assert bench.sink.writes == [HEAD]
    bench.finish()
    assert bench.sink.replies == []
    assert bench.sink.outcome == ["failed"]
    assert bench.bridge.errors == 1


def test_an_early_failure_whose_client_has_left_meanwhile(bench, tracked):
    stream = bench.pulled(tracked.items(ValueError("early")), fail_early=lambda error: Reply(503, [], b"no"))
    bench.begin(stream)
    stream.run(bench.worker)
    stream.cut(GONE)
    leaves(bench, stream, tracked, suspended=False)
    assert bench.sink.replies == []


def test_an_early_failure_whose_answer_fails_too(bench, tracked, caplog):
    stream = bench.pulled(tracked.items(ValueError("early")), fail_early=lambda error: 1 / 0)
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert stream.state is State.CLOSED
    assert bench.workers.released == [bench.worker]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_cuts_and_leaves_the_thread_alive(bench, tracked, error):
    stream = bench.pulled(tracked.items(error), fail_early=lambda error: Reply(500, [], b"no"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert bench.workers.released == [bench.worker]


def test_a_failing_encoder_is_a_failing_item(bench, tracked):
    stream = bench.pulled(tracked.items(1, 2), encode=lambda item: b"1" if item == 1 else int("no"))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert tracked.seen == ["GeneratorExit"], "the generator did not fail: it is closed"
    assert tracked.closed == 1


def test_an_item_of_another_type_is_named_with_its_handler(bench, tracked, caplog):
    stream = bench.pulled(tracked.items(b"x", 42))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert "handler yielded 42 of type int; a stream may yield str, bytes" in caplog.text
    assert tracked.closed == 1


def test_a_disconnection_that_ends_a_wait_is_no_failure(bench, tracked, caplog):
    stream = bench.pulled(tracked.items(b"x", bench.waits.check, b"y"))
    bench.begin(stream)
    bench.waits.interrupt(GONE)
    stream.run(bench.worker)
    bench.finish()
    assert caplog.text == ""


def test_a_disconnection_of_something_else_is_a_failure_like_any(bench, tracked, caplog):
    # Of a client in the generator, say, that has lost its own server.
    stream = bench.pulled(tracked.items(b"x", Disconnected()))
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.outcome == ["failed"]
    assert "failed after" in caplog.text


def test_a_failure_while_being_closed_is_logged_and_closes_all_the_same(bench, caplog):
    def items():
        try:
            while True:
                yield b"x" * START
        finally:
            raise OSError("could not clean up")

    stream = bench.pulled(items())
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    stream.cut(GONE)
    bench.finish()
    assert stream.state is State.CLOSED
    assert bench.workers.released == [bench.worker]
    assert "stream=handler failed while it was being closed" in caplog.text


def test_a_disconnection_while_being_closed_is_no_failure(bench, caplog):
    def items():
        try:
            while True:
                yield b"x" * START
        finally:
            bench.waits.check()

    stream = bench.pulled(items())
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    stream.cut(GONE)
    bench.finish()
    assert stream.state is State.CLOSED
    assert caplog.text == ""


def test_an_iterator_without_close_is_dropped(bench):
    class Numbers:
        def __iter__(self):
            return self

        def __next__(self):
            return b"x" * START

    stream = bench.pulled(Numbers())
    bench.begin(stream)
    bench.stall()
    stream.run(bench.worker)
    bench.settle()
    stream.cut(GONE)
    bench.finish()
    assert stream.state is State.CLOSED


def test_an_iterator_that_can_be_closed_is_closed_at_its_end_too(bench, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\n")
    file = path.open("rb")
    stream = bench.pulled(file)
    bench.begin(stream)
    stream.run(bench.worker)
    bench.finish()
    assert bench.sink.body == b"a\nb\n"
    assert file.closed


# Statistics.


def test_statistics_split_the_time(bench):
    def items():
        bench.loop.advance(1)
        yield b"x" * START
        yield b"y"

    stream = bench.pulled(items())
    bench.begin(stream)
    stream.run(bench.worker)
    bench.stall()
    bench.settle()
    bench.loop.advance(2)
    row = stream.statistics()
    assert row.state == "waiting for the client"
    assert row.route == "handler"
    assert (row.age, row.bytes_sent) == (3, START)
    assert row.in_producer == pytest.approx(1 / 3)
    assert row.waiting_for_client == pytest.approx(2 / 3)
    bench.resume(stream)
    bench.loop.advance(1)
    row = stream.statistics()
    assert row.state == "waiting for a thread"
    assert row.waiting_for_thread == pytest.approx(1 / 4)
    bench.go_home()
    assert stream.statistics().state == "in its producer"
    bench.finish()
    assert sum(stream.statistics()[-3:]) <= 1.0001


def test_it_shows_its_state(bench):
    stream = bench.pulled(iter([b"abc"]))
    assert repr(stream) == "<PulledStream handler running sent=0 ring=0>"
    assert stream.statistics().in_producer == 0.0


# Whatever the order.


class Script:
    """A generator whose items Hypothesis chose, and what may happen while it runs."""

    def __init__(self, bench: Bench, plan, during) -> None:
        self.bench, self.plan, self.during = bench, plan, iter(during)
        self.yielded = b""
        self.largest = 0
        self.stream = None
        self.running = 0
        self.closed = 0

    def items(self):
        self.running += 1
        try:
            for size, pause in self.plan:
                item = bytes([97 + len(self.yielded) % 26]) * size
                self.yielded += item
                self.largest = max(self.largest, size)
                yield item
                act(self.bench, self.stream, next(self.during, "nothing"))
                check(self)
                if pause:
                    yield Pause(1.0)
        finally:
            self.closed += 1


def act(bench: Bench, stream, action: str) -> None:
    """One step of the loop; every one of them may come between any two steps of the home thread."""
    if action == "post" and bench.handle.posts:
        bench.handle.run_one()
    elif action == "drain":
        bench.drain()
    elif action == "stall":
        bench.sink.full = True
    elif action == "resume" and bench.sink.paused:
        bench.resume(stream)
    elif action == "time":
        bench.loop.advance(0.6)


def check(script: Script) -> None:
    bench, stream = script.bench, script.stream
    largest = script.largest + ITEM_COST
    assert stream.pending >= 0
    assert stream.pending <= bench.limits.stream_buffer_bytes + largest
    assert stream.pending == sum(map(len, stream.ring)) + ITEM_COST * len(stream.ring) + stream.in_flight
    if stream.state is State.PARKED:
        assert stream.pending <= stream.window.size + largest or stream.window.size < 2000
    held = stream.window.size - bench.limits.stream_buffer_start_bytes
    assert bench.bridge.allowance.left == bench.limits.stream_buffer_extra_bytes - held


STEPS = st.sampled_from(["post", "drain", "stall", "resume", "time", "home", "nothing"])
PLAN = st.lists(st.tuples(st.integers(0, 900), st.booleans().map(bool)), max_size=40)
SMALL = Limits(stream_buffer_start_bytes=500, stream_buffer_bytes=4000, stream_buffer_extra_bytes=3000)


@given(PLAN, st.lists(STEPS, max_size=40), st.lists(STEPS, max_size=120))
def test_every_byte_arrives_in_order_and_the_ring_is_bounded(plan, during, between):
    """Any interleaving of producer, loop, client and clock gives bytes out == bytes in, within the window."""
    bench = Bench(SMALL)
    script = Script(bench, plan, during)
    stream = script.stream = bench.pulled(script.items())
    bench.begin(stream)
    stream.run(bench.worker)
    for step in between:
        if step == "home":
            bench.go_home()
        else:
            act(bench, stream, step)
        check(script)
    for _ in range(3 * len(plan) + 3):  # and now everything is let through
        bench.sink.full = False
        if bench.sink.paused:
            bench.resume(stream)
        bench.loop.advance(2.0)
        bench.finish()
    assert bench.sink.outcome == ["ended"]
    assert bench.sink.body == script.yielded
    assert bench.sink.data.endswith(LAST_CHUNK)
    assert stream.pending == 0
    assert (script.running, script.closed) == (1, 1)
    assert bench.workers.released == [bench.worker]
    assert bench.bridge.allowance.left == SMALL.stream_buffer_extra_bytes


@given(PLAN, st.lists(st.one_of(STEPS, st.just("cut")), max_size=40), st.lists(STEPS, max_size=60))
def test_a_client_that_leaves_at_any_moment_leaves_nothing_behind(plan, during, between):
    bench = Bench(SMALL)
    script = Script(bench, plan, [step if step != "cut" else "nothing" for step in during])
    stream = script.stream = bench.pulled(script.items())
    began = False
    for step in [*during, "cut"]:
        if step == "cut":
            stream.cut(GONE)
            break
        if step == "home":
            if not began:
                began = True
                bench.begin(stream)
                stream.run(bench.worker)
            else:
                bench.go_home()
        else:
            act(bench, stream, step)
    if not began:
        stream.run(bench.worker)
    for step in between:
        if step == "home":
            bench.go_home()
        else:
            act(bench, stream, step)
    bench.loop.advance(5)
    bench.sink.paused = False
    bench.finish()
    assert stream.state is State.CLOSED
    assert script.closed == script.running <= 1
    assert bench.workers.released == [bench.worker]
    assert bench.bridge.streams == set()
    assert script.yielded.startswith(bench.sink.body) or bench.sink.data == b""
    assert bench.bridge.allowance.left == SMALL.stream_buffer_extra_bytes
