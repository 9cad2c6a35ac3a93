"""The scenarios of WebSockets. As in `scenarios.py`, each measures one fresh server of one peer, once.

Nobody compresses. The messages of `ws_echo` and `ws_broadcast` are text, as those of a chat or a ticker are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tools.bench import work
from tools.bench.clients.ask import ask, holding
from tools.bench.hello import CLIENT_PATIENCE, request_rate
from tools.bench.peers import DEFAULT_THREADS, Peer
from tools.bench.scenario import Amount, Metric, Sample, Scenario
from tools.bench.server import RunningServer, running

SPARE_THREADS = 200
"""Threads beyond one a connection, for the servers that hold one or two for each."""
PIPELINE_WINDOW = 256
"""Messages of 32 bytes on their way on each connection of `ws_echo_pipelined`."""
BROADCAST_WINDOW = 32
"""Messages on their way to all members in `ws_broadcast`. Of 1 to 128 a server that collects what is published does
best with 32 or 64; the others do alike with any."""
WARM_SOCKETS = 20
"""Sockets opened and closed before memory is measured, so that what is made once is not counted."""
REFUSED_SHARE = 0.01
"""Sockets that may be missing: at four descriptors for each, a hard limit of 20,000 is met just below 5,000."""
HELLO_CONNECTIONS = 32
SETTLE_QUIET = 0.3
"""Seconds without a change after which a server counts as settled."""
SETTLE_TIMEOUT = 5.0
"""Seconds after which it is measured as it is."""

_BUSY = (Metric("server_busy", "server busy %", "neither"), Metric("client_busy", "client busy %", "neither"))


@contextmanager
def serving(peer: Peer, sockets: int) -> Iterator[RunningServer]:
    """A fresh server with threads for so many sockets, where it wants to know that."""
    with running(peer, threads=max(DEFAULT_THREADS, sockets + SPARE_THREADS)) as server:
        yield server


def ask_sockets(client: str, server: RunningServer, path: str, amount: Amount, **arguments: Any) -> dict[str, Any]:
    """The result of a client with `amount.count` sockets on `path` for `amount.seconds`."""
    return ask(
        client,
        timeout=amount.seconds + CLIENT_PATIENCE,
        port=server.port,
        path=server.peer.path(path),
        seconds=amount.seconds,
        connections=amount.count,
        pids=server.pids(),
        **arguments,
    )


def echoing(window: int) -> Callable[[Peer, Amount], Sample]:
    def measure(peer: Peer, amount: Amount) -> Sample:
        with serving(peer, amount.count) as server:
            return ask_sockets("ws_echo", server, "/echo", amount, size=work.MESSAGE_BYTES, window=window)

    return measure


def measure_large(peer: Peer, amount: Amount) -> Sample:
    size = work.LARGE_MESSAGE_BYTES
    with serving(peer, amount.count) as server:
        binary = ask_sockets("ws_echo", server, "/echo", amount, size=size, text=False)
    with serving(peer, amount.count) as server:
        text = ask_sockets("ws_echo", server, "/echo", amount, size=size, text=True)
    return {**binary, "text_messages_per_s": text["messages_per_s"]}


def measure_broadcast(peer: Peer, amount: Amount) -> Sample:
    figures = []
    for window in (BROADCAST_WINDOW, 1):
        with serving(peer, amount.count) as server:
            about = {"size": work.MESSAGE_BYTES, "window": window}
            figures.append(ask_sockets("ws_broadcast", server, "/broadcast", amount, **about))
    return {**figures[0], "alone_per_s": figures[1]["deliveries_per_s"]}


def measure_memory(peer: Peer, amount: Amount) -> Sample:
    with serving(peer, amount.count) as server:
        with holding_sockets(server, WARM_SOCKETS):
            pass
        alone = hello_figures(server, amount)
        settle(server)
        resident, threads = server.resident_bytes(), server.threads()
        with holding_sockets(server, amount.count) as held:
            grown, started = server.resident_bytes() - resident, server.threads() - threads
            beside = hello_figures(server, amount)
            if server.descriptors() < held:
                raise ValueError("the server closed sockets that were idle")
    return {
        "idle_bytes": grown / held,
        "threads": float(started),
        "requests_per_s": alone.get("requests_per_s"),
        "beside_requests_per_s": beside.get("requests_per_s"),
        "p99_ms": alone.get("p99_ms"),
        "beside_p99_ms": beside.get("p99_ms"),
    }


def settle(server: RunningServer) -> None:
    """Waits until what earlier connections held is given back, or `SETTLE_TIMEOUT` is over."""
    seen, since = (0, 0), time.monotonic()
    deadline = since + SETTLE_TIMEOUT
    while (now := time.monotonic()) < deadline and now - since < SETTLE_QUIET:
        held = (server.descriptors(), server.threads())
        if held != seen:
            seen, since = held, now
        time.sleep(0.02)


def hello_figures(server: RunningServer, amount: Amount) -> dict[str, Any]:
    """The rate of `GET /` now; nothing for a server that closes the connection after each response."""
    return request_rate(server, amount.seconds, HELLO_CONNECTIONS) if server.peer.keeps_alive else {}


@contextmanager
def holding_sockets(server: RunningServer, count: int) -> Iterator[int]:
    """`count` idle sockets that have each seen one message; the value is how many there are.

    Raises:
        ValueError: more than `REFUSED_SHARE` of them were refused.
    """
    about: dict[str, Any] = {"port": server.port, "path": server.peer.path("/echo"), "size": work.MESSAGE_BYTES}
    with holding("ws_hold", timeout=CLIENT_PATIENCE, count=count, **about) as result:
        if result["refused"] > count * REFUSED_SHARE:
            raise ValueError(f"{result['refused']} of {count} sockets were refused: {result['why']}")
        yield int(result["held"])


WS_SCENARIOS = [
    Scenario(
        "ws_echo",
        "echo of 32-byte text messages, one in flight on each of n WebSockets",
        (Metric("messages_per_s", "messages/s", "more"), *_BUSY),
        Amount(5, 2.0, 32),
        echoing(window=1),
    ),
    Scenario(
        "ws_echo_pipelined",
        f"echo of 32-byte text messages, {PIPELINE_WINDOW} in flight on each of n WebSockets",
        (Metric("messages_per_s", "messages/s", "more"), *_BUSY),
        Amount(5, 2.0, 1),
        echoing(window=PIPELINE_WINDOW),
    ),
    Scenario(
        "ws_large",
        "echo of 60,000-byte messages, one in flight on each of n WebSockets; binary, and text in the last column",
        (
            Metric("messages_per_s", "messages/s", "more"),
            *_BUSY,
            Metric("text_messages_per_s", "text messages/s", "more"),
        ),
        Amount(5, 2.0, 8),
        measure_large,
    ),
    Scenario(
        "ws_broadcast",
        f"32-byte text messages of one member to a room of n, {BROADCAST_WINDOW} of them on their way;"
        " in the last column one",
        (
            Metric("deliveries_per_s", "deliveries/s", "more"),
            *_BUSY,
            Metric("alone_per_s", "one by one, deliveries/s", "more"),
        ),
        Amount(5, 2.0, 500),
        measure_broadcast,
    ),
    Scenario(
        "ws_memory",
        "n idle WebSockets: resident bytes for each, threads for all, and `GET /` on the same server beside them",
        (
            Metric("idle_bytes", "idle socket B", "less"),
            Metric("threads", "threads", "less"),
            Metric("requests_per_s", "GET / without, /s", "more"),
            Metric("beside_requests_per_s", "with, /s", "more"),
            Metric("p99_ms", "without p99 ms", "less", 2),
            Metric("beside_p99_ms", "with p99 ms", "less", 2),
        ),
        Amount(3, 2.0, 5000),
        measure_memory,
    ),
]
