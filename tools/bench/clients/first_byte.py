"""Times to the first byte of short streams, one after the other on one keep-alive connection.

Each stream begins with the time of its first `yield` and goes on after a pause, so the first byte can be told from a
response that was collected.
"""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from tools.bench.clients import wire
from tools.bench.clients.latency import milliseconds

_STAMP = re.compile(rb"\r\n\r\n.*?(\d+\.\d{6})\n", re.DOTALL)
_END = b"0\r\n\r\n"


def measure(port: int, path: str, count: int) -> dict[str, Any]:
    """Asks `count` times; returns latencies since the request (`request`) and since the first yield (`yield`)."""
    since_request, since_yield = [], []
    connection = wire.connect(port)
    for _ in range(count):
        asked = time.monotonic()
        connection.sendall(wire.request(path))
        arrived, yielded, reusable = _read(connection)
        since_request.append(arrived - asked)
        since_yield.append(arrived - yielded)
        if not reusable:
            connection.close()
            connection = wire.connect(port)
    connection.close()
    return {"request": milliseconds(since_request), "yield": milliseconds(since_yield)}


def _read(connection: socket.socket) -> tuple[float, float, bool]:
    """Reads one stream: when its first item arrived, when that was yielded, whether the connection goes on."""
    received = b""
    stamp: re.Match[bytes] | None = None
    arrived = 0.0
    while not received.endswith(_END):
        data = connection.recv(65536)
        now = time.monotonic()
        received += data
        if stamp is None:
            stamp = _STAMP.search(received)
            arrived = now
        if not data:
            break
    if stamp is None or wire.status(received) != 200:
        raise wire.Unexpected(f"expected a time in a 200, got {received[:200]!r}")
    return arrived, float(stamp[1]), received.endswith(_END) and b"\r\nconnection: close" not in received.lower()
