"""The one place where a worker blocks: an interruption before, while and after it waits reaches it."""

from __future__ import annotations

import threading
import time

import pytest

from catzilla._core import waits as waits_module
from catzilla._core.errors import Disconnected
from catzilla._core.waits import Signal, Waits


class Waiter(threading.Thread):
    """Waits on a thread of its own, and says when it is about to sleep: its predicate was asked under the lock."""

    def __init__(self, waits: Waits, timeout: float | None = None, condition: threading.Condition | None = None):
        super().__init__(daemon=True)
        self.waits, self.timeout = waits, timeout
        self.condition = condition or threading.Condition()
        self.asked = threading.Event()
        self.holds = False
        self.outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.waits.wait_for(self.condition, self._predicate, self.timeout)
        except Disconnected as error:
            self.outcome = error

    def _predicate(self) -> bool:
        self.asked.set()
        return self.holds

    def until_asleep(self) -> None:
        assert self.asked.wait(10)
        with self.condition:  # it held this until it went to sleep
            pass

    def finish(self) -> object:
        self.join(10)
        assert not self.is_alive(), "the waiter was not woken"
        return self.outcome


def test_what_holds_already_is_not_waited_for():
    assert Waits().wait_for(threading.Condition(), lambda: True) is True


def test_a_notification_wakes_the_waiter():
    waiter = Waiter(Waits())
    waiter.until_asleep()
    with waiter.condition:
        waiter.holds = True
        waiter.condition.notify_all()
    assert waiter.finish() is True


def test_a_notification_for_something_else_does_not_end_the_wait():
    waiter = Waiter(Waits())
    waiter.until_asleep()
    waiter.asked.clear()
    with waiter.condition:
        waiter.condition.notify_all()
    waiter.until_asleep()
    assert waiter.is_alive()
    with waiter.condition:
        waiter.holds = True
        waiter.condition.notify_all()
    assert waiter.finish() is True


def test_the_timeout_passes():
    began = time.monotonic()
    assert Waits().wait_for(threading.Condition(), lambda: False, 0.02) is False
    assert time.monotonic() - began >= 0.02


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_no_time_is_no_wait(timeout):
    assert Waits().wait_for(threading.Condition(), lambda: False, timeout) is False
    assert Waits().wait_for(threading.Condition(), lambda: True, timeout) is True


def test_interrupted_before_waiting():
    waits = Waits()
    waits.interrupt(Disconnected(1001, "the server is stopping"))
    with pytest.raises(Disconnected) as caught:
        waits.wait_for(threading.Condition(), lambda: False, 60)
    assert (caught.value.code, caught.value.reason) == (1001, "the server is stopping")


def test_interrupted_while_waiting():
    waits = Waits()
    waiter = Waiter(waits)
    waiter.until_asleep()
    waits.interrupt(Disconnected())
    assert isinstance(waiter.finish(), Disconnected)


def test_interrupted_between_publishing_the_condition_and_going_to_sleep():
    """The harmful interleaving: nobody sleeps yet, so the notification alone would be lost."""
    waits = Waits()

    def predicate() -> bool:
        if waits.interrupted is None:
            # Another thread, because the lock is held: it sets the flag and then waits for the lock to notify.
            interrupter.start()
            while waits.interrupted is None:
                time.sleep(0)
        return False

    interrupter = threading.Thread(target=waits.interrupt, args=(Disconnected(),))
    with pytest.raises(Disconnected):
        waits.wait_for(threading.Condition(), predicate, 60)
    interrupter.join(10)


def test_what_holds_wins_over_an_interruption():
    # A body that has arrived whole can be read although its client has left.
    waits = Waits()
    waits.interrupt(Disconnected())
    assert waits.wait_for(threading.Condition(), lambda: True) is True


