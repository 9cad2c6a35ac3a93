"""Which thread runs the callbacks of WebSockets and rooms: one at a time and in order for each, many side by side.

A `Turn` is something that has work now and then: a socket with callbacks, or the hooks of a room. It holds no thread
while it has none. When there is some, the loop puts it among those that are ready; a *drain*, a job of the sockets'
workers, takes one after the other until none is left. One drain is all it takes while callbacks return at once. One
that is stuck in user code is seen by the tick, which starts more beside it, twice as many each time; so a blocked
callback delays nobody else by more than a tick.

A turn is never run by two threads, and needs no lock: the loop sets `_busy` when it becomes ready and clears it when
it has been done, and makes it ready again if more has come meanwhile. Both lists between the loop and the drains are
deques, filled at one end and emptied at the other.

Drains and linear handlers have budgets of their own. A linear handler over its budget is refused; turns over theirs
wait in the order of arrival, while their sockets, whose inboxes fill up, are no longer read.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from catzilla._core.limits import Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.pace import Pace
from catzilla._core.workers import TICK, Worker, Workers

logger = logging.getLogger("catzilla")

_PACE = Pace()  # nothing is known of a callback; and no stream lives on a socket's worker, whom it could delay


class Turns:
    """The turns that are ready, the drains that do them, and the linear handlers. The loop's, but for what says so."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: LoopHandle, workers: Workers, limits: Limits) -> None:
        self.handle = handle
        self.workers = workers
        self._loop = loop
        self.limits = limits
        self._max_drains = limits.max_callbacks
        self._max_linear = limits.max_sockets
        self._arrived: list[Turn] = []  # in this turn of the loop
        self._ready: deque[Turn] = deque()  # appended to by the loop, taken from by drains
        self._done: deque[Turn] = deque()  # the other way round
        self._finished = 0  # turns ever done; written by drains, who may lose a count: only that it moves matters
        self._finished_at_tick = 0
        self._drains = 0
        self._boost = 1
        self._ticking = False
        self._linear = 0
        self._arrivals: list[threading.Condition] = []  # to be notified at the end of this turn of the loop
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """How many turns are ready and not begun. [any thread]"""
        return len(self._ready)

    @property
    def linear(self) -> int:
        """How many linear handlers there are. [any thread]"""
        return self._linear

    # Turns.

    def submit(self, turn: Turn) -> None:
        """Have a turn done. It is shown to the drains at the end of the loop's turn, for the reason that
        `Workers.submit` gives. [loop thread]"""
        self._arrived.append(turn)
        if len(self._arrived) == 1:
            self._idle.clear()
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._ready.extend(arrived)
        if not self._drains:
            self._start(1)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK, self._tick)

    def _start(self, count: int) -> None:
        for _ in range(count):
            self._drains += 1
            self.workers.submit(_Drain(self))

    def _tick(self) -> None:
        """See that turns are moving; start more drains where those there are got stuck."""
        self._collect()
        if not self._ready and not self._drains:
            self._ticking = False
            self._boost = 1
            return
        if self._finished != self._finished_at_tick:
            self._boost = 1
        elif self._ready:
            self._start(min(self._boost, len(self._ready), self._max_drains - self._drains))
            self._boost *= 2
        self._finished_at_tick = self._finished
        self._loop.call_later(TICK, self._tick)

    def _collect(self) -> None:
        """Take back the turns that are done."""
        done = self._done
        while done:
            done.popleft().come_back()

    def drain(self) -> None:
        """Do what is ready until nothing is. [worker thread]"""
        ready, done = self._ready, self._done
        while True:
            try:
                turn = ready.popleft()
            except IndexError:
                return
            try:
                turn.work()
            except BaseException:  # turns answer for their own failures; this is a fault of ours
                logger.exception("a turn failed: turn=%r", turn)
            done.append(turn)
            self._finished += 1

    def drained(self) -> None:
        """A drain has ended."""
        self._drains -= 1
        self._collect()
        if self._ready and not self._drains:  # they came after it had looked
            self._start(1)
        self._check_idle()

    def refused(self) -> None:
        """A drain was refused: the workers are stopping, and what is ready is not done any more."""
        self._drains -= 1
        self._ready.clear()
        self._check_idle()

    # Linear handlers.

    @property
    def has_place(self) -> bool:
        """Whether the budget allows one more linear handler. [loop thread]"""
        return self._linear < self._max_linear

    def start_linear(self, work: Callable[[], object]) -> None:
        """Have a linear handler run on a thread of its own. [loop thread]"""
        self._linear += 1
        self._idle.clear()
        self.workers.submit(_Linear(self, work))

    def linear_over(self) -> None:
        """A linear handler has returned."""
        self._linear -= 1
        self._check_idle()

    def notify(self, arrival: threading.Condition) -> None:
        """Wake the linear handler that waits there, at the end of the loop's turn, as `submit` does. [loop thread]"""
        self._arrivals.append(arrival)
        if len(self._arrivals) == 1:
            self._loop.call_soon(self._notify)

    def _notify(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            with arrival:
                arrival.notify_all()

    # The end.

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing runs or waits; False when `timeout` seconds pass first. [loop thread]"""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    def _check_idle(self) -> None:
        if not (self._drains or self._linear or self._ready or self._arrived):
            self._idle.set()


class Turn:
    """Something with work now and then, done by one worker at a time. A subclass says what the work is."""

    __slots__ = ("_busy", "turns")

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._busy = False

    def wake(self) -> None:
        """There is work, or there may be. [loop thread]"""
        if not self._busy:
            self._busy = True
            self.turns.submit(self)

    def come_back(self) -> None:
        """The work is done. [loop thread]"""
        self._busy = False
        self.worked()

    def work(self) -> None:
        """Do what there is; must not raise. [worker thread]"""
        raise NotImplementedError

    def worked(self) -> None:
        """The work is done; wake again if there is more. [loop thread]"""
        raise NotImplementedError


class _Drain:
    """The job of a worker that does turns."""

    __slots__ = ("_turns",)

    pace = _PACE

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def run(self, worker: Worker) -> None:
        """Called by a worker."""
        try:
            self._turns.drain()
        finally:
            self._turns.handle.post(self._turns.drained)

    def refuse(self) -> None:
        """The workers are stopping. [loop thread]"""
        self._turns.refused()


class _Linear:
    """A linear handler on its way to a thread of its own."""

    __slots__ = ("_turns", "_work")

    pace = _PACE

    def __init__(self, turns: Turns, work: Callable[[], object]) -> None:
        self._turns = turns
        self._work = work

    def run(self, worker: Worker) -> None:
        """Called by a worker; returns when the handler does."""
        try:
            self._work()
        finally:
            self._turns.handle.post(self._turns.linear_over)

    def refuse(self) -> None:
        """The workers are stopping, and the connection with them. [loop thread]"""
        self._turns.linear_over()
