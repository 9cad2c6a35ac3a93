"""The request as a handler sees it: everything computed when it is first asked for.

Decides how the bytes of a request read as text, JSON, forms and cookies, and which of them are the client's fault
(400). Does not know the server: the body comes through `RequestBody`. One worker thread uses a request at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

from catzilla._core.limits import Limits
from catzilla._core.messages import RequestBody, RequestHead, redacted
from catzilla.cookies import parse_cookies
from catzilla.errors import HTTPError
from catzilla.forms import FormData, UploadedFile, header_options, parse_form
from catzilla.headers import Headers
from catzilla.multimap import MultiMap

_DEFAULT_LIMITS = Limits()
_UNSET: Any = object()


class Request:
    """One request. Cheap to make: a request whose handler asks for nothing costs next to nothing."""

    __slots__ = (
        "_bytes",
        "_context",
        "_cookies",
        "_form",
        "_headers",
        "_json",
        "_limits",
        "_query",
        "_reader",
        "_state",
        "_taken",
        "head",
        "path_params",
    )

    def __init__(
        self,
        head: RequestHead,
        body: RequestBody,
        path_params: dict[str, Any] | None = None,
        limits: Limits = _DEFAULT_LIMITS,
    ) -> None:
        self.head = head
        self.path_params: dict[str, Any] = {} if path_params is None else path_params
        self._reader = body
        self._taken = False
        self._limits = limits
        self._headers: Headers | None = None
        self._query: MultiMap[str] | None = None
        self._cookies: dict[str, str] | None = None
        self._bytes: bytes | None = None
        self._json: Any = _UNSET
        self._form: FormData | None = None
        self._context: dict[str, Any] | None = None
        self._state: SimpleNamespace | None = None

    # The head

    @property
    def method(self) -> str:
        """The method, in upper case: `"GET"`."""
        return self.head.method

    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
        return self.head.path

    @property
    def scheme(self) -> str:
        """`"http"` or `"https"`: what this connection is, whatever a proxy says."""
        return self.head.scheme

    @property
    def http_version(self) -> str:
        """`"1.0"` or `"1.1"`."""
        return self.head.http_version

    @property
    def url(self) -> str:
        """The whole URL as the client asked for it (RFC 9112 section 3.3). `Host` is the client's word."""
        target = self.head.target
        if not target.startswith("/") and target != "*":
            return target  # absolute form, as proxies send it
        host = self.headers.get("host") or self._server_host()
        return f"{self.head.scheme}://{host}{'' if target == '*' else target}"

    def _server_host(self) -> str:
        if self.head.server is None:
            return "localhost"
        host, port = self.head.server
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def client_ip(self) -> str | None:
        """The address of the peer, None on a Unix socket. `X-Forwarded-For` is not trusted."""
        return self.head.client[0] if self.head.client is not None else None

    @property
    def headers(self) -> Headers:
        """The header fields, case-insensitive."""
        if self._headers is None:
            self._headers = Headers(self.head.headers)
        return self._headers

    def get_header(self, name: str, default: str | None = None) -> str | None:
        """The first value of a header, or `default`."""
        return self.headers.get(name, default)

    @property
    def content_type(self) -> str:
        """The `Content-Type` header as it was sent, "" without one."""
        return self.headers.get("content-type", "")

    @property
    def query_params(self) -> MultiMap[str]:
        """The query, decoded: `query_params["q"]` is the first value of a name, `.getlist("q")` has all."""
        if self._query is None:
            self._query = MultiMap(parse_qsl(self.head.query, keep_blank_values=True))
        return self._query

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name."""
        if self._cookies is None:
            self._cookies = parse_cookies("; ".join(self.headers.getlist("cookie")))
        return self._cookies

    # The body

    @property
    def body(self) -> bytes:
        """The whole body; blocks until it has arrived, and is kept. [worker thread]

        Raises: `Disconnected` when the client leaves before the end, `BodyTooLarge` over `max_body_bytes`,
        `RuntimeError` after `stream()` or a parsed `form()` has taken the body piece by piece.
        """
        if self._bytes is None:
            self._bytes = self._take_body().read()
        return self._bytes

    def stream(self) -> Iterator[bytes]:
        """The body piece by piece as it arrives, never whole in memory; once. [worker thread]

        Raises: as `body` does.
        """
        if self._bytes is not None:
            return iter((self._bytes,) if self._bytes else ())
        return iter(self._take_body().chunks())

    def _take_body(self) -> RequestBody:
        """The reader, once: a body cannot be had a second time."""
        if self._taken:
            raise RuntimeError(
                f"the body of {self.method} {self.path} was taken piece by piece already, by stream() or form(): "
                "read request.body first, which keeps it"
            )
        self._taken = True
        return self._reader

    def text(self) -> str:
        """The body as text, in the charset of `Content-Type`, else UTF-8. [worker thread]

        Raises: `HTTPError` 400 for bytes that are not in that charset, 415 for a charset that is not known; and as
        `body` does.
        """
        charset = header_options(self.content_type)[1].get("charset", "utf-8")
        try:
            return self.body.decode(charset)
        except UnicodeDecodeError as error:
            raise HTTPError(400, f"the body is not valid {charset}: {error.reason} at byte {error.start}") from None
        except LookupError:
            raise HTTPError(415, f"the charset {charset!r} is not known") from None

    def json(self) -> Any:
        """The body read as JSON, whatever its content type; kept. [worker thread]

        Raises: `HTTPError` 400 with line and column for a body that is not JSON; and as `body` does.
        """
        if self._json is _UNSET:
            self._json = _parse_json(self.body)
        return self._json

    def form(self) -> MultiMap[str]:
        """The fields of a form, urlencoded or multipart; empty for any other content type. [worker thread]

        Files are in `files`; the body is parsed as it arrives, and what exceeds `max_form_memory_bytes` goes to disk.

        Raises: `HTTPError` 400 for a malformed form, 413 for too many or too large fields; and as `body` does.
        """
        return self._parsed_form().fields

    @property
    def files(self) -> MultiMap[UploadedFile]:
        """The uploaded files by field name. Blocks and raises as `form()` does."""
        return self._parsed_form().files

    def _parsed_form(self) -> FormData:
        if self._form is None:
            self._form = parse_form(self.content_type, self.stream, self._limits.max_form_memory_bytes)
        return self._form

    def close(self) -> None:
        """Close the uploaded files, which removes those on disk. The server calls it when the request is over."""
        if self._form is not None:
            self._form.close()

    # What a middleware leaves for a handler

    @property
    def context(self) -> dict[str, Any]:
        """A dictionary of this request's, for middleware and handlers to share."""
        if self._context is None:
            self._context = {}
        return self._context

    @property
    def state(self) -> SimpleNamespace:
        """A namespace of this request's: `request.state.user = user`."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    def is_disconnected(self) -> bool:
        """Whether the client has gone. Does not block. [any thread]"""
        return self._reader.disconnected

    def __repr__(self) -> str:
        return f"<Request {self.head.method} {redacted(self.head.target)}>"


def _parse_json(body: bytes) -> Any:
    """Read JSON, with every way in which it can fail as the client's fault."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        if not body.strip():
            raise HTTPError(400, "the body is empty where JSON was expected") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise HTTPError(400, f"the body is not valid JSON: {error.msg} at {where}") from None
    except UnicodeDecodeError as error:
        raise HTTPError(400, f"the body is not valid JSON: not {error.encoding} at byte {error.start}") from None
    except RecursionError:
        raise HTTPError(400, "the body is not valid JSON: nested too deeply") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise HTTPError(400, f"the body is not valid JSON: {error}") from None
