"""The one place where a worker thread blocks on behalf of the synchronous API.

`writer.write`, `request.body`, `stream.sleep`, `stream.get` and `stream.wait` all end here, and all are woken by the
client's leaving and by the server's stopping. Whoever wants to park a blocked handler more cheaply changes this file.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from catzilla._core.clock import monotonic
from catzilla._core.current import current
from catzilla._core.errors import Disconnected


class Signal:
    """A condition that wakes one waiter at a time: what a `threading.Condition` does, at a fifth of its price.

    The lock is a token: who notifies puts it there, a waiter takes it. A token that was put there before anybody waited
    is taken at once, and the predicate is looked at once more, so no wake-up is lost. Where several wait, each passes
    it on.
    """

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = threading.Lock()
        self._token.acquire()

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        return None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the token is there (True) or `timeout` seconds have passed (False). [any thread but the loop]"""
        return self._token.acquire(timeout=-1 if timeout is None else timeout)

    def notify_all(self) -> None:
        """Put the token there, if it is not. [any thread]"""
        with contextlib.suppress(RuntimeError):
            self._token.release()


class Waits:
    """Where the threads that serve one request wait, and how they are all interrupted.

    `interrupted` is written once, by the loop; `_conditions` is replaced as a whole by the waiting threads. A waiter
    publishes its condition first and looks at `interrupted` second, under the condition's lock; the interrupter sets
    `interrupted` first and reads `_conditions` second, and notifies under that lock. Whichever comes first, the waiter
    either sees the flag or is notified. A `Signal` has no lock to hold, but keeps its token until somebody waits.
    """

    __slots__ = ("_conditions", "interrupted")

    def __init__(self) -> None:
        self._conditions: tuple[threading.Condition | Signal, ...] = ()
        self.interrupted: Disconnected | None = None  # why nothing here waits any more; read by any thread

    def check(self) -> None:
        """Raise `Disconnected` if the client is gone or the server is stopping. [any thread]"""
        if self.interrupted is not None:
            # A new one each time: an exception collects a traceback for every thread that raises it.
            raise Disconnected(self.interrupted.code, self.interrupted.reason)

    def wait_for(
        self, condition: threading.Condition | Signal, predicate: Callable[[], object], timeout: float | None = None
    ) -> bool:
        """Block until `predicate()` holds (True) or `timeout` seconds have passed (False). [worker thread]

        `condition` must not be held by the caller; `predicate` is called with it held. Raises `Disconnected` when
        the client leaves or the server stops first.
        """
        self.watch(condition)
        try:
            return self.wait_watched(condition, predicate, timeout)
        finally:
            with _lock:
                self._forget(condition)

    def watch(self, condition: threading.Condition | Signal) -> None:
        """Have whoever waits there woken by the end, for good: for a thread that waits again and again. [any thread]"""
        with _lock:
            self._conditions = (*self._conditions, condition)

    def wait_watched(
        self, condition: threading.Condition | Signal, predicate: Callable[[], object], timeout: float | None = None
    ) -> bool:
        """As `wait_for`, where `watch` has been called before. [worker thread]"""
        deadline = None if timeout is None else monotonic() + timeout
        with condition:
            while True:
                is_over = self.interrupted is not None  # before the predicate: what came before the end is still taken
                if predicate():
                    return True
                if is_over:
                    condition.notify_all()  # a `Signal` has woken this one alone
                    self.check()
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return False
                if current.lead is not None:
                    current.lead.resign()
                condition.wait(left)

    def interrupt(self, error: Disconnected) -> None:
        """Wake every waiter with `error`, now and from now on. Calling twice keeps the first. [loop thread]"""
        if self.interrupted is not None:
            return
        self.interrupted = error
        for condition in self._conditions:
            with condition:
                condition.notify_all()

    def _forget(self, condition: threading.Condition | Signal) -> None:
        conditions = list(self._conditions)
        conditions.remove(condition)
        self._conditions = tuple(conditions)


# Guards the replacement of `Waits._conditions`. One for all: it is held for a few instructions, and a lock in each
# request would cost more memory than it saves time.
_lock = threading.Lock()
