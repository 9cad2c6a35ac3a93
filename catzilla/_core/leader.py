"""Which thread runs the loop: one leads, and may be lent to user code between two laps of the loop.

To call up another thread for a callback of ten microseconds costs more than the callback. So where callbacks have
proven quick, the thread that runs the loop leaves it (a *lap* is one `run_forever`), does them as any worker would, and
goes back. They may block after all; therefore another thread looks after it meanwhile, the *follower*. If the leader is
with one and the same callback for a tick, or is about to wait in a function of ours, the follower takes the loop over.
The former leader ends what it has begun as a worker, and then follows, or ends. (Leader/Followers: Schmidt et al.,
Pattern-Oriented Software Architecture, volume 2.)

So "the loop thread" is a role. Whatever is the loop's belongs to the thread that leads and is not lent; while it is
lent, to nobody, but for a moment (`Lead.take_back`). The role changes hands under `_lock`, which guards `_leader`,
`_has_resigned`, `_follower`, `_deposed` and each `Lead.leads`. `_is_lent` is the leader's to set, and to be cleared
under the lock. Everything else is the loop's, but for what says so. No thread but one made for it may lead: the main
one has signals to see to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from catzilla._core.current import current
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.waits import Signal

logger = logging.getLogger("catzilla")

# Seconds between two looks of the follower. Each costs the leader a wait for the interpreter lock; and a callback that
# computes keeps that for as long in any case.
TICK = 0.005
QUIET_TICKS = 5  # in which the leader was not lent anew, after which the follower sleeps until it is
JOINING = 0.3  # seconds that the follower has to end; it runs no user code

Over = Callable[["asyncio.Task[None]", "BaseException | None"], object]


class Loan(Protocol):
    """What the leader is lent to."""

    def run(self, lead: Lead) -> None:
        """Do it, and count each part of it in `lead.moves`; must not raise.

        [the thread that leads, as a worker: once `lead.leads` is false, the loop is another's]
        """

    def returned(self) -> None:
        """The leader is back. [loop thread]"""

    def taken_over(self) -> None:
        """It did not come back in time: another thread leads, while `run` goes on. [loop thread]"""

    def came_late(self) -> None:
        """After that, `run` has come to its end. [the thread that led]"""


class Lead:
    """One thread as the leader."""

    __slots__ = ("_leadership", "_taken_back_at", "is_back", "leads", "moves", "thread")

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self.thread = threading.current_thread()
        self.leads = False  # read by any thread; for a moment false also where a take-over is being called off
        self.moves = 0  # this thread's; goes up whenever it is lent, and whenever a part of the loan is done
        self.is_back = False  # this thread's; it is lent, and does something of the loop's all the same
        self._taken_back_at = 0

    def take_back(self, handle: LoopHandle) -> bool:
        """Be the thread of that handle's loop for a moment in the middle of a loan, until `lend_again`.

        Once in each part of a loan. False if that has been, if the loop is another thread's by now, or if this thread
        leads another loop: a process may have several servers. What is done then must not block.

        [the thread itself, while it is lent]
        """
        if self._taken_back_at == self.moves or self._leadership.handle is not handle:
            return False
        self._taken_back_at = self.moves
        # We say first that we are back and then look whether we lead; who takes over does it the other way round. Under
        # an interpreter lock, where all threads see one order of things, one of us sees the other.
        self.is_back = True
        if self.leads:
            return True
        self.is_back = False
        return False

    def lend_again(self) -> None:
        """The loop rests again. [the thread itself]"""
        self.is_back = False

    def resign(self) -> None:
        """This thread is about to wait, and the loop must not. [the thread itself]"""
        current.lead = None
        self._leadership.resigned(self)


class Leadership:
    """The threads that lead and follow, for one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: LoopHandle) -> None:
        self._loop = loop
        self.handle = handle
        self._lock = threading.Lock()
        self._leader: Lead | None = None
        self._is_lent = False
        self._has_resigned = False
        self._follower: threading.Thread | None = None
        self._deposed: set[threading.Thread] = set()  # former leaders that have not come back
        self._came_back = threading.Condition(self._lock)
        self._process = os.getpid()
        self._calls = Signal()  # wakes the follower
        self._sleeps = False  # the follower waits for a call, without ticks; written by it, read by the leader
        self._coming: threading.Thread | None = None  # started to follow, and not there yet
        self._started = 1
        self._loan: Loan | None = None  # for the end of this lap
        self._lent_to: Loan | None = None  # the last one
        self._main: asyncio.Task[None] | None = None
        self._over: Over | None = None
        self._ended = threading.Event()  # set when `main` has ended

    @property
    def astray(self) -> int:
        """How many threads have led, and are still in what they were lent to. [any thread]"""
        return len(self._deposed)

    def join(self, timeout: float) -> list[str]:
        """Wait until they have come back; the names of those that have not. [any thread but the loop]"""
        with self._came_back:
            self._came_back.wait_for(lambda: not self._deposed, timeout)
            return sorted(thread.name for thread in self._deposed)

    # For whoever wants the leader.

    def can_lend(self) -> bool:
        """Whether somebody would look after the loop meanwhile; if nobody does, somebody is called. [loop thread]"""
        if self._follower is not None:
            return True
        if self._coming is None and not self._ended.is_set():
            self._call_follower()
        return False

    def lend(self, loan: Loan) -> None:
        """Have `loan` run when this lap is over. One at a time, and only where one `can_lend`. [loop thread]"""
        self._loan = loan
        self._loop.stop()

    def _call_follower(self) -> None:
        self._started += 1
        thread = threading.Thread(target=self._come, name=f"catzilla-loop-{self._started}", daemon=True)
        self._coming = thread
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # there is none to be had: everything goes to workers, who say so
            self._coming = None

    # What a thread does.

    def lead(self, main: Coroutine[Any, Any, None], over: Over) -> None:
        """Run `main` on the loop. Whichever thread leads at its end calls `over` with its task, or with what failed.

        Returns when the calling thread is not needed any more, which may be much earlier.
        """
        self._over = over
        self._main = self._loop.create_task(main)
        self._main.add_done_callback(self._end)
        lead = self._leader = Lead(self)
        lead.leads = True
        self._lead_and_follow(lead)

    def _come(self) -> None:
        self._lead_and_follow(Lead(self))

    def _lead_and_follow(self, lead: Lead) -> None:
        """By turns, for as long as there is a use for this thread."""
        while lead.leads or self._follow(lead):
            failure = None
            try:
                is_over = self._lead(lead)
            except BaseException as error:
                failure, is_over = error, True
            if is_over:
                self._finish(failure)
                return

    def _end(self, main: asyncio.Task[None]) -> None:
        """`main` has ended."""
        self._ended.set()
        self._loop.stop()

    def _finish(self, error: BaseException | None) -> None:
        """The loop is not run any more: send everybody home, and say so, once."""
        with self._lock:
            self._is_lent = False  # nobody takes over what has ended
            threads = [thread for thread in (self._follower, self._coming) if thread is not None]
        self._ended.set()
        self._calls.notify_all()
        for thread in threads:
            thread.join(JOINING)
        over, main = self._over, self._main
        self._over = self._main = self._loan = self._lent_to = None
        if over is not None and main is not None:
            over(main, error)

    # Leading.

    def _lead(self, lead: Lead) -> bool:
        """Run the loop; True when all is over, False when another thread leads."""
        while True:
            self._loop.run_forever()
            if self._ended.is_set():
                return True
            loan, self._loan = self._loan, None
            if loan is not None and not self._run(loan, lead):
                return False

    def _run(self, loan: Loan, lead: Lead) -> bool:
        """Leave the loop for what it is lent to; False if another thread leads when that is done."""
        self.handle.hold()
        self._lent_to = loan
        lead.moves += 1
        # From here on the loop is nobody's. The follower says first that it sleeps and then looks whether we are lent;
        # we do it the other way round, so one of us sees the other.
        self._is_lent = True
        if self._sleeps:
            self._calls.notify_all()
        current.lead = lead
        try:
            loan.run(lead)
        except BaseException as error:  # a loan answers for its own failures; this is a fault of ours
            _complain("a loan failed: loan=%r", loan, error)
        current.lead = None
        if os.getpid() != self._process:
            os._exit(1)  # user code has forked, and the child has come back: the loop and its sockets are not its
        with self._lock:
            if lead.leads:
                self._is_lent = self._has_resigned = False
                self.handle.release()
            else:
                self._deposed.discard(lead.thread)
                self._came_back.notify_all()
        _tell(loan.returned if lead.leads else loan.came_late)
        return lead.leads

    def resigned(self, lead: Lead) -> None:
        """See `Lead.resign`."""
        with self._lock:
            if lead.leads:
                self._has_resigned = True
                self._calls.notify_all()

    # Following.

    def _follow(self, lead: Lead) -> bool:
        """Look after the leader, until this thread must lead (True) or is not needed (False)."""
        with self._lock:
            if self._coming is lead.thread:
                self._coming = None
            if self._follower is not None or self._ended.is_set():
                return False
            self._follower = lead.thread
        try:
            return self._look_after_leader(lead)
        finally:
            with self._lock:
                if self._follower is lead.thread:
                    self._follower = None

    def _look_after_leader(self, lead: Lead) -> bool:
        seen: tuple[Lead | None, int] | None = None  # where the leader was when this thread looked last
        quiet = 0
        while not self._ended.is_set():
            self._sleeps = quiet >= QUIET_TICKS
            was_called = self._calls.wait(None if self._sleeps and not self._is_lent else TICK)
            leader = self._leader
            place = (leader, leader.moves if leader is not None else 0)
            has_stayed = place == seen and not was_called  # who is called has not waited for a whole tick
            if self._is_lent and (self._has_resigned or has_stayed) and self._take_over(lead, place):
                return True
            quiet = quiet + 1 if has_stayed else 0
            seen = place
        return False

    def _take_over(self, lead: Lead, place: tuple[Lead | None, int]) -> bool:
        """Lead from now on, if the leader has still not moved."""
        with self._lock:
            leader = self._leader
            if leader is None or not self._is_lent or not (self._has_resigned or (leader, leader.moves) == place):
                return False
            leader.leads = False
            if leader.is_back:  # see `Lead.take_back`
                leader.leads = True
                return False
            lead.leads = True
            self._deposed.add(leader.thread)
            self._leader = lead
            self._follower = None
            self._is_lent = self._has_resigned = self._sleeps = False
        self.handle.release()
        if self._lent_to is not None:
            _tell(self._lent_to.taken_over)
        return True


def _forget_lead() -> None:
    """After a fork, in the child: it has a copy of the thread, but the loop and its sockets are the parent's."""
    current.lead = None


os.register_at_fork(after_in_child=_forget_lead)


def _tell(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception as error:  # whatever it is, the loop must go on
        _complain("a loan was not taken back: call=%r", callback, error)


def _complain(message: str, about: object, error: BaseException) -> None:
    """Log what was raised; if even that fails, the loop goes on all the same."""
    with contextlib.suppress(Exception):
        logger.error(message, about, exc_info=error)
