"""Turns, drains and linear handlers, on a loop and with workers that stand still until a test moves them."""

from __future__ import annotations

import logging
import threading
import weakref

import pytest

from catzilla._core import turns as turns_module
from catzilla._core.limits import Limits
from catzilla._core.turns import Turn, Turns
from catzilla._core.worker import Worker
from catzilla._core.workers import TICK
from tests.core.fakes import FakeHandle, FakeLoop, FakeWorkers
from tests.promises.helpers import eventually


class Job(Turn):
    """A turn with so much to do; it notes each time that it does something."""

    def __init__(self, turns, name, notes, amount=1):
        super().__init__(turns)
        self.name = name
        self.notes = notes
        self.left = amount
        self.during = None

    def work(self):
        self.notes.append(self.name)
        self.left -= 1
        if self.during is not None:
            self.during()

    def worked(self):
        if self.left > 0:
            self.wake()


class Stage:
    def __init__(self, idle_thread_timeout=0.0, **limits):
        self.loop, self.handle, self.workers = FakeLoop(), FakeHandle(), FakeWorkers()
        self.load = 1.0  # as if callbacks computed all the time
        # A drain that finds nothing is told at once that nothing came: a test calls it from the loop's own thread.
        limits = Limits(idle_thread_timeout=idle_thread_timeout, **limits)
        self.turns = Turns(self.loop, self.handle, self.workers, limits, lambda: self.load)
        self.notes: list[str] = []
        self.worker = Worker("socket")

    def jobs(self, names, amount=1):
        return [Job(self.turns, name, self.notes, amount) for name in names]

    def admit(self):
        self.loop.turn()

    def run_next(self):
        """A worker does the job that was submitted first; the loop hears of it."""
        self.workers.submitted.pop(0).run(self.worker)
        self.handle.run_all()
        self.loop.turn()

    def run_all(self):
        self.admit()
        while self.workers.submitted:
            self.run_next()

    @property
    def is_idle(self):
        return self.turns.is_idle


@pytest.fixture
def stage():
    return Stage()


def test_one_drain_does_them_all_in_order(stage):
    for job in stage.jobs("abcdef"):
        job.wake()
    assert stage.workers.submitted == [], "shown at the end of the loop's turn"
    stage.admit()
    assert len(stage.workers.submitted) == 1
    assert stage.turns.waiting == 6
    assert not stage.is_idle
    stage.run_next()
    assert stage.notes == list("abcdef")
    assert stage.is_idle
    assert stage.workers.submitted == []


def test_waking_twice_is_one_turn(stage):
    (job,) = stage.jobs("a")
    for _ in range(3):
        job.wake()
    stage.admit()
    job.wake()
    stage.run_all()
    assert stage.notes == ["a"]


def test_a_wake_while_busy_is_left_to_the_turn_itself(stage):
    (job,) = stage.jobs("a")
    job.during = job.wake
    job.wake()
    stage.run_all()
    assert stage.notes == ["a"], "what comes meanwhile is `worked`'s to find"
    job.wake()
    job.during = None
    stage.run_all()
    assert stage.notes == ["a", "a"]


def test_what_has_more_to_do_comes_again_behind_the_others(stage):
    first, second = stage.jobs("ab", amount=3)
    first.wake()
    second.wake()
    stage.run_all()
    assert stage.notes == list("ababab")
    assert stage.is_idle


def test_what_comes_when_a_drain_has_looked_gets_another(stage):
    first, late = stage.jobs("al")
    first.wake()
    stage.admit()
    drain = stage.workers.submitted.pop()
    drain.run(stage.worker)  # it has found nothing more, and its word is on the way
    late.wake()
    stage.loop.turn()
    assert stage.workers.submitted == [], "the drain is still counted"
    stage.handle.run_all()
    assert len(stage.workers.submitted) == 1
    stage.run_next()
    assert stage.notes == ["a", "l"]
    assert stage.is_idle


def test_a_stuck_drain_gets_others_beside_it_twice_as_many_each_time(stage):
    for job in stage.jobs("abcdefghij"):
        job.wake()
    stage.admit()
    counts = []
    for _ in range(4):
        stage.loop.advance(TICK)
        counts.append(len(stage.workers.submitted))
    assert counts == [2, 4, 8, 16]
    while stage.workers.submitted:
        stage.run_next()
    assert stage.notes == list("abcdefghij")
    assert stage.is_idle


