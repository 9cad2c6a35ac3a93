"""The one place where a worker thread blocks on behalf of the synchronous API.

`writer.write`, `request.body`, `stream.sleep`, `stream.get` and `stream.wait` all end here, and all are woken by the
client's leaving and by the server's stopping. Whoever wants to park a blocked handler more cheaply changes this file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from catzilla._core.clock import monotonic
from catzilla._core.errors import Disconnected


class Waits:
    """Where the threads that serve one request wait, and how they are all interrupted.

    `_interrupted` is written once, by the loop; `_conditions` is replaced as a whole by the waiting threads. A waiter
    publishes its condition first and looks at `_interrupted` second, under the condition's lock; the interrupter sets
    `_interrupted` first and reads `_conditions` second, and notifies under that lock. Whichever comes first, the waiter
    either sees the flag or is notified.
    """

    __slots__ = ("_conditions", "_interrupted")

    def __init__(self) -> None:
        self._conditions: tuple[threading.Condition, ...] = ()
        self._interrupted: Disconnected | None = None

    @property
    def interrupted(self) -> Disconnected | None:
        """Why nothing here waits any more, or None. [any thread]"""
        return self._interrupted

    def check(self) -> None:
        """Raise `Disconnected` if the client is gone or the server is stopping. [any thread]"""
        if self._interrupted is not None:
            # A new one each time: an exception collects a traceback for every thread that raises it.
            raise Disconnected(self._interrupted.code, self._interrupted.reason)

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], object], timeout: float | None = None
    ) -> bool:
        """Block until `predicate()` holds (True) or `timeout` seconds have passed (False). [worker thread]

        `condition` must not be held by the caller; `predicate` is called with it held. Raises `Disconnected` when
        the client leaves or the server stops first.
        """
        deadline = None if timeout is None else monotonic() + timeout
        with _lock:
            self._conditions = (*self._conditions, condition)
        try:
            with condition:
                while not predicate():
                    self.check()
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        return False
                    condition.wait(left)
                return True
        finally:
            with _lock:
                self._forget(condition)

    def interrupt(self, error: Disconnected) -> None:
        """Wake every waiter with `error`, now and from now on. Calling twice keeps the first. [loop thread]"""
        if self._interrupted is not None:
            return
        self._interrupted = error
        for condition in self._conditions:
            with condition:
                condition.notify_all()

    def _forget(self, condition: threading.Condition) -> None:
        conditions = list(self._conditions)
        conditions.remove(condition)
        self._conditions = tuple(conditions)


# Guards the replacement of `Waits._conditions`. One for all: it is held for a few instructions, and a lock in each
# request would cost more memory than it saves time.
_lock = threading.Lock()
