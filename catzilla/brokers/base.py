"""What a broker guarantees. `catzilla.testing.BrokerContract` checks every sentence but one; `memory.py` is an example.

Every method may be called on any thread, and raises `BrokerClosed` after `close`. While one is called on a server's
loop thread, all of its connections wait: that such a call is short is what no test can check. A broker knows streams
and bytes: it does not know rooms, members, JSON or connections.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from catzilla._core.publication import Kind, Position, Publication

Deliver = Callable[[Publication], None]


class BrokerClosed(RuntimeError):
    """The broker was closed, so nothing can be published or read through it any more."""


@dataclass(frozen=True)
class Retention:
    """How much of a stream is kept: the newest messages that fit all three bounds."""

    messages: int = 100
    bytes: int = 1024 * 1024  # of payloads; a message that is larger alone is not kept
    age: float = 300.0  # seconds since it was published

    def __post_init__(self) -> None:
        if not (self.messages >= 1 and self.bytes >= 1 and self.age > 0):
            raise ValueError(f"{self} keeps nothing; every bound must be above zero (retention=None keeps nothing)")


@dataclass(frozen=True)
class Replay:
    """Everything after a position, or nothing and `why`: "epoch" (not a position of this stream) or "trimmed"."""

    publications: list[Publication]  # oldest first; empty when not recovered
    position: Position  # where the stream stood at that moment: live messages go on after it
    why: str | None = None  # None: recovered


class Broker(ABC):
    """Numbers messages, tells every subscriber of each, and keeps the newest of each stream."""

    @abstractmethod
    def subscribe(self, deliver: Deliver) -> Callable[[], None]:
        """Call `deliver` with every publication of every stream from now on; returns the function that ends it.

        Exactly once each, one call at a time, in the order of offsets within a stream; the streams' order among each
        other is open. `deliver` runs on any thread, also inside `publish`; it must neither block nor call the broker.
        One that raises is logged, and changes nothing for the others or the publisher. After the returned function
        has returned, no call of `deliver` runs or follows; calling it again, or after `close`, does nothing.
        Called on the loop thread too: it must not wait for a network.
        """

    @abstractmethod
    def publish(
        self,
        stream: str,
        kind: Kind,
        payload: bytes,
        *,
        event: str | None = None,
        exclude: str | None = None,
        retention: Retention | None = None,
    ) -> Position:
        """Give the message the next offset of `stream`, counted from 1, and tell the subscribers; returns its position.

        All of it reaches them as it was given, with the time in seconds since 1970. `retention` bounds the stream's
        history from now on, this message included; with None it is not kept, and nobody can catch up across it.
        """

    @abstractmethod
    def position(self, stream: str) -> Position:
        """Where `stream` stands: at or after every `publish` that has returned; offset 0 before the first.

        Its epoch is made with the stream, at random (64 bits), so that it never comes again: a stream that was
        forgotten begins anew under another one. A stream may be forgotten when it is idle and has no history.
        Called on the loop thread too: it must not wait for a network.
        """

    @abstractmethod
    def history(self, stream: str, limit: int | None = None) -> list[Publication]:
        """What is kept, or the newest `limit` of it, oldest first. Raises `ValueError` if `limit` is below 0."""

    @abstractmethod
    def replay(self, stream: str, since: Position) -> Replay:
        """Everything after `since` up to now, in one step; or nothing and the reason, never a part.

        Whoever subscribes first, then replays, and drops what is delivered up to `Replay.position`, misses nothing.
        Called on the loop thread too: it must not wait for a network.
        """

    @abstractmethod
    def claim(self, key: str, ttl: float) -> bool:
        """True for exactly one caller until `ttl` seconds have passed; False for the others, when in doubt, and if
        `ttl` is not above zero. Makes a ticket single-use."""

    @abstractmethod
    def close(self) -> None:
        """Stop delivering and let go of everything. Once it has returned no `deliver` runs or follows. Idempotent."""
