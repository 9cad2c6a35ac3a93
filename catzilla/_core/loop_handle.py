"""The one door from any thread to the loop.

Everything that a worker, a broker or the main thread wants done on the loop goes through `LoopHandle.post`. Knows
nothing of what it carries.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from catzilla._core.errors import Disconnected
from catzilla._core.waits import Waits

T = TypeVar("T")

CALL_CHECK = 0.5  # seconds after which whoever waits for the loop looks whether there is one

logger = logging.getLogger("catzilla")


class LoopHandle:
    """A queue into the loop that wakes it once a burst.

    `posted` is appended to by any thread and taken from by the loop; `_woken` says that `_run` will be called anyway,
    because a wake-up is under way or because the loop is held and about to go on.
    The poster appends first and looks at `_woken` second; the loop clears `_woken` first and takes second. So when a
    poster sees `_woken` set, the loop has not begun to take yet and will find the entry; when it sees it clear it
    wakes the loop, at worst once too often. The reverse order on either side would lose a wake-up.
    """

    __slots__ = ("_holds", "_loop", "_woken", "posted")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False
        self._holds = False  # `_woken` was set by `hold`, so `release` is to clear it; the leading thread's

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback(*args)` called on the loop, in the order of posting. Never blocks. [any thread]

        After the loop has closed the call is dropped: there is no connection left that it could concern.
        """
        self.posted.append((callback, args))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop is closed
                self._woken = False
                self.posted.clear()

    def hold(self) -> None:
        """The loop rests: have what is posted from now on wait for `release`.

        [the thread that leads, while the loop does not run]
        """
        # A poster that comes between the two has woken the loop by itself, so `_run` is called once too often.
        self._holds, self._woken = not self._woken, True

    def release(self) -> None:
        """The loop goes on. [the thread that leads, while the loop does not run]"""
        if self._holds:
            self._holds = self._woken = False
            if self.posted:  # looked at second, as `_run` does
                self._woken = True
                self._loop.call_soon(self._run)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)` as the loop computes it, behind everything this thread has posted. [any other thread]

        Raises what the function raises, and `Disconnected` when the loop ends first.
        """
        answer = _Answer()
        self.post(answer.compute, function, args)
        while not Waits().wait_for(answer.ready, answer.is_there, CALL_CHECK):
            if self._loop.is_closed():
                raise Disconnected(1001, "the server has stopped")
        if answer.error is not None:
            raise answer.error
        return cast(T, answer.value)

    def _run(self) -> None:
        """Take everything that is there now, and no more: what callbacks post runs in the next turn."""
        self._woken = False
        entries = self.posted
        for _ in range(len(entries)):
            callback, args = entries.popleft()
            try:
                callback(*args)
            except BaseException:  # whatever it is, the others are owed their turn
                logger.exception("a posted call failed: call=%r", callback)


class _Answer:
    """What `call` waits for."""

    __slots__ = ("error", "is_done", "ready", "value")

    def __init__(self) -> None:
        self.ready = threading.Condition()
        self.is_done = False
        self.value: object = None
        self.error: BaseException | None = None

    def is_there(self) -> bool:
        return self.is_done

    def compute(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            self.value = function(*args)
        except BaseException as error:  # whoever waits is owed an answer
            self.error = error
        with self.ready:
            self.is_done = True
            self.ready.notify()
