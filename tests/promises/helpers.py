"""Waiting for the server to be in some state, looking into it, and clients without manners.

A test waits for a condition and never for a time: `eventually` looks often and gives up late, so a slow machine makes
a test slower and not red.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from time import monotonic
from typing import ClassVar

from catzilla._core.services import Services
from catzilla._core.stream import State, Stream
from catzilla.testing import LiveServer

PATIENCE = 10.0  # seconds until a condition that does not come is a failure
LOOK_EVERY = 0.002

_pause = threading.Event()  # never set


def eventually(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Return as soon as `condition()` holds; fail when it has not within `timeout` seconds."""
    deadline = monotonic() + timeout
    while not condition():
        assert monotonic() < deadline, f"not within {timeout:g} s: {what}"
        _pause.wait(LOOK_EVERY)


def services_of(live: LiveServer) -> Services:
    """The inside of a running server."""
    http = live.server._http
    assert http is not None
    assert http.services is not None
    return http.services


def streams_of(live: LiveServer) -> list[Stream]:
    """The streams that are live now."""
    return list(services_of(live).bridge.streams)


def is_stalled(stream: Stream) -> bool:
    """Whether it waits, without a thread or blocked in `write`, for a client that has a full socket."""
    return stream.state is State.PARKED and stream.sink.paused


def all_stalled(live: LiveServer, count: int) -> bool:
    streams = streams_of(live)
    return len(streams) == count and all(map(is_stalled, streams))


def wait_stalled(live: LiveServer, count: int = 1) -> None:
    """Return once `count` streams wait for their clients, and nothing has moved for a good while.

    The kernel takes a socket's bytes in several steps, so a pause may be followed by another helping.
    """

    def produced() -> list[int]:
        return sorted(stream.produced for stream in streams_of(live))

    def settled() -> bool:
        if not all_stalled(live, count):
            return False
        before = produced()
        _pause.wait(0.05)
        return all_stalled(live, count) and produced() == before

    eventually(settled, f"{count} streams wait for their clients; they are {streams_of(live)}")


class RawClient:
    """A socket that says exactly what it is told to, and reads until the end. A fixture closes those that are left."""

    opened: ClassVar[list[RawClient]] = []

    def __init__(self, live: LiveServer, data: bytes = b"", *, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.opened.append(self)
        self.socket.settimeout(PATIENCE)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect(("127.0.0.1", live.port))
        if data:
            self.socket.sendall(data)

    def send(self, data: bytes) -> None:
        """Send, unless the server has closed already: a refused client may still be talking."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`, and whatever the same read brought behind it."""
        received = b""
        while mark not in received:
            data = self.socket.recv(65536)
            assert data, f"the server closed before {mark!r}; it sent {received!r}"
            received += data
        return received

    def read_to_end(self) -> bytes:
        """Everything until the server closes. Raises `ConnectionResetError` with what came before as its argument."""
        received = b""
        try:
            while data := self.socket.recv(65536):
                received += data
        except ConnectionResetError:
            raise ConnectionResetError(received) from None
        return received

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish: RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def get(path: str, version: str = "1.1", method: str = "GET") -> bytes:
    """The bytes of a plain request."""
    return f"{method} {path} HTTP/{version}\r\nHost: test\r\n\r\n".encode()
