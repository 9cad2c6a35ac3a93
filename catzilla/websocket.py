"""The WebSocket as a handler sees it.

Decides what may be sent and what a room is joined with. Everything else is the connection's (`_core/ws_connection.py`)
and the rooms' (`rooms.py`).
"""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

from catzilla._core.clock import monotonic
from catzilla._core.codes import MAX_REASON_BYTES
from catzilla._core.rate import Bucket, burst_of
from catzilla._core.ws import BINARY, TEXT
from catzilla._core.ws_connection import WebSocketConnection
from catzilla.errors import Disconnected, InvalidMessage, RateLimited
from catzilla.json_text import to_json
from catzilla.request import Request
from catzilla.room_config import check_name
from catzilla.rooms import Room, Rooms

# Guards that what a WebSocket knows of its rooms changes together with what is posted to the loop, whichever threads
# join and leave. One for all: it is held for a few instructions.
_memberships = threading.Lock()

_NO_NAMES: set[str] = set()  # of every WebSocket that is in no room; nobody changes it


class WebSocket:
    """One connection. Everything but `receive` may be used from any thread.

    Whatever finds the peer gone raises `Disconnected(code, reason)`: what it sent before it went is still received.
    """

    __slots__ = ("__weakref__", "_connection", "_joins", "_names", "_rooms", "_state", "request", "subprotocol")

    def __init__(self, request: Request, rooms: Rooms, subprotocol: str | None, join_rate: float) -> None:
        self.request = request  # the handshake's
        self.subprotocol = subprotocol
        self._rooms = rooms
        self._names = _NO_NAMES  # of the rooms it has joined
        self._state: SimpleNamespace | None = None
        self._joins = Bucket(join_rate, burst_of(join_rate)) if join_rate else None
        self._connection: WebSocketConnection  # set by `bind`

    def bind(self, connection: WebSocketConnection) -> None:
        """Give it its connection. [loop thread]"""
        self._connection = connection

    def __repr__(self) -> str:
        return f"<WebSocket {self.id} {self.request.path} {'closed' if self.closed else 'open'}>"

    # Who and where.

    @property
    def id(self) -> str:
        """The connection's name, unique among all connections of all servers."""
        return self._connection.id

    @property
    def path_params(self) -> dict[str, Any]:
        """The parameters of the path, converted."""
        return self.request.path_params

    @property
    def principal(self) -> Any:
        """What the route's `auth` returned; None without one."""
        return self._connection.principal

    @property
    def state(self) -> SimpleNamespace:
        """A namespace of this connection's: `ws.state.name = "alice"`."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    # Messages.

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send `str` as text or bytes as binary. Blocks while the client reads slowly. [any thread]

        Raises: `Disconnected`; `SlowConsumer` when the client has not caught up within `send_timeout`; `TypeError`
        for anything else.
        """
        if isinstance(message, str):
            self._connection.send(TEXT, message.encode())
        elif isinstance(message, bytes):
            self._connection.send(BINARY, message)
        elif isinstance(message, (bytearray, memoryview)):
            self._connection.send(BINARY, bytes(message))
        else:
            raise TypeError(f"send() takes str or bytes, not {type(message).__name__}: write send_json(...) for JSON")

    def send_json(self, data: object) -> None:
        """Send `data` as a text message of JSON. Raises as `send` does, and as `JSONResponse` does. [any thread]"""
        self._connection.send(TEXT, to_json(data).encode())

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message; blocks until there is one. For linear handlers only: one thread receives.

        Raises: `Disconnected` after the last message, `TimeoutError` after `timeout` seconds without one.
        """
        return self._connection.receive(timeout)

    def receive_json(self, timeout: float | None = None) -> Any:
        """The next message, read as JSON. Raises as `receive` does, and `InvalidMessage` for one that is not JSON."""
        message = self.receive(timeout)
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise InvalidMessage(f"the message is not valid JSON: {error}"[:MAX_REASON_BYTES]) from None

    def __iter__(self) -> WebSocket:
        return self

    def __next__(self) -> str | bytes:
        try:
            return self._connection.receive(None)
        except Disconnected:
            raise StopIteration from None

    def ping(self) -> None:
        """Ping the client now, beside the pings that the server sends by itself. [any thread]"""
        self._connection.check_open()
        self._connection.request_ping()

    # The end.

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close behind what was sent before. Returns at once; closing twice is fine. [any thread]

        Raises: `ValueError` for a code that may not be sent (write 1000, or one of your own from 4000 to 4999), and
        for a reason over 123 bytes; `TypeError` for a reason that is no str.
        """
        self._connection.close(code, reason)

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more. [any thread]"""
        return self._connection.ended is not None or self._connection.close_asked is not None

    @property
    def close_code(self) -> int | None:
        """The code of the end, the peer's or ours; 1006 for a connection that was lost; None before it."""
        return self._connection.ended[0] if self._connection.ended is not None else None

    @property
    def close_reason(self) -> str | None:
        """The reason that came with it; None before the end."""
        return self._connection.ended[1] if self._connection.ended is not None else None

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the connection is gone (True) or `timeout` seconds have passed (False). [any thread]"""
        return self._connection.wait_gone(timeout)

    # Rooms.

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that it has joined. [any thread]"""
        with _memberships:
            return frozenset() if self.closed else frozenset(self._names)

    def join(self, room: str | Room) -> None:
        """Join a room: what is published there is sent here from now on. Joining twice is fine. [any thread]

        Raises: `Forbidden` unless the room is public or its `authorize` hook says yes, `Disconnected`, `RateLimited`,
        and `ValueError` for a name that is none or for more than `max_rooms` rooms.
        """
        name = room.name if isinstance(room, Room) else room
        check_name(name)
        self._connection.check_open()
        with _memberships:
            if not self._has_place_for(name):
                return
            # Before the room's hook, which may ask a database: a join that is refused in the end counts, too.
            if self._joins is not None and (wait := self._joins.take(monotonic())) > 0:
                raise RateLimited("this connection joins rooms more often than join_rate allows", wait)
        self._rooms.check_join(name, self.principal, self.request)
        with _memberships:
            if self._has_place_for(name):  # again: another thread may have joined meanwhile
                self._names.add(name)
                self._rooms.join(self._connection, name)

    def _has_place_for(self, name: str) -> bool:
        """Whether it may join one more room; False if it is in this one. Raises `ValueError` where it may not."""
        if name in self._names:
            return False
        limit = self._connection.services.limits.max_rooms
        if len(self._names) >= limit:
            raise ValueError(f"this connection is in {limit} rooms already (max_rooms): leave one first")
        if not self._names:
            self._names = set()  # the first one; none is shared by all that are in no room
        return True

    def leave(self, room: str | Room) -> None:
        """Leave a room; being in it no more, or never, is fine. [any thread]"""
        name = room.name if isinstance(room, Room) else room
        with _memberships:
            if name in self._names:
                self._names.remove(name)
                self._rooms.leave(self._connection, name)
