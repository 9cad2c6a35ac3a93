"""Rooms: who may join, what is published, who is there.

A room is a name. What is settled about it (`RoomConfig`) is kept by the app's `Rooms`; its members are the fan-out's of
each server (`_core/fanout.py`), its messages the broker's (`brokers/base.py`). Any thread may use everything here but
what says otherwise.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from catzilla._core.fanout import Fanout, Member
from catzilla._core.publication import Kind, Position, Publication
from catzilla._core.services import Services
from catzilla.auth import principal_id, seconds_left
from catzilla.brokers.base import Broker, Retention
from catzilla.errors import Forbidden
from catzilla.handlers import check_hook, refuse_answer
from catzilla.json_text import to_json
from catzilla.request import Request
from catzilla.room_config import RoomConfig, check_name
from catzilla.room_server import RoomServer
from catzilla.room_stream import RoomStream, check_event_origin, check_reader, last_event_id
from catzilla.sse import Event

if TYPE_CHECKING:
    from catzilla._core.ws_connection import WebSocketConnection

logger = logging.getLogger("catzilla")

H = TypeVar("H", bound=Callable[..., Any])

MAX_PASSING = 10_000  # rooms that were set up while the app served; the one that was used longest ago is forgotten
USER_RETENTION = Retention(messages=100, bytes=256 * 1024, age=120.0)
REFUSED = "this room is not for you"  # what a client is told, whatever the reason: what there is, is not its business
LOOP_CHECK = 0.5  # seconds after which a publisher that waits for a loop looks whether it still serves


_PLAIN = RoomConfig()  # of every room that nothing was settled about


class Message(NamedTuple):
    """A message of a room's history. `time` is when it was published, in seconds since 1970."""

    data: Any
    event: str | None
    position: Position
    time: float


