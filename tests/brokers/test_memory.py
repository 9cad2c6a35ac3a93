"""The broker of one process: the contract, and what it holds on to, lets go of and says when there is too much."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from catzilla._core.publication import Kind, Position
from catzilla.brokers import Broker, BrokerClosed, MemoryBroker, Retention
from catzilla.brokers.memory import LOOKS, MESSAGE_COST, MIB, STREAM_COST
from catzilla.testing import BrokerContract

KEEP = Retention()


class TestContract(BrokerContract):
    short_age = 0.05

    def make_broker(self) -> Broker:
        return MemoryBroker()


class TestContractWhenSmall(BrokerContract):
    """The same guarantees where nearly everything has to go again at once."""

    short_age = 0.05

    def make_broker(self) -> Broker:
        return MemoryBroker(max_idle_streams=25, max_history_bytes=3 * MIB, max_claims=EACH_CLAIM)


EACH_CLAIM = 64


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broker(clock):
    broker = MemoryBroker(clock=clock)
    yield broker
    broker.close()


def publish(
    broker: Broker, stream: str = "lobby", payload: bytes = b"hi", retention: Retention | None = KEEP
) -> Position:
    return broker.publish(stream, Kind.TEXT, payload, retention=retention)


def within(seconds: float, work) -> None:
    """Run it on another thread, so that a deadlock is a failure and not a hang."""
    errors = []

    def attempt() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still waiting after {seconds} s"
    if errors:
        raise errors[0]


# Epochs


def test_an_epoch_is_64_random_bits_in_a_short_text(broker):
    epochs = {broker.position(f"room-{number}").epoch for number in range(2000)}
    assert len(epochs) == 2000
    assert {len(epoch) for epoch in epochs} == {13}
    assert set("".join(epochs)) == set("abcdefghijklmnopqrstuvwxyz234567")


def test_another_broker_gives_another_epoch():
    assert MemoryBroker().position("lobby").epoch != MemoryBroker().position("lobby").epoch


# What is forgotten


def test_the_least_recently_used_idle_stream_is_forgotten(clock):
    broker = MemoryBroker(max_idle_streams=3, clock=clock)
    before = {name: publish(broker, name, retention=None) for name in "abc"}
    broker.position("a")
    broker.replay("b", before["b"])
    publish(broker, "d", retention=None)  # c is the one that nobody used since
    assert {name: broker.position(name) == before[name] for name in "ab"} == {"a": True, "b": True}
    assert broker.position("c").epoch != before["c"].epoch
    assert broker.replay("c", before["c"]).why == "epoch"
    assert broker.statistics().streams == 3


def test_strangers_names_cannot_fill_the_memory(clock):
    broker = MemoryBroker(max_idle_streams=10, clock=clock)
    for number in range(1000):
        broker.replay(f"nobody-{number}", Position("abc", 1))
        broker.history(f"no-such-{number}")
    statistics = broker.statistics()
    assert statistics.streams == 10
    assert statistics.forgotten_streams == 990


def test_a_stream_with_a_live_history_is_never_forgotten_for_idle_ones(clock):
    broker = MemoryBroker(max_idle_streams=2, clock=clock)
    kept = [publish(broker, f"kept-{number}") for number in range(20)]
    for number in range(100):
        publish(broker, f"idle-{number}", retention=None)
    assert [broker.position(f"kept-{number}") for number in range(20)] == kept
    assert all(len(broker.history(f"kept-{number}")) == 1 for number in range(20))


def test_a_stream_whose_history_expired_is_an_idle_one(clock):
    broker = MemoryBroker(max_idle_streams=2, clock=clock)
    start = publish(broker, "lobby", retention=Retention(age=10))
    clock.now += 10
    assert broker.replay("lobby", Position(start.epoch, 0)).why == "trimmed"
    assert broker.position("lobby") == start
    publish(broker, "a", retention=None)
    publish(broker, "b", retention=None)
    assert broker.position("lobby").epoch != start.epoch


@pytest.mark.parametrize(
    "use",
    [
        lambda broker: publish(broker, "busy"),
        lambda broker: broker.position("busy"),
        lambda broker: broker.history("busy"),
        lambda broker: broker.replay("busy", Position("abc", 1)),
        lambda broker: broker.claim("key", 1.0),
    ],
)
def test_expired_histories_go_whatever_the_broker_is_used_for(broker, clock, use):
    for number in range(100):
        publish(broker, f"room-{number}", b"x" * 1000, Retention(age=10 + number % 7))
    assert broker.statistics().histories == 100
    clock.now += 16.5
    for _ in range(100 // LOOKS):
        use(broker)
    assert broker.statistics().histories <= 1  # what was published just now
    assert broker.statistics().history_bytes <= STREAM_COST + 100 * (MESSAGE_COST + 2)


def test_histories_that_nobody_comes_back_to_do_not_pile_up(broker, clock):
    for number in range(3000):
        clock.now += 1
        publish(broker, f"inbox-{number}", retention=Retention(age=100))
        assert broker.statistics().histories == min(number + 1, 100)
    assert len(broker._due) == 100


def test_the_ages_of_histories_that_were_dropped_do_not_pile_up(clock):
    broker = MemoryBroker(max_history_bytes=10_000, clock=clock)
    for number in range(3000):
        publish(broker, f"inbox-{number % 50}", b"x" * 5000, retention=Retention(age=float("inf")))
        assert len(broker._due) <= 2 * broker.statistics().histories + 101


def test_a_history_goes_by_its_latest_age(broker, clock):
    publish(broker, retention=Retention(age=10_000))
    publish(broker, retention=Retention(age=10))
    publish(broker, "other", retention=Retention(age=10))
    publish(broker, "other", retention=Retention(age=10_000))
    clock.now += 10
    broker.claim("key", 1.0)
    assert broker.statistics().histories == 1
    assert len(broker.history("other")) == 2


def test_a_history_that_nobody_may_have_any_more_is_never_given(broker, clock):
    epoch = publish(broker, retention=Retention(age=10)).epoch
    clock.now += 9.5
    publish(broker, retention=Retention(age=10))
    assert len(broker.history("lobby")) == 2
    clock.now += 0.5
    assert [publication.position.offset for publication in broker.history("lobby")] == [2]
    assert broker.replay("lobby", Position(epoch, 0)).why == "trimmed"
    clock.now += 9.5
    assert broker.history("lobby") == []


# All histories together


def test_all_histories_together_are_bounded_and_the_least_recently_used_goes(clock, caplog):
    broker = MemoryBroker(max_history_bytes=100_000, clock=clock)
    first = publish(broker, "room-0", b"x" * 5000)
    for number in range(1, 200):
        publish(broker, f"room-{number}", b"x" * 5000)
        assert broker.statistics().history_bytes <= 100_000
    assert len(broker.history("room-199")) == 1
    assert broker.replay("room-0", Position(first.epoch, 0)).why == "trimmed"
    assert broker.position("room-0") == first
    statistics = broker.statistics()
    assert statistics.dropped_histories == 200 - statistics.histories > 150
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "raise max_history_bytes" in warnings[0].getMessage()


def test_a_busy_history_outlives_the_quiet_ones(clock):
    broker = MemoryBroker(max_history_bytes=50_000, clock=clock)
    start = publish(broker, "busy", b"x" * 100)
    for number in range(100):
        publish(broker, f"quiet-{number}", b"x" * 5000)
        publish(broker, "busy", b"x" * 10)
    assert len(broker.replay("busy", start).publications) == 100


def test_a_message_larger_than_all_histories_may_be_is_delivered_and_not_kept(clock):
    broker = MemoryBroker(max_history_bytes=10_000, clock=clock)
    got = []
    broker.subscribe(got.append)
    publish(broker, "lobby", b"x" * 20_000)
    assert len(got[0].payload) == 20_000
    assert broker.history("lobby") == []
    assert broker.statistics().history_bytes == 0


def test_the_costs_that_are_counted_are_about_what_the_memory_costs(clock):
    """Within a factor of two, so that the bound means something."""
    import tracemalloc

    broker = MemoryBroker(clock=clock)
    tracemalloc.start()
    try:
        for number in range(500):
            for _ in range(number % 5 + 1):
                publish(broker, f"room-{number}", b"%0100d" % number)
        real, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert real / 2 < broker.statistics().history_bytes < real * 2


class Accounts(RuleBasedStateMachine):
    """Whatever happens, the sums are those of what is there, and every bound holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.broker = MemoryBroker(max_idle_streams=3, max_history_bytes=8000, max_claims=3, clock=self.clock)

    names = st.sampled_from("abcdefgh")

    @rule(
        name=names,
        size=st.sampled_from([0, 10, 1000, 5000]),
        retention=st.none()
        | st.builds(Retention, st.integers(1, 4), st.integers(1, 9000), st.sampled_from([1, 5, 1e9])),
    )
    def publish(self, name, size, retention):
        before = self.broker.position(name)
        assert self.broker.publish(name, Kind.BINARY, b"x" * size, retention=retention) == Position(
            before.epoch, before.offset + 1
        )

    @rule(name=names)
    def read(self, name):
        self.broker.history(name)

    @rule(name=names, back=st.integers(0, 5))
    def recover(self, name, back):
        position = self.broker.position(name)
        replay = self.broker.replay(name, Position(position.epoch, max(0, position.offset - back)))
        if replay.why is None:
            assert len(replay.publications) == min(back, position.offset)

    @rule(seconds=st.sampled_from([0.5, 2, 6]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @rule(name=names, ttl=st.sampled_from([0.0, 1.0, 5.0, float("inf")]))
    def claim(self, name, ttl):
        self.broker.claim(name, ttl)

    @invariant()
    def bounds_hold(self):
        broker = self.broker
        assert len(broker._idle) <= 3
        assert not broker._idle.keys() & broker._kept.keys()
        assert all(stream.history is None and stream.cost == 0 for stream in broker._idle.values())
        assert all(len(stream.history) for stream in broker._kept.values())
        assert all(stream.history.last == stream.offset for stream in broker._kept.values())
        assert broker._history_bytes == sum(stream.cost for stream in broker._kept.values()) <= 8000
        for stream in broker._kept.values():
            history = stream.history
            assert stream.cost == STREAM_COST + history.bytes + MESSAGE_COST * len(history)
            assert stream.due <= history.ends, "nobody would look at it when it has expired"
        assert {(stream.due, name) for name, stream in broker._kept.items()} <= set(broker._due)
        assert len(broker._claims) <= 3
        assert {(until, key) for key, until in broker._claims.items()} <= set(broker._claims_due)


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


# Claims


def test_a_claim_ends_when_its_time_has_passed(broker, clock):
    assert broker.claim("ticket", 30.0)
    clock.now += 29.9
    assert not broker.claim("ticket", 30.0)
    clock.now += 0.1
    assert broker.claim("ticket", 30.0)
    clock.now += 29.9
    assert not broker.claim("ticket", 30.0)


def test_claims_of_random_lengths_against_a_model(broker, clock):
    chance = random.Random(7)
    until: dict[str, float] = {}
    for _ in range(5000):
        clock.now += chance.random()
        key, ttl = str(chance.randrange(50)), chance.choice([0.5, 3.0, 40.0, 200.0])
        free = until.get(key, 0.0) <= clock.now
        assert broker.claim(key, ttl) is free
        if free:
            until[key] = clock.now + ttl
    assert len(broker._claims_due) <= 50 + 2 * LOOKS


def test_claims_that_have_ended_do_not_stay(broker, clock):
    for number in range(10_000):
        clock.now += 1
        assert broker.claim(f"ticket-{number}", 30.0)
        assert broker.statistics().claims <= 31
    clock.now += 30
    for _ in range(31 // LOOKS + 1):
        broker.position("lobby")
    assert broker.statistics().claims == 0
    assert not broker._claims_due


def test_when_too_many_claims_stand_further_ones_are_refused_and_none_is_forgotten(clock, caplog):
    broker = MemoryBroker(max_claims=5, clock=clock)
    assert all(broker.claim(f"ticket-{number}", 30.0) for number in range(5))
    assert not any(broker.claim(f"ticket-{number}", 30.0) for number in range(20))
    statistics = broker.statistics()
    assert (statistics.claims, statistics.refused_claims) == (5, 15)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "raise max_claims" in caplog.text
    clock.now += 30
    assert broker.claim("ticket-7", 30.0)


# Subscribers


def test_delivery_is_over_when_publish_returns(broker):
    got = []
    broker.subscribe(got.append)
    publish(broker)
    assert len(got) == 1


def test_the_time_of_a_message_is_what_a_calendar_can_show(broker):
    """Not the clock that ages are counted on, which begins anywhere."""
    before = time.time()
    publish(broker)
    assert before <= broker.history("lobby")[0].time <= time.time()


def test_a_calendar_that_is_set_back_or_forward_expires_nothing(broker, clock, monkeypatch):
    for now in (2e9, 1e9, 3e9):
        monkeypatch.setattr("catzilla.brokers.memory.time", SimpleNamespace(time=lambda now=now: now))
        publish(broker, retention=Retention(age=10))
    assert [publication.time for publication in broker.history("lobby")] == [2e9, 1e9, 3e9]


def test_a_subscriber_that_raises_is_logged_and_costs_nobody_anything(broker, caplog):
    before, after = [], []
    broker.subscribe(before.append)
    broker.subscribe(lambda publication: 1 / 0)
    broker.subscribe(after.append)
    position = publish(broker)
    assert [publication.position for publication in (*before, *after)] == [position, position]
    assert f"broker=memory stream='lobby' position={position} a subscriber raised" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert publish(broker).offset == 2


def test_an_interrupted_delivery_goes_on_with_the_next_message(broker):
    got = []

    def interrupted(publication) -> None:
        if publication.position.offset == 1:
            raise KeyboardInterrupt

    broker.subscribe(interrupted)
    broker.subscribe(got.append)
    with pytest.raises(KeyboardInterrupt):
        publish(broker)
    publish(broker)
    assert [publication.position.offset for publication in got] == [2]


def test_a_subscriber_that_publishes_breaks_no_order_and_waits_for_nobody(broker):
    one, two = [], []

    def answers(publication) -> None:
        one.append(publication.position.offset)
        if publication.position.offset <= 3:
            publish(broker)
            publish(broker)

    broker.subscribe(answers)
    broker.subscribe(lambda publication: two.append(publication.position.offset))
    within(5, lambda: publish(broker))
    assert one == two == [1, 2, 3, 4, 5, 6, 7]


def test_a_subscriber_may_end_itself_and_others_at_once(broker):
    one, two = [], []

    def last_words(publication) -> None:
        one.append(publication)
        for end in ends:
            end()

    ends = [broker.subscribe(last_words), broker.subscribe(two.append)]
    within(5, lambda: [publish(broker) for _ in range(2)])
    assert (len(one), len(two)) == (1, 0)


def test_one_that_subscribes_during_a_delivery_gets_what_is_published_after(broker):
    late = []

    def brings_another(publication) -> None:
        if publication.position.offset == 1:
            publish(broker)
            broker.subscribe(lambda publication: late.append(publication.position.offset))
            publish(broker)

    broker.subscribe(brings_another)
    within(5, lambda: publish(broker))
    assert late == [3]


def test_a_subscriber_may_close_the_broker(broker):
    got = []

    def closes(publication) -> None:
        got.append(publication)
        broker.close()

    broker.subscribe(closes)
    broker.subscribe(got.append)
    within(5, lambda: publish(broker))
    assert len(got) == 1


# The end


def test_a_closed_broker_says_so_and_holds_nothing(broker):
    publish(broker)
    broker.claim("ticket", 30.0)
    broker.subscribe(deque().append)
    broker.close()
    statistics = broker.statistics()
    held = statistics.subscribers, statistics.streams, statistics.histories, statistics.history_bytes, statistics.claims
    assert held == (0, 0, 0, 0, 0)
    with pytest.raises(BrokerClosed, match="this MemoryBroker was closed"):
        publish(broker)
    assert "closed" in repr(broker)


def test_it_shows_what_it_holds(broker):
    publish(broker, "a")
    publish(broker, "b", retention=None)
    assert repr(broker) == "<MemoryBroker open streams=2 histories=1>"


@pytest.mark.parametrize("bound", ["max_idle_streams", "max_history_bytes", "max_claims"])
def test_bounds_below_one_are_refused(bound):
    with pytest.raises(ValueError, match="at least 1"):
        MemoryBroker(**{bound: 0})


@pytest.mark.parametrize("bounds", [{"messages": 0}, {"bytes": 0}, {"age": 0}, {"age": float("nan")}])
def test_a_retention_that_keeps_nothing_is_refused(bounds):
    with pytest.raises(ValueError, match="retention=None keeps nothing"):
        Retention(**bounds)


def test_the_object_that_is_delivered_is_the_one_that_is_kept(broker):
    """Fan-out to a thousand members and the history hold one payload."""
    got = []
    broker.subscribe(got.append)
    payload = b"x" * 1000
    publish(broker, payload=payload)
    references = sys.getrefcount(payload)
    assert got[0] is broker.history("lobby")[0]
    assert got[0].payload is payload
    assert sys.getrefcount(payload) == references
