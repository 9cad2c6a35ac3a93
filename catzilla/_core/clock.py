"""The two clocks of the server: a monotonic one for deadlines, and the `Date` header once a second."""

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