def test_a_drain_that_moves_gets_no_others(stage):
    jobs = stage.jobs("ab")
    jobs[0].during = lambda: stage.loop.advance(TICK)
    jobs[0].wake()
    jobs[1].wake()
    stage.admit()
    stage.turns._finished += 1
    stage.loop.advance(TICK)
    assert len(stage.workers.submitted) == 1


def test_a_process_that_is_idle_while_turns_wait_gets_more_drains(stage):
    """The drains move on, but what they wait for is no processor: callbacks that each block for less than a tick."""
    for job in stage.jobs("abcdefghij"):
        job.wake()
    stage.admit()
    counts = []
    for load in (0.1, 0.2, 0.9, 0.1):
        stage.load = load
        stage.turns._finished += 1
        stage.loop.advance(TICK)
        counts.append(len(stage.workers.submitted))
    assert counts == [2, 3, 3, 4], "one at each tick, none while it computes"


def test_an_idle_process_without_turns_that_wait_gets_none(stage):
    (job,) = stage.jobs("a")
    job.wake()
    stage.admit()
    stage.turns._ready.get_nowait()  # it has begun
    stage.load = 0.0
    stage.loop.advance(TICK)
    assert len(stage.workers.submitted) == 1


def test_drains_have_a_budget_and_turns_wait_for_it():
    stage = Stage(max_callbacks=3)
    for job in stage.jobs("abcdefgh"):
        job.wake()
    stage.admit()
    for _ in range(10):
        stage.loop.advance(TICK)
    assert len(stage.workers.submitted) == 3
    assert stage.turns.waiting == 8
    stage.run_next()
    assert stage.notes == list("abcdefgh"), "in the order of arrival"


def test_a_turn_that_raises_spares_the_others(stage, caplog):
    bad, good = stage.jobs("xy")

    def fail():
        raise RuntimeError("a fault of ours")

    bad.during = fail
    bad.wake()
    good.wake()
    with caplog.at_level(logging.ERROR, logger="catzilla"):
        stage.run_all()
    assert stage.notes == ["x", "y"]
    assert "a turn failed" in caplog.text
    assert stage.is_idle


def test_a_turn_that_cannot_even_be_logged_has_been_done(stage, monkeypatch):
    (bad,) = stage.jobs("x")

    def fail(*about):
        raise OSError("the log is full")

    bad.during = fail
    monkeypatch.setattr(turns_module.logger, "exception", fail)
    bad.wake()
    stage.admit()
    with pytest.raises(OSError, match="the log is full"):
        stage.run_next()
    stage.handle.run_all()
    assert stage.is_idle


def test_the_tick_ends_when_nothing_is_left(stage):
    (job,) = stage.jobs("a")
    job.wake()
    stage.run_all()
    stage.loop.advance(TICK)
    assert stage.loop.armed() == []
    job.wake()
    stage.admit()
    assert stage.loop.armed() == [pytest.approx(TICK)]


def test_linear_handlers_have_a_budget_of_their_own():
    stage = Stage(max_sockets=2, max_callbacks=1)
    ran = []
    for name in "ab":
        assert stage.turns.has_place
        stage.turns.start_linear(lambda name=name: ran.append(name))
    assert not stage.turns.has_place
    assert stage.turns.statistics().linear == 2
    (job,) = stage.jobs("t")
    job.wake()
    stage.admit()
    assert len(stage.workers.submitted) == 3
    stage.run_next()
    assert stage.turns.has_place
    assert not stage.is_idle
    stage.run_all()
    assert ran == ["a", "b"]
    assert stage.notes == ["t"]
    assert stage.is_idle


def test_a_linear_handler_that_raises_gives_its_place_back(stage):
    def fail():
        raise SystemExit

    stage.turns.start_linear(fail)
    with pytest.raises(SystemExit):
        stage.run_next()
    stage.handle.run_all()
    assert stage.turns.statistics().linear == 0
    assert stage.is_idle


def test_waiting_handlers_are_notified_at_the_end_of_the_turn(stage):
    class Arrival(threading.Condition):
        notified = 0

        def notify_all(self):
            self.notified += 1

    first, second = Arrival(), Arrival()
    stage.turns.notify(first)
    stage.turns.notify(second)
    assert first.notified == second.notified == 0
    assert stage.loop.turn() == 1
    assert first.notified == second.notified == 1
    assert stage.loop.turn() == 0


