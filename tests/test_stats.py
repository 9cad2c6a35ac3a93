"""Statistics over all servers of the process, those that have stopped included."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from catzilla import stats
from catzilla._core.outbox import OnSlow
from catzilla._core.pulled_stream import Pause
from catzilla._core.stream import State
from catzilla._core.turns import TurnStatistics
from catzilla._core.worker import WorkerStatistics
from catzilla.stats import StreamingStats, streaming_stats
from tests.core.fakes import Bench, Tracked


class Services:
    """A server as far as statistics know one."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.bridge = self.bench.bridge
        self.workers = self
        self.turns = SimpleNamespace(statistics=lambda: TurnStatistics(threads=3, idle=2, waiting=5, linear=1))
        self.connections = {1, 2, 3}
        self.requests = 10
        self.websockets = 2
        self.messages_received = 7
        self.messages_sent = 9
        self.rate_limited = 3
        self.fanout = SimpleNamespace(losses=dict.fromkeys(OnSlow, 0) | {OnSlow.CONFLATE: 4})

    def statistics(self) -> WorkerStatistics:
        return WorkerStatistics(threads=4, idle=1, queued=2, requests=1, streams=2)

    def stream(self, *items):
        stream = self.bench.pulled(Tracked().items(*items))
        self.bench.begin(stream)
        stream.run(self.bench.worker)
        self.bench.settle()
        return stream


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No other server, and totals from zero."""
    monkeypatch.setattr(stats, "_servers", [])
    monkeypatch.setattr(stats, "_ended", Counter())


@pytest.fixture
def server():
    services = Services()
    stats.register(services)
    return services


def test_nothing_at_all():
    figures = streaming_stats()
    assert isinstance(figures, StreamingStats)
    assert figures.streams == ()
    assert figures.active_streams == figures.total_streams == figures.threads == figures.connections == 0
    assert figures.avg_throughput_mbps == 0.0


def test_what_is_live(server):
    asleep = server.stream(b"12345", Pause(10))
    server.bench.sink.full = True
    server.stream(b"x" * 100_000, b"y")
    figures = streaming_stats()
    assert (figures.active_streams, figures.parked_streams, figures.total_streams) == (2, 2, 2)
    assert figures.total_bytes_streamed == 100_005
    assert figures.avg_throughput_mbps == pytest.approx(100_005 * 8 / 1e6 / stats.WINDOW)
    assert figures.backpressure_pauses == 1
    assert (figures.connections, figures.total_requests) == (3, 10)
    assert figures.active_websockets == 2
    assert (figures.websocket_messages_received, figures.websocket_messages_sent) == (7, 9)
    assert figures.rate_limited == 3
    assert (figures.slow_conflated, figures.slow_dropped, figures.slow_disconnects, figures.slow_gaps) == (4, 0, 0, 0)
    assert (figures.threads, figures.idle_threads) == (4 + 3, 1 + 2)
    assert (figures.queued_requests, figures.queued_callbacks) == (2, 5)
    assert (figures.running_requests, figures.running_streams, figures.running_sockets) == (1, 2, 1)
    assert {row.state for row in figures.streams} == {State.SLEEPING.value, State.PARKED.value}
    assert {row.bytes_sent for row in figures.streams} == {5, 100_000}
    assert asleep.state is State.SLEEPING


def test_a_running_stream_is_not_parked(server):
    stream = server.stream(b"1", Pause(1))
    stream.state = State.RUNNING
    assert streaming_stats().parked_streams == 0


def test_failures_and_departures(server):
    server.stream(b"1", ValueError("broken"))
    server.bridge.client_disconnects += 2
    figures = streaming_stats()
    assert (figures.connection_errors, figures.client_disconnects) == (1, 2)
    assert figures.active_streams == 0


def test_two_servers_add_up(server):
    stats.register(Services())
    figures = streaming_stats()
    assert (figures.connections, figures.threads, figures.total_requests) == (6, 14, 20)


def test_a_server_that_has_stopped_leaves_its_totals_and_nothing_else(server):
    server.stream(b"12345")
    stats.unregister(server)
    figures = streaming_stats()
    assert (figures.total_streams, figures.total_bytes_streamed, figures.total_requests) == (1, 5, 10)
    assert (figures.connections, figures.threads, figures.active_streams) == (0, 0, 0)
    assert figures.avg_throughput_mbps == 0.0
