"""What the clients share of WebSockets (RFC 6455): a handshake, a masked frame, the frame a server answers it with.

Frames are built before a measurement and compared whole; nothing here decodes one. A server that answers with anything
else than the frame it should is therefore an error and not a figure.
"""

from __future__ import annotations

import re
import socket

from tools.bench.clients import wire
from tools.bench.work import Payload

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455 section 1.3: the key of every handshake here, and the answer to it."""
MASK = bytes.fromhex("37fa213d")
"""The mask of the examples in section 5.7; the same for every frame, which no server can profit from."""

_ACCEPTED = re.compile(rb"\r\n(?i:sec-websocket-accept):[ \t]*" + re.escape(ACCEPT) + rb"[ \t]*\r\n")
_EXTENSION = re.compile(rb"\r\nsec-websocket-extensions:", re.IGNORECASE)


def handshake(path: str) -> bytes:
    """The request of a client that offers no extension, so that no server compresses."""
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: {wire.HOST}\r\n{upgrade}Sec-WebSocket-Key: {KEY}\r\n\r\n".encode()


def frame(payload: Payload, mask: bytes = b"") -> bytes:
    """One final frame of `payload` (at most 65,535 bytes), masked if there is a mask (section 5.2)."""
    size, masked = len(payload.data), 0x80 if mask else 0
    length = bytes([masked | size]) if size < 126 else bytes([masked | 126]) + size.to_bytes(2, "big")
    head = bytes([0x80 | (1 if payload.text else 2)]) + length + mask
    if not mask:
        return head + payload.data
    cover = (mask * (size // 4 + 1))[:size]
    return head + (int.from_bytes(payload.data, "big") ^ int.from_bytes(cover, "big")).to_bytes(size, "big")


def connect(port: int, path: str, index: int = 0, timeout: float | None = 30.0) -> socket.socket:
    """The `index`-th connection of this client, its handshake done.

    Raises:
        Unexpected: the server did not upgrade, or spoke before it was spoken to.
        OSError: the connection was refused, or it took longer than `timeout` seconds.
    """
    connection = wire.connect(port, index, timeout)
    try:
        connection.sendall(handshake(path))
        check_upgrade(_read_head(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def check_upgrade(received: bytes) -> None:
    """Returns if `received` is the whole head of an upgrade and nothing else.

    Raises:
        Unexpected: it is not, or it agrees to an extension that was not offered.
    """
    accepted = wire.status(received) == 101 and _ACCEPTED.search(received)
    if not accepted or _EXTENSION.search(received) or not received.endswith(b"\r\n\r\n"):
        raise wire.Unexpected(f"expected an upgrade, got {received[:200]!r}")


def _read_head(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            raise wire.Unexpected(f"the connection ended inside the head: {received[:200]!r}")
        received += data
    return received


def exchange(connection: socket.socket, message: bytes, reply: bytes) -> None:
    """Sends `message` and reads `reply`, byte for byte.

    Raises:
        Unexpected: another reply, or none before the connection ended.
    """
    connection.sendall(message)
    received = b""
    while len(received) < len(reply):
        data = connection.recv(len(reply) - len(received))
        if not data:
            raise wire.Unexpected(f"the connection ended after {len(received)} bytes of a reply")
        received += data
    if received != reply:
        raise wire.Unexpected(f"expected the frame {reply[:60]!r}, got {received[:60]!r}")
