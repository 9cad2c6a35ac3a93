"""What the clients share of HTTP: a request, the end of a head, the length of a body. No chunk decoding."""

from __future__ import annotations

import re
import socket

HOST = "127.0.0.1"
CONNECTIONS_AN_ADDRESS = 20_000
"""Connections from one source address to one port: the kernel has about 28,000 ephemeral ports for them."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class Unexpected(Exception):
    """The server answered something a measurement cannot use."""


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode()


def connect(port: int, index: int = 0, timeout: float | None = 30.0) -> socket.socket:
    """The `index`-th connection of this client; each 20,000 have a source address of their own."""
    source = f"127.0.0.{1 + index // CONNECTIONS_AN_ADDRESS}"
    connection = socket.create_connection(
        (HOST, port), timeout=timeout, source_address=(source, 0) if index >= CONNECTIONS_AN_ADDRESS else None
    )
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def status(head: bytes) -> int:
    """The status code at the start of a response; 0 if there is none."""
    parts = head.split(b" ", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def response_bytes(received: bytes | bytearray) -> int | None:
    """The full size of the response that begins `received`; None until its head is there.

    Raises:
        Unexpected: the status is not 200 or the response has no Content-Length.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end])
    length = _LENGTH.search(head)
    if status(head) != 200 or length is None:
        raise Unexpected(f"expected 200 with a Content-Length, got {head[:200]!r}")
    return end + 4 + int(length[1])


def read_response(connection: socket.socket) -> int:
    """Reads one whole response with a Content-Length and returns its size.

    Raises:
        Unexpected: it is not a 200 with a length, or the connection ended before it was whole.
    """
    received = bytearray()
    size: int | None = None
    while size is None or len(received) < size:
        data = connection.recv(65536)
        if not data:
            raise Unexpected(f"the connection ended after {len(received)} bytes of a response")
        received += data
        size = size or response_bytes(received)
    return size


def read_stream_head(connection: socket.socket) -> bytes:
    """Reads until the head of a 200 is there and returns what came after it.

    Raises:
        Unexpected: another status, or the connection ended.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            raise Unexpected(f"the connection ended inside the head: {received[:200]!r}")
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    if status(head) != 200:
        raise Unexpected(f"expected 200, got {head[:200]!r}")
    return body
