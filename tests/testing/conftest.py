"""A server that says exactly what a test tells it to, so that the client is tested without catzilla's own."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import pytest

from catzilla.testing.http_client import HttpConnection
from catzilla.testing.wire import Origin, Wire

TIMEOUT = 10.0


class Peer:
    """One accepted connection, as the script of a test uses it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`; what follows is kept for the next call."""
        while mark not in self.received:
            data = self.connection.recv(65536)
            if not data:
                raise EOFError(f"the client closed before {mark!r}; it sent {self.received!r}")
            self.received += data
        before, _, self.received = self.received.partition(mark)
        return before + mark

    def read_to_end(self) -> bytes:
        """Everything until the client closes its side."""
        while data := self.connection.recv(65536):
            self.received += data
        return self.received

    def read_head(self) -> bytes:
        return self.read_until(b"\r\n\r\n")

    def read_body(self, head: str) -> bytes:
        """The body that `head` announces, chunks as they were framed."""
        lengths = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Content-Length")]
        if not lengths:
            return self.read_until(b"0\r\n\r\n") if "chunked" in head else b""
        while len(self.received) < int(lengths[0]):
            self.received += self.connection.recv(65536)
        body, self.received = self.received[: int(lengths[0])], self.received[int(lengths[0]) :]
        return body

    def say(self, *data: bytes) -> None:
        for piece in data:
            self.connection.sendall(piece)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class ScriptedServer:
    """Listens on loopback and runs `script(peer)` in a thread for the one connection it accepts."""

    def __init__(
        self,
        script: Callable[[Peer], None],
        family: int = socket.AF_INET,
        address: str | None = None,
        certificate: str | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.settimeout(TIMEOUT)
        self._listener.bind(address or ("127.0.0.1", 0))
        self._listener.listen()
        self._script = script
        port = 0 if address else self._listener.getsockname()[1]
        self.origin = Origin("127.0.0.1", port, uds=address, certificate=certificate)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                self._script(Peer(connection))
        except BaseException as failure:
            self.failure = failure

    def finish(self) -> None:
        """Wait for the script's end, and fail as it did."""
        self._thread.join(TIMEOUT)
        self._listener.close()
        assert not self._thread.is_alive(), "the script of the peer did not end"
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def scripted():
    """A factory: `scripted(script)` gives the `Origin` of a server that runs `script(peer)` for one connection."""
    servers: list[ScriptedServer] = []

    def start(script: Callable[[Peer], None], **options) -> Origin:
        server = ScriptedServer(script, **options)
        servers.append(server)
        return server.origin

    yield start
    for server in servers:
        server.finish()


@pytest.fixture
def connect(scripted):
    """A factory: `connect(script, **options)` gives an `HttpConnection` to a server that runs `script(peer)`."""
    connections: list[HttpConnection] = []

    def make(script: Callable[[Peer], None], **options) -> HttpConnection:
        connections.append(HttpConnection(scripted(script), **options))
        return connections[-1]

    yield make
    for connection in connections:
        connection.close()


@pytest.fixture
def wire(scripted):
    """A factory: `wire(script, **options)` gives a `Wire` to a server that runs `script(peer)`."""
    wires: list[Wire] = []

    def make(
        script: Callable[[Peer], None], *, family=socket.AF_INET, address=None, certificate=None, **options
    ) -> Wire:
        origin = scripted(script, family=family, address=address, certificate=certificate)
        wires.append(Wire(origin, **options))
        return wires[-1]

    yield make
    for one in wires:
        one.close()
