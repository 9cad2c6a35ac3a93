"""The one door from any thread to the loop.

Everything that a worker, a broker or the main thread wants done on the loop goes through `LoopHandle.post`. Knows
nothing of what it carries.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("catzilla")


class LoopHandle:
    """A queue into the loop that wakes it once a burst.

    `_entries` is appended to by any thread and taken from by the loop; `_woken` says that a wake-up is under way.
    The poster appends first and looks at `_woken` second; the loop clears `_woken` first and takes second. So when a
    poster sees `_woken` set, the loop has not begun to take yet and will find the entry; when it sees it clear it
    wakes the loop, at worst once too often. The reverse order on either side would lose a wake-up.
    """

    __slots__ = ("_entries", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Have `callback(*args)` called on the loop, in the order of posting. Never blocks. [any thread]

        After the loop has closed the call is dropped: there is no connection left that it could concern.
        """
        self._entries.append((callback, args))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop is closed
                self._entries.clear()

    def _run(self) -> None:
        """Take everything that is there now, and no more: what callbacks post runs in the next turn."""
        self._woken = False
        entries = self._entries
        for _ in range(len(entries)):
            callback, args = entries.popleft()
            try:
                callback(*args)
            except BaseException:  # whatever it is, the others are owed their turn
                logger.exception("a posted call failed: call=%r", callback)
