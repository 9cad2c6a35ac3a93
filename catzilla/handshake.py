"""From a WebSocket handshake to its acceptance: protocol, origin, rate, authentication, in this order.

Whatever is refused is refused as an ordinary HTTP response, through the app's error handlers, before the upgrade. Runs
on a worker thread, between the pre-route middleware and the answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catzilla._core.clock import monotonic
from catzilla._core.limits import Limits
from catzilla._core.rate import Buckets, burst_of
from catzilla._core.upgrade import Upgrade
from catzilla._core.ws_handshake import HandshakeRefused, accept
from catzilla.auth import principal_id, seconds_left
from catzilla.errors import HTTPError
from catzilla.handlers import refuse_answer
from catzilla.origins import origin_allowed
from catzilla.request import Request
from catzilla.response import Response
from catzilla.room_config import USER_PREFIX
from catzilla.rooms import Rooms
from catzilla.socket_handlers import Handler, MakeHandler
from catzilla.websocket import WebSocket

logger = logging.getLogger("catzilla")


class Accepted(Response):
    """The answer to a handshake that is accepted: it never leaves as a response."""

    def __init__(self, upgrade: Upgrade) -> None:
        super().__init__()
        self.upgrade = upgrade


@dataclass(frozen=True)
class SocketRules:
    """What a route has settled about its handshakes."""

    auth: Callable[[Request], Any] | None
    origins: Any  # as `check_origins` gives them
    subprotocols: tuple[str, ...]
    compression: bool


class Handshakes:
    """Accepts and refuses the handshakes of one app. [worker threads]"""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._lock = threading.Lock()  # guards what follows
        self._buckets: Buckets | None = None
        self._rate = 0.0

    def accept(self, request: Request, rules: SocketRules, make: MakeHandler, limits: Limits) -> Accepted:
        """Accept a handshake. Raises: `HTTPError` for one that is refused, and what `auth` raises."""
        try:
            handshake = accept(request.head, rules.subprotocols, compression=rules.compression)
        except HandshakeRefused as refusal:
            raise HTTPError(refusal.status, refusal.message, dict(refusal.headers)) from None
        _check_origin(request, rules)
        self._check_rate(request, limits.connect_rate)
        principal, identity, expires_in = _authenticate(request, rules)
        ws = WebSocket(request, self._rooms, handshake.subprotocol, limits.join_rate)
        handler: Handler = make(ws)
        if identity is not None:
            inbox, rooms = f"{USER_PREFIX}{identity}", self._rooms  # what is published to the principal
            handler.entering = lambda connection, fanout: rooms.enter(connection, fanout, inbox)
        return Accepted(Upgrade(handshake, handler, principal, identity, expires_in))

    def _check_rate(self, request: Request, rate: float) -> None:
        if not rate:
            return
        with self._lock:
            if self._buckets is None or self._rate != rate:
                self._rate = rate
                self._buckets = Buckets(rate, burst_of(rate))
            wait = self._buckets.take(request.client_ip, monotonic())
        if wait > 0:
            raise HTTPError(429, "too many new connections from this address", {"Retry-After": str(int(wait) + 1)})


def _check_origin(request: Request, rules: SocketRules) -> None:
    """Refuse a page of another origin, which rides on a user's cookies (RFC 6455 section 10.2)."""
    values = request.headers.getlist("origin")
    origin = ", ".join(values) if values else None  # several are none that could be allowed
    if origin_allowed(origin, request.get_header("host"), rules.origins):
        return
    logger.warning(
        "websocket refused: origin=%r path=%r; if it is yours, write @app.websocket(..., origins=[%r])",
        origin,
        request.path,
        origin,
    )
    raise HTTPError(403, "this origin may not connect here")


def _authenticate(request: Request, rules: SocketRules) -> tuple[Any, str | None, float | None]:
    """The principal, its identity, and the seconds until it ends."""
    if rules.auth is None:
        return None, None, None
    principal = rules.auth(request)
    if principal is None or principal is False or (isinstance(principal, str) and not principal):
        raise HTTPError(401, "not authenticated")
    refuse_answer(rules.auth, principal, "auth function", "raise HTTPError(401), do not return it")
    expires_in = seconds_left(principal)
    identity = principal_id(principal)  # as text, as in app.user(1), which is app.user("1")
    return principal, None if identity is None else str(identity), expires_in
