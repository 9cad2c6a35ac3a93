"""Who is asking: a bearer token out of a request, and what a principal says of itself.

Decides where a token may stand and how identity and expiry are read off whatever an `auth` function returns. Does not
know what a token means: the application verifies it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, cast
from urllib.parse import unquote
from uuid import UUID

from catzilla.errors import HTTPError
from catzilla.request import Request

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_PREFIX = "bearer."


def bearer_token(request: Request) -> str | None:
    """The bearer token of a request, or None: `auth=lambda request: user_of(bearer_token(request))`. [any thread]

    It stands in `Authorization: Bearer <token>` (RFC 6750 section 2.1) or, because a browser cannot set that header
    on a WebSocket, in `Sec-WebSocket-Protocol` as a subprotocol `bearer.<token>`:

        new WebSocket(url, ["chat", "bearer." + encodeURIComponent(token)])

    The first of these is used. A subprotocol may hold few characters (RFC 6455 section 4.1), hence the
    percent-encoding, which is undone. The one with the token is never chosen for the answer, and a browser that gets
    none of those it offered closes the socket: offer one that the route has in `subprotocols` beside it.

    Anything but visible ASCII is no token. Two `Authorization` headers are none either: the field is no list (RFC 9110
    section 11.6.2), and which of them a proxy has checked cannot be told.
    """
    fields = request.headers.getlist("authorization")
    if len(fields) > 1:
        return None
    match = _BEARER.fullmatch(fields[0].strip(" \t")) if fields else None
    if match is not None:
        token = match.group(1)
        return token if _VISIBLE.fullmatch(token) else None
    return next(filter(None, map(_token_of, _offered(request))), None)


def principal_id(principal: object) -> str | int | None:
    """The identity of a principal, the same at each connection; None if it has none. [any thread]

    That is its `.id`, else the principal itself if it is a `str` or an `int`, else the value of `"id"` in a mapping. A
    `uuid.UUID` becomes its text.

    Raises: `TypeError` for an id of any other type, of which nobody knows whether it will be equal to itself next time.
    """
    value = _field(principal, "id")
    if value is None and isinstance(principal, (str, int)) and not isinstance(principal, bool):
        return principal
    if isinstance(value, UUID):
        return str(value)
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    raise TypeError(
        f"the id of a principal is a str, an int or a uuid.UUID; that of this {type(principal).__name__} is "
        f"a {type(value).__name__}: return a principal from auth whose id is its text"
    )


def expires_at(principal: object) -> float | None:
    """When a principal ends, in seconds since 1970, or None if it does not. [any thread]

    That is its `.expires_at`, else the value of `"expires_at"` in a mapping: seconds since 1970, or a `datetime`, which
    is UTC if it is naive, as in `set_cookie`. Infinity is "never".

    Raises: `TypeError` for any other type, `ValueError` for NaN and for an int that no float holds.
    """
    value = _field(principal, "expires_at")
    if value is None:
        return None
    if isinstance(value, datetime):
        return (value if value.utcoffset() is not None else value.replace(tzinfo=timezone.utc)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"the expires_at of a principal is seconds since 1970 or a datetime; that of this "
            f"{type(principal).__name__} is a {type(value).__name__}"
        )
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.nan
    if math.isnan(seconds):
        what = "NaN" if isinstance(value, float) else "beyond any time"  # and may have too many digits to be shown
        raise ValueError(
            f"the expires_at of this {type(principal).__name__} is {what}; None means that it never expires"
        )
    return None if seconds == math.inf else seconds


def seconds_left(principal: Any) -> float | None:
    """The seconds until a principal ends; None for one that does not.

    Raises: `HTTPError` 401 for one that has ended; as `expires_at` for one whose end cannot be told.
    """
    ends = expires_at(principal)
    left = None if ends is None else ends - time.time()
    if left is not None and left <= 0:
        raise HTTPError(401, "the credentials have expired")
    return left


def _field(principal: object, name: str) -> Any:
    """An attribute, else the item of a mapping or of a database row (`sqlite3.Row` is no `Mapping`), else None."""
    value = getattr(principal, name, None)
    keys = getattr(principal, "keys", None)
    if value is None and callable(keys) and not isinstance(principal, type) and name in keys():
        return cast(Mapping[str, Any], principal)[name]
    return value


def _offered(request: Request) -> list[str]:
    """The subprotocols that a client offers, of all header lines in order (RFC 6455 section 11.3.4)."""
    lines = request.headers.getlist("sec-websocket-protocol")
    return [name.strip(" \t") for line in lines for name in line.split(",")]


def _token_of(subprotocol: str) -> str | None:
    if not subprotocol.lower().startswith(_PREFIX):  # subprotocols are case-sensitive, but schemes are not
        return None
    token = unquote(subprotocol[len(_PREFIX) :])  # what is no UTF-8 becomes U+FFFD, which is no token
    return token if _VISIBLE.fullmatch(token) else None
