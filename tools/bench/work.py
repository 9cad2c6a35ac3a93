"""The work every server is given: the same plain generators over the same bytes.

Imported by each application in `apps/` and by the clients. It knows no framework and no server, so a difference in a
figure is a difference between servers. The generators do not end by themselves: a client reads for as long as it
measures, then goes away.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELLO = b"Hello, World!"
CHUNK_8K = b"x" * (8 * 1024)
CHUNK_64K = b"x" * (64 * 1024)

LINE_MARK = b"|"
"""Occurs once a line and in no chunk framing, so that counting it in what arrives counts lines."""
LINE = b"0123456789abcdefgh" + LINE_MARK + b"\n"
"""20 bytes."""

TICK_INTERVAL = 0.5
"""Seconds between two events of a sleeper."""

FIRST_BYTE_PAUSE = 0.005
"""Seconds before the second chunk of `/first`: a server that waits for that chunk shows them in its first byte."""

MESSAGE_BYTES = 32
LARGE_MESSAGE_BYTES = 60_000

PARKED = b"parked\n"
PARKED_SECONDS = 3600.0

COUNTER_VARIABLE = "BENCH_COUNTER_FILE"
"""The environment variable that names the file of the `Counter`."""

ENDLESS = 1 << 40


def repeat(chunk: bytes) -> Iterator[bytes]:
    """The same prebuilt chunk, over and over."""
    for _ in range(ENDLESS):
        yield chunk


@dataclass(frozen=True)
class Payload:
    """What is in one WebSocket message."""

    data: bytes
    text: bool


def payload(size: int, text: bool) -> Payload:
    """`size` bytes: letters and digits as text, else every byte there is (which is not UTF-8)."""
    pattern = b"0123456789abcdefghijklmnopqrstuvwxyz" if text else bytes(range(256))
    return Payload((pattern * (size // len(pattern) + 1))[:size], text)


def roll_call(number: int, size: int) -> Payload:
    """`size` bytes of text, others for each number below 1000."""
    return Payload((b"%03d here? " % number * (size // 4))[:size], True)


def first() -> Iterator[bytes]:
    """The time of the first yield (seconds, monotonic), a pause, the end."""
    yield b"%.6f\n" % time.monotonic()
    time.sleep(FIRST_BYTE_PAUSE)
    yield b"end\n"


class Schedule:
    """A ticker: when each event of one sleeper is due.

    Ticks that passed before the server resumed its generator are lost, as with any ticker. Sleeping a fixed time
    instead would let the schedule drift with every event; making up for lost ticks in a burst would hide them.
    """

    def __init__(self) -> None:
        self.due = time.monotonic()

    def event(self) -> bytes:
        """The event of this tick. It carries its due time: all processes of a machine share the monotonic clock."""
        return b"due=%.6f\n" % self.due

    def pause(self) -> float:
        """Moves to the next tick after now and returns the seconds until then."""
        now = time.monotonic()
        lost = max(0, math.floor((now - self.due) / TICK_INTERVAL))
        self.due += TICK_INTERVAL * (1 + lost)
        return max(0.0, self.due - now)


def ticks() -> Iterator[bytes]:
    """An event on every tick, asleep in between, as plain synchronous code is."""
    schedule = Schedule()
    for _ in range(ENDLESS):
        yield schedule.event()
        time.sleep(schedule.pause())


class Counter:
    """How many chunks all generators of one server have produced, readable from another process at any time.

    It lives in a shared file and not behind a path of its own, because a server whose threads are all held by stalled
    clients answers no more requests, and that is when the number matters.
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "r+b") as file:
            self._cell = mmap.mmap(file.fileno(), 8)
        self._lock = threading.Lock()

    @staticmethod
    def create(path: str | Path) -> Counter:
        """A new counter at zero, in a new file."""
        Path(path).write_bytes(bytes(8))
        return Counter(path)

    @property
    def value(self) -> int:
        return int.from_bytes(self._cell[:8], "little")

    def increment(self) -> int:
        """Adds one and returns the new value."""
        with self._lock:
            value = self.value + 1
            self._cell[:8] = value.to_bytes(8, "little")
        return value


@functools.lru_cache(maxsize=1)
def shared_counter() -> Counter:
    """The counter of this server process."""
    return Counter(os.environ[COUNTER_VARIABLE])


def fresh() -> Iterator[bytes]:
    """New 8 KiB objects, each counted: what a server holds of these shows in its memory."""
    counter = shared_counter()
    padding = CHUNK_8K[8:]
    for _ in range(ENDLESS):
        yield counter.increment().to_bytes(8, "little") + padding
