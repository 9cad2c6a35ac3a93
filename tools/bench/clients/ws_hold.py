"""Opens many WebSockets, exchanges one message on each, and leaves them idle until its standard input closes.

All it does meanwhile is answer pings, which are how a server finds out that nobody is there.
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Any

from tools.bench import work
from tools.bench.clients import websocket, wire

PING = 0x89
PONG = 0x8A
"""The first bytes of those frames; the second is the length of what they carry, below 126 (RFC 6455 section 5.5)."""
LOOK_EVERY = 100
"""Sockets opened between two looks for pings: opening thousands may take longer than a server waits for a pong."""

_held: dict[int, socket.socket] = {}
_poll = select.epoll()


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
        _held[connection.fileno()] = connection
        _poll.register(connection, select.EPOLLIN)
        if index % LOOK_EVERY == 0:
            answer_pings(0.0)
    return {"held": len(_held), "refused": count - len(_held), "why": why}


def until_closed() -> None:
    """Answers pings until standard input closes; then the connections go with the process."""
    _poll.register(sys.stdin, select.EPOLLIN)
    while not answer_pings(None):
        pass


def answer_pings(timeout: float | None) -> bool:
    """Answers those that are there or come within `timeout` seconds; whether standard input has something to say."""
    asked_to_end = False
    for descriptor, _ in _poll.poll(timeout):
        if descriptor not in _held:
            asked_to_end = True
        elif not answer_ping(_held[descriptor]):
            _poll.unregister(descriptor)
    return asked_to_end


def answer_ping(connection: socket.socket) -> bool:
    """Reads what arrived; False if that is no ping, and the connection is of no more interest."""
    try:
        received = connection.recv(127)
        if received[:1] != bytes([PING]) or len(received) != 2 + received[1]:
            return False
        mask = bytes(4)  # It covers nothing, and is one all the same.
        connection.sendall(bytes([PONG, 0x80 | received[1]]) + mask + received[2:])
    except OSError:
        return False
    return True
