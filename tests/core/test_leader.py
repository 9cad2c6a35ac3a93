"""Who runs the loop: real loops and real threads, and loans that a test holds until it lets them go."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
import threading
import time

import pytest

from catzilla._core import leader as leader_module
from catzilla._core.current import current
from catzilla._core.leader import QUIET_TICKS, TICK, Leadership
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.server import new_event_loop
from catzilla._core.waits import Waits
from tests.core.fakes import FakeLoop
from tests.promises.helpers import PATIENCE, eventually


class Loan:
    """Notes what becomes of it; `work` is what it does."""

    def __init__(self, work=lambda lead: None):
        self.work = work
        self.notes = []
        self.ran = threading.Event()
        self.late = threading.Event()
        self.settled = threading.Event()  # it was returned, or the loop was taken over
        self.thread = None

    def run(self, lead):
        self.thread = threading.current_thread()
        self.notes.append("run")
        try:
            self.work(lead)
        finally:
            self.ran.set()

    def returned(self):
        self.notes.append("returned")
        self.settled.set()

    def taken_over(self):
        self.notes.append("taken over")
        self.settled.set()

    def came_late(self):
        self.notes.append("late")
        self.late.set()


class Stage:
    """A loop that some thread leads. `call` runs something there and waits for it."""

    def __init__(self, new_loop):
        self.loop = new_loop()
        self.handle = LoopHandle(self.loop)
        self.leadership = Leadership(self.loop, self.handle)
        self.stopping = asyncio.Event()
        self.ended = threading.Event()
        self.results = []
        self.first = threading.Thread(target=self._lead, name="catzilla-loop")

    def _lead(self):
        self.leadership.lead(self.main(), self.over)

    async def main(self):
        await self.stopping.wait()

    def over(self, task, error):
        self.results.append((task.done() and task.exception(), error))
        self.loop.close()
        self.ended.set()

    def start(self):
        self.first.start()
        return self

    def call(self, function, *args):
        return self.handle.call(function, *args)

    def leader(self):
        """The thread that runs the loop now."""
        return self.call(threading.current_thread)

    def lend(self, loan):
        """Lend the leader as soon as somebody follows."""
        eventually(lambda: self.call(self._lend, loan), "somebody follows")
        return loan

    def _lend(self, loan):
        if not self.leadership.can_lend():
            return False
        self.leadership.lend(loan)
        return True

    def stop(self):
        if not self.loop.is_closed():
            self.handle.post(self.stopping.set)
        assert self.ended.wait(PATIENCE), "the loop does not end"


@pytest.fixture(params=["uvloop", "standard"])
def new_loop(request):
    return new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture
def stage(new_loop):
    known = set(threading.enumerate())
    stage = Stage(new_loop).start()
    yield stage
    stage.stop()
    eventually(lambda: set(threading.enumerate()) <= known, "every thread has ended")
    assert stage.leadership.join(0) == []


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def held_by(gate):
    """Work that lasts until the test opens the gate; a watched wait of ours would resign."""
    return lambda lead: gate.wait(PATIENCE)


def test_the_thread_that_leads_does_what_it_is_lent_to_and_goes_on(stage):
    seen = []

    def work(lead):
        seen.append((lead.leads, asyncio._get_running_loop()))
        lead.moves += 1

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    assert loan.notes == ["run", "returned"]
    assert loan.thread is stage.first
    assert stage.leader() is stage.first
    assert seen == [(True, None)], "outside of the loop"


def test_a_loan_at_a_time_again_and_again(stage):
    """Also from `returned`, where the loop does not run."""
    left = [50]
    done = threading.Event()

    class Chain(Loan):
        def returned(self):
            left[0] -= 1
            if left[0]:
                stage.leadership.lend(self)
            else:
                done.set()

    chain = stage.lend(Chain())
    assert done.wait(PATIENCE)
    assert len(chain.notes) == 50
    assert stage.leader() is stage.first


def test_a_leader_that_is_held_up_is_replaced_and_follows(stage, gate):
    loan = stage.lend(Loan(held_by(gate)))
    assert loan.settled.wait(PATIENCE)
    second = stage.leader()  # answered while the first is still held up
    assert second is not stage.first
    assert not loan.ran.is_set()
    assert loan.notes == ["run", "taken over"]
    assert stage.leadership.join(0) == [stage.first.name]
    gate.set()
    eventually(lambda: stage.leadership.join(0) == [], "it comes back")
    other = stage.lend(Loan(held_by(again := threading.Event())))
    assert other.settled.wait(PATIENCE)
    assert stage.leader() is stage.first, "it has followed, and leads again"
    again.set()
    assert other.ran.wait(PATIENCE)
    assert loan.notes == ["run", "taken over", "late"], "what was taken over is not returned"


def test_who_moves_on_is_not_replaced(stage, monkeypatch):
    monkeypatch.setattr(leader_module, "TICK", 0.2)  # far more than a part takes, also on a busy machine

    def work(lead):
        for _ in range(25):
            time.sleep(0.02)
            lead.moves += 1

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    assert loan.notes == ["run", "returned"]


def test_while_one_is_held_up_a_third_is_called(stage, gate):
    first = stage.lend(Loan(held_by(gate)))
    assert first.settled.wait(PATIENCE)
    second = stage.lend(Loan(held_by(gate)))
    assert second.settled.wait(PATIENCE)
    third = stage.leader()
    assert len({first.thread, second.thread, third}) == 3
    assert stage.leadership.astray == 2
    gate.set()
    eventually(lambda: stage.leadership.join(0) == [], "both come back")
    follower = stage.leadership._follower
    eventually(lambda: sum(each.name.startswith("catzilla-loop") for each in threading.enumerate()) == 2, "one ends")
    assert follower in (None, first.thread, second.thread)


def test_a_wait_of_ours_hands_the_loop_over_at_once(stage, monkeypatch):
    monkeypatch.setattr(leader_module, "TICK", 60.0)  # nobody would be missed for being slow
    answers = []
    loan = stage.lend(Loan(lambda lead: answers.append(stage.call(threading.current_thread))))
    assert loan.ran.wait(PATIENCE), "the loan waits for the loop, which waits for the loan"
    assert answers != [stage.first]
    assert loan.notes[:2] == ["run", "taken over"]


def test_a_wait_that_need_not_wait_keeps_the_loop(stage):
    held = []

    def work(lead):
        assert Waits().wait_for(threading.Condition(), lambda: True)
        with pytest.raises(TimeoutError):
            if not Waits().wait_for(threading.Condition(), lambda: False, 0):
                raise TimeoutError
        held.append(lead.leads)

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    assert loan.notes == ["run", "returned"]
    assert held == [True]


def test_who_has_resigned_may_come_back_before_anybody_has_noticed(stage):
    """Then it leads on, and its word does not count for the next loan."""
    noticed = threading.Event()

    class Calls(leader_module.Signal):
        def notify_all(self):
            noticed.set()  # and nobody is woken

    def work(lead):
        lead.resign()
        assert noticed.is_set()
        assert current.lead is None

    stage.lend(Loan()).settled.wait(PATIENCE)
    eventually(lambda: stage.leadership._sleeps, "the follower waits for a call")
    calls, stage.leadership._calls = stage.leadership._calls, Calls()
    first = stage.lend(Loan(work))
    assert first.settled.wait(PATIENCE)
    stage.leadership._calls = calls
    assert first.notes == ["run", "returned"]
    assert not stage.leadership._has_resigned
    calls.notify_all()
    assert stage.leader() is stage.first


def test_a_word_that_comes_too_late_is_no_word_of_the_new_leaders(stage, gate):
    loan = stage.lend(Loan(lambda lead: (gate.wait(PATIENCE), lead.resign())))
    assert loan.settled.wait(PATIENCE)
    gate.set()
    assert loan.ran.wait(PATIENCE)
    assert not stage.leadership._has_resigned


def test_the_follower_sleeps_and_is_called(stage, gate):
    stage.lend(Loan())
    for _ in range(2):
        eventually(lambda: stage.leadership._sleeps, "it is quiet")
        loan = stage.lend(Loan(held_by(gate)))
        assert loan.settled.wait(PATIENCE)
        assert loan.notes == ["run", "taken over"]
        gate.set()
        assert loan.ran.wait(PATIENCE)
        gate.clear()
    assert QUIET_TICKS * TICK < 0.1


def test_what_is_posted_meanwhile_waits_for_the_next_lap_in_order(stage):
    seen = []

    def work(lead):
        for number in range(5):
            stage.handle.post(seen.append, number)
        assert seen == []

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    stage.call(seen.append, "after")
    assert seen == [0, 1, 2, 3, 4, "after"]


def test_what_was_posted_by_who_was_replaced_is_done_by_the_other(stage, gate):
    seen = []

    def work(lead):
        stage.handle.post(lambda: seen.append(threading.current_thread()))
        gate.wait(PATIENCE)

    stage.lend(Loan(work))
    eventually(lambda: seen, "it is done while its thread is held up")
    assert seen != [stage.first]


def test_the_thread_that_is_lent_may_take_the_loop_back_for_a_moment_once_in_each_part(stage):
    seen = []

    def work(lead):
        for _ in range(3):
            has_it = lead.take_back(stage.handle)
            seen.append([has_it, lead.is_back, lead.lend_again(), lead.is_back, lead.take_back(stage.handle)])
            lead.moves += 1

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    assert seen == 3 * [[True, True, None, False, False]]
    assert loan.notes == ["run", "returned"]


def test_who_has_lost_the_loop_does_not_take_it_back(stage, gate):
    seen = []
    loan = stage.lend(
        Loan(lambda lead: (gate.wait(PATIENCE), seen.append((lead.take_back(stage.handle), lead.is_back))))
    )
    assert loan.settled.wait(PATIENCE)
    gate.set()
    assert loan.ran.wait(PATIENCE)
    assert seen == [(False, False)]


def test_a_thread_does_not_take_back_a_loop_that_it_does_not_lead(stage):
    """Nor is that its one chance in this part."""
    seen = []

    def work(lead):
        seen.append([lead.take_back(LoopHandle(FakeLoop())), lead.is_back, lead.take_back(stage.handle)])
        lead.lend_again()

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    assert seen == [[False, False, True]]


def test_the_loop_is_not_taken_over_from_who_has_taken_it_back(stage, gate):
    """However long that takes; and once it is lent again, it is."""
    refused, lent_again = threading.Event(), threading.Event()
    taking_over = stage.leadership._take_over

    def take_over(lead, place):
        has_taken = taking_over(lead, place)
        if not has_taken:
            refused.set()
        return has_taken

    stage.leadership._take_over = take_over

    def work(lead):
        assert lead.take_back(stage.handle)
        assert refused.wait(PATIENCE)
        assert lead.leads, "it has lost nothing"
        lead.lend_again()
        lent_again.set()
        gate.wait(PATIENCE)

    loan = stage.lend(Loan(work))
    assert loan.settled.wait(PATIENCE)
    assert lent_again.is_set()
    assert loan.notes == ["run", "taken over"]


class Interrupted(leader_module.Lead):
    """Lets the other side come when one looks at what it has said."""

    __slots__ = ("_is_back", "_leads", "interrupt")

    def __init__(self, leadership):
        self.interrupt = None
        super().__init__(leadership)

    def _look(self, value):
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()
        return value

    leads = property(lambda self: self._look(self._leads), lambda self, value: setattr(self, "_leads", value))
    is_back = property(lambda self: self._look(self._is_back), lambda self, value: setattr(self, "_is_back", value))


def lent():
    """A leader that is lent, and who follows it; nothing runs."""
    leadership = Leadership(FakeLoop(), LoopHandle(FakeLoop()))
    leader, follower = Interrupted(leadership), leader_module.Lead(leadership)
    leadership._leader, leader.leads, leader.moves, leadership._is_lent = leader, True, 1, True
    return leadership, leader, follower


def test_who_takes_the_loop_back_while_the_follower_takes_it_over_does_not_get_it():
    leadership, leader, follower = lent()
    got = []
    leader.interrupt = lambda: got.append(
        leader.take_back(leadership.handle)
    )  # when the follower looks whether the leader is back
    assert leadership._take_over(follower, (leader, 1))
    assert (got, leader.leads, leader.is_back, follower.leads) == ([False], False, False, True)


def test_who_takes_the_loop_over_while_the_leader_takes_it_back_does_not_get_it():
    leadership, leader, follower = lent()
    got = []
    leader.interrupt = lambda: got.append(leadership._take_over(follower, (leader, 1)))  # when the leader looks
    leader.take_back(leadership.handle)
    assert (got, leader.is_back, follower.leads) == ([False], leader.leads, False)
    assert leader.leads, "and it leads on, whatever it has seen"


def test_a_loan_that_fails_is_told_and_the_loop_goes_on(stage, caplog):
    def fail(lead):
        raise SystemExit

    with caplog.at_level(logging.ERROR, logger="catzilla"):
        loan = stage.lend(Loan(fail))
        assert loan.settled.wait(PATIENCE)
    assert loan.notes == ["run", "returned"]
    assert "a loan failed" in caplog.text
    assert stage.leader() is stage.first


def test_a_loan_that_is_not_taken_back_is_told_and_the_loop_goes_on(stage, gate, caplog):
    class Bad(Loan):
        def returned(self):
            raise RuntimeError("a fault of ours")

        taken_over = returned

    with caplog.at_level(logging.ERROR, logger="catzilla"):
        stage.lend(Bad())
        eventually(lambda: caplog.text.count("a loan was not taken back") == 1, "it is told")
        assert stage.leader() is stage.first
        stage.lend(Bad(held_by(gate)))
        eventually(lambda: caplog.text.count("a loan was not taken back") == 2, "it is told")
        assert stage.leader() is not stage.first


class BrokenLog(logging.Handler):
    """A handler as nobody should write it; but people do."""

    def emit(self, record):
        raise OSError("the log is full")


@pytest.fixture
def broken_log():
    logger = logging.getLogger("catzilla")
    handler = BrokenLog()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def test_a_log_that_fails_does_not_end_the_loop(stage, gate, broken_log):
    def fail(lead):
        raise ValueError

    class Bad(Loan):
        def returned(self):
            super().returned()
            raise RuntimeError("a fault of ours")

    loan = stage.lend(Bad(fail))
    assert loan.settled.wait(PATIENCE)
    assert stage.leader() is stage.first


def test_who_comes_late_says_so(stage, gate):
    loan = stage.lend(Loan(held_by(gate)))
    assert loan.settled.wait(PATIENCE)
    gate.set()
    assert loan.late.wait(PATIENCE)
    assert loan.notes == ["run", "taken over", "late"]


def test_waiting_for_those_who_are_astray(stage, gate):
    loan = stage.lend(Loan(held_by(gate)))
    assert loan.settled.wait(PATIENCE)
    assert stage.leadership.join(0) == [stage.first.name]
    timer = threading.Timer(0.05, gate.set)
    timer.start()
    assert stage.leadership.join(PATIENCE) == []
    timer.join()


def test_a_follower_that_fails_is_missed(stage, monkeypatch):
    """Else the leader would go on being lent, with nobody to look after it."""
    stage.lend(Loan())

    def fail(lead):
        raise MemoryError

    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with monkeypatch.context() as patch:
        patch.setattr(stage.leadership, "_take_over", lambda lead, place: fail(lead))
        stage.lend(Loan(lambda lead: eventually(lambda: stage.leadership._follower is None, "the follower fails")))
        eventually(lambda: failures, "it is told")
    loan = stage.lend(Loan())
    assert loan.settled.wait(PATIENCE), "another one follows"


FORKS = """
import os, sys, threading
from catzilla._core.leader import Leadership
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.server import new_event_loop
import asyncio

