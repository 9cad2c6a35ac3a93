"""HTTP/1.1 as bytes in, events out: requests through h11, heads and chunks of responses by hand.

What is decided here: what a well-formed request is, which status a malformed one is answered with, and how a response
is framed. No socket, loop, clock or thread.

h11 parses every head and every body. It gets each head whole, from a gate that finds its end first: so the limits on
target and head are exact, a bare LF is seen before anything believes it, and a head that trickles in byte by byte is
scanned once and parsed once. A fresh `h11.Connection` serves each request; what it leaves over starts the next one
(pipelining). Responses are not serialised by h11, which would cost a third of a small request and keep a state machine
for every parked stream; `response_head` writes what its table says, and refuses nothing that `Headers` has let through.

A request that could mean two things to two parsers is refused, not interpreted (RFC 9112 section 11.2, request
smuggling): `Content-Length` beside `Transfer-Encoding`, `Transfer-Encoding` in HTTP/1.0, lengths that differ, a bare LF
in a head or at the end of a chunked body, trailer fields.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

import h11

from catzilla._core.errors import RemoteProtocolError
from catzilla._core.limits import Limits
from catzilla._core.messages import RawHeaders, RequestHead


@dataclass(frozen=True, slots=True)
class RequestStart:
    """A request's head has arrived. `length` is the declared length of its body, None if it is chunked."""

    head: RequestHead
    length: int | None
    expects_continue: bool
    keep_alive: bool  # what the client asks for; the server may still close


@dataclass(frozen=True, slots=True)
class BodyData:
    """A piece of the request's body."""

    data: bytes


class Mark(enum.Enum):
    """Events without contents."""

    NEED_DATA = enum.auto()
    END_OF_REQUEST = enum.auto()


NEED_DATA = Mark.NEED_DATA
END_OF_REQUEST = Mark.END_OF_REQUEST
Event = RequestStart | BodyData | Mark

_COMMON_NAMES = (
    b"host connection upgrade user-agent accept accept-encoding accept-language cache-control cookie origin "
    b"sec-websocket-key sec-websocket-version sec-websocket-extensions sec-websocket-protocol authorization"
)
_NAMES = {name: name for name in _COMMON_NAMES.split()}

MAX_EMPTY_LINES = 8  # before a request

_BARE_LF = re.compile(rb"(?<!\r)\n")
_FOLD = re.compile(rb"\r\n[ \t]")
_NOT_A_METHOD = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")  # RFC 3986 section 3.2.2, without user information


