"""The opening handshake of a WebSocket: a request that h11 has parsed in, what was agreed on or the refusal out.

websockets' sans-I/O `ServerProtocol` checks it and negotiates (RFC 6455 section 4.2). What follows on the connection is
`ws.py`'s. No socket, loop, clock or thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from websockets.datastructures import Headers
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol

from catzilla._core.messages import RequestHead

VERSION = b"13"  # RFC 6455 section 4.4

_WINDOW_BITS = 12  # of compression: 4 KiB of history a direction and connection
_MEMORY_LEVEL = 5

_logger = logging.getLogger("catzilla.frames")  # what websockets says of every connection, for who asks for it
_logger.setLevel(logging.WARNING)


class HandshakeRefused(Exception):
    """The request is no valid opening handshake; `status`, `message` and `headers` are what it is answered with."""

    def __init__(self, status: int, message: str, headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or []


@dataclass(frozen=True, slots=True)
class Handshake:
    """What an opening handshake has agreed on. `headers` are those that the 101 answer has to hold."""

    headers: list[tuple[bytes, bytes]]
    subprotocol: str | None
    extensions: Sequence[Extension]


def wants_upgrade(head: RequestHead) -> bool:
    """Whether a request asks for the WebSocket protocol (RFC 9110 section 7.8), well-formed or not."""
    return any(
        name == b"upgrade" and any(token.strip() == b"websocket" for token in value.lower().split(b","))
        for name, value in head.headers
    )


def accept(head: RequestHead, subprotocols: Sequence[str] = (), *, compression: bool = False) -> Handshake:
    """Check an opening handshake and negotiate (RFC 6455 section 4.2).

    `subprotocols` are those of the server, the preferred one first; without a common one the connection goes on without
    any. Raises: `HandshakeRefused`.
    """
    if head.method != "GET" or head.http_version != "1.1":
        raise HandshakeRefused(400, "a WebSocket handshake is a GET request of HTTP/1.1")
    if head.header(b"transfer-encoding") is not None or head.header(b"content-length") not in (None, b"0"):
        raise HandshakeRefused(400, "a WebSocket handshake has no body")  # it could be taken for frames
    version = head.header(b"sec-websocket-version")
    if version is not None and version.strip() != VERSION:
        raise HandshakeRefused(
            426,
            f"version {version.decode('latin-1')!r} of the WebSocket protocol is not served here, 13 is",
            [("Sec-WebSocket-Version", VERSION.decode()), ("Upgrade", "websocket")],
        )

    def select(protocol: ServerProtocol, offered: Sequence[str]) -> Any:
        return next((name for name in subprotocols if name in offered), None)

    protocol = ServerProtocol(
        extensions=[_deflate()] if compression else None, select_subprotocol=select, logger=_logger
    )
    headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers])
    answer = protocol.accept(Request(head.target, headers))
    if answer.status_code != 101:
        message = str(protocol.handshake_exc or answer.reason_phrase)
        extra = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION.decode())]
        raise HandshakeRefused(answer.status_code, message, extra if answer.status_code == 426 else None)
    kept = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.raw_items()
        if name.lower().startswith("sec-websocket-")
    ]
    return Handshake(kept, protocol.subprotocol, protocol.extensions)


def _deflate() -> ServerPerMessageDeflateFactory:
    return ServerPerMessageDeflateFactory(
        server_max_window_bits=_WINDOW_BITS,
        client_max_window_bits=_WINDOW_BITS,
        compress_settings={"memLevel": _MEMORY_LEVEL},
    )


def switching_protocols(headers: Sequence[tuple[bytes, bytes]], date: bytes) -> bytes:
    """The head of the answer to an accepted handshake."""
    lines = [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"]
    lines += [b"%b: %b\r\n" % field for field in headers]
    return b"".join([*lines, b"date: ", date, b"\r\nserver: catzilla\r\n\r\n"])
