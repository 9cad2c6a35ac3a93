"""The broker of one process: everything in memory, under one lock, and nothing survives a restart.

Decides which streams and histories stay when there are too many. Has no thread and no timer of its own: what has
expired is let go of by later calls, a few looks each. [any thread]
"""

from __future__ import annotations

import heapq
import logging
import math
import secrets
import threading
import time
from base64 import b32encode
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from catzilla._core.clock import monotonic
from catzilla._core.history import History
from catzilla._core.publication import Kind, Position, Publication
from catzilla.brokers.base import Broker, BrokerClosed, Deliver, Replay, Retention

logger = logging.getLogger("catzilla")

MIB = 1024 * 1024
STREAM_COST = 1024  # bytes that a stream with a history takes, about, besides its messages
MESSAGE_COST = 256  # bytes that a kept message takes, about, besides its payload
LOOKS = 2  # expired histories and claims that a call lets go of: more than the one that it can add


class MemoryStatistics(NamedTuple):
    """What a `MemoryBroker` holds now, and what it had to let go of since it was made."""

    subscribers: int
    streams: int
    histories: int
    history_bytes: int
    claims: int
    published: int
    forgotten_streams: int
    dropped_histories: int
    refused_claims: int


class _Stream:
    """One stream: the last offset that was given, and what is kept."""

    __slots__ = ("cost", "due", "epoch", "history", "offset")

    def __init__(self) -> None:
        self.epoch = b32encode(secrets.token_bytes(8)).decode("ascii").rstrip("=").lower()
        self.offset = 0
        self.history: History | None = None
        self.cost = 0  # bytes, its share of all histories
        self.due = math.inf  # when to look whether the history has expired: the time of its entry in the heap

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)


class _Subscription:
    """One `subscribe`: where its publications go, while it lasts."""

    __slots__ = ("active", "deliver")

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver
        self.active = True


