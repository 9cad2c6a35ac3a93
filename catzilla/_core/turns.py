"""Which thread runs the callbacks of WebSockets and rooms: one at a time and in order for each, many side by side.

A `Turn` is something that has work now and then: a socket with callbacks, or the hooks of a room. It holds no thread
while it has none. When there is some, the loop submits it to the workers of the sockets; a worker does what there is
and gives it back through the loop, which submits it again if more has come meanwhile. So a turn is never run by two
threads, needs no lock, and a blocked one delays nobody else: the workers see to that (`workers.py`).

Turns and linear handlers have budgets of their own. A linear handler over its budget is refused; a turn over its own
waits in the order of arrival, while its socket, whose inbox fills up, is no longer read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from catzilla._core.limits import Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.pace import Pace
from catzilla._core.workers import Worker, Workers

logger = logging.getLogger("catzilla")


class Turns:
    """The budgets, and what waits for them. All of it is the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: LoopHandle, workers: Workers, limits: Limits) -> None:
        self.handle = handle
        self.workers = workers
        self._max_turns = limits.max_callbacks
        self._max_linear = limits.max_sockets
        self._loop = loop
        self._waiting: deque[Turn] = deque()
        self.running = 0  # turns that were submitted and have not come back
        self.linear = 0  # linear handlers that were submitted and have not come back
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """How many turns the budget keeps waiting. [any thread]"""
        return len(self._waiting)

    def submit(self, turn: Turn) -> None:
        """Have a turn run, or wait for its place. [loop thread]"""
        if self.running >= self._max_turns:
            self._waiting.append(turn)
            return
        self.running += 1
        self._idle.clear()
        self.workers.submit(turn)

    def over(self) -> None:
        """A turn has come back. [loop thread]"""
        self.running -= 1
        if self._waiting and self.running < self._max_turns:
            self.submit(self._waiting.popleft())
        self._check_idle()

    def start_linear(self, job: LinearJob) -> bool:
        """Have a linear handler run; False when the budget is full. [loop thread]"""
        if self.linear >= self._max_linear:
            return False
        self.linear += 1
        self._idle.clear()
        self.workers.submit(job)
        return True

    def linear_over(self) -> None:
        """A linear handler has returned. [loop thread]"""
        self.linear -= 1
        self._check_idle()

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing runs or waits; False when `timeout` seconds pass first. [loop thread]"""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    def _check_idle(self) -> None:
        if not self.running and not self.linear and not self._waiting:
            self._idle.set()


_PACE = Pace()  # nothing is known of a callback; and no stream lives on a socket's worker, whom it could delay


class Turn:
    """Something with work now and then, done by one worker at a time. A subclass says what the work is.

    `_busy` is the loop's: set when the turn is submitted, cleared when it has come back.
    """

    __slots__ = ("_busy", "turns")

    pace = _PACE

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._busy = False

    def wake(self) -> None:
        """There is work, or there may be. [loop thread]"""
        if not self._busy:
            self._busy = True
            self.turns.submit(self)

    def run(self, worker: Worker) -> None:
        """Called by a worker."""
        try:
            self.work()
        finally:
            self.turns.handle.post(self._come_back)

    def _come_back(self) -> None:
        self._busy = False
        self.turns.over()
        self.worked()

    def refuse(self) -> None:
        """The workers are stopping: what was to be done is not done any more. [loop thread]"""
        self._busy = False
        self.turns.over()

    def work(self) -> None:
        """Do what there is; must not raise. [worker thread]"""
        raise NotImplementedError

    def worked(self) -> None:
        """The work is done; wake again if there is more. [loop thread]"""
        raise NotImplementedError


class LinearJob:
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
