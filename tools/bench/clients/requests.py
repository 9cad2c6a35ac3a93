"""Small requests on keep-alive connections, one in flight on each: requests a second and their latency.

For machines without `wrk`, which asks the same in C and therefore leaves the server more of the processor.
"""

from __future__ import annotations

import selectors
import socket
import time
from typing import Any

from tools.bench.clients import wire
from tools.bench.clients.latency import milliseconds


class Conversation:
    """One connection: what of the current response is there, and when it was asked for."""

    def __init__(self, connection: socket.socket, request: bytes) -> None:
        self.connection = connection
        self._request = request
        self._received = bytearray()
        self._asked = 0.0

    def ask(self) -> None:
        self._received.clear()
        self._asked = time.perf_counter()
        self.connection.sendall(self._request)

    def advance(self) -> float | None:
        """Reads what is there; the latency in seconds if that completes the response."""
        data = self.connection.recv(65536)
        if not data:
            raise wire.Unexpected("the server closed a keep-alive connection")
        self._received += data
        size = wire.response_bytes(self._received)
        if size is None or len(self._received) < size:
            return None
        return time.perf_counter() - self._asked


def measure(port: int, path: str, seconds: float, connections: int) -> dict[str, Any]:
    """Asks for `path` for `seconds`; returns `requests_per_s`, `p50_ms` and `p99_ms`."""
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        conversations = [Conversation(wire.connect(port), wire.request(path)) for _ in range(connections)]
        for each in conversations:
            selector.register(each.connection, selectors.EVENT_READ, each)
        started = now = time.perf_counter()
        for each in conversations:
            each.ask()
        while now < started + seconds:
            for key, _ in selector.select(timeout=1.0):
                latency = key.data.advance()
                if latency is not None:
                    latencies.append(latency)
                    key.data.ask()
            now = time.perf_counter()
        for each in conversations:
            each.connection.close()
    return {"requests_per_s": len(latencies) / (now - started), **milliseconds(latencies), "client": "python"}