def test_what_came_just_before_the_end_is_still_taken():
    """The last message and the end come between the predicate's look and ours."""
    waits, inbox = Waits(), []

    def predicate() -> bool:
        if not inbox:
            inbox.append("the last words")
            waits.interrupted = Disconnected()  # as the loop does, in the same turn
            return False
        return True

    condition = Signal()
    condition.notify_all()
    assert waits.wait_for(condition, predicate) is True


def test_all_waiters_are_interrupted_at_once():
    waits, shared = Waits(), threading.Condition()
    waiters = [Waiter(waits), Waiter(waits), Waiter(waits, condition=shared), Waiter(waits, condition=shared)]
    for waiter in waiters:
        waiter.until_asleep()
    assert len(waits._conditions) == 4
    waits.interrupt(Disconnected())
    outcomes = [waiter.finish() for waiter in waiters]
    assert all(isinstance(outcome, Disconnected) for outcome in outcomes)
    assert len(set(map(id, outcomes))) == 4, "each thread needs an exception of its own"
    assert waits._conditions == ()


def test_a_waiter_that_leaves_takes_only_its_own_condition():
    waits, shared = Waits(), threading.Condition()
    stays = Waiter(waits, condition=shared)
    stays.until_asleep()
    assert waits.wait_for(shared, lambda: False, 0.001) is False
    assert waits._conditions == (shared,)
    waits.interrupt(Disconnected())
    assert isinstance(stays.finish(), Disconnected)


def test_the_first_interruption_is_kept():
    waits = Waits()
    first = Disconnected(1001, "the server is stopping")
    waits.interrupt(first)
    waits.interrupt(Disconnected())
    assert waits.interrupted is first


def test_check_raises_a_new_error_each_time():
    waits = Waits()
    waits.check()
    waits.interrupt(Disconnected(1001, "the server is stopping"))
    errors = []
    for _ in range(2):
        with pytest.raises(Disconnected) as caught:
            waits.check()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1]) == "the server is stopping (1001)"


def test_a_failing_predicate_leaves_nothing_behind():
    waits, condition = Waits(), threading.Condition()
    with pytest.raises(ZeroDivisionError):
        waits.wait_for(condition, lambda: 1 / 0)
    assert waits._conditions == ()
    assert condition.acquire(blocking=False)
    condition.release()


def test_waits_of_different_requests_do_not_touch_each_other():
    first, second = Waits(), Waits()
    waiter = Waiter(second)
    waiter.until_asleep()
    first.interrupt(Disconnected())
    assert second.interrupted is None
    assert waiter.is_alive()
    second.interrupt(Disconnected())
    assert isinstance(waiter.finish(), Disconnected)
    assert waits_module._lock.acquire(blocking=False)
    waits_module._lock.release()


# A signal does what a condition does.


def test_a_token_that_came_before_the_wait_is_not_lost():
    signal, taken = Signal(), []
    signal.notify_all()
    signal.notify_all()
    assert Waits().wait_for(signal, lambda: taken or taken.append("looked once"), 10) is True


@pytest.mark.parametrize("count", [1, 3])
def test_whoever_waits_for_a_signal_is_interrupted(count):
    waits, signal = Waits(), Signal()
    waiters = [Waiter(waits, condition=signal) for _ in range(count)]
    for waiter in waiters:
        assert waiter.asked.wait(10)
    waits.interrupt(Disconnected())
    assert all(isinstance(waiter.finish(), Disconnected) for waiter in waiters)


def test_a_signal_wakes_the_waiter_and_times_out():
    waiter = Waiter(Waits(), condition=Signal())
    assert waiter.asked.wait(10)
    waiter.holds = True
    waiter.condition.notify_all()
    assert waiter.finish() is True
    assert Waits().wait_for(Signal(), lambda: False, 0.01) is False


def test_what_is_watched_is_interrupted_between_two_waits_too():
    waits, signal = Waits(), Signal()
    waits.watch(signal)
    signal.notify_all()
    assert waits.wait_watched(signal, lambda: True) is True
    waits.interrupt(Disconnected())
    with pytest.raises(Disconnected):
        waits.wait_watched(signal, lambda: False)
