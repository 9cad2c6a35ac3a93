"""Brokers with one fault each, and the checks that must find it; and a sound one that delivers from its own thread."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from catzilla.brokers import (
    Broker,
    BrokerClosed,
    Kind,
    MemoryBroker,
    Position,
    Publication,
    Replay,
    Retention,
)
from catzilla.testing import BrokerContract
from catzilla.testing.broker_probes import EACH, PUBLISHERS, pause

KEEP_ALL = Retention(messages=10_000, age=600.0)


class ThreadedBroker(Broker):
    """Sound: numbers and keeps as `MemoryBroker` does, and delivers from its own thread, a while after `publish`."""

    def __init__(self) -> None:
        self.inner = MemoryBroker()
        self.lock = threading.RLock()
        self.subscriptions: list[list[Callable[[Publication], None]]] = []  # a list each: an identity of its own
        self.incoming: queue.SimpleQueue[Publication | None] = queue.SimpleQueue()
        self.inner.subscribe(self.incoming.put)
        self.position, self.history, self.replay = self.inner.position, self.inner.history, self.inner.replay
        self.publish, self.claim = self.inner.publish, self.inner.claim
        self.closed = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        while (publication := self.incoming.get()) is not None:
            pause(0.0005)
            with self.lock:
                for subscription in self.subscriptions:
                    self.hand_over(subscription[0], publication)

    def hand_over(self, deliver: Callable[[Publication], None], publication: Publication) -> None:
        try:
            deliver(publication)
        except Exception:
            pass

    def subscribe(self, deliver):
        subscription = [deliver]
        with self.lock:
            if self.closed:
                raise BrokerClosed
            self.subscriptions = [*self.subscriptions, subscription]
        return lambda: self.unsubscribe(subscription)

    def unsubscribe(self, subscription) -> None:
        with self.lock:
            self.subscriptions = [other for other in self.subscriptions if other is not subscription]

    def close(self) -> None:
        self.inner.close()
        with self.lock:
            self.closed = True
            self.subscriptions = []
        self.incoming.put(None)

    position = history = replay = publish = claim = None  # given in __init__; here for the abstract base


# What goes wrong, one class a fault; the checks named after it must find it.

FAULTS: list[tuple[type[Broker], list[str], type[BaseException]]] = []


def found_by(*checks: str, error: type[BaseException] = AssertionError):
    """The checks that must fail, by a part of their names that no other one has."""

    def register(broker: type[Broker]) -> type[Broker]:
        FAULTS.append((broker, [only(part) for part in checks], error))
        return broker

    return register


def all_checks() -> list[str]:
    return [name for name in dir(BrokerContract) if name.startswith("test_")]


def only(part: str) -> str:
    (name,) = [name for name in all_checks() if part in name]
    return name


def copied(publication: Publication, **changes) -> Publication:
    """The publication with other values."""
    values = {name: getattr(publication, name) for name in Publication.__slots__}
    return Publication(**{**values, **changes})


class Distorting(MemoryBroker):
    """Puts something between a publication and its subscribers."""

    def subscribe(self, deliver):
        return super().subscribe(lambda publication: self.distort(deliver, publication))

    def distort(self, deliver, publication) -> None:
        raise NotImplementedError


# Positions.


@found_by("a_new_stream_stands")
class CountsFromZero(MemoryBroker):
    def position(self, stream):
        position = super().position(stream)
        return Position(position.epoch, position.offset - 1)


@found_by("a_new_stream_stands")
class MakesAnEpochForEveryQuestion(MemoryBroker):
    def position(self, stream):
        position = super().position(stream)
        return position if position.offset else super().position(uuid.uuid4().hex)


class RenamesEpochs(MemoryBroker):
    def position(self, stream):
        return self.renamed(super().position(stream))

    def publish(self, *args, **options):
        return self.renamed(super().publish(*args, **options))


@found_by("written_and_read_back")
class EpochsWithADash(RenamesEpochs):
    def renamed(self, position):
        return Position(f"e-{position.epoch}", position.offset)


@found_by("an_epoch_of_its_own")
class OneEpochForAll(RenamesEpochs):
    def renamed(self, position):
        return Position("same", position.offset)


@found_by("offsets_count_from_1")
class DoesNotCountWhatItDoesNotKeep(MemoryBroker):
    def publish(self, stream, kind, payload, *, event=None, exclude=None, retention=None):
        if retention is None:
            return self.position(stream)
        return super().publish(stream, kind, payload, event=event, exclude=exclude, retention=retention)


@found_by("do_not_touch_each_other", "any_name")
class OneStreamForAll(MemoryBroker):
    def publish(self, stream, kind, payload, **options):
        return super().publish("all", kind, payload, **options)

    def position(self, stream):
        return super().position("all")


@found_by("any_name")
class ForgetsWhatFollowsASpace(MemoryBroker):
    def publish(self, stream, kind, payload, **options):
        return super().publish(stream.split(" ")[0], kind, payload, **options)


# Delivery.


class Changes(Distorting):
    changes: ClassVar[dict[str, object]] = {}

    def distort(self, deliver, publication):
        deliver(copied(publication, **self.changes))


@found_by("arrives_as_it_was_given")
class LosesExclude(Changes):
    changes: ClassVar = {"exclude": None}


@found_by("arrives_as_it_was_given")
class LosesEvent(Changes):
    changes: ClassVar = {"event": None}


@found_by("arrives_as_it_was_given")
class GivesEverythingAsText(Changes):
    changes: ClassVar = {"kind": Kind.TEXT}


@found_by("arrives_as_it_was_given")
class TellsTheTimeSinceItsStart(Changes):
    changes: ClassVar = {"time": 12.5}


@found_by("arrives_as_it_was_given")
class TakesEmptyForNone(Distorting):
    def distort(self, deliver, publication):
        deliver(copied(publication, event=publication.event or None))


@found_by("arrives_as_it_was_given")
class GivesPlainNumbers(Distorting):
    def distort(self, deliver, publication):
        deliver(copied(publication, kind=int(publication.kind)))


@found_by("arrives_as_it_was_given")
class ChangesWhatIsKept(MemoryBroker):
    def history(self, stream, limit=None):
        return [
            copied(publication, payload=publication.payload.upper()) for publication in super().history(stream, limit)
        ]


@found_by("arrives_as_it_was_given")
class ChangesWhatIsReplayed(MemoryBroker):
    def replay(self, stream, since):
        found = super().replay(stream, since)
        return replace(found, publications=[copied(publication, exclude=None) for publication in found.publications])


@found_by("arrives_as_it_was_given", "under_concurrent_publishers")
class NumbersAnew(Distorting):
    def distort(self, deliver, publication):
        deliver(copied(publication, position=Position(publication.position.epoch, publication.position.offset + 1)))


@found_by("under_concurrent_publishers", "from_then_on", "do_not_touch_each_other")
class DropsOne(Distorting):
    def distort(self, deliver, publication):
        if publication.position.offset != 3:
            deliver(publication)


@found_by("under_concurrent_publishers")
class DropsTheLast(Distorting):
    def distort(self, deliver, publication):
        if publication.position.offset != PUBLISHERS * EACH:
            deliver(publication)


@found_by("under_concurrent_publishers", "from_then_on")
class RepeatsOne(Distorting):
    def distort(self, deliver, publication):
        deliver(publication)
        if publication.position.offset == 3:
            deliver(publication)


@found_by("under_concurrent_publishers", "from_then_on", "slow_subscriber")
class SwapsTwo(Distorting):
    held: Publication | None = None

    def distort(self, deliver, publication):
        if publication.position.offset % 4 == 3:
            self.held = publication
            return
        deliver(publication)
        if self.held is not None:
            held, self.held = self.held, None
            deliver(held)


class DeliversUnlocked(MemoryBroker):
    """Numbers under the lock, and delivers after it: the second message may overtake the first."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Callable[[Publication], None]] = []
        self.outgoing = threading.local()
        super().subscribe(lambda publication: setattr(self.outgoing, "publication", publication))

    def subscribe(self, deliver):
        self.told.append(deliver)
        return lambda: self.told.remove(deliver) if deliver in self.told else None

    def publish(self, *args, **options):
        position = super().publish(*args, **options)
        pause(0.0001 * (position.offset % 3))
        for deliver in list(self.told):
            try:
                deliver(self.outgoing.publication)
            except Exception:
                pass
        return position