class Forks:
    child = 0
    def run(self, lead):
        self.child = os.fork()  # and comes back, twice
    def returned(self):
        leave.set()
    taken_over = came_late = returned

async def main():
    while not leadership.can_lend():
        await asyncio.sleep(0.001)
    leadership.lend(forks)
    await leave.wait()

forks = Forks()
loop = new_event_loop()
leave = asyncio.Event()
leadership = Leadership(loop, LoopHandle(loop))
thread = threading.Thread(target=leadership.lead, args=(main(), lambda main, error: print("over", error, flush=True)))
thread.start()
thread.join()
print("child", os.waitstatus_to_exitcode(os.waitpid(forks.child, 0)[1]))
"""


def test_a_child_that_comes_back_from_a_loan_does_not_go_on_with_the_loop():
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == ["over None", "child 1"], done.stderr


def test_without_a_thread_to_follow_nobody_is_lent(stage, monkeypatch):
    class NoThread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(leader_module.threading, "Thread", NoThread)
        for _ in range(3):
            assert stage.call(stage.leadership.can_lend) is False
    loan = stage.lend(Loan())
    assert loan.settled.wait(PATIENCE), "as soon as there is one"


def test_the_end_comes_though_the_leader_is_held_up(new_loop, gate):
    stage = Stage(new_loop).start()
    loan = stage.lend(Loan(held_by(gate)))
    assert loan.settled.wait(PATIENCE)
    stage.stop()
    assert stage.results == [(None, None)]
    assert stage.leadership.join(0) == [stage.first.name]
    gate.set()
    stage.first.join(PATIENCE)
    assert not stage.first.is_alive(), "nobody needs it any more"
    assert stage.leadership.join(0) == []
    assert not stage.leadership.can_lend()


def test_what_main_raises_is_handed_over(new_loop):
    stage = Stage(new_loop)

    async def fail():
        raise LookupError("a fault of ours")

    stage.leadership.lead(fail(), stage.over)
    ((raised, error),) = stage.results
    assert isinstance(raised, LookupError)
    assert error is None


def test_what_breaks_the_loop_is_handed_over(new_loop):
    stage = Stage(new_loop)

    def fail():
        raise SystemExit(3)

    tasks = []
    stage.loop.call_soon(fail)
    stage.leadership.lead(stage.main(), lambda task, error: tasks.append((task, error)))
    ((task, error),) = tasks
    assert isinstance(error, SystemExit)
    task.remove_done_callback(stage.leadership._end)
    task.cancel()
    stage.loop.run_until_complete(asyncio.wait([task]))
    stage.loop.close()


def test_nothing_of_the_loops_is_touched_by_two_threads_whoever_leads(stage):
    """Loans of any length, many of them about as long as a tick, and posts from another thread meanwhile."""
    chance = random.Random(20)
    inside = []  # the threads that are in the loop now
    settled = threading.Event()
    problems = []
    over = threading.Event()

    def touch():
        inside.append(threading.current_thread())
        if len(inside) != 1:
            problems.append(list(inside))
        sum(range(50))
        inside.pop()

    class Sometimes(Loan):
        def returned(self):
            touch()
            super().returned()
            settled.set()

        def taken_over(self):
            touch()
            super().taken_over()
            settled.set()

    def nap(lead):
        pause = chance.choice((0.0, 0.0, TICK / 2, TICK, 1.2 * TICK, 2 * TICK, 3 * TICK))
        if pause:
            time.sleep(pause)

    def pester():
        while not over.is_set():
            stage.handle.post(touch)
            time.sleep(TICK / 10)

    pesterer = threading.Thread(target=pester)
    pesterer.start()
    try:
        loans = []
        for _ in range(150):
            settled.clear()
            loans.append(stage.lend(Sometimes(nap)))
            assert settled.wait(PATIENCE)
    finally:
        over.set()
        pesterer.join()
    assert problems == []
    for loan in loans:
        assert loan.ran.wait(PATIENCE)
        assert loan.notes[:2] in (["run", "returned"], ["run", "taken over"])
    assert {loan.notes[1] for loan in loans} == {"returned", "taken over"}, "both were tried"
