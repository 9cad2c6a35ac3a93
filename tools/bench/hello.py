"""The rate of small requests, which more than one scenario asks for."""

from __future__ import annotations

from typing import Any

from tools.bench.clients import wrk
from tools.bench.clients.ask import ask
from tools.bench.server import RunningServer

CLIENT_PATIENCE = 60.0
"""Seconds a client may take beyond its own window."""


def request_rate(server: RunningServer, seconds: float, connections: int) -> dict[str, Any]:
    """`requests_per_s`, `p50_ms` and `p99_ms` of `GET /` on keep-alive connections; by `wrk` where it is installed."""
    if wrk.available() and seconds >= 1:
        return wrk.measure(server.port, "/", round(seconds), connections)
    return ask(
        "requests",
        timeout=seconds + CLIENT_PATIENCE,
        port=server.port,
        path="/",
        seconds=seconds,
        connections=connections,
    )