class MemoryBroker(Broker):
    """Publishes within this process.

    Bounded: at most `max_idle_streams` streams without history are remembered, and all histories together hold at most
    `max_history_bytes`; beyond that the least recently used goes. At most `max_claims` claims stand at once; further
    ones are refused, because a ticket that was let in twice is worse than one that was let in never. `clock` gives
    the seconds that ages and claims are counted in, and never goes back.
    """

    def __init__(
        self,
        *,
        max_idle_streams: int = 10_000,
        max_history_bytes: int = 256 * MIB,
        max_claims: int = 100_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if min(max_idle_streams, max_history_bytes, max_claims) < 1:
            raise ValueError("max_idle_streams, max_history_bytes and max_claims must be at least 1")
        self._max_idle_streams = max_idle_streams
        self._max_history_bytes = max_history_bytes
        self._max_claims = max_claims
        self._clock = clock
        # Reentrant, so that a `deliver` that breaks its word and calls the broker does not wait for itself.
        self._lock = threading.RLock()
        self._closed = False
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._undelivered: deque[tuple[Publication, tuple[_Subscription, ...]]] = deque()
        self._delivering = False
        self._idle: OrderedDict[str, _Stream] = OrderedDict()  # without history, least recently used first
        self._kept: OrderedDict[str, _Stream] = OrderedDict()  # with one, in the same order
        self._due: list[tuple[float, str]] = []  # heap of when to look at which history; some entries are out of date
        self._history_bytes = 0
        self._claims: dict[str, float] = {}  # until when, in seconds of the clock
        self._claims_due: list[tuple[float, str]] = []  # the same as a heap
        self._published = self._forgotten_streams = self._dropped_histories = self._refused_claims = 0

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<MemoryBroker {state} streams={len(self._idle) + len(self._kept)} histories={len(self._kept)}>"

    def subscribe(self, deliver: Deliver) -> Callable[[], None]:
        subscription = _Subscription(deliver)
        with self._lock:
            self._begin()
            self._subscriptions = (*self._subscriptions, subscription)

        def unsubscribe() -> None:
            with self._lock:  # waits for a delivery that is under way on another thread
                subscription.active = False
                self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)

        return unsubscribe

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
        with self._lock:
            now = self._begin()
            found = self._stream(stream)
            found.offset += 1
            publication = Publication(stream, kind, payload, event, exclude, found.position, time.time())
            self._published += 1
            self._record(stream, found, publication, retention, now)
            self._undelivered.append((publication, self._subscriptions))
            if not self._delivering:  # else the `deliver` that called this is served first: order before depth
                self._deliver_all()
            return publication.position

    def position(self, stream: str) -> Position:
        with self._lock:
            self._begin()
            return self._stream(stream).position

    def history(self, stream: str, limit: int | None = None) -> list[Publication]:
        if limit is not None and limit < 0:
            raise ValueError(f"limit={limit}: a history has no newest {limit} messages; None gives all of them")
        with self._lock:
            now = self._begin()
            kept = self._kept.get(stream)
            if kept is None:
                return []
            self._kept.move_to_end(stream)
            history = self._expire(stream, kept, now)
            return [] if history is None else history.newest(limit)

    def replay(self, stream: str, since: Position) -> Replay:
        with self._lock:
            now = self._begin()
            found = self._stream(stream)
            history = self._expire(stream, found, now)
            position = found.position
            if since.epoch != found.epoch or not 0 <= since.offset <= found.offset:
                return Replay([], position, "epoch")
            if since.offset == found.offset:
                return Replay([], position)
            missed = None if history is None else history.after(since.offset)
            return Replay([], position, "trimmed") if missed is None else Replay(missed, position)

    def claim(self, key: str, ttl: float) -> bool:
        with self._lock:
            now = self._begin()
            if not ttl > 0 or self._claims.get(key, now) > now:
                return False
            if len(self._claims) >= self._max_claims and key not in self._claims:
                self._refuse_claim()
                return False
            self._claims[key] = now + ttl
            heapq.heappush(self._claims_due, (now + ttl, key))
            return True

    def close(self) -> None:
        with self._lock:  # waits for a delivery that is under way on another thread
            self._closed = True
            for subscription in self._subscriptions:
                subscription.active = False
            self._subscriptions = ()
            for held in (self._undelivered, self._idle, self._kept, self._due, self._claims, self._claims_due):
                held.clear()
            self._history_bytes = 0

    def statistics(self) -> MemoryStatistics:
        """[any thread]"""
        with self._lock:
            return MemoryStatistics(
                subscribers=len(self._subscriptions),
                streams=len(self._idle) + len(self._kept),
                histories=len(self._kept),
                history_bytes=self._history_bytes,
                claims=len(self._claims),
                published=self._published,
                forgotten_streams=self._forgotten_streams,
                dropped_histories=self._dropped_histories,
                refused_claims=self._refused_claims,
            )

    # All of the following is called with the lock held.

    def _begin(self) -> float:
        """What every call does first: refuse when closed, and let go of a little that has expired. Returns the time."""
        if self._closed:
            raise BrokerClosed("this MemoryBroker was closed; use another one, or close it after its last user")
        now = self._clock()
        if self._due:
            self._sweep_histories(now)
        if self._claims_due:
            self._sweep_claims(now)
        return now

    def _deliver_all(self) -> None:
        """Tell the subscribers of everything that was numbered, oldest first, including what is added meanwhile."""
        self._delivering = True
        try:
            while self._undelivered:
                publication, subscriptions = self._undelivered.popleft()
                for subscription in subscriptions:
                    if subscription.active:
                        _deliver(subscription, publication)
        finally:
            self._delivering = False

    def _stream(self, name: str) -> _Stream:
        """The stream of that name, made if need be; now the most recently used one."""
        for streams in (self._kept, self._idle):
            found = streams.get(name)
            if found is not None:
                streams.move_to_end(name)
                return found
        found = _Stream()
        self._add_idle(name, found)
        return found

    def _record(
        self, name: str, stream: _Stream, publication: Publication, retention: Retention | None, now: float
    ) -> None:
        """Put the publication into the history, or let the history know of one that is not kept."""
        history = stream.history
        if retention is None:
            if history is not None:
                history.skip()
            return
        if history is None:
            history = stream.history = History(last=stream.offset - 1)
            del self._idle[name]
            self._kept[name] = stream
        history.append(publication, now, retention.messages, retention.bytes, retention.age)
        self._account(name, stream, history)
        if stream.history is not None and history.ends < stream.due:  # it has no entry yet, or one that is too late
            self._look_at(name, stream, history.ends)
        while self._history_bytes > self._max_history_bytes:
            self._drop_history()

    def _expire(self, name: str, stream: _Stream, now: float) -> History | None:
        """What is kept of the stream at this moment."""
        history = stream.history
        if history is not None:
            history.expire(now)
            self._account(name, stream, history)
        return stream.history

    def _account(self, name: str, stream: _Stream, history: History) -> None:
        """The history has changed: keep the sum; an empty one is let go of, and its stream is an idle one."""
        cost = history.bytes + MESSAGE_COST * len(history) + STREAM_COST if len(history) else 0
        self._history_bytes += cost - stream.cost
        stream.cost = cost
        if not cost:
            stream.history = None
            stream.due = math.inf  # its entry in the heap is out of date
            del self._kept[name]
            self._add_idle(name, stream)

    def _add_idle(self, name: str, stream: _Stream) -> None:
        self._idle[name] = stream
        while len(self._idle) > self._max_idle_streams:
            self._idle.popitem(last=False)
            self._forgotten_streams += 1

    def _drop_history(self) -> None:
        """All histories together are too large: the least recently used one goes, and who comes for it is told so."""
        name, stream = next(iter(self._kept.items()))
        assert stream.history is not None, f"{name!r} stands among the streams with a history and has none"
        stream.history.clear()
        self._account(name, stream, stream.history)
        if not self._dropped_histories:
            logger.warning(
                "broker=memory stream=%r its history was dropped, further ones silently: all of them hold %d bytes; "
                "raise max_history_bytes, or keep less in each room",
                name,
                self._max_history_bytes,
            )
        self._dropped_histories += 1

    def _sweep_histories(self, now: float) -> None:
        for _ in range(LOOKS):
            if not self._due or self._due[0][0] > now:
                return
            due, name = heapq.heappop(self._due)
            stream = self._kept.get(name)
            if stream is None or stream.due != due:
                continue
            stream.due = math.inf
            history = self._expire(name, stream, now)
            if history is not None:  # published to since
                self._look_at(name, stream, history.ends)

    def _look_at(self, name: str, stream: _Stream, due: float) -> None:
        stream.due = due
        heapq.heappush(self._due, (due, name))
        if len(self._due) > 2 * len(self._kept) + 100:  # mostly out of date; rare enough to cost nothing on average
            self._due = [(kept.due, other) for other, kept in self._kept.items()]
            heapq.heapify(self._due)

    def _sweep_claims(self, now: float) -> None:
        for _ in range(LOOKS):
            if not self._claims_due or self._claims_due[0][0] > now:
                return
            _, key = heapq.heappop(self._claims_due)
            if self._claims.get(key, now) <= now:  # else it was claimed anew since
                self._claims.pop(key, None)

    def _refuse_claim(self) -> None:
        if not self._refused_claims:
            logger.warning(
                "broker=memory a claim was refused, further ones silently: %d stand at once; raise max_claims",
                self._max_claims,
            )
        self._refused_claims += 1


def _deliver(subscription: _Subscription, publication: Publication) -> None:
    try:
        subscription.deliver(publication)
    except Exception:
        logger.exception(
            "broker=memory stream=%r position=%s a subscriber raised", publication.stream, publication.position
        )