class RequestParser:
    """One connection's requests, one after the other.

    `receive_data`, then `next_event` until it says NEED_DATA. After END_OF_REQUEST the next request begins.
    `next_event` raises `RemoteProtocolError` with a status; the parser is of no use after that.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_client",
        "_limits",
        "_parsing",
        "_received",
        "_scanned",
        "_scheme",
        "_server",
        "_tail",
    )

    def __init__(
        self,
        limits: Limits,
        *,
        scheme: str = "http",
        client: tuple[str, int] | None = None,
        server: tuple[str, int] | None = None,
    ) -> None:
        self._limits = limits
        self._scheme = scheme
        self._client = client
        self._server = server
        self._buffer = b""  # received, not yet given to h11
        self._parsing: h11.Connection | None = None  # of the request whose body is being read
        self._scanned = 0  # bytes of an unfinished head that were looked at
        self._received = 0  # bytes of the body so far
        self._chunked = False
        self._tail = b""  # the last bytes that h11 was given

    @property
    def pending(self) -> bytes:
        """Bytes that no request has used yet."""
        return self._buffer

    def receive_data(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer = self._buffer + data if self._buffer else data

    def next_event(self) -> Event:
        """The next thing that the bytes so far say."""
        if self._parsing is None:
            return self._next_head()
        return self._next_of_body(self._parsing)

    # The head.

    def _next_head(self) -> Event:
        if self._buffer.startswith(b"\r"):
            self._skip_empty_lines()
        buffer = self._buffer
        if buffer == b"\r":
            return NEED_DATA  # half of an empty line
        # What was looked at before is not looked at again, but for the few bytes that an end may straddle.
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        self._refuse_early(buffer if end < 0 else buffer[: end + 4], max(0, self._scanned - 2))
        if end < 0:
            self._scanned = len(buffer)
            return NEED_DATA
        self._scanned = 0
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_head_bytes + 4)
        try:
            parser.receive_data(buffer[: end + 4])
            request = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _refusal(error) from None
        assert isinstance(request, h11.Request), f"h11 made {request!r} of a request's head"
        start = self._accept(request)
        self._buffer = buffer[end + 4 :]
        if start.length != 0:
            self._parsing = parser
            self._received = 0
            self._chunked = start.length is None
        return start

    def _skip_empty_lines(self) -> None:
        """RFC 9112 section 2.2: an empty line before a request is ignored; many of them are an attack."""
        kept = self._buffer
        for _ in range(MAX_EMPTY_LINES):
            if not kept.startswith(b"\r\n"):
                break
            kept = kept[2:]
        else:
            raise RemoteProtocolError(400, "too many empty lines before the request")
        self._buffer = kept

    def _refuse_early(self, head: bytes, scanned: int) -> None:
        """Refuse a head as soon as it cannot become a good one; its first `scanned` bytes were looked at before."""
        if not scanned and (head[:1] == b" " or _NOT_A_METHOD.search(head.partition(b" ")[0][:100])):
            raise RemoteProtocolError(400, "this is not an HTTP request")
        if _BARE_LF.search(head, scanned):
            raise RemoteProtocolError(400, "a line of the request's head ends in LF without CR")
        if _FOLD.search(head, scanned):  # RFC 9112 section 5.2: h11 would join the lines, another parser may not
            raise RemoteProtocolError(400, "a header field is folded over several lines")
        limit = self._limits.max_target_bytes
        if len(head) > limit:
            line_end = head.find(b"\r\n", 0, limit + 100)
            # Without its end, a part of the version may be here.
            most = limit if line_end >= 0 else limit + len(b" HTTP/1.1")
            if _target_length(head[: line_end if line_end >= 0 else len(head)]) > most:
                raise RemoteProtocolError(414, f"the request target is over {limit} bytes")
        if len(head) > self._limits.max_head_bytes:
            raise RemoteProtocolError(431, f"the request's head is over {self._limits.max_head_bytes} bytes")

    def _accept(self, request: h11.Request) -> RequestStart:
        """What h11 found well-formed, held against what we serve."""
        # Common names are shared: a WebSocket keeps its handshake for as long as it lives.
        headers: RawHeaders = [(_NAMES.get(name, name), value) for name, value in request.headers]
        version = request.http_version
        if not version.startswith(b"1."):
            raise RemoteProtocolError(505, f"HTTP/{version.decode()} is not served here, HTTP/1.1 and HTTP/1.0 are")
        if len(headers) > self._limits.max_headers:
            raise RemoteProtocolError(431, f"the request has more than {self._limits.max_headers} header fields")
        old = version == b"1.0"
        length: int | None = 0
        expects, connection, lengths = False, b"", False
        for name, value in headers:
            if name == b"transfer-encoding":
                if old:
                    raise RemoteProtocolError(400, "Transfer-Encoding in an HTTP/1.0 request")
                length = None
            elif name == b"content-length":
                lengths = True
                if length is not None:
                    length = int(value)
            elif name == b"expect":
                if value.strip().lower() != b"100-continue":
                    raise RemoteProtocolError(417, f"Expect: {value.decode('latin-1')} cannot be met")
                expects = not old
            elif name == b"connection":
                connection += b"," + value.lower()
            elif name == b"host" and not _HOST.fullmatch(value):
                raise RemoteProtocolError(400, "the Host header is not a host")
        if lengths and length is None:
            raise RemoteProtocolError(400, "Content-Length beside Transfer-Encoding")
        if length is not None and length > self._limits.max_body_bytes:
            raise RemoteProtocolError(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        options = {option.strip() for option in connection.split(b",")} if connection else ()
        keep_alive = b"keep-alive" in options if old else b"close" not in options
        path, query = self._split_target(request.method, request.target)
        head = RequestHead(
            request.method.decode("ascii"),
            request.target.decode("ascii"),
            path,
            query,
            headers,
            "1.0" if old else "1.1",
            self._scheme,
            self._client,
            self._server,
        )
        return RequestStart(head, length, expects and length != 0, keep_alive)

    def _split_target(self, method: bytes, raw: bytes) -> tuple[str, str]:
        """Path and query of a request target (RFC 9112 section 3.2)."""
        try:
            target = raw.decode("ascii")
        except UnicodeDecodeError:
            raise RemoteProtocolError(400, "the request target has bytes outside ASCII; percent-encode them") from None
        if method == b"CONNECT":
            raise RemoteProtocolError(501, "CONNECT is not served here")
        if target == "*" and method == b"OPTIONS":
            return "*", ""
        if not target.startswith("/"):
            if not target.lower().startswith(("http://", "https://")):
                raise RemoteProtocolError(400, "the request target is neither a path nor an http URL")
            try:
                parts = urlsplit(target)
            except ValueError:
                raise RemoteProtocolError(400, "the request target is not a URL") from None
            target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        path, _, query = target.partition("?")
        if "#" in raw.decode("ascii"):
            raise RemoteProtocolError(400, "the request target has a fragment")
        return (unquote(path) if "%" in path else path), query

    # The body.

    def _next_of_body(self, parser: h11.Connection) -> Event:
        try:
            event = parser.next_event()
            # Only now: what h11 holds when it gets more is then less than an event, and ends within that.
            if event is h11.NEED_DATA and self._buffer:
                self._tail = self._tail[-4:] + self._buffer
                parser.receive_data(self._buffer)
                self._buffer = b""
                event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _refusal(error) from None
        if event is h11.NEED_DATA:
            return NEED_DATA
        if isinstance(event, h11.Data):
            data = bytes(event.data)
            self._received += len(data)
            if self._received > self._limits.max_body_bytes:
                raise RemoteProtocolError(413, f"the request body is over {self._limits.max_body_bytes} bytes")
            return BodyData(data)
        assert isinstance(event, h11.EndOfMessage), f"h11 made {event!r} of a request's body"
        trailing = parser.trailing_data[0]
        self._check_end(event, self._tail[: len(self._tail) - len(trailing)])
        self._buffer = trailing + self._buffer
        self._tail = b""
        self._parsing = None
        return END_OF_REQUEST

    def _check_end(self, event: h11.EndOfMessage, used: bytes) -> None:
        """Refuse an end that another parser may not see: h11 takes a bare LF there, and trailer fields.

        `used` is the last of the body, framing and all.
        """
        if event.headers:
            raise RemoteProtocolError(400, "trailer fields are not accepted")
        if self._chunked and not used.endswith(b"\r\n\r\n"):
            raise RemoteProtocolError(400, "the chunked body does not end in CRLF CRLF")


def _refusal(error: h11.RemoteProtocolError) -> RemoteProtocolError:
    """What h11 found, without the bytes that it quotes."""
    return RemoteProtocolError(error.error_status_hint or 400, str(error).partition(": bytearray(")[0])


def _target_length(line: bytes) -> int:
    return len(line.partition(b" ")[2].rpartition(b" HTTP/")[0] or line.partition(b" ")[2])


# Responses.


class Framing(enum.Enum):
    """How the end of a response's body is told (RFC 9112 section 6.3)."""

    NONE = enum.auto()  # there is no body: HEAD, 204, 304
    LENGTH = enum.auto()  # Content-Length
    CHUNKED = enum.auto()
    CLOSE = enum.auto()  # HTTP/1.0: the end of the connection


