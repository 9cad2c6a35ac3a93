"""The scenarios: what is asked of a server, and which figures come of it.

Each function measures one fresh server of one peer, once. Repeating, alternating and comparing are `rounds.py`'s.
"""

from __future__ import annotations

import time
from typing import Any

from tools.bench import work
from tools.bench.clients.ask import ask, holding
from tools.bench.hello import CLIENT_PATIENCE, request_rate
from tools.bench.peers import Peer
from tools.bench.scenario import Amount, Metric, Sample, Scenario
from tools.bench.server import RunningServer, running
from tools.bench.ws_scenarios import WS_SCENARIOS

MB = 1_000_000
GB = 1_000_000_000
MIB = 1024 * 1024

SETTLE_QUIET = 1.0
"""Seconds without a new chunk after which generators count as paused."""
SETTLE_TIMEOUT = 60.0
"""Seconds for that: the kernel alone takes about 4 MB for each client that does not read."""
WARM_STREAMS = 20
"""Streams opened and closed before memory is measured, so that what is made once is not counted."""


def streaming(path: str, item: bytes = b"") -> Scenario:
    """One connection reading one endless stream; with `item`, that item is counted and not the bytes."""

    def measure(peer: Peer, amount: Amount) -> Sample:
        with running(peer) as server:
            return read_stream(server, path, amount.seconds, item)

    titles = {
        "/chunks8k": "one stream of 8 KiB chunks to one client",
        "/chunks64k": "one stream of 64 KiB chunks to one client",
        "/lines": "one stream of 20-byte lines to one client (payload, without chunk framing)",
    }
    metrics = (Metric("mb_per_s", "MB/s", "more", 1), Metric("cpu_s_per_gb", "CPU s/GB", "less", 2))
    return Scenario(path[1:], titles[path], metrics, Amount(5, 2.0, 0), measure)


def read_stream(server: RunningServer, path: str, seconds: float, item: bytes = b"") -> Sample:
    """The rate of one stream, and the processor time of the server for it."""
    counting = {"mark": work.LINE_MARK.decode(), "item_bytes": len(item)} if item else {}
    cpu_before = server.cpu_seconds()
    result = ask(
        "stream",
        timeout=seconds + CLIENT_PATIENCE,
        port=server.port,
        path=server.peer.path(path),
        seconds=seconds,
        **counting,
    )
    cpu = server.cpu_seconds() - cpu_before
    return {
        "mb_per_s": result["bytes"] / result["seconds"] / MB,
        "cpu_s_per_gb": cpu / (result["bytes"] / GB) if result["bytes"] else None,
    }


def measure_cpu(peer: Peer, amount: Amount) -> Sample:
    with running(peer) as server:
        large = read_stream(server, "/chunks64k", amount.seconds)
    with running(peer) as server:
        small = read_stream(server, "/chunks8k", amount.seconds)
    return {"chunks64k_cpu_s_per_gb": large["cpu_s_per_gb"], "chunks8k_cpu_s_per_gb": small["cpu_s_per_gb"]}


def measure_hello(peer: Peer, amount: Amount) -> Sample:
    with running(peer) as server:
        result = request_rate(server, amount.seconds, amount.count)
    return {key: result[key] for key in ("requests_per_s", "p50_ms", "p99_ms")}


def measure_first_byte(peer: Peer, amount: Amount) -> Sample:
    with running(peer) as server:
        result = ask("first_byte", timeout=CLIENT_PATIENCE, port=server.port, path="/first", count=amount.count)
    return {
        "yield_p99_ms": result["yield"]["p99_ms"],
        "yield_p50_ms": result["yield"]["p50_ms"],
        "request_p99_ms": result["request"]["p99_ms"],
        "request_p50_ms": result["request"]["p50_ms"],
    }


def measure_sleepers(peer: Peer, amount: Amount) -> Sample:
    window = max(1, round(amount.seconds / work.TICK_INTERVAL)) * work.TICK_INTERVAL
    with running(peer, threads=amount.count + 200) as server:
        result = ask(
            "events",
            timeout=window + amount.count / 500 + CLIENT_PATIENCE,
            port=server.port,
            path=peer.path("/ticks"),
            count=amount.count,
            seconds=window,
            interval=work.TICK_INTERVAL,
        )
    return {
        "on_time_percent": 100 * result["on_time_share"],
        "delivered_percent": 100 * result["delivered_share"],
        "late_p50_ms": result["p50_ms"],
        "late_p99_ms": result["p99_ms"],
        "refused": result["statuses"].get("503", 0),
    }


def settle(server: RunningServer) -> bool:
    """Waits until the generators of `/fresh` produce nothing more; False if they still do after `SETTLE_TIMEOUT`."""
    produced, quiet_since = server.produced, time.monotonic()
    deadline = quiet_since + SETTLE_TIMEOUT
    while (now := time.monotonic()) < deadline:
        if server.produced != produced:
            produced, quiet_since = server.produced, now
        elif now - quiet_since >= SETTLE_QUIET:
            return True
        time.sleep(0.05)
    return False


