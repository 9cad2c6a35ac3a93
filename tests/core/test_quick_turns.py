"""The turns that the leading thread does: which, how many in a lap, and what becomes of them when it stays away."""

from __future__ import annotations

import logging
import weakref
from collections import deque

import pytest

from catzilla._core import quick_turns as quick_turns_module
from catzilla._core.current import current
from catzilla._core.limits import Limits
from catzilla._core.pace import INSTANT, INSTANT_PROOF, INSTANT_PROOF_AGAIN, CallbackPace
from catzilla._core.quick_turns import LAP
from catzilla._core.reinforcement import TICK
from catzilla._core.turns import Turn, Turns
from catzilla._core.waits import Waits
from catzilla._core.worker import Worker
from tests.core.fakes import FakeHandle, FakeLoop, FakeWorkers


class FakeLead:
    def __init__(self):
        self.leads = True
        self.moves = 0


class FakeLeadership:
    """Lends at the test's word."""

    astray = 0

    def __init__(self):
        self.lead = FakeLead()
        self.may_lend = True
        self.loans = []

    def can_lend(self):
        return self.may_lend

    def lend(self, loan):
        self.loans.append(loan)


class FakePace:
    def __init__(self, instant):
        self.is_instant = instant
        self.overstays = 0

    def overstayed(self):
        self.overstays += 1
        self.is_instant = False


class Job(Turn):
    def __init__(self, turns, name, notes, *, instant=True, amount=1):
        super().__init__(turns)
        self.name = name
        self.notes = notes
        self.pace = FakePace(instant)
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
    def __init__(self, **limits):
        self.loop, self.handle, self.workers = FakeLoop(), FakeHandle(), FakeWorkers()
        self.leadership = FakeLeadership()
        limits = Limits(idle_thread_timeout=0.0, **limits)
        self.turns = Turns(self.loop, self.handle, self.workers, limits, lambda: 1.0, self.leadership)
        self.notes: list[str] = []

    def job(self, name, **about):
        return Job(self.turns, name, self.notes, **about)

    def lap(self):
        """The leader is lent, and comes back."""
        loan = self.leadership.loans.pop()
        loan.run(self.leadership.lead)
        loan.returned()

    def work(self):
        """Workers do what was given to them."""
        self.loop.turn()
        while self.workers.submitted:
            self.workers.submitted.pop(0).run(Worker("socket"))
            self.handle.run_all()
            self.loop.turn()


@pytest.fixture
def stage():
    return Stage()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Stands still until a test moves it."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(quick_turns_module, "monotonic", lambda: Clock.now)
    return Clock


def test_instant_turns_are_done_by_who_leads_and_the_others_by_workers(stage):
    quick, slow = stage.job("quick"), stage.job("slow", instant=False)
    slow.wake()
    quick.wake()
    stage.lap()
    assert stage.notes == ["quick"]
    assert not stage.turns.is_idle
    stage.work()
    assert stage.notes == ["quick", "slow"]
    assert stage.turns.is_idle


def test_nothing_is_for_who_leads_while_nobody_would_follow(stage):
    stage.leadership.may_lend = False
    stage.job("a").wake()
    assert stage.leadership.loans == []
    stage.work()
    assert stage.notes == ["a"]


def test_one_loan_for_all_turns_of_a_lap_in_order(stage):
    for name in "abc":
        stage.job(name).wake()
    assert stage.turns.statistics().waiting == 3
    assert len(stage.leadership.loans) == 1
    stage.lap()
    assert stage.notes == list("abc")
    assert stage.leadership.loans == []
    assert stage.turns.is_idle


def test_each_turn_counts_as_a_move(stage):
    for name in "abc":
        stage.job(name).wake()
    stage.lap()
    assert stage.leadership.lead.moves == 3


def test_what_has_more_to_do_comes_again_in_another_lap(stage):
    stage.job("a", amount=3).wake()
    for done in (1, 2, 3):
        stage.lap()
        assert stage.notes == ["a"] * done
    assert stage.leadership.loans == []


