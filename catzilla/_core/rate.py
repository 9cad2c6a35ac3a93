"""How often something may happen: a token bucket, and one for each client address.

Decides when the next one is allowed. Knows no clock: time is passed in, in seconds of any clock that never goes back.
Nothing here locks; each object belongs to one thread.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

BURST_SECONDS = 5.0  # what may come at once is what the rate allows in this time
MAX_ADDRESSES = 10_000  # about 3 MB; a host that is met by more of them at once has other troubles than its rate
SLACK = 1e-6  # seconds of rounding forgiven, so that whoever waits as long as told is let in


def burst_of(rate: float) -> float:
    """The burst that goes with a rate in events a second: 5 seconds' worth, at least one."""
    return max(1.0, rate * BURST_SECONDS)


class Bucket:
    """A token bucket: `burst` tokens at first, `rate` a second until it is full again, one taken by each event.

    It keeps no count but the time at which it is full again, which says the same (the "virtual scheduling" form of
    ITU-T I.371's generic cell rate algorithm): nothing to bring up to date, nothing that drifts.
    """

    __slots__ = ("_burst", "_full_at", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` is in events a second. Raises: `ValueError` for a rate not above 0 or a burst below 1."""
        _check(rate, burst)
        self._rate = rate
        self._burst = burst
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """0.0 if one more is allowed now, which takes a token; else the seconds until it will be, and takes none."""
        start = max(self._full_at, now)
        wait = start - now - (self._burst - 1) / self._rate
        if wait > SLACK:
            return wait
        self._full_at = start + 1 / self._rate
        return 0.0

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._full_at <= now

    def __repr__(self) -> str:
        return f"<Bucket rate={self._rate:g} burst={self._burst:g} full_at={self._full_at:.3f}>"


class Buckets:
    """A bucket for each client address, for those that are not full: a full one is as good as a new one, so it is
    forgotten.

    At most `max_addresses` are remembered. Over that the one that was used longest ago goes, which gives its client a
    full burst again: `evicted` counts these.
    """

    __slots__ = ("_buckets", "_burst", "_most", "_rate", "evicted")

    def __init__(self, rate: float, burst: float, max_addresses: int = MAX_ADDRESSES) -> None:
        """Raises: `ValueError` as `Bucket` does."""
        _check(rate, burst)
        self._rate = rate
        self._burst = burst
        self._most = max_addresses
        self._buckets: dict[str, Bucket] = {}  # the one used longest ago comes first
        self.evicted = 0

    def take(self, address: str | None, now: float) -> float:
        """As `Bucket.take`, for one address. None, the peer of a Unix socket, is never limited: all are alike there."""
        if address is None:
            return 0.0
        self._forget(now)
        key = address_key(address)
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(self._rate, self._burst)
            if len(self._buckets) >= self._most:
                del self._buckets[next(iter(self._buckets))]
                self.evicted += 1
        self._buckets[key] = bucket
        return bucket.take(now)

    def _forget(self, now: float) -> None:
        """Forget two full buckets, if the first in line are full.

        A bucket is full once it has rested for burst/rate seconds, and those behind the first have rested for less
        time. So when the first is not full, all of them were used within that time; and two go for each that comes.
        """
        for _ in range(2):
            key = next(iter(self._buckets), None)
            if key is None or not self._buckets[key].is_full(now):
                return
            del self._buckets[key]

    def __len__(self) -> int:
        return len(self._buckets)

    def __repr__(self) -> str:
        return f"<Buckets rate={self._rate:g} burst={self._burst:g} addresses={len(self)} evicted={self.evicted}>"


def address_key(address: str) -> str:
    """What stands for the client behind an address: an IPv4 address, or the first 64 bits of an IPv6 one.

    A /64 is what a single host is given (RFC 6177, RFC 8273), so a limit for each whole IPv6 address would be none.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:  # how a dual-stack socket shows an IPv4 peer
        return str(IPv4Address(int(parsed.ipv4_mapped)))
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def _check(rate: float, burst: float) -> None:
    if not rate > 0:
        raise ValueError(f"a rate is above 0 events a second, not {rate!r}; leave the bucket out where there is none")
    if not burst >= 1:
        raise ValueError(f"a burst of {burst!r} would never let anything through: it is at least 1")