def ask_steadily(server: RunningServer, seconds: float) -> dict[str, float]:
    timeout = seconds + CLIENT_PATIENCE
    return ask("steady", timeout=timeout, port=server.port, path="/", seconds=seconds)


def measure_stalled(peer: Peer, amount: Amount) -> Sample:
    with running(peer) as server:
        unloaded = ask_steadily(server, amount.seconds / 2)
        before = server.resident_bytes()
        with holding(timeout=CLIENT_PATIENCE, port=server.port, path="/fresh", count=amount.count):
            paused = settle(server)
            healthy = ask_steadily(server, amount.seconds)
            grown = server.resident_bytes() - before
    return {
        "healthy_p99_ms": healthy["p99_ms"],
        "unloaded_p99_ms": unloaded["p99_ms"],
        "unanswered": healthy["unanswered"],
        "grown_mib": grown / MIB,
        "paused": 1.0 if paused else 0.0,
    }


def held_bytes(peer: Peer, path: str, until: bytes, count: int) -> float:
    """Resident bytes of a fresh server for each of `count` connections brought to `until` on `path` and left there."""
    timeout = CLIENT_PATIENCE + count / 100
    about: dict[str, Any] = {"path": path, "until": until.decode().strip(), "timeout": timeout}
    with running(peer) as server:
        with holding(port=server.port, count=WARM_STREAMS, **about):
            pass
        before = server.resident_bytes()
        with holding(port=server.port, count=count, **about) as result:
            if result["refused"]:
                raise ValueError(f"{result['refused']} of {count} connections to {path} were refused")
            return (server.resident_bytes() - before) / count


def measure_memory(peer: Peer, amount: Amount) -> Sample:
    parked = held_bytes(peer, "/parked", work.PARKED, amount.count) if peer.parks else None
    return {"parked_bytes": parked, "idle_bytes": held_bytes(peer, "/", work.HELLO, amount.count)}


def sleepers(name: str, count: int, rounds: int) -> Scenario:
    title = f"n generators, each with an event every {work.TICK_INTERVAL:g} s and asleep in between"
    metrics = (
        Metric("on_time_percent", "on time %", "more", 1),
        Metric("delivered_percent", "delivered %", "more", 1),
        Metric("late_p50_ms", "late p50 ms", "less", 1),
        Metric("late_p99_ms", "late p99 ms", "less", 1),
        Metric("refused", "refused", "neither"),
    )
    return Scenario(name, title, metrics, Amount(rounds, 10.0, count), measure_sleepers)


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in [
        streaming("/chunks8k"),
        streaming("/chunks64k"),
        streaming("/lines", work.LINE),
        Scenario(
            "hello",
            "a small response on n keep-alive connections",
            (
                Metric("requests_per_s", "requests/s", "more"),
                Metric("p50_ms", "p50 ms", "less", 2),
                Metric("p99_ms", "p99 ms", "less", 2),
            ),
            Amount(5, 2.0, 32),
            measure_hello,
        ),
        Scenario(
            "ttfb",
            "time to the first byte of a stream, unloaded, n requests one after the other",
            (
                Metric("yield_p99_ms", "since yield p99 ms", "less", 2),
                Metric("yield_p50_ms", "p50 ms", "less", 2),
                Metric("request_p99_ms", "since request p99 ms", "less", 2),
                Metric("request_p50_ms", "p50 ms", "less", 2),
            ),
            Amount(5, 0.0, 500),
            measure_first_byte,
        ),
        sleepers("sleepers", 1000, rounds=3),
        sleepers("sleepers5000", 5000, rounds=3),
        Scenario(
            "stalled",
            "`GET /` by one client while n others have asked for an endless stream and read nothing",
            (
                Metric("healthy_p99_ms", "p99 ms", "less", 2),
                Metric("unloaded_p99_ms", "unloaded p99 ms", "less", 2),
                Metric("unanswered", "unanswered", "neither"),
                Metric("grown_mib", "grown MiB", "less", 1),
                Metric("paused", "all paused", "neither"),
            ),
            Amount(3, 5.0, 500),
            measure_stalled,
        ),
        Scenario(
            "memory",
            "resident bytes for each of n connections: a stream parked without a thread; idle keep-alive",
            (Metric("parked_bytes", "parked stream B", "less"), Metric("idle_bytes", "idle connection B", "less")),
            Amount(3, 0.0, 10_000),
            measure_memory,
        ),
        Scenario(
            "cpu",
            "processor time of the server (user and system) for a gigabyte to one client",
            (
                Metric("chunks64k_cpu_s_per_gb", "64 KiB chunks s/GB", "less", 2),
                Metric("chunks8k_cpu_s_per_gb", "8 KiB chunks s/GB", "less", 2),
            ),
            Amount(5, 1.0, 0),
            measure_cpu,
        ),
        *WS_SCENARIOS,
    ]
}
