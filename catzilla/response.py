"""The responses, and how what a handler returns becomes one.

Decides content types and body encoding, and which return values make sense. Does not know how anything is sent:
`reply` hands plain data to the server, which adds `Content-Length`, `Date` and what else belongs to the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Union

from catzilla._core.messages import Feed, FileSpan, RawHeaders, Reply, RequestHead, Source
from catzilla.cookies import format_set_cookie
from catzilla.errors import HandlerReturnError
from catzilla.headers import ResponseHeaders, encode_value
from catzilla.json_text import to_json

HeaderFields = Union[Mapping[str, str], Iterable[tuple[str, str]]]  # noqa: UP007  evaluated on 3.10 too
Body = Union[str, bytes, bytearray, memoryview]  # noqa: UP007

_MAY_RETURN = (
    "a Response, a str (HTML), bytes, a dict or list (JSON), (body, status), (body, status, headers), or a generator"
)


@lru_cache(maxsize=256)
def _content_type_value(content_type: str) -> bytes:
    """A content type as sent: text is UTF-8, so it says so (RFC 9110 section 8.3.2)."""
    if content_type.lower().startswith("text/") and "charset" not in content_type.lower():
        content_type += "; charset=utf-8"
    return encode_value("Content-Type", content_type)


class Response:
    """A whole response. `body` is `str` (sent as UTF-8) or bytes-like.

    `headers` is a mapping or (name, value) pairs; a `Content-Type` there takes the place of `content_type`.
    `status_code` is 200 to 599 and may be changed later. Subclasses override `_content`, or `reply` if they must.

    Raises: `ValueError` for a status that is none and for a header that cannot be sent, `TypeError` for a body of
    another type.
    """

    default_content_type = "text/plain"

    def __init__(
        self,
        status_code: int = 200,
        content_type: str | None = None,
        body: Body = "",
        headers: HeaderFields | None = None,
    ) -> None:
        if type(status_code) is int and 200 <= status_code <= 599:
            self._status_code = status_code
        else:
            self._status_code = _status(status_code)
        self._raw: RawHeaders = [(b"Content-Type", _content_type_value(content_type or self.default_content_type))]
        self._body = body.encode() if type(body) is str else _body_bytes(body)
        if headers:
            self.headers.update(headers)

    @property
    def status_code(self) -> int:
        """The status, 200 to 599."""
        return self._status_code

    @status_code.setter
    def status_code(self, value: int) -> None:
        self._status_code = _status(value)

    @property
    def body(self) -> bytes:
        """The body as it is sent."""
        return self._body

    @body.setter
    def body(self, value: Body) -> None:
        self._body = _body_bytes(value)

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields, to read and to change; those of the connection are added when it is sent."""
        return ResponseHeaders(self._raw)

    @property
    def content_type(self) -> str:
        """The `Content-Type` header, "" when it was removed."""
        return self.headers.get("content-type", "")

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers["Content-Type"] = _content_type_value(value).decode("latin-1")

    def set_header(self, name: str, value: str | int) -> None:
        """Set a header in place of what it was. Raises: `ValueError` for CR, LF, NUL and the like."""
        self.headers[name] = value

    def get_header(self, name: str, default: str | None = None) -> str | None:
        """The first value of a header, or `default`."""
        return self.headers.get(name, default)

    def set_cookie(
        self,
        name: str,
        value: str = "",
        max_age: int | timedelta | None = None,
        expires: datetime | float | str | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None:
        """Set a cookie. `max_age` is in seconds; `expires` a date (naive means UTC) or seconds since 1970.

        Raises: `ValueError` for what a cookie may not hold, and for `samesite="none"` without `secure`.
        """
        self.headers.add(
            "Set-Cookie",
            format_set_cookie(name, value, max_age, expires, path, domain, secure, httponly, samesite),
        )

    def delete_cookie(
        self,
        name: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None:
        """Have the client forget a cookie; `path` and `domain` must be the ones it was set with."""
        self.set_cookie(name, "", 0, 0, path, domain, secure, httponly, samesite)

    def _content(self) -> bytes | FileSpan | Source | Feed:
        """What the body of the reply is; a subclass may give a file, a source or a feed."""
        return self._body

    def reply(self, head: RequestHead) -> Reply:
        """What the server sends, as plain data. `head` is the request's; a subclass may answer according to it."""
        return Reply(self._status_code, self._raw.copy(), self._content())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._status_code} {self.content_type!r}>"


def _status(value: object) -> int:
    """A final status as a plain int: 1xx is no answer, and above 599 nothing is defined (RFC 9110 section 15)."""
    if not isinstance(value, int) or isinstance(value, bool):
        hint = f"write Response(body={value!r})" if isinstance(value, (str, bytes)) else "write a number like 200"
        raise TypeError(f"status_code must be an int, not {type(value).__name__}: {hint}")
    if not 200 <= value <= 599:
        raise ValueError(f"status_code must be from 200 to 599, not {value}")
    return int(value)


def _body_bytes(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    hint = "write JSONResponse(data)" if isinstance(body, (dict, list)) else "write StreamingResponse(items) to stream"
    raise TypeError(f"body must be str or bytes, not {type(body).__name__}: {hint}")


class JSONResponse(Response):
    """`data` as JSON: whatever `json` takes, and dates, `UUID`, `Decimal` and dataclasses.

    Raises: `TypeError` for an object that is not JSON, `ValueError` for NaN and infinity; and as `Response` does.
    """

    default_content_type = "application/json"

    def __init__(self, data: object, status_code: int = 200, headers: HeaderFields | None = None) -> None:
        super().__init__(status_code, None, to_json(data), headers)


class HTMLResponse(Response):
    """A page."""

    default_content_type = "text/html"

    def __init__(self, html: Body = "", status_code: int = 200, headers: HeaderFields | None = None) -> None:
        super().__init__(status_code, None, html, headers)


class RedirectResponse(Response):
    """Sends the client to `url`, absolute or relative. 302 changes a POST into a GET; 307 and 308 keep the method.

    Raises: `ValueError` for a status that is no redirect; and as `Response` does.
    """

    def __init__(self, url: str, status_code: int = 302, headers: HeaderFields | None = None) -> None:
        if status_code not in (301, 302, 303, 307, 308):
            raise ValueError(f"a redirect has status 301, 302, 303, 307 or 308, not {status_code!r}")
        super().__init__(status_code, None, "", headers)
        self.headers["Location"] = _ascii_url(url)


def _ascii_url(url: str) -> str:
    """A URL with what is not ASCII percent-encoded as UTF-8, which is how browsers send it (RFC 3987 section 3.1)."""
    return url if url.isascii() else "".join(c if c.isascii() else _percent(c) for c in url)


def _percent(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode())


def coerce_response(
    value: Any,
    handler_name: str,
    fallback: Callable[[Any], Response | None] | None = None,
) -> Response:
    """The response that a handler's return value stands for. [any thread]

    `fallback` is asked about a value that is none of the plain ones (a generator, say) and gives None for what it does
    not know either.

    Raises: `HandlerReturnError` naming the handler and what it may return.
    """
    if isinstance(value, Response):
        return value
    if isinstance(value, str):
        return HTMLResponse(value)
    if isinstance(value, (dict, list)):
        return JSONResponse(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Response(200, "application/octet-stream", value)
    if isinstance(value, tuple):
        return _coerce_tuple(value, handler_name, fallback)
    response = fallback(value) if fallback is not None else None
    if response is None:
        raise HandlerReturnError(f"handler {handler_name} returned {_describe(value)}; it may return {_MAY_RETURN}")
    return response


def _coerce_tuple(
    value: tuple[Any, ...], handler_name: str, fallback: Callable[[Any], Response | None] | None
) -> Response:
    """(body, status) or (body, status, headers). The status and the headers change a Response in place, as in Flask."""
    if len(value) not in (2, 3) or isinstance(value[0], tuple):
        raise HandlerReturnError(
            f"handler {handler_name} returned a tuple of {len(value)}; it may return {_MAY_RETURN}"
        )
    body, status, *rest = value
    if not isinstance(status, int) or isinstance(status, bool):
        raise HandlerReturnError(
            f"handler {handler_name} returned a tuple whose second item is {_describe(status)}, not a status: "
            "write (body, status) or (body, status, headers)"
        )
    response = coerce_response(body, handler_name, fallback)
    response.status_code = status
    if rest and rest[0]:
        response.headers.update(rest[0])
    return response


def _describe(value: object) -> str:
    return "None" if value is None else f"{type(value).__module__}.{type(value).__qualname__}"
