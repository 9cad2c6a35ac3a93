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
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Keeps `count` processes running `serve` until it is told to stop. Runs on the main thread."""

    def __init__(self, count: int, serve: Callable[[], None], grace: float) -> None:
        self._count = count
        self._serve = serve
        self._grace = grace  # seconds that a process has to end after it was asked to
        self._started: dict[int, float] = {}  # by process id
        self._stopping = False
        self._quick_deaths = 0

    def run(self) -> None:
        """Start the processes and wait; replaces those that die. Returns when all have ended.

        Raises: `RuntimeError` when processes keep dying as soon as they start.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in _STOPPING}
        try:
            for _ in range(self._count):
                self._start()
            while self._started:
                self._reap()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            raise RuntimeError("worker processes end as soon as they start; the log above says why")

    def _start(self) -> None:
        """Start a process, unless all are to stop."""
        # A signal that came before the process is known would not be passed on to it; so it waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            if not self._stopping:
                pid = os.fork()
                if pid == 0:
                    self._be_child()
                self._started[pid] = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)

    def _be_child(self) -> None:
        # A terminal sends Ctrl-C to its whole foreground group. With what the parent passes on, that would be a second
        # signal, which ends a process at once.
        os.setpgrp()
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
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

    def _reap(self) -> None:
        """Wait for one process to end; replace it unless it was meant to."""
        pid, status = os.wait()
        began = self._started.pop(pid, None)
        if began is None or self._stopping:
            return
        quick = time.monotonic() - began < QUICK_DEATH
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            self._stop(signal.SIGTERM)
            return
        logger.warning("process=%d ended with status %d; starting another", pid, os.waitstatus_to_exitcode(status))
        self._start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM or self._stopping:
            self._send(signal.SIGKILL)
        else:
            self._stop(number)

    def _stop(self, number: int) -> None:
        """Ask every process to end, and see to it that it does."""
        self._stopping = True
        self._send(number)
        signal.signal(signal.SIGALRM, self._on_signal)
        signal.setitimer(signal.ITIMER_REAL, self._grace + 1.0)

    def _send(self, number: int) -> None:
        for pid in self._started:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
