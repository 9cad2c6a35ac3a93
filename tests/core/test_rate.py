"""Token buckets: a burst, then the rate, and no more memory than there are addresses in a hurry."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from catzilla._core.rate import SLACK, Bucket, Buckets, address_key, burst_of

rates = st.floats(0.01, 10_000)
bursts = st.floats(1, 1000)
clocks = st.floats(0, 1e7)  # what a monotonic clock shows after up to four months
steps = st.floats(0, 100)


def test_a_burst_then_the_rate():
    bucket = Bucket(rate=2, burst=3)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0] * 3
    assert bucket.take(100.0) == pytest.approx(0.5)
    assert bucket.take(100.25) == pytest.approx(0.25)
    assert bucket.take(100.5) == 0.0
    assert bucket.take(100.5) == pytest.approx(0.5)


def test_what_is_refused_takes_no_token():
    bucket = Bucket(rate=1, burst=1)
    assert bucket.take(0.0) == 0.0
    assert [bucket.take(0.5) for _ in range(100)] == [0.5] * 100
    assert bucket.take(1.0) == 0.0


def test_it_does_not_fill_above_the_burst():
    bucket = Bucket(rate=1, burst=3)
    bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(1.0)]


def test_it_is_full_at_first_and_when_it_has_rested():
    bucket = Bucket(rate=2, burst=3)
    assert bucket.is_full(0.0)
    bucket.take(10.0)
    assert not bucket.is_full(10.4)
    assert bucket.is_full(10.5)


def test_a_slow_rate_still_lets_one_through():
    assert burst_of(0.1) == 1.0
    assert burst_of(10) == 50.0
    bucket = Bucket(0.1, burst_of(0.1))
    assert bucket.take(0.0) == 0.0
    assert bucket.take(0.0) == pytest.approx(10.0)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
@pytest.mark.parametrize("make", [Bucket, Buckets])
def test_a_rate_that_is_none_is_refused(make, rate):
    with pytest.raises(ValueError, match="leave the bucket out"):
        make(rate, 1)


@pytest.mark.parametrize("burst", [0, 0.5, float("nan")])
@pytest.mark.parametrize("make", [Bucket, Buckets])
def test_a_burst_that_lets_nothing_through_is_refused(make, burst):
    with pytest.raises(ValueError, match="at least 1"):
        make(1, burst)


def test_a_bucket_is_small():
    assert sys.getsizeof(Bucket(1, 1)) <= 64
    assert not hasattr(Bucket(1, 1), "__dict__")


@given(rates, bursts, clocks, st.lists(steps | st.just(0.0), max_size=60))
def test_never_more_than_the_burst_and_the_rate(rate, burst, now, waits):
    bucket = Bucket(rate, burst)
    allowed: list[float] = []
    for wait in waits:
        now += wait
        allowed += [now for _ in range(20) if bucket.take(now) == 0.0]
    # In every stretch of time, not only the first. Clocks near 1e7 have a grain of 2e-9 s, an error for each event.
    for first, began in enumerate(allowed):
        for last in range(first, len(allowed), 7):
            most = burst + rate * (allowed[last] - began + SLACK + 4e-9 * (last - first + 1))
            assert last - first + 1 <= most * (1 + 1e-9)


@given(rates, bursts, clocks, st.lists(st.tuples(steps, st.integers(1, 30)), min_size=1, max_size=20))
def test_who_waits_as_long_as_told_is_let_in_and_who_does_not_is_not(rate, burst, now, visits):
    bucket = Bucket(rate, burst)
    for step, events in visits:
        now += step
        for _ in range(events):
            wait = bucket.take(now)
            assert wait >= 0.0
            if wait:
                if wait > 4 * SLACK:
                    assert bucket.take(now + wait / 2) > 0.0
                now += wait
                assert bucket.take(now) == 0.0


@given(rates, bursts, clocks, st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=20))
def test_it_decides_as_a_bucket_with_a_count_does(rate, burst, now, visits):
    bucket = Bucket(rate, burst)
    tokens, last = burst, now
    for step, events in visits:
        now += step
        for _ in range(events):
            tokens = min(burst, tokens + (now - last) * rate)
            last = now
            margin = (tokens - 1) / rate  # seconds by which the counting bucket says yes; no verdict when too close
            allowed = bucket.take(now) == 0.0
            if abs(margin) > 2 * SLACK:
                assert allowed == (margin > 0)
            if allowed:
                tokens -= 1


# By address


def test_each_address_has_its_own():
    buckets = Buckets(rate=1, burst=2)
    assert [buckets.take("192.0.2.1", 0.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(1.0)]
    assert buckets.take("192.0.2.2", 0.0) == 0.0
    assert len(buckets) == 2


def test_the_peer_of_a_unix_socket_is_not_limited():
    buckets = Buckets(rate=1, burst=1)
    assert [buckets.take(None, 0.0) for _ in range(100)] == [0.0] * 100
    assert len(buckets) == 0


def test_a_full_bucket_is_forgotten():
    buckets = Buckets(rate=1, burst=5)
    for number in range(100):
        buckets.take(f"192.0.2.{number}", 0.0)
    assert len(buckets) == 100
    for _ in range(50):
        buckets.take("198.51.100.1", 10.0)
    assert len(buckets) == 1
    assert buckets.evicted == 0


def test_one_in_a_hurry_is_not_forgotten():
    buckets = Buckets(rate=1, burst=2)
    for second in range(20):
        for _ in range(3):
            buckets.take("192.0.2.1", float(second))
        assert buckets.take("192.0.2.1", float(second)) > 0.0
        buckets.take(f"198.51.100.{second}", float(second))


def test_over_the_most_the_one_used_longest_ago_goes_and_is_counted():
    buckets = Buckets(rate=0.001, burst=1, max_addresses=3)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        assert buckets.take(address, 0.0) == 0.0
    assert buckets.take("192.0.2.1", 0.0) > 0.0  # to be refused is to be seen
    assert buckets.take("192.0.2.4", 0.0) == 0.0
    assert len(buckets) == 3
    assert buckets.evicted == 1
    assert buckets.take("192.0.2.1", 0.0) > 0.0
    assert buckets.take("192.0.2.3", 0.0) > 0.0
    assert buckets.take("192.0.2.2", 0.0) == 0.0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_a_host_may_not_have_a_bucket_for_each_of_its_addresses(address, key):
    assert address_key(address) == key


def test_representations():
    bucket = Bucket(2, 3)
    bucket.take(10.0)
    assert repr(bucket) == "<Bucket rate=2 burst=3 full_at=10.500>"
    buckets = Buckets(2, 3)
    buckets.take("192.0.2.1", 0.0)
    assert repr(buckets) == "<Buckets rate=2 burst=3 addresses=1 evicted=0>"


class BucketsMachine(RuleBasedStateMachine):
    """Buckets that forget decide as buckets that do not, in no more memory than those that are not full need."""

    RATE, BURST = 2.0, 4.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.buckets = Buckets(self.RATE, self.BURST)
        self.model: dict[str, Bucket] = {}
        self.used: dict[str, float] = {}

    @rule(number=st.integers(0, 20), times=st.integers(1, 6))
    def take(self, number: int, times: int) -> None:
        address = f"192.0.2.{number}"
        model = self.model.setdefault(address, Bucket(self.RATE, self.BURST))
        for _ in range(times):
            assert self.buckets.take(address, self.now) == model.take(self.now)
        self.used[address] = self.now

    @rule(eighths=st.integers(1, 40))
    def wait(self, eighths: int) -> None:
        self.now += eighths / 8

    @precondition(lambda self: self.used)
    @rule()
    def rest(self) -> None:
        """Once all others have rested, a few visits of one leave nobody else."""
        self.now += self.BURST / self.RATE
        for _ in range(len(self.used)):
            self.buckets.take("198.51.100.1", self.now)
        assert len(self.buckets) == 1
        self.now += self.BURST / self.RATE + len(self.used) / self.RATE

    @invariant()
    def no_more_than_were_used(self) -> None:
        assert len(self.buckets) <= len(self.used) + 1
        assert self.buckets.evicted == 0


TestBuckets = BucketsMachine.TestCase
TestBuckets.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
