"""Opens many connections, brings each to a certain point, and holds them until its standard input closes."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

from tools.bench.clients import wire

BATCH = 100
"""Requests in flight while opening."""
UNREAD_BYTES = 64 * 1024
"""Receive buffer of a connection that reads nothing: it is full soon, and what follows is the server's affair."""

_held: list[socket.socket] = []


def measure(port: int, path: str, count: int, timeout: float, until: str = "") -> dict[str, Any]:
    """Opens `count` connections that ask for `path`.

    With `until`, each is read until that text has arrived and then left alone; without, none is read at all.
    Returns how many were `held` and how many `refused`. Gives up after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    refused = 0
    for first in range(0, count, BATCH):
        batch = [wire.connect(port, index, timeout) for index in range(first, min(first + BATCH, count))]
        for connection in batch:
            if not until:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
            connection.sendall(wire.request(path))
        for connection in batch:
            if not until or _read_until(connection, until.encode(), deadline):
                _held.append(connection)
            else:
                connection.close()
                refused += 1
    return {"held": len(_held), "refused": refused}


def until_closed() -> None:
    """Blocks until standard input closes; then the connections go with the process."""
    sys.stdin.buffer.read()


def _read_until(connection: socket.socket, text: bytes, deadline: float) -> bool:
    """Whether `text` arrived before the connection ended."""
    received = b""
    while text not in received:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        data = connection.recv(4096)
        if not data:
            return False
        received += data
        if wire.status(received) not in (0, 200):
            return False
    return True
