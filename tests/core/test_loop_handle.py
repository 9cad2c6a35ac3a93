"""The door to the loop: in order, once a burst, and no wake-up lost whatever the threads do."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque

import pytest

from catzilla._core.loop_handle import LoopHandle
from catzilla._core.server import new_event_loop
from tests.core.fakes import FakeLoop


def test_calls_run_on_the_loop_in_the_order_of_posting():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    for number in range(5):
        handle.post(seen.append, number)
    assert seen == []
    loop.turn()
    assert seen == [0, 1, 2, 3, 4]


def test_a_burst_wakes_the_loop_once():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    for number in range(100):
        handle.post(seen.append, number)
    assert loop.wakeups == 1
    loop.turn()
    handle.post(seen.append, 100)
    assert loop.wakeups == 2
    loop.turn()
    assert len(seen) == 101


def test_what_is_posted_while_the_loop_is_held_does_not_wake_it_and_runs_in_its_next_turn():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    handle.hold()
    handle.post(seen.append, 1)
    handle.post(seen.append, 2)
    handle.release()
    assert (loop.wakeups, seen) == (0, [])
    loop.turn()
    assert seen == [1, 2]
    handle.post(seen.append, 3)
    assert loop.wakeups == 1, "from now on as ever"


def test_a_loop_that_was_held_for_nothing_has_nothing_to_do():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    handle.hold()
    handle.release()
    assert loop.turn() == 0
    handle.post(seen.append, 1)
    assert loop.wakeups == 1


def test_holding_a_loop_that_is_being_woken_changes_nothing():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    handle.post(seen.append, 1)
    handle.hold()
    handle.post(seen.append, 2)
    handle.release()
    assert loop.turn() == 1
    assert (loop.wakeups, seen) == (1, [1, 2])


def test_what_is_posted_at_the_moment_of_the_release_is_seen_by_one_side():
    """Before it looks: it takes it along. Behind that: the poster finds that nobody will come, and wakes the loop."""
    for moment in ("before", "after"):
        loop, seen = FakeLoop(), []
        handle = LoopHandle(loop)

        class Posted(deque):
            def __bool__(self, handle=handle, seen=seen, moment=moment):
                is_there = len(self) > 0
                if moment == "after" and not is_there:
                    handle.post(seen.append, 1)
                return is_there

        handle.posted = Posted()
        handle.hold()
        if moment == "before":
            handle.post(seen.append, 1)
        handle.release()
        assert loop.wakeups == (moment == "after")
        loop.turn()
        assert seen == [1]


def test_after_the_loop_has_closed_nothing_is_kept():
    loop = FakeLoop()
    handle = LoopHandle(loop)
    loop.closed = True
    for _ in range(3):
        handle.post(print)
    assert not handle.posted


def test_what_a_call_posts_runs_in_the_next_turn():
    # Else two calls that post each other would keep the loop from everything else.
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)

    def again():
        seen.append("call")
        handle.post(again)

    handle.post(again)
    loop.turn()
    assert seen == ["call"]
    loop.turn()
    assert seen == ["call", "call"]


def test_an_entry_between_waking_and_taking_is_taken_with_the_rest():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    handle.post(seen.append, "first")
    handle.post(seen.append, "rides along")
    assert loop.wakeups == 1
    loop.turn()
    assert seen == ["first", "rides along"]


def test_a_failing_call_is_logged_and_costs_the_others_nothing(caplog):
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    handle.post(int, "no number")
    handle.post(seen.append, "next")
    loop.turn()
    assert seen == ["next"]
    assert "a posted call failed: call=<class 'int'>" in caplog.text


def test_after_the_loop_has_closed_a_post_is_dropped_and_kept_by_nobody():
    loop, seen = FakeLoop(), []
    handle = LoopHandle(loop)
    loop.closed = True
    handle.post(seen.append, 1)
    handle.post(seen.append, 2)
    assert seen == []


@pytest.mark.parametrize("make_loop", [new_event_loop, asyncio.new_event_loop])
def test_no_wake_up_is_lost_under_many_threads(make_loop):
    """Each thread posts its next number when it likes; all must arrive, each thread's in order."""
    threads, each = 8, 2000
    loop = make_loop()
    handle = LoopHandle(loop)
    seen: dict[int, list[int]] = defaultdict(list)
    left = threads * each

    def arrive(thread: int, number: int) -> None:
        nonlocal left
        assert threading.current_thread() is loop_thread
        seen[thread].append(number)
        left -= 1
        if left == 0:
            loop.stop()

    def post(thread: int) -> None:
        start.wait()
        for number in range(each):
            handle.post(arrive, thread, number)

    start = threading.Barrier(threads)
    loop_thread = threading.current_thread()
    posters = [threading.Thread(target=post, args=(number,)) for number in range(threads)]
    for poster in posters:
        poster.start()
    # A lost wake-up would leave entries behind with nobody to wake the loop: this would then not return.
    loop.run_forever()
    for poster in posters:
        poster.join()
    loop.close()
    assert seen == {thread: list(range(each)) for thread in range(threads)}


def test_a_slow_trickle_wakes_the_loop_every_time():
    """One post at a time, each only after the one before has arrived: the wake-up of an emptied queue."""
    loop = new_event_loop()
    handle = LoopHandle(loop)
    arrived = threading.Semaphore(0)
    problems = []

    def trickle() -> None:
        for _ in range(500):
            handle.post(arrived.release)
            if not arrived.acquire(timeout=10):
                problems.append("a wake-up was lost")
                break
        loop.call_soon_threadsafe(loop.stop)

    poster = threading.Thread(target=trickle)
    poster.start()
    loop.run_forever()
    poster.join()
    loop.close()
    assert problems == []
