"""Several processes on one listening socket: started, watched, replaced and stopped together.

The processes are forked before any thread exists. Knows nothing of what they serve.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

logger = logging.getLogger("catzilla")

QUICK_DEATH = 1.0  # seconds: a process that lives for less did not get to serve
MAX_QUICK_DEATHS = 5  # in a row, then the fault is not a passing one
_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD)


class Supervisor:
    """Keeps `count` processes running `serve` until it is told to stop. Runs on the main thread."""

    def __init__(
        self, count: int, serve: Callable[[], None], grace: float, on_stop: Callable[[], object] | None = None
    ) -> None:
        self._count = count
        self._on_stop = on_stop  # called here before the processes are asked to end
        self._serve = serve
        self._grace = grace  # seconds that a process has to end after it was asked to
        self._started: dict[int, float] = {}  # by process id
        self._stopping = False
        self._quick_deaths = 0
        self._mask: set[int] = set()  # the signals that were blocked before

    def run(self) -> None:
        """Start the processes and wait; replaces those that die. Returns when all have ended.

        Raises: `RuntimeError` when processes keep dying as soon as they start.
        """
        # Signals are asked for, one after the other, and not handled: a handler may be late, when the signal comes just
        # before a system call that blocks, and it may come between a fork and the line that notes the new process.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        previous = signal.signal(signal.SIGCHLD, _note)  # what is ignored might not wait to be asked for
        try:
            for _ in range(self._count):
                self._start()
            while self._started:
                self._act_on(signal.sigwait(_WATCHED))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if signal.SIGALRM in signal.sigpending():
                signal.sigwait({signal.SIGALRM})
            signal.signal(signal.SIGCHLD, previous)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            raise RuntimeError("worker processes end as soon as they start; the log above says why")

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            self._be_child()
        self._started[pid] = time.monotonic()

    def _be_child(self) -> None:
        # A terminal sends Ctrl-C to its whole foreground group. With what the parent passes on, that would be a second
        # signal, which ends a process at once.
        os.setpgrp()
        for number in _WATCHED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        status = 1
        try:
            self._serve()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # not the parent's cleanup: it is the parent's

    def _act_on(self, number: int) -> None:
        if number == signal.SIGCHLD:
            while self._reap():
                pass
        elif number == signal.SIGALRM or self._stopping:
            self._send(signal.SIGKILL)
        else:
            self._stop(number)

    def _reap(self) -> bool:
        """See whether a process has ended; replace it unless it was meant to."""
        pid, status = os.waitpid(-1, os.WNOHANG) if self._started else (0, 0)
        if pid == 0:
            return False
        began = self._started.pop(pid, None)
        if began is None or self._stopping:
            return True
        quick = time.monotonic() - began < QUICK_DEATH
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            self._stop(signal.SIGTERM)
        else:
            logger.warning("process=%d ended with status %d; starting another", pid, os.waitstatus_to_exitcode(status))
            self._start()
        return True

    def _stop(self, number: int) -> None:
        """Ask every process to end, and see to it that it does."""
        self._stopping = True
        if self._on_stop is not None:
            self._on_stop()
        self._send(number)
        signal.setitimer(signal.ITIMER_REAL, self._grace + 1.0)

    def _send(self, number: int) -> None:
        for pid in self._started:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _note(number: int, frame: FrameType | None) -> None:
    """Handle a signal by nothing."""
