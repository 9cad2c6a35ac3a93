"""One healthy client: `GET /` again and again on one connection. What it waits for is the figure."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from tools.bench.clients import wire
from tools.bench.clients.latency import milliseconds


def measure(port: int, path: str, seconds: float, patience: float = 2.0) -> dict[str, Any]:
    """Asks for `seconds`; a request unanswered for `patience` seconds counts with that time and gets a new connection.

    Returns `answered`, `unanswered` and the latencies of both together.
    """
    request = wire.request(path)
    latencies: list[float] = []
    unanswered = 0
    connection: socket.socket | None = None
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        asked = time.perf_counter()
        try:
            connection = connection or wire.connect(port, timeout=patience)
            connection.sendall(request)
            wire.read_response(connection)
        except (OSError, wire.Unexpected):
            unanswered += 1
            with contextlib.suppress(OSError, AttributeError):
                connection.close()  # type: ignore[union-attr]
            connection = None
        latencies.append(time.perf_counter() - asked)
    return {"answered": len(latencies) - unanswered, "unanswered": unanswered, **milliseconds(latencies)}
