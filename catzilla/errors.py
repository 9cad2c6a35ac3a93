"""The errors that catzilla raises on purpose, as a user catches them.

    CatzillaError
     ├─ HTTPError                               a handler, a middleware or the framework answers with this status
     │   ├─ MissingField (also a KeyError)      a handler asked for a field that the request does not have
     │   └─ Forbidden                           a room that the client may not join: 403
     ├─ Disconnected (also a ConnectionError)   the peer is gone, or the server is stopping
     ├─ ProtocolError                           what arrived, or what was to be sent, breaks the protocol
     │   ├─ RemoteProtocolError                 the peer did it
     │   └─ LocalProtocolError                  our side did it
     ├─ SlowConsumer (also a TimeoutError)      a WebSocket client did not take what it was sent in time
     ├─ RateLimited                             a WebSocket client does more than it may
     ├─ InvalidMessage (also a ValueError)      a WebSocket message is not what the handler asked for
     ├─ BodyTooLarge                            a request body over `max_body_bytes`
     ├─ RouteError (also a ValueError)          a registration is refused: route, group or middleware
     ├─ HandlerReturnError (also a TypeError)   a handler returned something that is no response
     └─ SettingsError (also a ValueError)       an option, a variable or a setting is wrong

Does not know how an error is answered; `app.py` decides that.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from catzilla._core.errors import (
    BodyTooLarge,
    CatzillaError,
    Disconnected,
    LocalProtocolError,
    Overloaded,
    ProtocolError,
    RateLimited,
    RemoteProtocolError,
    SlowConsumer,
)
from catzilla.headers import encode_header

__all__ = [
    "BodyTooLarge",
    "CatzillaError",
    "Disconnected",
    "Forbidden",
    "HTTPError",
    "HandlerReturnError",
    "InvalidMessage",
    "LocalProtocolError",
    "MissingField",
    "Overloaded",
    "ProtocolError",
    "RateLimited",
    "RemoteProtocolError",
    "RouteError",
    "SettingsError",
    "SlowConsumer",
]


class HTTPError(CatzillaError):
    """Raised to answer with an error status: `raise HTTPError(404, "no such item")`. [any thread]

    `status_code` is 400 to 599. `detail` is shown to the client, so it never holds secrets; without it the standard
    phrase of the status is used. `headers` are added to the answer (`{"Retry-After": "5"}`).

    Raises: `ValueError` for a status that is no error, and for a header that cannot be sent.
    """

    def __init__(self, status_code: int, detail: str = "", headers: Mapping[str, str] | None = None) -> None:
        if not 400 <= status_code <= 599:
            raise ValueError(
                f"HTTPError takes an error status from 400 to 599, not {status_code!r}; "
                "return a Response for anything else"
            )
        self.status_code = int(status_code)
        self.detail = detail or phrase(self.status_code)
        self.headers = dict(headers or {})
        for name, value in self.headers.items():
            encode_header(name, value)
        super().__init__(self.status_code, self.detail)

    def __str__(self) -> str:
        return f"{self.status_code} {self.detail}"


class MissingField(HTTPError, KeyError):
    """A query parameter, form field or file that a handler asked for by `[name]` is not in the request: 400."""

    def __init__(self, name: str) -> None:
        super().__init__(400, f"the request has no {name!r}")


class Forbidden(HTTPError):
    """The client may not do that, a room it may not join: 403, or the close code 4503 on a WebSocket.

    `why` is not for the client: it takes the place of `detail` in logs and in `str(error)`.
    """

    def __init__(self, detail: str = "", *, why: str = "") -> None:
        super().__init__(403, detail)
        self.why = why

    def __str__(self) -> str:
        return f"{self.status_code} {self.why or self.detail}"


class InvalidMessage(CatzillaError, ValueError):
    """A WebSocket message is not what the handler asked for; uncaught, it closes the connection with 1007."""


class RouteError(CatzillaError, ValueError):
    """A route, a group or a middleware is refused when it is registered; the message says what to write instead."""


class HandlerReturnError(CatzillaError, TypeError):
    """A handler returned something that cannot be turned into a response."""


class SettingsError(CatzillaError, ValueError):
    """An option, an environment variable or a setting is wrong; the message names it, its value and the remedy."""


def phrase(status_code: int) -> str:
    """The standard reason phrase of a status (RFC 9110 section 15), or "Error" for one that has none."""
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return "Error"
