"""What the checks of `BrokerContract` are written with: a recording subscriber, threads at once, waits with a limit.

Decides how long is too long, and nothing about brokers.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from catzilla._core.publication import Kind, Position, Publication
from catzilla.brokers.base import Broker, Replay, Retention

PUBLISHERS = 6  # threads
EACH = 40  # messages of each
PACE = 0.001  # seconds between messages, for those who are to look on meanwhile
KEEP_ALL = Retention(messages=10_000, bytes=2**26, age=600.0)
CLOCKS_APART = 3600.0  # seconds that a server's clock may differ from ours
SWITCH_EVERY = 1e-5  # seconds; at the usual 5 ms, a thread publishes all it has before another one runs

_never = threading.Event()


def pause(seconds: float) -> None:
    """Let others run; nothing is ever taken for done because of it."""
    _never.wait(seconds)


class Recorder:
    """A subscriber that keeps what it gets of the streams it is asked for. `delay` seconds make it a slow one."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.changed = threading.Condition()
        self.publications: list[Publication] = []
        self.overlapped = False
        self._inside = threading.Lock()

    def __call__(self, publication: Publication) -> None:
        if not self._inside.acquire(blocking=False):
            self.overlapped = True
            return
        try:
            if self.delay:
                pause(self.delay)
            with self.changed:
                self.publications.append(publication)
                self.changed.notify_all()
        finally:
            self._inside.release()

    def of(self, stream: str) -> list[Publication]:
        with self.changed:
            return [publication for publication in self.publications if publication.stream == stream]

    def wait(self, stream: str, offset: int, patience: float) -> list[Publication]:
        """What came of a stream, once the message `offset` is there."""

        def arrived() -> bool:
            return any(p.stream == stream and p.position.offset >= offset for p in self.publications)

        with self.changed:
            there = self.changed.wait_for(arrived, patience)
        got = self.of(stream)
        assert there, f"message {offset} of {stream!r} was not delivered within {patience:g} s; got {offsets(got)}"
        assert not self.overlapped, "deliver was called while another call of it was running"
        return got


class Ending:
    """A subscriber whose subscription is ended while it is being called, and who notes what comes after that."""

    def __init__(self) -> None:
        self.late: list[Publication] = []
        self._inside = threading.Event()
        self._ended = threading.Event()

    def __call__(self, publication: Publication) -> None:
        if not self._inside.is_set():
            self._inside.set()
            pause(0.05)  # meanwhile `end` is called, and has to wait for this call
        if self._ended.is_set():
            self.late.append(publication)

    def end(self, how: Callable[[], object], patience: float) -> None:
        assert self._inside.wait(patience), f"nothing was delivered within {patience:g} s"
        how()
        self._ended.set()


def offsets(publications: Iterable[Publication]) -> list[int]:
    return [publication.position.offset for publication in publications]


def facts(publication: Publication) -> tuple[Any, ...]:
    """Everything of a publication that was given to it."""
    p = publication
    return p.stream, p.kind, p.payload, p.event, p.exclude, p.position


class BrokerProbes:
    """One fresh broker a check, and the means to look at it. The first three are for the broker's author to set."""

    patience: float = 10.0
    """Seconds until something that does not come is a failure."""

    short_age: float | None = None
    """An age and a ttl, in seconds, that the broker keeps to and a test can wait for. None leaves out what needs it."""

    def make_broker(self) -> Broker:
        """A broker that is ready for use. The suite closes it."""
        raise NotImplementedError(f"{type(self).__name__} must define make_broker()")

    def setup_method(self) -> None:
        self.broker = self.make_broker()
        self.lobby = self.name()

    def teardown_method(self) -> None:
        self.broker.close()

    def name(self) -> str:
        """A stream that nobody has used."""
        return f"contract-{uuid.uuid4().hex}"

    def record(self, delay: float = 0.0) -> Recorder:
        recorder = Recorder(delay)
        self.broker.subscribe(recorder)
        return recorder

    def send(self, count: int = 1, *, stream: str = "", retention: Retention | None = KEEP_ALL) -> list[Position]:
        """Publish so many messages, the payload being the offset."""
        stream = stream or self.lobby
        last = self.broker.position(stream).offset
        return [
            self.broker.publish(stream, Kind.TEXT, str(number).encode(), retention=retention)
            for number in range(last + 1, last + count + 1)
        ]

    def run(self, *works: Callable[[], object]) -> None:
        """Run each on a thread of its own, all at once; fails if one raises or does not return."""
        barrier = threading.Barrier(len(works), timeout=self.patience)
        errors: list[BaseException] = []

        def attempt(work: Callable[[], object]) -> None:
            try:
                barrier.wait()
                work()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=attempt, args=(work,), daemon=True) for work in works]
        deadline = time.monotonic() + 2 * self.patience  # what a work waits for itself gets the chance to say so first
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_EVERY)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            sys.setswitchinterval(usual)
        if errors:
            raise errors[0]
        assert not any(thread.is_alive() for thread in threads), f"a call did not return in {2 * self.patience:g} s"

    def publisher(
        self, stream: str, positions: dict[bytes, Position], number: int, pace: float = 0.0
    ) -> Callable[[], None]:
        """Publishes `EACH` messages with payloads of its own, `pace` seconds apart, and notes where each stands."""

        def work() -> None:
            for count in range(EACH):
                payload = b"%d-%d" % (number, count)
                positions[payload] = self.broker.publish(stream, Kind.TEXT, payload, retention=KEEP_ALL)
                if pace:
                    pause(pace)

        return work

    def eventually(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert time.monotonic() < deadline, f"not within {self.patience:g} s: {what}"
            pause(0.005)

    def needs_short_age(self) -> float:
        """An age that a test can wait for; skips the check if the broker has none."""
        if self.short_age is None:
            import unittest  # pytest knows its way of skipping too

            raise unittest.SkipTest(f"{type(self).__name__}.short_age is not set")
        return self.short_age

    def wrong_times(self, publications: list[Publication]) -> list[float]:
        """The times that are not about now."""
        return [each.time for each in publications if abs(each.time - time.time()) > CLOCKS_APART]

    def refused(self, stream: str, since: Position, why: str) -> None:
        """Nothing is replayed, and the reason is right."""
        replay = self.broker.replay(stream, since)
        assert replay == Replay([], self.broker.position(stream), why), f"since {since}: {replay}"

    def recovered(self, stream: str, since: Position) -> None:
        """Everything after `since` is replayed."""
        position = self.broker.position(stream)
        replay = self.broker.replay(stream, since)
        assert replay.why is None, f"since {since}: not recovered, {replay.why}"
        assert replay.position == position, f"since {since}: {replay.position} instead of {position}"
        expected = list(range(since.offset + 1, position.offset + 1))
        assert offsets(replay.publications) == expected, f"since {since}: {offsets(replay.publications)}"
