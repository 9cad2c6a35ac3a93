"""Timers: in order, cancelled at once, swept in time; and deadlines that move without costing a timer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.timers import Deadline, Timers
from tests.core.fakes import FakeLoop


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def timers(loop):
    return Timers(loop)


def test_calls_come_in_the_order_they_are_due(loop, timers):
    seen = []
    for delay in (3.0, 1.0, 2.0):
        timers.call_later(delay, lambda delay=delay: seen.append(delay))
    loop.advance(2.5)
    assert seen == [1.0, 2.0]
    loop.advance(1.0)
    assert seen == [1.0, 2.0, 3.0]


def test_many_timers_are_one_timer_of_the_loop(loop, timers):
    for delay in range(1, 100):
        timers.call_later(float(delay), list)
    assert loop.armed() == [1.0]


def test_an_earlier_timer_arms_the_loop_again(loop, timers):
    seen = []
    timers.call_later(10.0, lambda: seen.append("late"))
    timers.call_later(1.0, lambda: seen.append("early"))
    assert loop.armed() == [1.0]
    loop.advance(1.0)
    assert seen == ["early"]
    assert loop.armed() == [9.0]


def test_a_cancelled_call_is_not_made_and_lets_go_at_once(loop, timers):
    seen = []
    timer = timers.call_later(1.0, lambda: seen.append("cancelled"))
    timers.call_later(2.0, lambda: seen.append("kept"))
    timer.cancel()
    timer.cancel()
    assert timer.callback is None
    loop.advance(3.0)
    assert seen == ["kept"]


def test_cancelling_a_call_that_was_made_changes_nothing(loop, timers):
    timer = timers.call_later(1.0, list)
    loop.advance(1.0)
    timer.cancel()
    assert timers._cancelled == 0


def test_a_millisecond_clock_that_is_a_bit_early_is_on_time(loop, timers):
    seen = []
    timers.call_later(1.0, lambda: seen.append("due"))
    loop.now += 0.9996
    timers._fire()
    assert seen == ["due"]


def test_a_failing_call_is_logged_and_costs_the_others_nothing(loop, timers, caplog):
    seen = []
    timers.call_later(1.0, lambda: 1 / 0)
    timers.call_later(1.0, lambda: seen.append("next"))
    loop.advance(1.0)
    assert seen == ["next"]
    assert "a timer's call failed" in caplog.text


def test_a_call_may_set_the_next_timer(loop, timers):
    seen = []

    def again():
        seen.append(loop.now)
        if len(seen) < 3:
            timers.call_later(1.0, again)

    timers.call_later(1.0, again)
    loop.advance(10.0)
    assert seen == [1001.0, 1002.0, 1003.0]
    assert loop.armed() == []


def test_the_dead_are_swept_once_they_outnumber_the_living(loop, timers):
    dead = [timers.call_later(3600.0, list) for _ in range(100)]
    for _ in range(30):
        timers.call_later(3600.0, list)
    for timer in dead:
        timer.cancel()
    assert len(timers._heap) < 130 - 64
    assert timers._cancelled <= 64


def test_a_sweep_in_the_middle_of_firing_loses_and_repeats_nothing(loop, timers):
    """A call cancels so many others that the heap is swept under the hands of whoever is firing it."""
    seen = []
    doomed = []

    def cancel_them():
        for timer in doomed:
            timer.cancel()
        timers.call_later(0.5, lambda: seen.append("set by a call"))

    timers.call_later(1.0, cancel_them)
    for number in range(10):
        timers.call_later(1.0 + number / 100, lambda number=number: seen.append(number))
    doomed.extend(timers.call_later(1.0, lambda: seen.append("doomed")) for _ in range(200))
    loop.advance(5.0)
    assert seen == [*range(10), "set by a call"]
    assert timers._heap == []
    assert timers._cancelled == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200), st.lists(st.floats(0.01, 3), max_size=8))
def test_every_timer_fires_once_at_its_time_unless_cancelled(plan, steps):
    loop = FakeLoop()
    timers, began, fired = Timers(loop), loop.now, []
    for number, (delay, cancelled) in enumerate(plan):
        timer = timers.call_later(delay, lambda number=number: fired.append((number, loop.now)))
        if cancelled:
            timer.cancel()
    for step in [*steps, 20.0]:
        loop.advance(step)
    assert sorted(number for number, _ in fired) == [n for n, (_, cancelled) in enumerate(plan) if not cancelled]
    for number, when in fired:
        assert abs(when - began - plan[number][0]) <= 0.0006
    assert timers._heap == []
    assert timers._cancelled == 0


# Deadlines.


@pytest.fixture
def met(loop):
    return []


@pytest.fixture
def deadline(loop, timers, met):
    return Deadline(timers, lambda: met.append(loop.now))


def test_a_deadline_is_met_once(loop, deadline, met):
    deadline.set(2.0)
    loop.advance(10.0)
    assert met == [1002.0]


def test_moving_a_deadline_back_costs_no_timer(loop, timers, deadline, met):
    for _ in range(1000):
        deadline.set(5.0)
        loop.advance(0.001)
    assert len(timers._heap) == 1
    loop.advance(4.5)
    assert met == []
    loop.advance(1.0)
    assert len(met) == 1
    assert met[0] == pytest.approx(1000.0 + 0.999 + 5.0, abs=0.001)


def test_moving_a_deadline_forward_is_heeded(loop, deadline, met):
    deadline.set(10.0)
    deadline.set(1.0)
    loop.advance(1.0)
    assert met == [1001.0]
    loop.advance(20.0)
    assert met == [1001.0]


def test_a_cleared_deadline_is_not_met_and_can_be_set_again(loop, deadline, met):
    deadline.set(1.0)
    deadline.clear()
    loop.advance(2.0)
    assert met == []
    deadline.set(1.0)
    loop.advance(1.0)
    assert met == [1003.0]


def test_a_deadline_may_be_set_by_its_own_call(loop, timers):
    met = []

    def expired():
        met.append(loop.now)
        if len(met) < 3:
            deadline.set(1.0)

    deadline = Deadline(timers, expired)
    deadline.set(1.0)
    loop.advance(10.0)
    assert met == [1001.0, 1002.0, 1003.0]


def test_a_closed_deadline_lets_go_of_its_timer(loop, deadline, met):
    deadline.set(1.0)
    timer = deadline._timer
    deadline.close()
    deadline.close()
    assert timer.callback is None
    loop.advance(2.0)
    assert met == []
