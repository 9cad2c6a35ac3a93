"""What a message is once a broker has numbered it: its stream, its payload, and its position.

Decides nothing but the text of a position. Does not know who published it, who gets it, or how it is encoded for them.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

# What `str(position)` can give, and nothing else: an id that a client sends back is a stranger's text until it matches.
# 19 digits are an offset of 63 bits, which is what any broker counts in.
_POSITION = re.compile(r"([0-9a-z]{1,32})-(0|[1-9][0-9]{0,18})")


class Kind(enum.IntEnum):
    """How a payload was given, which says how it is to be read. A broker stores the number."""

    TEXT = 1  # UTF-8 of a str
    BINARY = 2
    JSON = 3  # UTF-8 of JSON


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream: after the message `offset` of the stream that was made as `epoch`; offset 0 is its start.

    Offsets count from 1 and compare only within one epoch. `str(position)` is `epoch-offset`, such as `k3f9x2-42`.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `str` gave. [any thread] Raises `ValueError` for every other text."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:60]!r} is no position; one looks like 'k3f9x2-42'")
        return cls(found[1], int(found[2]))


class Publication:
    """One numbered message. Nobody changes it: the same object reaches every subscriber and stays in the history."""

    __slots__ = ("event", "exclude", "kind", "payload", "position", "stream", "time")

    def __init__(
        self,
        stream: str,
        kind: Kind,
        payload: bytes,
        event: str | None,
        exclude: str | None,
        position: Position,
        time: float,
    ) -> None:
        self.stream = stream  # the room's name, or `~alice` for a user's inbox
        self.kind = kind
        self.payload = payload  # UTF-8 of the text or of the JSON, or the bytes
        self.event = event
        self.exclude = exclude  # id of the connection that does not get it
        self.position = position
        self.time = time  # seconds since 1970 on the broker's clock, when it was published

    def __repr__(self) -> str:
        what = "" if self.event is None else f" event={self.event!r}"
        size = len(self.payload)
        return f"<Publication {self.stream!r} {self.position} {self.kind.name.lower()} {size} bytes{what}>"