def test_a_lap_has_an_end_and_the_rest_comes_in_the_next(stage, clock):
    def long():
        clock.now += LAP / 2 + 0.0001

    for name in "abcde":
        job = stage.job(name)
        job.during = long
        job.wake()
    counts = []
    while stage.leadership.loans:
        stage.lap()
        counts.append(len(stage.notes))
    assert counts == [2, 4, 5]
    assert stage.notes == list("abcde")


def test_the_rest_of_a_lap_goes_to_workers_if_nobody_would_follow_in_the_next(stage, clock):
    def long():
        clock.now += LAP

    for name in "ab":
        job = stage.job(name)
        job.during = long
        job.wake()
    stage.leadership.may_lend = False
    stage.lap()
    assert stage.notes == ["a"]
    stage.work()
    assert stage.notes == ["a", "b"]
    assert stage.turns.is_idle


def test_a_turn_that_raises_spares_the_others(stage, caplog):
    def fail():
        raise SystemExit("a fault of ours")

    bad, good = stage.job("x"), stage.job("y")
    bad.during = fail
    bad.wake()
    good.wake()
    with caplog.at_level(logging.ERROR, logger="catzilla"):
        stage.lap()
    assert stage.notes == ["x", "y"]
    assert "a turn failed" in caplog.text
    assert stage.turns.is_idle


def take_over(stage):
    """As the thread that has looked after the leader does."""
    stage.leadership.lead.leads = False
    stage.leadership.loans = []
    stage.leadership.may_lend = False
    stage.taken.taken_over()


def test_what_was_not_begun_when_the_loop_is_taken_over_goes_to_workers(stage):
    stuck, waiting, late = stage.job("stuck"), stage.job("waiting"), stage.job("late")
    for job in (stuck, waiting):
        job.wake()
    stage.taken = stage.leadership.loans.pop()

    def meanwhile():
        take_over(stage)
        late.wake()
        stage.work()
        assert stage.notes == ["stuck", "waiting", "late"]
        assert not stage.turns.is_idle, "one of them is still under way"

    stuck.during = meanwhile
    stage.taken.run(stage.leadership.lead)
    stage.taken.came_late()
    assert (stuck.pace.overstays, waiting.pace.overstays) == (1, 0)
    assert stage.notes == ["stuck", "waiting", "late"]
    stage.handle.run_all()
    assert stage.turns.is_idle, "and when it is through, the loop is told"


def test_who_was_replaced_takes_no_more(stage):
    stuck, other = stage.job("stuck"), stage.job("other")
    stuck.wake()
    stage.taken = stage.leadership.loans.pop()

    def meanwhile():
        take_over(stage)
        stage.leadership.may_lend = True  # somebody follows the new one
        other.wake()

    stuck.during = meanwhile
    stage.taken.run(stage.leadership.lead)
    stage.taken.came_late()
    assert stage.notes == ["stuck"]
    stage.leadership.lead = FakeLead()
    stage.lap()
    assert stage.notes == ["stuck", "other"]
    stage.handle.run_all()
    assert stage.turns.is_idle


def test_the_rest_may_be_given_away_in_the_moment_in_which_it_is_looked_at(stage):
    """`taken_over` between the look whether something waits and the taking of it."""
    stage.job("a").wake()
    loan = stage.leadership.loans.pop()

    class Hasty:
        moves = 0

        @property
        def leads(self):
            loan.taken_over()
            return True

    stage.leadership.may_lend = False
    loan.run(Hasty())
    assert stage.notes == []
    stage.work()
    assert stage.notes == ["a"]


def test_a_turn_that_the_former_leader_takes_in_that_moment_is_not_given_away(stage):
    """Between any two steps of `taken_over`: it is done by the one or by the others."""
    taken = []

    class Waiting(deque):
        def popleft(self):
            if not taken:
                taken.append(super().popleft())  # as the other thread does
            return super().popleft()

    quick = stage.turns._quick
    quick._waiting = Waiting()
    jobs = [stage.job(name) for name in "abc"]
    for job in jobs:
        job.wake()
    stage.leadership.may_lend = False
    quick.taken_over()
    for turn in taken:
        stage.turns.do(turn)
    stage.work()
    assert sorted(stage.notes) == ["a", "b", "c"]
    assert stage.turns.is_idle


