"""The newest messages of one stream: a ring bounded by count, bytes and age that can prove what it holds.

Decides what is kept and what can be replayed. Pure: the time is passed in. Does not know epochs, brokers or threads;
whoever owns it calls one method at a time.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from catzilla._core.publication import Publication


class History:
    """What is kept of a stream whose offsets grow by one.

    `floor` is the offset below which the record has a hole: everything after it, up to `last`, is kept. That one
    number answers every question of recovery, however the hole came about (trimmed, expired, never kept).
    """

    __slots__ = ("_age", "_kept", "bytes", "floor", "last")

    def __init__(self, last: int = 0) -> None:
        self._kept: deque[tuple[float, Publication]] = deque()  # each with the time when it came
        self._age = 0.0
        self.bytes = 0  # of the payloads that are kept
        self.floor = self.last = last

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<History {len(self)} messages, {self.bytes} bytes, after {self.floor} up to {self.last}>"

    @property
    def ends(self) -> float:
        """When the newest message will have reached its age, if nothing follows."""
        return self._kept[-1][0] + self._age

    def append(self, publication: Publication, now: float, max_messages: int, max_bytes: int, max_age: float) -> None:
        """Keep the next message, and of the older ones what fits: O(1) but for what is dropped.

        `max_bytes` counts payloads; a message that is larger alone is not kept. `max_age` is in seconds of the clock
        that gives `now`, which never goes back; `publication.time` may. The bounds hold for the whole history until
        the next message brings others.
        """
        offset = publication.position.offset
        assert offset == self.last + 1, f"offset {offset} after {self.last}: the owner calls one method at a time"
        self.last = offset
        self._age = max_age
        self._kept.append((now, publication))
        self.bytes += len(publication.payload)
        while self._kept and (len(self._kept) > max_messages or self.bytes > max_bytes):
            self._drop_oldest()
        self.expire(now)

    def skip(self) -> None:
        """The next message is not kept: what is older stays to be read, but nobody can catch up across it."""
        self.last += 1
        self.floor = self.last

    def expire(self, now: float) -> None:
        """Drop what has reached its age."""
        while self._kept and now - self._kept[0][0] >= self._age:
            self._drop_oldest()

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self.bytes = 0
        self.floor = self.last

    def after(self, offset: int) -> list[Publication] | None:
        """Every message after `offset`, oldest first; None if one of them is not kept. Call `expire` first."""
        assert offset <= self.last, f"offset {offset} is yet to come; the last is {self.last}"
        if offset < self.floor:
            return None
        return self.newest(self.last - offset)

    def newest(self, count: int | None = None) -> list[Publication]:
        """The newest `count` messages, or all, oldest first; a hole may lie before `floor`. Call `expire` first."""
        found = [publication for _, publication in islice(reversed(self._kept), count)]
        found.reverse()
        return found

    def _drop_oldest(self) -> None:
        _, oldest = self._kept.popleft()
        self.bytes -= len(oldest.payload)
        self.floor = max(self.floor, oldest.position.offset)  # below the floor already, if a skip came after it