def test_a_tick_that_begins_counts_from_then_on(stage):
    """The last tick may have ended long ago, with turns done since."""
    (job,) = stage.jobs("a")
    stage.turns._finished += 5
    job.wake()
    stage.admit()
    stage.loop.advance(TICK)
    assert len(stage.workers.submitted) == 2, "nothing has moved since it waits"


def test_what_is_ready_is_done_though_one_of_two_drains_is_refused(stage):
    for job in stage.jobs("ab"):
        job.wake()
    stage.admit()
    stage.loop.advance(TICK)
    running, refused = stage.workers.submitted
    stage.workers.submitted.clear()
    refused.refuse()
    running.run(stage.worker)
    stage.handle.run_all()
    assert stage.notes == ["a", "b"]
    assert stage.is_idle


def test_workers_that_stop_leave_nothing_waiting(stage):
    for job in stage.jobs("abc"):
        job.wake()
    stage.turns.start_linear(lambda: None)
    stage.admit()
    for job in list(stage.workers.submitted):
        job.refuse()
    assert stage.is_idle
    assert stage.turns.statistics()[2:] == (0, 0)
    assert stage.notes == []


# The keeper: real threads, because it waits.


@pytest.fixture
def keeping():
    stage = Stage(idle_thread_timeout=30.0)
    threads = []

    def start():
        drain = stage.workers.submitted.pop(0)
        thread = threading.Thread(target=drain.run, args=(stage.worker,))
        thread.start()
        threads.append(thread)
        return thread

    stage.start = start
    yield stage
    stage.turns.stop()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a drain goes on after the stop"


def test_a_drain_stays_and_does_what_comes_later(keeping):
    first, second = keeping.jobs("ab")
    first.wake()
    keeping.admit()
    keeping.start()
    eventually(lambda: keeping.turns.statistics().idle == 1, "it waits for more")
    keeping.handle.run_all()
    assert keeping.turns.is_idle
    second.wake()
    keeping.admit()
    assert keeping.workers.submitted == [], "nobody is called up beside one who waits"
    eventually(lambda: keeping.notes == ["a", "b"], "it does the next one")
    eventually(lambda: keeping.handle.posts, "and says so")
    keeping.handle.run_all()
    assert keeping.turns.is_idle


def test_of_two_drains_that_find_nothing_one_stays(keeping):
    first, second = keeping.jobs("ab")
    both_run = threading.Barrier(3)
    first.during = second.during = lambda: both_run.wait(10)
    first.wake()
    second.wake()
    keeping.admit()
    keeping.loop.advance(TICK)  # as if the first were stuck
    threads = [keeping.start(), keeping.start()]
    both_run.wait(10)
    eventually(lambda: [each.is_alive() for each in threads].count(True) == 1, "one ends")
    eventually(lambda: keeping.turns.statistics().idle == 1, "the other waits for more")
    eventually(lambda: "drained" in keeping.handle.names(), "the loop is told")
    keeping.handle.run_all()
    assert keeping.turns._drains == 1


def test_who_waits_for_more_holds_on_to_nothing(keeping):
    (job,) = keeping.jobs("a")
    gone = weakref.ref(job)
    job.wake()
    keeping.admit()
    keeping.start()
    eventually(lambda: keeping.turns.statistics().idle == 1, "it waits for more")
    keeping.handle.run_all()
    del job
    assert gone() is None


def test_a_keeper_for_whom_nothing_comes_ends_and_another_is_called_up():
    stage = Stage(idle_thread_timeout=0.01)
    first, second = stage.jobs("ab")
    first.wake()
    stage.admit()
    stage.run_next()
    assert stage.turns._drains == 0
    second.wake()
    stage.run_all()
    assert stage.notes == ["a", "b"]


def test_at_a_stop_the_keeper_goes_though_a_drain_beside_it_is_refused(keeping):
    """Refusing throws away what is ready; what sends the keeper away must not go with it."""
    (job,) = keeping.jobs("a")
    job.wake()
    keeping.admit()
    keeping.start()
    eventually(lambda: keeping.turns.statistics().idle == 1, "it waits for more")
    keeping.turns._start(1)
    keeping.turns.stop()  # the fixture sees that the thread ends
