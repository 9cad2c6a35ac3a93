"""The suite that a broker's author runs: it checks every guarantee that `catzilla/brokers/base.py` states.

    class TestMyBroker(BrokerContract):
        def make_broker(self):
            return MyBroker(...)

Needs pytest to run but not to import. Takes nothing for delivered because `publish` has returned: a broker may deliver
from a thread of its own. Uses streams with names of their own, so what else a shared server holds does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from catzilla._core.publication import Kind, Position, Publication
from catzilla.brokers.base import BrokerClosed, Replay, Retention
from catzilla.testing.broker_probes import (
    EACH,
    KEEP_ALL,
    PACE,
    PUBLISHERS,
    BrokerProbes,
    Ending,
    Recorder,
    facts,
    offsets,
    pause,
)


class BrokerContract(BrokerProbes):
    """Subclass it in a test module under a name that begins with `Test`, and say how a broker is made."""

    # Positions.

    def test_a_new_stream_stands_at_offset_0_and_stays_there(self) -> None:
        first = self.broker.position(self.lobby)
        assert first.offset == 0
        assert self.broker.position(self.lobby) == first

    def test_a_position_can_be_written_and_read_back(self) -> None:
        for position in (self.broker.position(self.lobby), *self.send(2)):
            try:
                read = Position.parse(str(position))
            except ValueError as error:
                raise AssertionError(f"{error}; an epoch is 1 to 32 of a-z and 0-9") from None
            assert read == position

    def test_offsets_count_from_1_in_one_epoch(self) -> None:
        epoch = self.broker.position(self.lobby).epoch
        assert self.send(3) == [Position(epoch, 1), Position(epoch, 2), Position(epoch, 3)]
        assert self.send(1, retention=None) == [Position(epoch, 4)]
        assert self.broker.position(self.lobby) == Position(epoch, 4)

    def test_every_stream_has_an_epoch_of_its_own(self) -> None:
        epochs = {self.broker.position(self.name()).epoch for _ in range(20)}
        assert len(epochs) == 20

    def test_streams_do_not_touch_each_other(self) -> None:
        other = self.name()
        recorder = self.record()
        self.send(3)
        self.send(2, stream=other)
        self.send(1)
        assert self.broker.position(other).offset == 2
        assert offsets(self.broker.history(other)) == [1, 2]
        assert offsets(recorder.wait(self.lobby, 4, self.patience)) == [1, 2, 3, 4]
        assert offsets(recorder.wait(other, 2, self.patience)) == [1, 2]

    # Delivery.

    def test_a_publication_arrives_as_it_was_given(self) -> None:
        recorder = self.record()
        given: list[tuple[Kind, bytes, str | None, str | None]] = [
            (Kind.TEXT, "größer\r\n\0".encode(), None, None),
            (Kind.BINARY, bytes(range(256)), "chat", None),
            (Kind.JSON, b'{"a":[1,null]}', None, "c_17"),
            (Kind.TEXT, b"", "", ""),
            (Kind.BINARY, b"x" * (1024 * 1024), "a b:\n\N{CAT FACE}", "c\N{CAT FACE}"),
        ]
        expected = []
        for kind, payload, event, exclude in given:
            position = self.broker.publish(self.lobby, kind, payload, event=event, exclude=exclude, retention=KEEP_ALL)
            expected.append((self.lobby, kind, payload, event, exclude, position))
        delivered = recorder.wait(self.lobby, len(given), self.patience)
        kept = self.broker.history(self.lobby)
        replayed = self.broker.replay(self.lobby, Position(expected[0][5].epoch, 0)).publications
        for way, got in (("delivered", delivered), ("in the history", kept), ("replayed", replayed)):
            same = list(map(facts, got)) == expected  # nobody wants to see how one megabyte differs from another
            assert same, f"{way} it is something else: {got}"
            assert all(isinstance(publication.kind, Kind) for publication in got), f"{way}: kind is no Kind"
            wrong = self.wrong_times(got)
            assert not wrong, f"{way}: time is no seconds since 1970, or a clock is wrong: {wrong}"

    def test_any_name_is_a_stream(self) -> None:
        unique = self.name()
        names = [unique + end for end in ("", "~alice", " a b", ":{x}*", "/..", "\N{CAT FACE}", "x" * 80)]
        recorder = self.record()
        for name in names:
            self.send(2, stream=name)
        for name in names:
            assert offsets(recorder.wait(name, 2, self.patience)) == [1, 2]
            assert offsets(self.broker.history(name)) == [1, 2]

    def test_order_is_kept_and_nothing_is_lost_or_repeated_under_concurrent_publishers(self) -> None:
        one, two = self.record(), self.record()
        streams = (self.lobby, self.name())
        positions: dict[str, dict[bytes, Position]] = {stream: {} for stream in streams}
        self.run(*(self.publisher(s, positions[s], number) for s in streams for number in range(PUBLISHERS)))
        total = PUBLISHERS * EACH
        for stream in streams:
            for recorder in (one, two):
                got = recorder.wait(stream, total, self.patience)
                assert offsets(got) == list(range(1, total + 1)), f"delivered out of order: {offsets(got)}"
                assert {p.payload: p.position for p in got} == positions[stream], "publish returned other positions"
            assert offsets(self.broker.history(stream)) == list(range(1, total + 1))

    def test_a_subscriber_gets_what_is_published_from_then_on(self) -> None:
        early = self.record()
        self.send(2)
        early.wait(self.lobby, 2, self.patience)
        late = self.record()
        self.send(2)
        assert offsets(late.wait(self.lobby, 4, self.patience)) == [3, 4]
        assert offsets(early.wait(self.lobby, 4, self.patience)) == [1, 2, 3, 4]

    def test_a_function_that_subscribed_twice_is_told_twice_until_it_ends_one(self) -> None:
        got: list[int] = []

        def deliver(publication: Publication) -> None:
            if publication.stream == self.lobby:
                got.append(publication.position.offset)

        self.broker.subscribe(deliver)
        unsubscribe = self.broker.subscribe(deliver)
        self.send()
        self.eventually(lambda: got == [1, 1], "a function that subscribed twice is called twice")
        unsubscribe()
        self.send(2)
        self.eventually(lambda: 3 in got, "one of the two subscriptions is left")
        assert got == [1, 1, 2, 3]

    def test_nothing_is_delivered_once_unsubscribe_has_returned(self) -> None:
        other, ending = self.record(), Ending()
        unsubscribe = self.broker.subscribe(ending)
        publishers = (self.publisher(self.lobby, {}, number) for number in range(PUBLISHERS))
        self.run(*publishers, lambda: ending.end(unsubscribe, self.patience))
        self.send(1)
        other.wait(self.lobby, PUBLISHERS * EACH + 1, self.patience)
        assert not ending.late, f"delivered after unsubscribe had returned: {ending.late}"
        self.run(unsubscribe)

    def test_a_subscriber_that_raises_hurts_nobody(self) -> None:
        before = self.record()
        calls: list[int] = []

        def raises(publication: Publication) -> None:
            if publication.stream == self.lobby:
                calls.append(publication.position.offset)
                raise RuntimeError("a subscriber raises on purpose; this may stand in the log")

        self.broker.subscribe(raises)
        after = self.record()
        self.run(lambda: self.send(3))
        for recorder in (before, after):
            assert offsets(recorder.wait(self.lobby, 3, self.patience)) == [1, 2, 3]
        self.eventually(lambda: calls == [1, 2, 3], f"the subscriber that raises gets the rest too; got {calls}")

    def test_a_slow_subscriber_loses_nothing_and_costs_the_others_nothing(self) -> None:
        slow, quick = self.record(delay=0.005), self.record()
        half = EACH // 2
        self.run(lambda: self.send(half), lambda: self.send(half, stream=self.lobby + "-2"))
        for recorder in (quick, slow):
            for stream in (self.lobby, self.lobby + "-2"):
                assert offsets(recorder.wait(stream, half, self.patience)) == list(range(1, half + 1))

    # History.

    def test_a_message_without_retention_is_not_kept(self) -> None:
        self.send(3, retention=None)
        assert self.broker.history(self.lobby) == []
        assert self.broker.history(self.name()) == []

    def test_the_history_is_the_newest_messages_oldest_first(self) -> None:
        self.send(5)
        for limit, expected in (
            (None, [1, 2, 3, 4, 5]),
            (2, [4, 5]),
            (5, [1, 2, 3, 4, 5]),
            (9, [1, 2, 3, 4, 5]),
            (0, []),
        ):
            assert offsets(self.broker.history(self.lobby, limit)) == expected, f"limit={limit}"
        try:
            self.broker.history(self.lobby, -1)
        except ValueError:
            return
        raise AssertionError("limit=-1 did not raise ValueError")

    def test_the_history_is_bounded_by_count(self) -> None:
        for count in range(1, 8):
            self.send(1, retention=Retention(messages=3))
            assert offsets(self.broker.history(self.lobby)) == list(range(max(1, count - 2), count + 1))

    def test_the_history_is_bounded_by_bytes(self) -> None:
        bound = Retention(bytes=10)
        kept = []
        for size in (4, 6, 1, 9, 10, 11, 3):
            self.broker.publish(self.lobby, Kind.BINARY, b"x" * size, retention=bound)
            kept.append([len(publication.payload) for publication in self.broker.history(self.lobby)])
        assert kept == [[4], [4, 6], [6, 1], [1, 9], [10], [], [3]]

    def test_the_latest_retention_holds_for_the_whole_history(self) -> None:
        self.send(5)
        self.send(1, retention=Retention(messages=2))
        assert offsets(self.broker.history(self.lobby)) == [5, 6]
        self.send(2)
        assert offsets(self.broker.history(self.lobby)) == [5, 6, 7, 8]

    def test_the_history_is_bounded_by_age_however_busy_the_stream_is(self) -> None:
        bound = Retention(messages=100_000, age=self.needs_short_age())  # so that nothing but age can trim it
        start = self.send(1, retention=bound)[0]

        def first_is_gone() -> bool:
            self.send(1, retention=bound)
            return 1 not in offsets(self.broker.history(self.lobby))

        self.eventually(first_is_gone, f"a message is let go of after {bound.age:g} s, while others follow")
        self.refused(self.lobby, Position(start.epoch, 0), "trimmed")

    def test_an_idle_history_ends_by_age(self) -> None:
        start = self.send(3, retention=Retention(age=self.needs_short_age()))[0]
        self.eventually(lambda: not self.broker.history(self.lobby), "the history of an idle stream ends")
        replay = self.broker.replay(self.lobby, start)
        same = replay.position.epoch == start.epoch  # a stream that is idle and without history may be forgotten
        assert not replay.publications
        assert replay.why == ("trimmed" if same else "epoch")

    # Recovery.

    def test_everything_after_a_position_is_replayed(self) -> None:
        epoch = self.broker.position(self.lobby).epoch
        self.recovered(self.lobby, Position(epoch, 0))
        self.send(5)
        for offset in range(6):
            self.recovered(self.lobby, Position(epoch, offset))

    def test_a_stream_without_history_recovers_who_missed_nothing(self) -> None:
        positions = self.send(3, retention=None)
        self.recovered(self.lobby, positions[2])
        self.refused(self.lobby, positions[1], "trimmed")

    def test_nothing_is_replayed_when_a_part_of_it_was_trimmed(self) -> None:
        positions = self.send(8, retention=Retention(messages=3))
        for position in positions[:4]:
            self.refused(self.lobby, position, "trimmed")
        for position in positions[4:]:
            self.recovered(self.lobby, position)

    def test_nothing_is_replayed_across_a_message_that_was_not_kept(self) -> None:
        positions = [*self.send(2), *self.send(1, retention=None), *self.send(2)]
        for position in positions[:2]:
            self.refused(self.lobby, position, "trimmed")
        for position in positions[2:]:
            self.recovered(self.lobby, position)

    def test_a_position_that_the_stream_never_gave_is_of_another_epoch(self) -> None:
        epoch = self.send(3)[0].epoch
        other = self.broker.position(self.name())
        for since in (Position("never", 2), other, Position(epoch, 4), Position(epoch, -1)):
            self.refused(self.lobby, since, "epoch")
        self.refused(self.name(), Position(epoch, 0), "epoch")

    def test_a_replay_is_one_step_while_others_publish(self) -> None:
        start = self.broker.position(self.lobby)
        replays: list[Replay] = []

        def reader() -> None:
            deadline = time.monotonic() + self.patience
            while not replays or replays[-1].position.offset < PUBLISHERS * EACH:
                assert time.monotonic() < deadline, f"a replay never reached the last message; {replays[-1].position}"
                replays.append(self.broker.replay(self.lobby, start))

        self.run(*(self.publisher(self.lobby, {}, number, PACE) for number in range(PUBLISHERS)), reader)
        for replay in replays:
            expected = list(range(1, replay.position.offset + 1))
            assert replay.why is None, f"not recovered, {replay.why}"
            assert offsets(replay.publications) == expected, f"up to {replay.position}: {offsets(replay.publications)}"

    def test_who_subscribes_then_replays_misses_nothing(self) -> None:
        start = self.broker.position(self.lobby)
        joined: list[tuple[Recorder, Replay]] = []

        def join() -> None:
            joined.extend((self.record(), self.broker.replay(self.lobby, start)) for _ in range(20))

        self.run(*(self.publisher(self.lobby, {}, number, PACE) for number in range(PUBLISHERS)), join)
        last = self.send(1)[0].offset
        for recorder, replay in joined:
            live = recorder.wait(self.lobby, last, self.patience)
            seen = offsets(replay.publications) + [o for o in offsets(live) if o > replay.position.offset]
            assert seen == list(range(1, last + 1)), f"replayed up to {replay.position}, then live: {seen}"

    def test_what_was_published_can_be_read_at_once(self) -> None:
        def publish_and_read() -> None:
            for _ in range(EACH):
                position = self.broker.publish(self.lobby, Kind.TEXT, b"", retention=KEEP_ALL)
                assert self.broker.position(self.lobby).offset >= position.offset
                assert position in [publication.position for publication in self.broker.history(self.lobby)]

        self.run(*([publish_and_read] * 3))

    # Claims.

    def test_a_claim_is_given_once_for_its_key(self) -> None:
        key, other = self.name(), self.name()
        assert self.broker.claim(key, 60.0) is True
        assert self.broker.claim(key, 60.0) is False
        assert self.broker.claim(key, 0.01) is False
        assert self.broker.claim(other, 60.0) is True

    def test_a_claim_is_given_once_under_contention(self) -> None:
        keys = [self.name() for _ in range(EACH)]
        won: list[str] = []

        def contend() -> None:
            won.extend(key for key in keys if self.broker.claim(key, 60.0))

        self.run(*([contend] * PUBLISHERS))
        assert sorted(won) == sorted(keys), "some keys were claimed by several, or by nobody"

    def test_a_claim_for_no_time_is_refused(self) -> None:
        key = self.name()
        for ttl in (0.0, -1.0, float("nan")):
            assert self.broker.claim(key, ttl) is False, f"ttl={ttl}"
        assert self.broker.claim(key, 60.0) is True

    def test_a_claim_ends_after_its_time_and_not_before(self) -> None:
        ttl = self.needs_short_age()
        key = self.name()
        began = time.monotonic()
        assert self.broker.claim(key, ttl) is True
        self.eventually(lambda: self.broker.claim(key, 60.0), f"a claim of {ttl:g} s can be made again")
        assert time.monotonic() - began >= ttl * 0.9, "a claim could be made again before its time had passed"
        assert self.broker.claim(key, 60.0) is False

    # The end.

    def test_after_close_everything_is_refused_and_closing_again_is_not(self) -> None:
        position = self.send(1)[0]
        unsubscribe = self.broker.subscribe(Recorder())
        self.broker.close()
        self.broker.close()
        unsubscribe()
        calls: dict[str, Callable[[], object]] = {
            "subscribe": lambda: self.broker.subscribe(Recorder()),
            "publish": lambda: self.broker.publish(self.lobby, Kind.TEXT, b""),
            "position": lambda: self.broker.position(self.lobby),
            "history": lambda: self.broker.history(self.lobby),
            "replay": lambda: self.broker.replay(self.lobby, position),
            "claim": lambda: self.broker.claim(self.name(), 60.0),
        }
        for name, call in calls.items():
            try:
                call()
            except BrokerClosed:
                continue
            raise AssertionError(f"{name}() of a closed broker did not raise BrokerClosed")

    def test_nothing_is_delivered_once_close_has_returned(self) -> None:
        ending = Ending()
        refused: list[BrokerClosed] = []
        deadline = time.monotonic() + self.patience
        self.broker.subscribe(ending)

        def publish() -> None:
            try:
                while time.monotonic() < deadline:
                    self.broker.publish(self.lobby, Kind.TEXT, b"")
            except BrokerClosed as error:
                refused.append(error)

        self.run(*([publish] * PUBLISHERS), lambda: ending.end(self.broker.close, self.patience))
        pause(0.05)  # nothing comes after a close that one could wait for; a fault gets the time to show
        assert len(refused) == PUBLISHERS, "publish went on after close had returned"
        assert not ending.late, f"delivered after close had returned: {len(ending.late)} publications"
