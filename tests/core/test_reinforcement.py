"""How many threads are started beside those that do not keep up, and when a process counts as idle."""

from __future__ import annotations

from catzilla._core import clock
from catzilla._core.clock import Load
from catzilla._core.reinforcement import MOST, Reinforcement


def test_twice_as_many_each_time_until_they_keep_up():
    reinforcement = Reinforcement(lambda: 1.0)
    reinforcement.begin()
    assert [reinforcement.count(100) for _ in range(5)] == [1, 2, 4, 8, 16]
    reinforcement.reset()
    assert reinforcement.count(100) == 1
    assert [reinforcement.count(3) for _ in range(3)] == [2, 3, 3], "never more than asked for"


def test_a_call_for_help_that_nobody_answers_does_not_grow_for_ever():
    reinforcement = Reinforcement(lambda: 0.0)
    for _ in range(10_000):
        reinforcement.count(0)
    assert reinforcement.count(10**9) == MOST


def test_it_is_idle_below_half_a_processor():
    loads = iter([0.0, 0.49, 0.5, 2.0])
    reinforcement = Reinforcement(lambda: next(loads))
    reinforcement.begin()
    assert not reinforcement.is_idle, "what was before does not count"
    seen = []
    for _ in range(3):
        reinforcement.look()
        seen.append(reinforcement.is_idle)
    assert seen == [True, False, False]


def test_the_load_is_what_was_used_of_what_has_passed(monkeypatch):
    times = {"wall": 10.0, "processor": 1.0}
    monkeypatch.setattr(clock, "monotonic", lambda: times["wall"])
    monkeypatch.setattr(clock.time, "process_time", lambda: times["processor"])
    load = Load(0.005)
    times.update(wall=10.004, processor=1.001)
    assert round(load(), 6) == 0.25
    times.update(wall=10.006, processor=1.005)
    assert round(load(), 6) == 2.0
    assert load() == 0.0, "asked twice at once"


def test_who_asks_late_was_kept_from_it(monkeypatch):
    """A process that is not given a processor uses none, and is anything but idle."""
    times = {"wall": 10.0}
    monkeypatch.setattr(clock, "monotonic", lambda: times["wall"])
    monkeypatch.setattr(clock.time, "process_time", lambda: 1.0)
    load = Load(0.005)
    times["wall"] += 0.006
    assert load() == 1.0
    times["wall"] += 0.004
    assert load() == 0.0