found_by("under_concurrent_publishers", "once_unsubscribe_has_returned", "once_close_has_returned")(DeliversUnlocked)


@found_by("from_then_on")
class TellsTheNewcomerOfThePast(MemoryBroker):
    def subscribe(self, deliver):
        for stream in list(self._kept):
            for publication in self.history(stream):
                deliver(publication)
        return super().subscribe(deliver)


@found_by("subscribed_twice")
class TellsAFunctionOnce(MemoryBroker):
    def subscribe(self, deliver):
        for subscription in self._subscriptions:
            if subscription.deliver is deliver:
                return lambda: None
        return super().subscribe(deliver)


@found_by("subscribed_twice")
class EndsBothOfTwo(MemoryBroker):
    def subscribe(self, deliver):
        super().subscribe(deliver)

        def unsubscribe() -> None:
            self._subscriptions = tuple(other for other in self._subscriptions if other.deliver is not deliver)

        return unsubscribe


@found_by("once_unsubscribe_has_returned", "subscribed_twice")
class NeverUnsubscribes(MemoryBroker):
    def subscribe(self, deliver):
        super().subscribe(deliver)
        return lambda: None


@found_by("once_unsubscribe_has_returned")
class UnsubscribesWithoutWaiting(ThreadedBroker):
    def unsubscribe(self, subscription):
        self.subscriptions = [other for other in self.subscriptions if other is not subscription]


