"""What the server and the application hand to each other: a request's head and body, and a reply.

Plain data, no behaviour beyond look-ups. Does not know h11, sockets, threads or the public classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote_plus

from catzilla._core.publication import Publication

RawHeaders = list[tuple[bytes, bytes]]
"""Header fields in order. Request names are lower case; reply names are written as they stand."""


def redacted(target: str) -> str:
    """A request target as it may be logged: the value of each query parameter `ticket`, in whatever case and encoding,
    is `***`. A ticket lets its holder in, and logs are read by many."""
    path, mark, query = target.partition("?")
    if "%" not in query and "ticket" not in query.lower():
        return target
    return path + mark + "&".join(map(_redacted_pair, query.split("&")))


def _redacted_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}=***" if equals and unquote_plus(name).lower() == "ticket" else pair


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The request line and header fields of one request (RFC 9112 sections 3 and 5)."""

    method: str
    target: str  # as the client sent it; ASCII
    path: str  # percent-decoded UTF-8, without the query
    query: str  # without the question mark, still percent-encoded; "" when there is none
    headers: RawHeaders
    http_version: str  # "1.0" or "1.1"
    scheme: str  # "http" or "https"
    client: tuple[str, int] | None  # the peer's address; None on a Unix socket
    server: tuple[str, int] | None  # our address; None on a Unix socket

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def __repr__(self) -> str:  # in place of the dataclass's, which would show every credential
        return f"<RequestHead {self.method} {redacted(self.target)}>"


class RequestBody(Protocol):
    """A request's body as a worker thread reads it, at most once."""

    def read(self) -> bytes:
        """The whole body; blocks until it has arrived. [worker thread]

        Raises `Disconnected` when the client leaves before the end and `BodyTooLarge` over the limit.
        """

    def chunks(self) -> Iterator[bytes]:
        """The body piece by piece as it arrives, under backpressure. Raises as `read` does. [worker thread]"""

    @property
    def disconnected(self) -> bool:
        """Whether the client has gone. [any thread]"""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A part of an open file as a body; the server closes the file. `length` is in bytes."""

    file: BinaryIO
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Source:
    """A body that is pulled from an iterable at the client's pace, or written to if `items` is empty and live.

    `items` yields `str`, bytes-like or pauses, or, where `encode` is given, whatever `encode` turns into bytes. A list
    or tuple without `encode` needs no user code, and so no thread. On an event stream the loop sends a comment after
    `heartbeat` seconds of silence: 0 sends none, None is the server's `heartbeat_interval`. `fail_early` makes a reply
    of an error that came before the first item; without it the connection is cut.
    """

    items: Iterable[Any]
    encode: Callable[[Any], bytes] | None = None
    event_stream: bool = False
    heartbeat: float | None = None
    fail_early: Callable[[Exception], Reply] | None = None


@dataclass(frozen=True, slots=True)
class Feed:
    """An event stream that the loop itself feeds with what is published: it needs no thread. [loop thread]

    `start` makes the stream a member of its room and returns what comes first; `encode` makes an event of a
    publication; `gap` is the event that tells of what was left out for a client that was too slow. The stream ends by
    itself after `expires_in` seconds.
    """

    start: Callable[[Any], bytes]
    encode: Callable[[Publication], bytes]
    gap: bytes
    identity: Hashable = None
    principal: Any = None
    heartbeat: float | None = None
    expires_in: float | None = None


@dataclass(slots=True)
class Reply:
    """What goes back: status, header fields and one of the kinds of body.

    `Content-Length`, `Transfer-Encoding`, `Connection`, `Date` and `Server` are added by the server; a
    `Content-Length` among `headers` is kept for a `Source` (and checked against what it yields).
    """

    status: int
    headers: RawHeaders
    body: bytes | FileSpan | Source | Feed
