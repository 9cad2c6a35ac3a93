"""Many streams of events that carry the time they were due: how many arrive, and how late.

Streams are opened at an even pace, so that their ticks spread over the interval; the ramp counts for nothing. The
figures are about the events due within a window that begins when every stream has begun.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter
from typing import Any

from tools.bench.clients import wire
from tools.bench.clients.latency import milliseconds

CONNECTS_PER_SECOND = 2000
RAMP_PATIENCE = 10.0
"""Seconds after the last connection for every stream to begin."""
STRAGGLER_PATIENCE = 1.0
"""Seconds after the window for its last events to arrive."""
ON_TIME = 0.050
"""Seconds of lateness that still count as on time."""

_EVENT = re.compile(rb"due=(\d+\.\d+)\n")


class Stream:
    """One connection. `status` is 0 until the head is there; `tail` is the beginning of an unfinished event."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.status = 0
        self._tail = b""

    def advance(self) -> list[float] | None:
        """The due times of the events that are there now; None when the server has closed the connection."""
        try:
            data = self.connection.recv(65536)
        except OSError:
            return None
        if not data:
            return None
        data = self._tail + data
        self.status = self.status or wire.status(data)
        self._tail = data[data.rfind(b"\n") + 1 :]
        return [float(due) for due in _EVENT.findall(data)]


class Audience:
    """All streams and what has arrived on them."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = wire.request(path)
        self._selector = selectors.DefaultSelector()
        self._streams: list[Stream] = []
        self.begun: set[Stream] = set()
        self.closed = 0
        self.arrivals: list[tuple[float, float]] = []
        """Of each event the time it arrived and the time it was due."""

    def open(self, count: int) -> None:
        """Opens `count` streams at an even pace, reading the others meanwhile."""
        started = time.monotonic()
        for index in range(count):
            connection = wire.connect(self._port, index)
            connection.sendall(self._request)
            connection.setblocking(False)
            stream = Stream(connection)
            self._streams.append(stream)
            self._selector.register(connection, selectors.EVENT_READ, stream)
            self.listen(started + (index + 1) / CONNECTS_PER_SECOND)

    def listen(self, deadline: float, until_begun: bool = False) -> None:
        """Collects events until `deadline`, or until every stream that is still open has begun."""
        while (left := deadline - time.monotonic()) > 0:
            if until_begun and len(self.begun) + self.closed >= len(self._streams):
                return
            for key, _ in self._selector.select(timeout=left):
                self._advance(key.data)

    def _advance(self, stream: Stream) -> None:
        events = stream.advance()
        now = time.monotonic()
        if events is None or stream.status not in (0, 200):
            self._selector.unregister(stream.connection)
            stream.connection.close()
            self.closed += stream not in self.begun
            return
        if events:
            self.begun.add(stream)
            self.arrivals.extend((now, due) for due in events)

    def statuses(self) -> dict[str, int]:
        """How many streams were answered with which status; 0 stands for no answer."""
        return {str(status): count for status, count in Counter(each.status for each in self._streams).items()}

    def close(self) -> None:
        for stream in self._streams:
            stream.connection.close()
        self._selector.close()


def measure(port: int, path: str, count: int, seconds: float, interval: float) -> dict[str, Any]:
    """Listens to `count` streams for a window of `seconds` (a multiple of `interval`)."""
    audience = Audience(port, path)
    audience.open(count)
    audience.listen(time.monotonic() + RAMP_PATIENCE, until_begun=True)
    begin = time.monotonic()
    end = begin + seconds
    audience.listen(end + STRAGGLER_PATIENCE)
    lateness = [arrived - due for arrived, due in audience.arrivals if begin <= due < end]
    expected = count * seconds / interval
    result = {
        "expected": expected,
        "delivered_share": len(lateness) / expected,
        "on_time_share": sum(late <= ON_TIME for late in lateness) / expected,
        "begun": len(audience.begun),
        "statuses": audience.statuses(),
        **milliseconds(lateness),
    }
    audience.close()
    return result
