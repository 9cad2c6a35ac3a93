"""Opens many WebSockets, exchanges one message on each, and leaves them idle until its standard input closes."""

from __future__ import annotations

import socket
from typing import Any

from tools.bench import work
from tools.bench.clients import websocket, wire

_held: list[socket.socket] = []


def measure(port: int, path: str, count: int, size: int, timeout: float) -> dict[str, Any]:
    """Opens `count` WebSockets, each answered within `timeout` seconds.

    Returns how many are `held`, how many were `refused`, and `why` the last of those was.
    """
    why = ""
    payload = work.payload(size, text=True)
    message, reply = websocket.frame(payload, websocket.MASK), websocket.frame(payload)
    for index in range(count):
        try:
            connection = websocket.connect(port, path, index, timeout)
            websocket.exchange(connection, message, reply)
        except (OSError, wire.Unexpected) as error:
            why = repr(error)
            continue
        _held.append(connection)
    return {"held": len(_held), "refused": count - len(_held), "why": why}
