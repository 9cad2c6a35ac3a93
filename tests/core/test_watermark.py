"""The window: grows while the client keeps up, falls when it stalls, and the sum of all stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.limits import KIB, MIB, Limits
from catzilla._core.watermark import GROW_AFTER, STALL, Allowance, Window

LIMITS = Limits()
START, MOST = LIMITS.stream_buffer_start_bytes, LIMITS.stream_buffer_bytes


@pytest.fixture
def allowance():
    return Allowance(LIMITS)


@pytest.fixture
def window():
    return Window(LIMITS)


def keep_up(window: Window, allowance: Allowance, limits: Limits = LIMITS) -> None:
    window.passed(GROW_AFTER * window.size)
    window.emptied(0.0, limits, allowance)


def test_it_starts_small(window):
    assert window.size == START == 64 * KIB


def test_it_doubles_only_after_enough_has_passed(window, allowance):
    window.passed(GROW_AFTER * START - 1)
    window.emptied(0.0, LIMITS, allowance)
    assert window.size == START
    window.passed(1)
    window.emptied(0.0, LIMITS, allowance)
    assert window.size == 2 * START


def test_what_has_passed_counts_anew_after_each_growth(window, allowance):
    keep_up(window, allowance)
    window.emptied(0.0, LIMITS, allowance)
    assert window.size == 2 * START
    keep_up(window, allowance)
    assert window.size == 4 * START


def test_it_grows_to_the_limit_and_no_further(window, allowance):
    for _ in range(20):
        keep_up(window, allowance)
    assert window.size == MOST == 2 * MIB
    assert allowance.left == LIMITS.stream_buffer_extra_bytes - (MOST - START)


def test_a_limit_that_is_no_power_of_two_is_reached_exactly():
    limits = Limits(stream_buffer_start_bytes=1000, stream_buffer_bytes=3500)
    window, allowance = Window(limits), Allowance(limits)
    for expected in (2000, 3500, 3500):
        keep_up(window, allowance, limits)
        assert window.size == expected


def test_a_stall_takes_it_back_to_the_start_and_returns_the_allowance(window, allowance):
    for _ in range(4):
        keep_up(window, allowance)
    window.emptied(STALL * 1.01, LIMITS, allowance)
    assert window.size == START
    assert allowance.left == LIMITS.stream_buffer_extra_bytes
    # And what had passed before the stall does not count.
    window.passed(GROW_AFTER * START - 1)
    window.emptied(0.0, LIMITS, allowance)
    assert window.size == START


def test_a_wait_just_at_the_bound_is_no_stall(window, allowance):
    keep_up(window, allowance)
    window.emptied(STALL, LIMITS, allowance)
    assert window.size == 2 * START


def test_windows_stop_growing_when_the_allowance_is_used_up():
    limits = Limits(stream_buffer_extra_bytes=3 * START)
    allowance = Allowance(limits)
    first, second = Window(limits), Window(limits)
    keep_up(first, allowance, limits)
    keep_up(first, allowance, limits)
    assert (first.size, allowance.left) == (4 * START, 0)
    keep_up(second, allowance, limits)
    assert second.size == START
    first.shrink(limits, allowance)
    second.emptied(0.0, limits, allowance)
    assert second.size == 2 * START, "what passed still counts: it was only the allowance that was missing"


def test_take_refuses_what_is_not_there(allowance):
    assert allowance.take(allowance.left)
    assert not allowance.take(1)
    assert allowance.take(0)
    allowance.give_back(10)
    assert allowance.take(10)


def test_shrinking_twice_gives_back_once(window, allowance):
    keep_up(window, allowance)
    window.shrink(LIMITS, allowance)
    window.shrink(LIMITS, allowance)
    assert allowance.left == LIMITS.stream_buffer_extra_bytes


ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from(["passed", "emptied", "stalled", "closed"]),
        st.integers(0, 20 * MIB),
    ),
    max_size=80,
)


@given(
    ACTIONS,
    st.integers(1, 256 * KIB),
    st.integers(0, 2 * MIB),
    st.integers(0, 4 * MIB),
)
def test_the_sum_of_all_windows_is_bounded(actions, start, above, extra):
    """Whatever the clients do, each window is within its bounds, and all together hold no more than they may."""
    limits = Limits(stream_buffer_start_bytes=start, stream_buffer_bytes=start + above, stream_buffer_extra_bytes=extra)
    allowance, windows = Allowance(limits), [Window(limits) for _ in range(5)]
    for index, action, size in actions:
        window, before = windows[index], windows[index].size
        if action == "passed":
            window.passed(size)
        elif action == "closed":
            window.shrink(limits, allowance)
        else:
            window.emptied(STALL * 2 if action == "stalled" else 0.0, limits, allowance)
        assert start <= window.size <= start + above
        assert window.size in (before, start, min(before * 2, start + above))
        assert allowance.left >= 0
        assert sum(each.size - start for each in windows) + allowance.left == extra
