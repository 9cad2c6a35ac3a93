"""Which thread runs the loop: one leads, and may be lent to user code between two laps of the loop.

To call up another thread for a callback of ten microseconds costs more than the callback. So where callbacks have
proven quick, the thread that runs the loop leaves it (a *lap* is one `run_forever`), does them as any worker would, and
goes back. They may block after all; therefore another thread looks after it meanwhile, the *follower*. If the leader is
with one and the same callback for a tick, or is about to wait in a function of ours, the follower takes the loop over.
The former leader ends what it has begun as a worker, and then follows, or ends. (Leader/Followers: Schmidt et al.,
Pattern-Oriented Software Architecture, volume 2.)

So "the loop thread" is a role. Whatever is the loop's belongs to the thread that leads and is not lent; while it is
lent, to nobody. The role changes hands under `_lock`, which guards `_leader`, `_has_resigned`, `_follower`, `_deposed`
and each `Lead.leads`. `_is_lent` is the leader's to set and anybody's to clear, under the lock. Everything else is the
loop's, but for what says so.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from catzilla._core.current import current
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.reinforcement import TICK
from catzilla._core.waits import Signal

logger = logging.getLogger("catzilla")

QUIET_TICKS = 5  # without a loan, after which the follower sleeps until the next
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


class Lead:
    """One thread as the leader."""

    __slots__ = ("_leadership", "leads", "moves", "thread")

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self.thread = threading.current_thread()
        self.leads = False  # read by any thread
        self.moves = 0  # this thread's; goes up whenever it is lent, and whenever a part of the loan is done

    def resign(self) -> None:
        """This thread is about to wait, and the loop must not. [the thread itself]"""
        current.about_to_block = None
        self._leadership.resigned(self)


class Leadership:
    """The threads that lead and follow, for one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: LoopHandle) -> None:
        self._loop = loop
        self._handle = handle
        self._lock = threading.Lock()
        self._leader: Lead | None = None
        self._is_lent = False
        self._has_resigned = False
        self._follower: threading.Thread | None = None
        self._deposed: set[threading.Thread] = set()  # former leaders that have not come back
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
    def deposed(self) -> list[str]:
        """Names of threads that have led, and are still in what they were lent to. [any thread]"""
        with self._lock:
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
        except RuntimeError:  # there is none to be had: everything goes to workers, who say so
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
            try:
                if not self._lead(lead):
                    return self._finish(None)
            except BaseException as error:
                return self._finish(error)
        return None

    def _end(self, main: asyncio.Task[None]) -> None:
        """`main` has ended."""
        self._ended.set()
        self._loop.stop()

    def _finish(self, error: BaseException | None) -> None:
        self._ended.set()
        self._calls.notify_all()
        for thread in (self._follower, self._coming):
            if thread is not None:
                thread.join(JOINING)
        if self._over is not None and self._main is not None:
            self._over(self._main, error)

    # Leading.

    def _lead(self, lead: Lead) -> bool:
        """Run the loop; False when all is over, True when another thread leads."""
        while True:
            self._loop.run_forever()
            if self._ended.is_set():
                return False
            loan, self._loan = self._loan, None
            if loan is not None and not self._run(loan, lead):
                return True

    def _run(self, loan: Loan, lead: Lead) -> bool:
        """Leave the loop for what it is lent to; False if another thread leads when that is done."""
        self._handle.hold()
        self._lent_to = loan
        lead.moves += 1
        # From here on the loop is nobody's. The follower says first that it sleeps and then looks whether we are lent;
        # we do it the other way round, so one of us sees the other.
        self._is_lent = True
        if self._sleeps:
            self._calls.notify_all()
        current.about_to_block = lead.resign
        try:
            loan.run(lead)
        except BaseException:  # a loan answers for its own failures; this is a fault of ours
            logger.exception("a loan failed: loan=%r", loan)
        current.about_to_block = None
        with self._lock:
            if not lead.leads:
                self._deposed.discard(lead.thread)
                return False
            self._is_lent = self._has_resigned = False
        self._tell(loan.returned)
        return True

    def resigned(self, lead: Lead) -> None:
        """See `Lead.resign`."""
        with self._lock:
            if lead.leads:
                self._has_resigned = True
                self._calls.notify_all()

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:  # whatever it is, the loop must go on
            logger.exception("a loan was not taken back: call=%r", callback)

    # Following.

    def _follow(self, lead: Lead) -> bool:
        """Look after the leader, until this thread must lead (True) or is not needed (False)."""
        with self._lock:
            if self._coming is lead.thread:
                self._coming = None
            if self._follower is not None or self._ended.is_set():
                return False
            self._follower = lead.thread
        seen: tuple[Lead | None, int] | None = None  # at the last tick
        quiet = 0
        while not self._ended.is_set():
            self._sleeps = quiet >= QUIET_TICKS
            was_called = self._calls.wait(None if self._sleeps and not self._is_lent else TICK)
            leader = self._leader
            place = (leader, leader.moves if leader is not None else 0)
            if self._is_lent and (self._has_resigned or place == seen) and self._take_over(lead, place):
                return True
            quiet = quiet + 1 if place == seen else 0
            seen = None if was_called else place  # who is called may look again before a tick is over
        return False

    def _take_over(self, lead: Lead, place: tuple[Lead | None, int]) -> bool:
        """Lead from now on, if the leader has still not moved."""
        with self._lock:
            leader = self._leader
            if leader is None or not self._is_lent or not (self._has_resigned or (leader, leader.moves) == place):
                return False
            self._deposed.add(leader.thread)
            leader.leads, lead.leads = False, True
            self._leader = lead
            self._follower = None
            self._is_lent = self._has_resigned = self._sleeps = False
        if self._lent_to is not None:
            self._tell(self._lent_to.taken_over)
        return True
