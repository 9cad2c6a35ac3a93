"""Which thread runs the callbacks of WebSockets and rooms: one at a time and in order for each, many side by side.

A `Turn` is something that has work now and then: a socket with callbacks, or the hooks of a room. It holds no thread
while it has none. When there is some, the loop puts it among those that are ready; a *drain*, a job of the sockets'
workers, takes one after the other. One drain is all it takes while callbacks return at once, and when it has done what
there was it stays and waits for more: to be called up anew costs several times what a turn costs.

Turns whose callbacks have proven instant need not even that: the thread that runs the loop does them by itself
(`quick_turns.py`).

A drain may be held up by a callback that blocks. While turns wait, the tick starts more drains where none has moved on
since the last tick, or where the process was idle meanwhile (`reinforcement.py`). So a blocked callback delays others
by a tick and the start of a thread, and no more. Of the drains that find nothing left one stays, the *keeper*, and the
others end.

A turn is never run by two threads, and needs no lock: the loop sets `is_busy` when it becomes ready and clears it when
it has been done, and makes it ready again if more has come meanwhile. Turns go to the drains and come back through a
queue each, filled at one side and emptied at the other. All else is the loop's, but for what says so.

Callbacks and linear handlers have budgets of their own. A linear handler over its budget is refused; turns over theirs
wait in the order of arrival, while their sockets, whose inboxes fill up, are no longer read. The budget of callbacks
counts drains, and threads that have lost the loop to a callback that blocks.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from catzilla._core.current import current
from catzilla._core.leader import Leadership
from catzilla._core.limits import Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.pace import CallbackPace, Pace
from catzilla._core.quick_turns import QuickTurns
from catzilla._core.reinforcement import TICK, Reinforcement
from catzilla._core.waits import Signal
from catzilla._core.worker import Worker
from catzilla._core.workers import Workers

logger = logging.getLogger("catzilla")

_PACE = Pace()  # nothing is known of a callback; and no stream lives on a socket's worker, whom it could delay


class TurnStatistics(NamedTuple):
    """A moment's figures: threads alive and idle, turns that wait for one, and linear handlers."""

    threads: int
    idle: int
    waiting: int
    linear: int


