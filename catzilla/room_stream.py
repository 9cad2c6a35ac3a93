"""A room as Server-Sent Events: the response, its events, and catching up after a reconnect.

Decides what an event stream of a room says; who may read it is decided by `rooms.py`, how it is sent by
`_core/fed_stream.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catzilla._core.messages import Feed
from catzilla._core.publication import Position, Publication
from catzilla.auth import seconds_left
from catzilla.errors import Forbidden, HTTPError
from catzilla.origins import check_origins, origin_allowed
from catzilla.request import Request
from catzilla.response import Response
from catzilla.sse import Event

if TYPE_CHECKING:
    from catzilla.rooms import Rooms

logger = logging.getLogger("catzilla")

RETRY = 3000  # milliseconds before an `EventSource` reconnects


class RoomStream(Response):
    """A room as an event stream; made by `Room.stream`."""

    default_content_type = "text/event-stream"

    def __init__(
        self,
        rooms: Rooms,
        name: str,
        last_event_id: str | None,
        principal: Any,
        identity: Any,
        heartbeat: float | None,
    ) -> None:
        super().__init__(200, "text/event-stream")
        self.headers["Cache-Control"] = "no-cache"
        self.headers["X-Accel-Buffering"] = "no"
        self._rooms = rooms
        self._name = name
        self._last_event_id = last_event_id
        self._principal = principal
        self._identity = identity
        self._heartbeat_seconds = heartbeat

    def _content(self) -> Feed:
        return Feed(
            start=self._start,
            encode=encode_event_of,
            gap=Event({"why": "slow"}, event="gap").encode(),
            identity=self._identity,
            principal=self._principal,
            heartbeat=self._heartbeat_seconds,
            expires_in=seconds_left(self._principal),  # again: the handler may have kept the response for a while
        )

    def _start(self, stream: Any) -> bytes:
        """Become a member and say what was missed, in one step: nothing is published in between. [loop thread]"""
        rooms = self._rooms
        rooms.enter(stream, stream.fanout, self._name)
        since = self._since()
        if since is None:
            position = rooms.broker.position(self._name)
            stream.replayed = position
            return _opening(position)
        replay = rooms.broker.replay(self._name, since)
        stream.replayed = replay.position
        if replay.why is not None:
            return Event({"why": replay.why}, id=str(replay.position), event="gap", retry=RETRY).encode()
        return _opening(since) + b"".join(map(encode_event_of, replay.publications))

    def _since(self) -> Position | None:
        """Where the client has got to. An id that is none of ours cannot be caught up from: any position that is not
        of this stream says so."""
        text = self._last_event_id
        if not text:
            return None
        try:
            return Position.parse(text)
        except ValueError:
            return Position("0", 0)


def _opening(position: Position) -> bytes:
    """Sets the last event id and dispatches nothing, so that a stream without any event can be resumed too."""
    return f"id: {position}\nretry: {RETRY}\n\n".encode()


def encode_event_of(publication: Publication) -> bytes:
    """A message as an event. Bytes are shown as text, as far as they are: an event stream is UTF-8."""
    text = publication.payload.decode("utf-8", "replace")
    return Event(text, id=str(publication.position), event=publication.event).encode()


def check_event_origin(request: Request, origins: Sequence[str] | str | None) -> None:
    """Refuse an event stream to a page of another origin that rides on a user's cookies.

    Raises: `HTTPError` 403, and `RouteError` for `origins` that are none, whoever asks.
    """
    allowed = check_origins(origins)
    origin = request.get_header("origin")
    if request.get_header("cookie") is None or origin_allowed(origin, request.get_header("host"), allowed):
        return
    logger.warning(
        "event stream refused: origin=%r path=%r; if it is yours, write stream(request, origins=[%r])",
        origin,
        request.path,
        origin,
    )
    raise HTTPError(403, "this origin may not read this stream")


def check_reader(rooms: Rooms, name: str, principal: Any, request: Request) -> None:
    """Refuse whoever may not join a room. One that nobody may is a mistake, which only the log explains.

    Raises: as `Rooms.check_join`.
    """
    try:
        rooms.check_join(name, principal, request)
    except Forbidden as refusal:
        if rooms.config(name).authorize is None:
            logger.warning("event stream refused: path=%r: %s", request.path, refusal.why)
        raise
    except (AttributeError, TypeError) as error:
        if principal is None and "NoneType" in str(error):  # the hook, most likely, on a principal that was forgotten
            logger.warning("event stream failed: path=%r: write stream(request, principal=...)", request.path)
        raise


def last_event_id(request: Request) -> str | None:
    return request.get_header("last-event-id") or request.query_params.get("last_event_id")
