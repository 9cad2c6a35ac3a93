"""Reads one endless stream as fast as it comes, for a while, and reports its rate.

Rate is what arrived divided by the time between the first and the last byte. With a mark, the marks are counted and
each stands for an item of known size, so the framing of chunks counts for nothing; without one the bytes of the body
are, in which framing is one part in a thousand or less for chunks of 8 KiB.
"""

from __future__ import annotations

import time
from typing import Any

from tools.bench.clients import wire

BUFFER_BYTES = 1024 * 1024


def measure(port: int, path: str, seconds: float, mark: str = "", item_bytes: int = 0) -> dict[str, Any]:
    """Reads `path` for `seconds`; returns `bytes` of payload and `seconds` they took."""
    buffer = bytearray(BUFFER_BYTES)
    needle = mark.encode()
    with wire.connect(port) as connection:
        connection.sendall(wire.request(path))
        body = wire.read_stream_head(connection)
        received = body.count(needle) if needle else len(body)
        if not body:
            size = connection.recv_into(buffer)
            received += buffer.count(needle, 0, size) if needle else size
        started = now = time.perf_counter()
        deadline = started + seconds
        while now < deadline:
            size = connection.recv_into(buffer)
            if not size:
                raise wire.Unexpected(f"the stream ended after {received} bytes")
            received += buffer.count(needle, 0, size) if needle else size
            now = time.perf_counter()
    return {"bytes": received * item_bytes if needle else received, "seconds": now - started}