class Turns:
    """The turns that are ready, the drains that do them, and the linear handlers. The loop's, but for what says so."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: LoopHandle,
        workers: Workers,
        limits: Limits,
        load: Callable[[], float] | None = None,
        leadership: Leadership | None = None,
    ) -> None:
        self.handle = handle
        self.workers = workers
        self._loop = loop
        self.limits = limits
        self._reinforcement = Reinforcement(load)
        self._quick = None if leadership is None else QuickTurns(leadership, self)
        self._max_drains = limits.max_callbacks
        self._max_linear = limits.max_sockets
        self._arrived: list[Turn] = []  # in this turn of the loop
        self._out = 0  # turns that were submitted and have not come back
        self._ready: SimpleQueue[Turn | None] = SimpleQueue()  # None sends away the drain that gets it
        self._done: deque[Turn] = deque()
        self._keeper = threading.Lock()  # held by the one drain that waits for more to do
        self._finished = 0  # turns ever done; written by drains, who may lose a count: only that it moves matters
        self._finished_at_tick = 0
        self._drains = 0
        self._ticking = False
        self._linear = 0
        self._arrivals: list[Signal] = []  # to be notified at the end of this turn of the loop
        self._became_idle: asyncio.Event | None = None  # while somebody waits for it

    @property
    def waiting(self) -> int:
        """How many turns are ready and not begun. [any thread]"""
        return self._ready.qsize()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits. [any thread]"""
        return not (self._out or self._linear)

    def statistics(self) -> TurnStatistics:
        """[any thread]"""
        workers = self.workers.statistics()
        idle = workers.idle + self._keeper.locked()
        quick = self._quick
        waiting = self.waiting + (0 if quick is None else len(quick))
        return TurnStatistics(workers.threads, idle, waiting, self._linear)

    # Turns.

    def submit(self, turn: Turn) -> None:
        """Have a turn done. It is shown to the drains at the end of the loop's turn, for the reason that
        `Workers.submit` gives. [loop thread]"""
        self._out += 1
        if self._quick is not None and self._quick.add(turn):
            return
        self._arrived.append(turn)
        if len(self._arrived) == 1:
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        arrived, self._arrived = self._arrived, []
        self.show(arrived)

    def show(self, turns: Iterable[Turn]) -> None:
        """Show turns that were submitted to the drains. [loop thread]"""
        for turn in turns:
            self._ready.put(turn)
        if not self._drains and self.places > 0:
            self._start(1)
        if not self._ticking:
            self._ticking = True
            self._finished_at_tick = self._finished
            self._reinforcement.begin()
            self._loop.call_later(TICK, self._tick)

    @property
    def places(self) -> int:
        """How many more threads may run callbacks. Those that have lost the loop count. [loop thread]"""
        return self._max_drains - self._drains - (0 if self._quick is None else self._quick.astray)

    def _start(self, count: int) -> None:
        for _ in range(count):
            self._drains += 1
            self.workers.submit(_Drain(self))

    def _tick(self) -> None:
        """See that turns are moving; start more drains where those there are got stuck."""
        self.collect()
        if not self._out:
            self._ticking = False
            return
        reinforcement, waiting = self._reinforcement, self.waiting
        reinforcement.look()
        places = min(waiting, self.places)
        if self._finished == self._finished_at_tick:
            self._start(reinforcement.count(places))
        else:
            reinforcement.reset()
            if reinforcement.is_idle and places > 0:
                self._start(1)
        self._finished_at_tick = self._finished
        self._loop.call_later(TICK, self._tick)

    def collect(self) -> None:
        """Take back the turns that are done. [loop thread]"""
        done = self._done
        while done:
            turn = done.popleft()
            self._out -= 1
            turn.is_busy = False
            turn.worked()
        self._check_idle()

    # On workers.

    def drain(self) -> None:
        """Do what is ready, and as the keeper what comes later. [worker thread]"""
        while (turn := self._next()) is not None:
            self.do(turn)
            self._finished += 1
            del turn  # who waits for more holds on to nothing

    def do(self, turn: Turn) -> None:
        """Do one turn, which `collect` then takes back. [worker thread, or the one that leads]"""
        try:
            turn.work()
        except BaseException:  # turns answer for their own failures; this is a fault of ours
            logger.exception("a turn failed: turn=%r", turn)
        finally:
            self._done.append(turn)

    def _next(self) -> Turn | None:
        """The next turn; None for a drain that has nothing to do and is not needed. [worker thread]"""
        try:
            return self._ready.get_nowait()
        except Empty:
            return self._keep()

    def _keep(self) -> Turn | None:
        """Wait for a turn, unless another drain does already. [worker thread]

        A turn that becomes ready when this one has looked, and while the keeper is busy or about to end, is met by
        `drained` if no drain is left, else by the keeper when it looks again or, if that takes long, by the tick.
        """
        current.waits = None
        self.handle.post(self.collect)
        if not self._keeper.acquire(blocking=False):
            return None
        try:
            return self._ready.get(timeout=self.limits.idle_thread_timeout)
        except Empty:
            return None
        finally:
            self._keeper.release()

    # The end of drains.

    def drained(self) -> None:
        """A drain has ended. [loop thread]"""
        self._drains -= 1
        self.collect()
        if self.waiting and not self._drains and self.places > 0:  # they came after it had looked
            self._start(1)

    def stop(self) -> None:
        """Let the drains end after what is ready; what comes later is not done any more. [loop thread]"""
        self._quick = None
        for _ in range(self._drains):
            self._ready.put(None)
        self.workers.stop()

    def refused(self) -> None:
        """A drain was refused: the workers stop. If it was the last one, what is ready is not done. [loop thread]"""
        self._drains -= 1
        while not self._drains and self.waiting:
            self._out -= self._ready.get_nowait() is not None  # nobody else takes from it
        self._check_idle()

    # Linear handlers.

    @property
    def has_place(self) -> bool:
        """Whether the budget allows one more linear handler. [loop thread]"""
        return self._linear < self._max_linear

    def start_linear(self, work: Callable[[], object]) -> None:
        """Have a linear handler run on a thread of its own. [loop thread]"""
        self._linear += 1
        self.workers.submit(_Linear(self, work))

    def linear_over(self) -> None:
        """A linear handler has returned."""
        self._linear -= 1
        self._check_idle()

    def notify(self, arrival: Signal) -> None:
        """Wake the linear handler that waits there, at the end of the loop's turn, as `submit` does. [loop thread]"""
        self._arrivals.append(arrival)
        if len(self._arrivals) == 1:
            self._loop.call_soon(self._notify)

    def _notify(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            arrival.notify_all()

    # The end.

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing runs or waits; False when `timeout` seconds pass first. [loop thread]"""
        self._became_idle = asyncio.Event()
        self._check_idle()
        try:
            await asyncio.wait_for(self._became_idle.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    def _check_idle(self) -> None:
        if self._became_idle is not None and self.is_idle:
            self._became_idle.set()


class Turn:
    """Something with work now and then, done by one worker at a time. A subclass says what the work is."""

    __slots__ = ("is_busy", "pace", "turns")

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.pace: CallbackPace | None = None  # of what the work is; None for what may take its time. The loop's
        self.is_busy = False  # it is ready, or being done

    def wake(self) -> None:
        """There is work, or there may be. [loop thread]"""
        if not self.is_busy:
            self.is_busy = True
            self.turns.submit(self)

    def work(self) -> None:
        """Do what there is; must not raise. [worker thread, or the one that leads]"""
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