def test_threads_that_have_lost_the_loop_count_for_the_budget():
    stage = Stage(max_callbacks=2)
    stage.leadership.astray = 1
    stage.job("a").wake()
    stage.lap()
    assert stage.notes == ["a"]
    stage.leadership.astray = 2
    late = [stage.job("b"), stage.job("c", instant=False)]
    for job in late:
        job.wake()
    assert stage.leadership.loans == []
    stage.loop.turn()
    for _ in range(5):
        stage.loop.advance(TICK)
    assert stage.workers.submitted == [], "they wait"
    stage.leadership.astray = 1
    stage.loop.advance(TICK)
    assert len(stage.workers.submitted) == 1, "until one comes back"
    stage.work()
    assert stage.notes == ["a", "b", "c"]


def test_what_comes_after_the_stop_is_for_workers_to_refuse(stage):
    stage.turns.stop()
    stage.job("a").wake()
    assert stage.leadership.loans == []


def test_between_loans_nobody_is_held_on_to(stage):
    job = stage.job("a")

    def serve():
        current.waits = Waits()

    job.during = serve
    gone = weakref.ref(job)
    job.wake()
    stage.lap()
    del job
    assert gone() is None
    assert current.waits is None


# What is instant.


def proven():
    pace = CallbackPace()
    pace.record(0.0, INSTANT_PROOF)
    assert pace.is_instant
    return pace


def test_callbacks_are_instant_when_they_have_proven_it():
    pace = CallbackPace()
    for _ in range(INSTANT_PROOF - 1):
        assert not pace.is_instant
        pace.record(INSTANT, 1)
    assert not pace.is_instant
    pace.record(INSTANT, 1)
    assert pace.is_instant


def test_what_counts_is_the_time_for_a_message():
    pace = proven()
    pace.record(9 * INSTANT, 10)
    assert pace.is_instant
    pace.record(2 * INSTANT, 1)
    assert not pace.is_instant


@pytest.mark.parametrize("messages", [1, 10, 1000])
def test_what_takes_a_tick_is_not_instant_for_however_many_messages(messages):
    pace = proven()
    pace.record(1.1 * TICK, messages)
    assert not pace.is_instant
    pace.record(0.0, INSTANT_PROOF_AGAIN - 1)
    assert not pace.is_instant


def test_one_that_took_longer_begins_the_proof_anew():
    pace = proven()
    pace.record(2 * INSTANT, 1)
    pace.record(0.0, INSTANT_PROOF - 1)
    assert not pace.is_instant
    pace.record(2 * INSTANT, 1)
    pace.record(0.0, INSTANT_PROOF - 1)
    assert not pace.is_instant
    pace.record(0.0, 1)
    assert pace.is_instant


@pytest.mark.parametrize("seconds", [0.0, 0.9 * INSTANT, 1.1 * INSTANT, 1.1 * TICK])
@pytest.mark.parametrize("messages", [1, 10])
def test_what_is_not_notable_need_not_be_recorded(seconds, messages):
    for pace in (CallbackPace(), proven()):
        before = (pace.is_instant, pace._needed, pace.notable)
        assert before[2] == (INSTANT if pace.is_instant else 0.0)
        pace.record(seconds, messages)
        after = (pace.is_instant, pace._needed, pace.notable)
        assert after == before or seconds >= before[2]
        assert pace.notable == (INSTANT if pace.is_instant else 0.0)


@pytest.mark.parametrize("hold", [CallbackPace.overstayed, lambda pace: pace.record(1.5 * TICK, 1)])
def test_one_that_held_up_the_loop_has_much_more_to_prove(hold):
    pace = proven()
    hold(pace)
    assert not pace.is_instant
    pace.record(0.0, INSTANT_PROOF)
    pace.record(2 * INSTANT, 1)  # does not begin anew what has further to go than that
    pace.record(0.0, INSTANT_PROOF_AGAIN - INSTANT_PROOF - 1)
    assert not pace.is_instant
    pace.record(0.0, 1)
    assert pace.is_instant
