"""Tickets: who a client is, in a URL, for the connections that can send nothing else (a browser's WebSocket, an
`EventSource`).

Decides what a ticket holds and when it is good: signed by us, for this path, not yet over, and the first time. Does not
know who may have one; a handler that knows its client issues it. Any thread may use it.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from catzilla.auth import expires_at, principal_id
from catzilla.errors import HTTPError
from catzilla.request import Request

DEFAULT_TTL = 30.0  # seconds: the time between a page's request for a ticket and its use
MAX_TICKET_CHARS = 4096  # a request target is limited to 8 KiB, and proxies' limits are near that
CLOCK_SKEW = 60.0  # seconds; how much longer a used ticket is remembered than it is good on this machine's clock
_SALT = "catzilla.ticket.1"  # the number is that of the format
_AS_IT_IS, _BY_ID = 0, 1  # how the principal is held

logger = logging.getLogger("catzilla")


@dataclass(frozen=True)
class TicketPrincipal:
    """What comes back for a principal that is no JSON: who it is and when it ends, in seconds since 1970."""

    id: str | int
    expires_at: float | None = None


class Tickets:
    """Issues tickets and takes them back, each once: `app.tickets`. [any thread]

        @app.post("/ticket")
        def ticket(request):
            return {"ticket": app.tickets.issue(logged_in(request), "/chat")}

        @app.websocket("/chat", auth=app.tickets.redeem)
        def chat(ws): ...                            # new WebSocket("/chat?ticket=" + ticket)

    `claim(key, ttl)` is true for the first caller within `ttl` seconds, in all processes that share it: a broker's.
    Without a `secret` one is made up, which no other process knows. `clock` gives seconds since 1970.
    """

    __slots__ = ("_claim", "_clock", "_serializer")

    def __init__(
        self,
        secret: str | bytes | None,
        claim: Callable[[str, float], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        if secret is not None and not secret:
            raise ValueError("the secret that signs tickets is empty: give one of 32 random characters, or None")
        self._claim = claim
        self._clock = clock
        self._serializer = URLSafeSerializer(
            secrets.token_bytes(32) if secret is None else secret,
            _SALT,
            serializer_kwargs={"ensure_ascii": True},  # half a surrogate pair is JSON too
            signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
        )

    def issue(self, principal: object, path: str, ttl: float = DEFAULT_TTL) -> str:
        """A ticket, URL-safe, that is good once, for `path`, within `ttl` seconds. [any thread]

        `path` is the one that will be asked for, as `request.path` shows it: decoded, without query. The principal
        comes back equal if it is a str, an int, or a dict or list that JSON can hold; any other as a `TicketPrincipal`
        with its `.id` and `.expires_at`. A ticket is signed, not encrypted: its holder can read what is in it.

        Raises: `TypeError` for a principal that is neither, `ValueError` for a `path` that does not begin with a slash
        or has a query, a `ttl` that is not above 0, and a principal too large for a URL.
        """
        if not path.startswith("/"):
            raise ValueError(f"a ticket is for a path that begins with a slash, such as '/chat', not {path!r}")
        alone, _, query = path.partition("?")
        if "=" in query:  # the path that it is compared with has none; a mere `?` may be one that came as `%3F`
            raise ValueError(f"a ticket is for a path without a query, not {path!r}: write {alone!r} alone")
        if not 0 < ttl < math.inf:
            raise ValueError(f"a ticket is good for a number of seconds above 0, not {ttl!r}")
        kind, data = self._held(principal)
        ticket = self._serializer.dumps([secrets.token_urlsafe(16), path, self._clock() + ttl, kind, data])
        assert isinstance(ticket, str)
        if len(ticket) > MAX_TICKET_CHARS:
            raise ValueError(
                f"a ticket for this {type(principal).__name__} has {len(ticket)} characters, more than the "
                f"{MAX_TICKET_CHARS} that fit in a URL: issue it for the principal's id and look the rest up again"
            )
        return ticket

    def redeem(self, request: Request) -> Any:
        """The principal of the request's `?ticket=`, which is then used up: `auth=app.tickets.redeem`. [worker thread]

        Blocks as long as `claim` does.

        Raises: `HTTPError` 401 for a ticket that is missing, forged, for another path, expired or used; what else is
        known goes to the log, without the ticket.
        """
        given = request.query_params.getlist("ticket")
        if not given:
            raise _refused(request, "there is no ticket: ask for one and add ?ticket= to the URL", "missing")
        if len(given) > 1:
            raise _refused(request, "the ticket is not valid", "several")
        try:
            nonce, path, expires, kind, data = self._serializer.loads(given[0])
        except BadData as error:
            raise _refused(request, "the ticket is not valid", type(error).__name__) from None
        if path != request.path:  # before it is claimed: who can send a ticket elsewhere must not use it up
            raise _refused(request, "the ticket is not valid", f"it is for {path!r}")
        left = expires - self._clock()
        if left <= 0:
            raise _refused(request, "the ticket has expired", f"expired {-left:.1f} s ago")
        # Whoever shares `claim` may have a clock that is behind ours, on which the ticket is good for longer.
        if not self._claim(f"ticket:{nonce}", left + CLOCK_SKEW):
            raise _refused(request, "the ticket has been used", "used")
        return TicketPrincipal(*data) if kind == _BY_ID else data

    def _held(self, principal: object) -> tuple[int, Any]:
        """How a ticket holds a principal: as it is, if JSON gives the same back, else by its id."""
        if isinstance(principal, (str, int, dict, list)):
            if self._survives(principal):
                return _AS_IT_IS, principal
            what = f"this {type(principal).__name__} holds something that JSON does not give back as it was"
        else:
            identity = principal_id(principal)
            if identity is not None:
                return _BY_ID, [identity, expires_at(principal)]
            what = f"a {type(principal).__name__} is neither and has no id"
        raise TypeError(
            f"a ticket is for a str, an int, a dict or a list of JSON, or an object with an .id; {what}: "
            "issue it for the principal's id"
        )

    def _survives(self, principal: object) -> bool:
        try:
            return bool(self._serializer.loads(self._serializer.dumps(principal)) == principal)
        except (TypeError, ValueError, RecursionError):
            return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # never the secret


def _refused(request: Request, detail: str, why: str) -> HTTPError:
    """The answer to a ticket that is no good; `why` is for the log alone."""
    logger.info("ticket refused: client=%s path=%r why=%s", request.client_ip, request.path, why)
    # RFC 9110 section 15.5.2: a 401 names a scheme. No registered one is meant; a browser does not know this one,
    # and so asks its user for no password.
    return HTTPError(401, detail, {"WWW-Authenticate": "Ticket"})