@found_by("that_raises_hurts_nobody", error=RuntimeError)
class LetsItRaise(MemoryBroker):
    def _deliver_all(self):
        while self._undelivered:
            publication, subscriptions = self._undelivered.popleft()
            for subscription in subscriptions:
                subscription.deliver(publication)


@found_by("that_raises_hurts_nobody")
class DropsWhoRaises(ThreadedBroker):
    def hand_over(self, deliver, publication):
        try:
            deliver(publication)
        except RuntimeError:
            self.subscriptions = [other for other in self.subscriptions if other[0] is not deliver]


@found_by("that_raises_hurts_nobody")
class DiesOfIt(ThreadedBroker):
    def hand_over(self, deliver, publication):
        try:
            deliver(publication)
        except RuntimeError:
            self.subscriptions = []


@found_by("slow_subscriber")
class DropsForTheSlow(Distorting):
    """Hands over on threads of its own, and drops what comes while one is busy."""

    def subscribe(self, deliver):
        busy = threading.Lock()

        def attempt(publication) -> None:
            deliver(publication)
            busy.release()

        def unless_busy(publication) -> None:
            if busy.acquire(blocking=False):
                threading.Thread(target=attempt, args=(publication,), daemon=True).start()

        return MemoryBroker.subscribe(self, unless_busy)


@found_by("slow_subscriber")
class OverlapsCalls(MemoryBroker):
    def subscribe(self, deliver):
        def on_a_thread(publication) -> None:
            threading.Thread(target=deliver, args=(publication,), daemon=True).start()

        return super().subscribe(on_a_thread)


# History.


@found_by("without_retention_is_not_kept")
class KeepsEverything(MemoryBroker):
    def publish(self, stream, kind, payload, *, retention=None, **options):
        return super().publish(stream, kind, payload, retention=retention or KEEP_ALL, **options)


@found_by("oldest_first")
class NewestFirst(MemoryBroker):
    def history(self, stream, limit=None):
        return super().history(stream, limit)[::-1]


@found_by("oldest_first")
class LimitsToTheOldest(MemoryBroker):
    def history(self, stream, limit=None):
        if limit is not None and limit < 0:
            raise ValueError
        return super().history(stream)[:limit]


@found_by("oldest_first")
class TakesZeroForAll(MemoryBroker):
    def history(self, stream, limit=None):
        return super().history(stream, limit or None)


@found_by("oldest_first")
class TakesAnyLimit(MemoryBroker):
    def history(self, stream, limit=None):
        return super().history(stream, limit if limit is None else max(0, limit))


class OtherRetention(MemoryBroker):
    def publish(self, stream, kind, payload, *, retention=None, **options):
        changed = None if retention is None else self.changed(stream, retention)
        return super().publish(stream, kind, payload, retention=changed, **options)


@found_by("bounded_by_count")
class KeepsOneTooMany(OtherRetention):
    def changed(self, stream, retention):
        return replace(retention, messages=retention.messages + 1)


@found_by("bounded_by_count")
class KeepsOneTooFew(OtherRetention):
    def changed(self, stream, retention):
        return replace(retention, messages=max(1, retention.messages - 1))


@found_by("bounded_by_bytes")
class KeepsAnySize(OtherRetention):
    def changed(self, stream, retention):
        return replace(retention, bytes=10**9)


@found_by("bounded_by_bytes")
class KeepsOneByteLess(OtherRetention):
    def changed(self, stream, retention):
        return replace(retention, bytes=max(1, retention.bytes - 1))


@found_by("an_idle_history_ends", "bounded_by_age")
class KeepsForEver(OtherRetention):
    def changed(self, stream, retention):
        return replace(retention, age=float("inf"))


@found_by("latest_retention")
class GoesByTheFirstRetention(OtherRetention):
    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Retention] = {}

    def changed(self, stream, retention):
        return self.first.setdefault(stream, retention)


# Recovery.


class OtherReplay(MemoryBroker):
    """Answers from what is kept, with a fault."""

    def replay(self, stream, since):
        with self._lock:
            position, kept = self.position(stream), self.history(stream)
        return self.answer(position, kept, since)

    def later(self, kept: list[Publication], since: Position) -> list[Publication]:
        return [publication for publication in kept if publication.position.offset > since.offset]


