"""What the tests of WebSockets share: handshakes by hand, a look into a connection, and handlers that a test holds.

Opcodes are plain numbers, as in `catzilla.testing.raw_frame`.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from catzilla._core.ws_connection import WebSocketConnection
from catzilla.testing import ClientWebSocket, LiveServer, WebSocketClosed
from tests.promises.helpers import PATIENCE, eventually, services_of

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3, which also says
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # what it is answered with


def handshake(path: str = "/", *, method: str = "GET", http: str = "1.1", **fields: str | None) -> bytes:
    """The bytes of an opening handshake. `fields` replace those of the same name (`_` for `-`); None leaves one out."""
    headers: dict[str, str | None] = {
        "host": "test",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }
    headers.update({name.replace("_", "-"): value for name, value in fields.items()})
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/{http}", *lines, "", ""]).encode()


def sockets_of(live: LiveServer) -> list[WebSocketConnection]:
    """The WebSockets that the server holds now."""
    return [each for each in list(services_of(live).connections) if isinstance(each, WebSocketConnection)]


def socket_of(live: LiveServer) -> WebSocketConnection:
    """The only one."""
    (socket,) = sockets_of(live)
    return socket


def waits_to_send(connection: WebSocketConnection) -> bool:
    """Whether a thread waits for its client to take something. (A linear handler's signal is always there.)"""
    return any(isinstance(each, threading.Condition) for each in connection.waits._conditions)


def wait_forgotten(live: LiveServer) -> None:
    """Return once the server holds no connection and no handler runs."""
    services = services_of(live)
    eventually(lambda: not services.connections, "the connections are forgotten")
    eventually(lambda: services.turns.is_idle, "the handlers are through")
    assert services.websockets == 0
    assert services.fanout.rooms == {}


def closed_with(client: ClientWebSocket) -> tuple[int, str]:
    """The code and reason that end the connection, whatever comes before."""
    try:
        while True:
            client.receive()
    except WebSocketClosed as end:
        return end.code, end.reason


class Notes:
    """What handlers note for the test, in order. [any thread]"""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def add(self, *note: Any) -> None:
        self._queue.put(note if len(note) != 1 else note[0])

    def next(self) -> Any:
        """The oldest note; waits for it."""
        try:
            return self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"nothing noted within {PATIENCE:g} s") from None

    def take(self, count: int) -> list[Any]:
        """The oldest `count` notes; waits for them."""
        return [self.next() for _ in range(count)]

    def rest(self) -> list[Any]:
        """Those that are there, without waiting."""
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]


class Gate:
    """Where handlers are held until the test lets them go; a fixture lets them go before the server is stopped."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._arrived = threading.Semaphore(0)

    def wait(self) -> None:
        """Be held. [any thread]"""
        self._arrived.release()
        assert self._open.wait(60), "the test did not let the handler go"

    def wait_arrived(self, count: int = 1, timeout: float = PATIENCE) -> None:
        """Return once `count` more handlers are held."""
        for _ in range(count):
            assert self._arrived.acquire(timeout=timeout), "no handler was held"

    def open(self) -> None:
        """Let everybody through, now and from now on."""
        self._open.set()
