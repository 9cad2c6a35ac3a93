"""Timers for very many sleepers: one heap, one timer of the loop.

A timer of the event loop costs several hundred bytes; here one costs about 150, and cancelling is a flag. All of it
runs on the loop thread.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable

logger = logging.getLogger("catzilla")


class Timer:
    """A call due at `when` (loop time, seconds). [loop thread]"""

    __slots__ = ("_timers", "callback", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], object]) -> None:
        self._timers = timers
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return False  # only asked about timers that are due at the same moment

    def cancel(self) -> None:
        """Forget the call at once; the entry itself leaves the heap later. Calling twice is fine."""
        if self.callback is not None:
            self.callback = None
            self._timers._cancelled_one()


class Timers:
    """The heap of timers of one loop. [loop thread]"""

    __slots__ = ("_armed", "_cancelled", "_handle", "_heap", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, Timer]] = []  # tuples of numbers are compared without Python code
        self._cancelled = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed = float("inf")  # when the loop's own timer fires

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Have `callback()` called in `delay` seconds."""
        timer = Timer(self, self._loop.time() + delay, callback)
        heapq.heappush(self._heap, (timer.when, timer))
        if timer.when < self._armed:
            self._arm(timer.when)
        return timer

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = when
        self._handle = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._armed = float("inf")
        # uvloop's clock has millisecond steps: half of one early is on time.
        now = self._loop.time() + 0.0005
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[1]
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._cancelled -= 1
                continue
            try:
                callback()
            except Exception:
                logger.exception("a timer's call failed: call=%r", callback)
        if heap and heap[0][0] < self._armed:
            self._arm(heap[0][0])

    def _cancelled_one(self) -> None:
        """Sweep once the dead outnumber the living, so that a cancelled hour-long sleep does not stay for an hour."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            # In place: `_fire` may be in the middle of it, when a call that is due cancels many others.
            self._heap[:] = [entry for entry in self._heap if entry[1].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0


def _nothing() -> None:
    """What a deadline calls that has ended."""


class Deadline:
    """A deadline that is moved far more often than it is met: moving it is one assignment. [loop thread]

    `callback` is called when `when` has passed. The timer behind it is only looked at when it fires: a deadline that
    has moved on by then is armed again.
    """

    __slots__ = ("_callback", "_timer", "_timers", "_when")

    def __init__(self, timers: Timers, callback: Callable[[], object]) -> None:
        self._timers = timers
        self._callback = callback
        self._when: float | None = None
        self._timer: Timer | None = None

    def set(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now."""
        when = self._timers._loop.time() + seconds
        self._when = when
        timer = self._timer
        if timer is None:
            self._timer = self._timers.call_later(seconds, self._fire)
        elif timer.when > when:
            timer.cancel()
            self._timer = self._timers.call_later(seconds, self._fire)

    def clear(self) -> None:
        """No deadline for now."""
        self._when = None

    def close(self) -> None:
        """No deadline until the next `set`; lets go of the timer."""
        self._when = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """No deadline ever again; lets go of whoever was to be called, who need not wait for a garbage collection."""
        self.close()
        self._callback = _nothing

    def _fire(self) -> None:
        self._timer = None
        if self._when is None:
            return
        left = self._when - self._timers._loop.time()
        if left > 0.0005:
            self._timer = self._timers.call_later(left, self._fire)
        else:
            self._when = None
            self._callback()