class Rooms:
    """All rooms of one app, and the servers that they have members on."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._lock = threading.Lock()
        self._configs: dict[str, RoomConfig] = {}
        self._passing: OrderedDict[str, RoomConfig] = OrderedDict()  # set up while serving, by handlers perhaps
        self._has_forgotten = False
        self._servers: tuple[RoomServer, ...] = ()  # replaced as a whole

    # Setting up.

    def configure(self, name: str, change: Callable[[RoomConfig], object]) -> None:
        """Settle something about a room."""
        forgotten = None
        with self._lock:
            config = self._configs.get(name) or self._passing.get(name)
            if config is None:
                config = RoomConfig()
                if self._servers:
                    self._passing[name] = config
                    if len(self._passing) > MAX_PASSING:
                        forgotten, _ = self._passing.popitem(last=False)
                else:
                    self._configs[name] = config
            change(config)
            warns = forgotten is not None and not self._has_forgotten
            self._has_forgotten |= warns
        if warns:
            logger.warning(
                "room=%r forgotten with its authorize and other hooks, its history and its options, further ones "
                "silently: more than %d rooms were set up while the app serves; set rooms up before it does",
                forgotten,
                MAX_PASSING,
            )

    def set_up(self, name: str, options: dict[str, Any]) -> None:
        """Settle the options that `app.room` was given; the last word counts, and a change of mind is told."""
        changes: list[str] = []
        self.configure(name, lambda config: changes.extend(config.update(options)))
        for change in changes:
            logger.warning("room=%r %s, which it was set up with before: set a room up in one place", name, change)

    @property
    def are_set_up(self) -> bool:
        """Whether anything is settled about any room."""
        return bool(self._configs or self._passing)

    def config(self, name: str) -> RoomConfig:
        """What is settled about a room."""
        config = self._configs.get(name)
        if config is None and self._passing:
            with self._lock:
                config = self._passing.get(name)
                if config is not None:
                    self._passing.move_to_end(name)
        return config or _PLAIN

    # Servers.

    def attach(self, services: Services) -> None:
        """A server is about to serve. [its loop thread]"""
        with self._lock:
            self._servers = (*self._servers, RoomServer(self, services))

    def detach(self, services: Services) -> None:
        """A server has ended."""
        with self._lock:
            ended = [server for server in self._servers if server.services is services]
            self._servers = tuple(server for server in self._servers if server.services is not services)
        for server in ended:
            server.unsubscribe()

    def _server(self, fanout: Fanout) -> RoomServer:
        return next(server for server in self._servers if server.fanout is fanout)

    # Membership.

    def check_join(self, name: str, principal: Any, request: Request) -> None:
        """Raise `Forbidden` unless a principal may join; `ValueError` for a name that is none."""
        check_name(name)
        config = self.config(name)
        if config.authorize is not None:
            if not (answer := config.authorize(principal, request)):
                raise Forbidden(REFUSED, why=f"room {name!r} is not for you")
            what = f"room {name!r}: authorize function"
            refuse_answer(config.authorize, answer, what, "return False or raise Forbidden(), do not return it")
        elif not config.public:
            why = (
                f"room {name!r} is neither public nor has it an authorize hook: write app.room({name!r}, public=True), "
                "or @room.authorize"
            )
            raise Forbidden(REFUSED, why=why)

    def join(self, connection: WebSocketConnection, name: str) -> None:
        """Make a connection a member."""
        services = connection.services
        services.handle.post(self.enter, connection, services.fanout, name)

    def leave(self, connection: WebSocketConnection, name: str) -> None:
        """End a membership."""
        services = connection.services
        services.handle.post(services.fanout.leave, connection, name)

    def enter(self, member: Member, fanout: Fanout, name: str) -> None:
        """Make a member of whoever is let in. [loop thread]"""
        fanout.join(member, name, self._server(fanout).rules(name))

    def principals(self, name: str) -> list[Any]:
        """Who is there, on all servers of this process."""
        return [
            principal for server in self._servers for principal in server.handle.call(server.fanout.principals, name)
        ]

    # Publishing.

    def publish(self, name: str, data: Any, event: str | None, exclude: Any, retention: Retention | None) -> Position:
        """Publish to a stream, of a room or of a user."""
        kind, payload = encode_payload(data)
        if event is not None:
            Event("", event=event)  # refuses what an event's name may not hold
        for server in self._servers:
            self._wait_for(server)
        return self.broker.publish(name, kind, payload, event=event, exclude=_id_of(exclude), retention=retention)

    def _wait_for(self, server: RoomServer) -> None:
        while not server.fanout.wait_for_loop(LOOP_CHECK):
            if server not in self._servers:
                return


class Channel:
    """What a room and a user have in common: a stream of messages, and whoever is there to get them."""

    __slots__ = ("_rooms", "_stream")

    def __init__(self, rooms: Rooms, stream: str) -> None:
        self._rooms = rooms
        self._stream = stream

    def _retention(self) -> Retention | None:
        raise NotImplementedError

    def publish(self, data: Any, event: str | None = None, exclude: Any = None) -> Position:
        """Send `data` to every member but `exclude`, a WebSocket; returns its position. [any thread]

        `str` is sent as text, bytes as binary, anything else as JSON. `event` names it for event streams. A member
        that reads slowly does not hold the publisher up: the room's `on_slow` decides what becomes of it.

        Raises: `TypeError` for what is no JSON and for an `exclude` that is no WebSocket, `ValueError` for an `event`
        with a line break.
        """
        return self._rooms.publish(self._stream, data, event, exclude, self._retention())

    def members(self) -> list[Any]:
        """The principals of whoever is there, each once however many connections it has; None for an anonymous one."""
        return self._rooms.principals(self._stream)

    def count(self) -> int:
        """How many are there: the length of `members()`."""
        return len(self.members())

    def history(self, limit: int | None = None) -> list[Message]:
        """The newest messages that are kept, at most `limit`, oldest first; none unless the room keeps some.

        Raises: `TypeError` for a `limit` that is no number, `ValueError` for one below 0.
        """
        count: object = limit
        if count is not None and (not isinstance(count, int) or isinstance(count, bool)):
            raise TypeError(f"limit={limit!r:.60}: write how many messages, as in history(5), or history() for all")
        return [
            Message(decode_payload(each), each.event, each.position, each.time)
            for each in self._rooms.broker.history(self._stream, limit)
        ]

    def position(self) -> Position:
        """Where the stream stands: the position of its last message."""
        return self._rooms.broker.position(self._stream)


class Room(Channel):
    """A room: `app.room("lobby")`. Two of the same name are the same room."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self._stream

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Room) and (self._rooms, self._stream) == (other._rooms, other._stream)

    def __hash__(self) -> int:
        return hash(self._stream)

    def __repr__(self) -> str:
        return f"<Room {self._stream!r}>"

    def _retention(self) -> Retention | None:
        return self._rooms.config(self._stream).retention

    def authorize(self, function: H) -> H:
        """Let `function(principal, request)` say who may join; what it returns is taken as true or false.

        It runs on the thread of whoever joins, and may raise `Forbidden` itself. A later one takes its place.
        """
        check_hook(function, "authorize", self._stream, ("principal", "request"))
        self._rooms.configure(self._stream, lambda config: setattr(config, "authorize", function))
        return function

    def on_join(self, function: H) -> H:
        """Call `function(principal)` when somebody is there who was not, with however many connections.

        A room's hooks run on a worker thread, one after the other, in the order of what happened.
        """
        check_hook(function, "on_join", self._stream, ("principal",))
        self._rooms.configure(self._stream, lambda config: config.joined.append(function))
        return function

    def on_leave(self, function: H) -> H:
        """Call `function(principal)` when somebody's last connection has been away for `presence_delay` seconds."""
        check_hook(function, "on_leave", self._stream, ("principal",))
        self._rooms.configure(self._stream, lambda config: config.left.append(function))
        return function

    def stream(
        self,
        request: Request,
        principal: Any = None,
        origins: Sequence[str] | str | None = None,
        heartbeat: float | None = None,
    ) -> RoomStream:
        """The room as Server-Sent Events, without a thread: `return app.room("ticker").stream(request)`.

        Each event has its position for an id, so a browser that reconnects gets what it has missed, as far as the room
        keeps it; if something is missing, an event `gap` says so first. `principal` is what the room's `authorize` hook
        gets; the stream ends when it expires, and the browser comes back. With cookies, a page of another origin is
        refused unless `origins` names it.

        Raises: `HTTPError` 401 for a principal that has expired; `Forbidden`, as joining would; `RouteError` for
        `origins` that are none.
        """
        check_event_origin(request, origins)
        seconds_left(principal)  # one that has ended has nothing to ask for
        check_reader(self._rooms, self._stream, principal, request)
        identity = principal_id(principal)
        text = None if identity is None else str(identity)
        return RoomStream(self._rooms, self._stream, last_event_id(request), principal, text, heartbeat)


class User(Channel):
    """Every connection of one principal: `app.user("alice").publish(...)`. What is published is kept for a while."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<User {self._stream[1:]!r}>"

    def _retention(self) -> Retention | None:
        return USER_RETENTION


def encode_payload(data: Any) -> tuple[Kind, bytes]:
    """What is published, as a broker carries it. Raises: `TypeError`, `ValueError` for what is no JSON."""
    if isinstance(data, str):
        return Kind.TEXT, data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Kind.BINARY, bytes(data)
    return Kind.JSON, to_json(data).encode()


def decode_payload(publication: Publication) -> Any:
    """What was published."""
    if publication.kind is Kind.BINARY:
        return publication.payload
    return publication.payload.decode() if publication.kind is Kind.TEXT else json.loads(publication.payload)


def _id_of(exclude: Any) -> str | None:
    """The id of a WebSocket; of nothing else that has one: a principal's would exclude nobody."""
    if exclude is None:
        return None
    from catzilla.websocket import WebSocket  # which imports this module

    if not isinstance(exclude, WebSocket):
        raise TypeError(f"exclude takes a WebSocket, not {type(exclude).__name__}: write exclude=ws")
    return exclude.id
