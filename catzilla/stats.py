"""Live statistics over all servers of this process.

Reads what the servers count anyway; keeps nothing but the totals of those that have stopped. Any thread may ask.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from catzilla._core.services import Services
from catzilla._core.stream import State, StreamStatistics

WINDOW = 10  # seconds that the average throughput looks back


@dataclass(frozen=True)
class StreamingStats:
    """A moment's figures. Counts are since the process began unless they say what is live.

    `avg_throughput_mbps` is megabits of stream bodies a second over the last 10 s. `streams` has a row for each live
    stream: its route, age in seconds, bytes, state, and the shares of its time spent in the producer, waiting for the
    client and waiting for a thread.
    """

    active_streams: int  # live, whatever they are doing
    parked_streams: int  # of those, the ones that hold no thread
    total_streams: int
    total_bytes_streamed: int
    avg_throughput_mbps: float
    connection_errors: int  # streams that failed and were cut
    backpressure_pauses: int  # times that a client was behind
    client_disconnects: int  # streams and sockets whose client left without a word
    active_websockets: int
    websocket_messages_received: int
    websocket_messages_sent: int
    rate_limited: int  # WebSockets closed because they sent more than `message_rate` allows
    slow_disconnects: int  # members whose room disconnects those that do not take what it sends
    slow_dropped: int  # messages that were dropped for newer ones, with `on_slow="drop_oldest"`
    slow_conflated: int  # ... because only the newest is kept, with `on_slow="conflate"`
    slow_gaps: int  # ... until the member has caught up, with `on_slow="gap"`
    connections: int  # open
    total_requests: int
    threads: int  # of requests and streams, and of sockets and rooms
    idle_threads: int
    queued_requests: int  # waiting for a thread
    queued_callbacks: int  # of sockets and rooms, the same
    running_requests: int
    running_streams: int
    running_sockets: int  # linear handlers
    streams: tuple[StreamStatistics, ...]


_lock = threading.Lock()
_servers: list[Services] = []
_ended: Counter[str] = Counter()


def register(services: Services) -> None:
    """Count a server that has started. [any thread]"""
    with _lock:
        _servers.append(services)


def unregister(services: Services) -> None:
    """Keep only the totals of a server that has stopped. [any thread]"""
    with _lock:
        _servers.remove(services)
        for name, value in _totals(services).items():
            _ended[name] += value


def streaming_stats() -> StreamingStats:
    """The figures of this moment. [any thread]"""
    with _lock:
        servers = list(_servers)
        totals = Counter(_ended)
    for services in servers:
        for name, value in _totals(services).items():
            totals[name] += value
    streams = [stream for services in servers for stream in list(services.bridge.streams)]
    workers = [services.workers.statistics() for services in servers]
    turns = [services.turns.statistics() for services in servers]
    recent = sum(services.bridge.bytes_in_last_seconds(WINDOW) for services in servers)
    return StreamingStats(
        active_streams=len(streams),
        parked_streams=sum(stream.state in (State.PARKED, State.SLEEPING) for stream in streams),
        total_streams=totals["streams"],
        total_bytes_streamed=totals["bytes"],
        avg_throughput_mbps=recent * 8 / 1e6 / WINDOW,
        connection_errors=totals["errors"],
        backpressure_pauses=totals["pauses"],
        client_disconnects=totals["disconnects"],
        active_websockets=sum(services.websockets for services in servers),
        websocket_messages_received=totals["received"],
        websocket_messages_sent=totals["sent"],
        rate_limited=totals["rate_limited"],
        slow_disconnects=totals["disconnect"],
        slow_dropped=totals["drop_oldest"],
        slow_conflated=totals["conflate"],
        slow_gaps=totals["gap"],
        connections=sum(len(services.connections) for services in servers),
        total_requests=totals["requests"],
        threads=sum(each.threads for each in workers) + sum(each.threads for each in turns),
        idle_threads=sum(each.idle for each in workers) + sum(each.idle for each in turns),
        queued_requests=sum(each.queued for each in workers),
        queued_callbacks=sum(each.waiting for each in turns),
        running_requests=sum(each.requests for each in workers),
        running_streams=sum(each.streams for each in workers),
        running_sockets=sum(each.linear for each in turns),
        streams=tuple(stream.statistics() for stream in streams),
    )


def _totals(services: Services) -> dict[str, int]:
    bridge = services.bridge
    return {
        "streams": bridge.total_streams,
        "bytes": bridge.total_bytes,
        "errors": bridge.errors,
        "pauses": bridge.backpressure_pauses,
        "disconnects": bridge.client_disconnects,
        "requests": services.requests,
        "received": services.messages_received,
        "sent": services.messages_sent,
        "rate_limited": services.rate_limited,
    } | {policy.value: count for policy, count in services.fanout.losses.items()}