@found_by("everything_after_a_position")
class ReplaysTheOneBefore(OtherReplay):
    def answer(self, position, kept, since):
        return Replay([publication for publication in kept if publication.position.offset >= since.offset], position)


@found_by("a_part_of_it_was_trimmed", "across_a_message", "never_gave", "missed_nothing")
class ReplaysWhatThereIs(OtherReplay):
    def answer(self, position, kept, since):
        return Replay(self.later(kept, since), position)


@found_by("a_part_of_it_was_trimmed", "across_a_message")
class ReplaysAPartAndSaysSo(MemoryBroker):
    def replay(self, stream, since):
        found = super().replay(stream, since)
        return found if found.why != "trimmed" else replace(found, publications=self.history(stream))


@found_by("missed_nothing", "everything_after_a_position")
class RecoversNobodyWithoutHistory(OtherReplay):
    def answer(self, position, kept, since):
        if not kept or kept[0].position.offset > since.offset + 1:
            return Replay([], position, "trimmed")
        return Replay(self.later(kept, since), position)


@found_by("across_a_message")
class LooksOnlyAtTheOldest(OtherReplay):
    def answer(self, position, kept, since):
        if since.offset < position.offset and (not kept or kept[0].position.offset > since.offset + 1):
            return Replay([], position, "trimmed")
        return Replay(self.later(kept, since), position)


@found_by("never_gave")
class TrustsTheOffset(MemoryBroker):
    def replay(self, stream, since):
        position = self.position(stream)
        if since.epoch == position.epoch and since.offset > position.offset:
            return Replay([], position)
        return super().replay(stream, since)


@found_by("never_gave")
class HasOneReasonForAll(MemoryBroker):
    def replay(self, stream, since):
        found = super().replay(stream, since)
        return found if found.why is None else replace(found, why="trimmed")


@found_by("is_one_step", "subscribes_then_replays")
class ReadsThePositionLater(MemoryBroker):
    def replay(self, stream, since):
        found = super().replay(stream, since)
        pause(0.01)
        return replace(found, position=self.position(stream))


@found_by("is_one_step")
class ReadsThePositionEarlier(MemoryBroker):
    def replay(self, stream, since):
        position = self.position(stream)
        pause(0.01)
        return replace(super().replay(stream, since), position=position)


@found_by("subscribes_then_replays")
class SubscribesLater(MemoryBroker):
    """Returns before it listens, as one does that sends SUBSCRIBE and does not wait for the answer."""

    def subscribe(self, deliver):
        listening = super().subscribe

        def listen() -> None:
            try:
                listening(deliver)
            except BrokerClosed:  # the check was over first
                pass

        waiting = threading.Timer(0.05, listen)
        waiting.daemon = True
        waiting.start()
        return lambda: None


@found_by("can_be_read_at_once")
class KeepsLater(MemoryBroker):
    def history(self, stream, limit=None):
        return super().history(stream)[:-1]


# Claims.


@found_by("once_for_its_key", "once_under_contention")
class GivesEveryClaim(MemoryBroker):
    def claim(self, key, ttl):
        return ttl > 0


@found_by("once_under_contention")
class LooksThenClaims(MemoryBroker):
    def __init__(self) -> None:
        super().__init__()
        self.claimed: set[str] = set()

    def claim(self, key, ttl):
        free = key not in self.claimed
        pause(0.001)
        self.claimed.add(key)
        return free


@found_by("once_for_its_key", "once_under_contention")
class GivesNoClaim(MemoryBroker):
    def claim(self, key, ttl):
        return False


@found_by("for_no_time")
class GivesAClaimForNoTime(MemoryBroker):
    def claim(self, key, ttl):
        return super().claim(key, ttl if ttl > 0 else 0.0001) or ttl <= 0


@found_by("ends_after_its_time")
class NeverEndsAClaim(MemoryBroker):
    def claim(self, key, ttl):
        return super().claim(key, 600.0)


@found_by("ends_after_its_time")
class EndsAClaimEarly(MemoryBroker):
    def claim(self, key, ttl):
        return super().claim(key, ttl / 4)


# The end.


@found_by("after_close_everything", "once_close_has_returned")
class NeverCloses(MemoryBroker):
    def close(self):
        pass


@found_by("after_close_everything")
class AnswersWhenClosed(MemoryBroker):
    def claim(self, key, ttl):
        try:
            return super().claim(key, ttl)
        except BrokerClosed:
            return False


@found_by("after_close_everything")
class ClosesOnce(MemoryBroker):
    def close(self):
        assert not self._closed, "closed twice"
        super().close()


@found_by("once_close_has_returned")
class ClosesWithoutWaiting(ThreadedBroker):
    def close(self):
        self.inner.close()
        self.incoming.put(None)