LAST_CHUNK = b"0\r\n\r\n"
COPY_BELOW = 4096  # bytes that are copied into their frame sooner than they are written in three pieces

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}
_OURS = frozenset((b"connection", b"transfer-encoding", b"content-length", b"keep-alive", b"upgrade"))


def has_no_body(status: int) -> bool:
    """Whether a response of this status never has a body (RFC 9110 section 6.4.1)."""
    return status == 204 or status == 304 or status < 200


def stream_framing(status: int, headers: RawHeaders, method: str, http_version: str) -> tuple[Framing, int | None]:
    """How a body of unknown length is framed, and the length that the handler has declared.

    Raises `ValueError` for a declared `Content-Length` that is not a number.
    """
    length = None
    for name, value in headers:
        if name.lower() == b"content-length":
            if not value.isdigit():
                raise ValueError(f"Content-Length is {value!r}; it must be a number of bytes")
            length = int(value)
    if method == "HEAD" or has_no_body(status):
        return Framing.NONE, length
    if length is not None:
        return Framing.LENGTH, length
    return (Framing.CLOSE if http_version == "1.0" else Framing.CHUNKED), None


def response_head(
    status: int,
    headers: RawHeaders,
    *,
    framing: Framing,
    length: int | None,
    keep_alive: bool,
    http_version: str,
    date: bytes,
) -> bytes:
    """The status line and header fields of a response, up to and with the empty line.

    `length` becomes `Content-Length` where it is not None. Fields that frame the message are ours and are left out
    of `headers`; `Date` and `Server` are added where the handler has not set them.
    """
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    add = b"date: " + date + b"\r\nserver: catzilla\r\n"
    for name, value in headers:
        lower = name.lower()
        if lower in _OURS:
            if lower == b"upgrade" and status == 426:  # which has to say it: RFC 9110 section 15.5.22
                parts.append(b"upgrade: %b\r\nconnection: upgrade\r\n" % value)
            continue
        if lower == b"date" or lower == b"server":
            add = _without(add, lower)
        parts.append(name + b": " + value + b"\r\n")
    parts.append(add)
    if length is not None and status != 204:
        parts.append(b"content-length: %d\r\n" % length)
    if framing is Framing.CHUNKED:
        parts.append(b"transfer-encoding: chunked\r\n")
    if not keep_alive:
        parts.append(b"connection: close\r\n\r\n")
    elif http_version == "1.0":
        parts.append(b"connection: keep-alive\r\n\r\n")
    else:
        parts.append(b"\r\n")
    return b"".join(parts)


def _without(lines: bytes, name: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines.split(b"\r\n") if line and not line.startswith(name + b":"))


def frame_chunk(pieces: Sequence[bytes], size: int) -> list[bytes]:
    """Several pieces as one HTTP chunk, large ones uncopied (RFC 9112 section 7.1). `size` is their sum."""
    if size < COPY_BELOW and len(pieces) == 1:
        return [b"%x\r\n%b\r\n" % (size, pieces[0])]
    return [b"%x\r\n" % size, *pieces, b"\r\n"]
