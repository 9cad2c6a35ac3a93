"""The clocks of the server: one for deadlines, one of processor time, and the `Date` header once a second."""

from __future__ import annotations

import time
from email.utils import formatdate

monotonic = time.monotonic
"""Seconds, for deadlines and durations; comparable across threads."""


class HTTPDate:
    """The `Date` header's value, formatted at most once a second (RFC 9110 section 5.6.7). [loop thread]"""

    __slots__ = ("_second", "_value")

    def __init__(self) -> None:
        self._second = -1
        self._value = b""

    def value(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._value = formatdate(now, usegmt=True).encode("ascii")
        return self._value


class Load:
    """How busy the process is, to tell threads that wait for something from threads that compute. [one thread]"""

    __slots__ = ("_late", "_processor", "_wall")

    def __init__(self, late: float) -> None:
        """Who asks again after more than `late` seconds was kept from it, by a lack of processors or of its lock."""
        self._late = late
        self._wall = monotonic()
        self._processor = time.process_time()

    def __call__(self) -> float:
        """Processors that the whole process has used since the last call, on average: 1.0 is one of them all the time.

        Where Python code alone runs it is never much above 1: one thread at a time has the interpreter lock. A process
        that is not given a processor uses none either, so it counts as busy where the question itself comes late.
        """
        wall, processor = monotonic(), time.process_time()
        passed, used = wall - self._wall, processor - self._processor
        self._wall, self._processor = wall, processor
        return 1.0 if passed > self._late else used / max(passed, 1e-9)
