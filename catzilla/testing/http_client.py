"""A small synchronous HTTP/1.1 client that shows a response as it arrives: head, then each read of the body.

h11 decides what the bytes mean. No redirects, cookies, pools or retries: a test sees exactly one exchange. Not fast,
and not meant for anything but tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from json import loads
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

import h11

from catzilla.headers import Headers
from catzilla.testing.errors import IncompleteBody
from catzilla.testing.payload import Body, Data, FileSpec, encode
from catzilla.testing.wire import Origin, Wire

if TYPE_CHECKING:
    from typing_extensions import Unpack

RequestHeaders = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields of a request; pairs where one name comes twice."""

_MAX_HEAD_BYTES = 256 * 1024
_AS_IT_IS = "%/:?#[]@!$&'()*+,;=~"  # RFC 3986 section 2.2; the rest of a path is percent-encoded


@dataclass(frozen=True)
class ClientResponse:
    """A response that has arrived whole."""

    status_code: int
    headers: Headers  # case-insensitive; repeated fields with `getlist`
    body: bytes = field(repr=False)
    reason: str = ""
    http_version: str = "1.1"

    @property
    def text(self) -> str:
        """The body in the charset of its `Content-Type`, UTF-8 if it names none."""
        message = Message()
        message["Content-Type"] = self.headers.get("content-type", "text/plain")
        return self.body.decode(message.get_content_charset("utf-8"))

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` if it is not."""
        return loads(self.body)


class ClientStream:
    """A response whose body is read piece by piece: an iterator of `bytes`, and a context manager that closes it.

    Each item is what one read of the socket brought, so chunks that the server sent together come together. `arrivals`
    has, for each item so far, the seconds from the request to that read. A body that is cut raises `IncompleteBody`
    after everything that did arrive.
    """

    def __init__(self, connection: HttpConnection, head: h11.Response, began: float) -> None:
        self.status_code = head.status_code
        self.reason = head.reason.decode("latin-1")
        self.headers = Headers([(bytes(name), bytes(value)) for name, value in head.headers])
        self.http_version = head.http_version.decode("ascii")
        self.arrivals: list[float] = []
        self.connection = connection
        self._began = began
        self._body_bytes = 0
        self._over = False

    @property
    def wire(self) -> Wire:
        """The connection underneath, for the faults."""
        return self.connection.wire

    def __iter__(self) -> ClientStream:
        return self

    def __next__(self) -> bytes:
        """The next piece of the body; blocks until there is one."""
        if self._over:
            raise StopIteration
        try:
            piece = self.connection.next_piece()
        except (h11.RemoteProtocolError, ConnectionResetError) as error:
            self._end()
            raise IncompleteBody(self.wire.purpose, self._body_bytes, str(error)) from error
        if not piece:
            self._end()
            raise StopIteration
        self._body_bytes += len(piece)
        self.arrivals.append(self.connection.last_read_at - self._began)
        return piece

    def read_all(self) -> bytes:
        """What is left of the body. Raises `IncompleteBody` if it is cut."""
        return b"".join(self)

    def close(self) -> None:
        """Leave: close the connection, unless the body is over and another request may follow."""
        if not (self._over and self.connection.reusable):
            self._over = True
            self.connection.close()

    def __enter__(self) -> ClientStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _end(self) -> None:
        self._over = True
        if not self.connection.reusable:
            self.connection.close()

    def __repr__(self) -> str:
        state = "over" if self._over else "open"
        return f"<ClientStream {self.wire.purpose}: {self.status_code}, {self._body_bytes} bytes so far, {state}>"


class RequestOptions(TypedDict, total=False):
    """What any request may be given."""

    headers: RequestHeaders | None
    data: Data | None  # bytes, text, form fields, or pieces that are sent in chunks
    json: Any  # a body of its own, so without `data` and `files`
    files: Mapping[str, FileSpec] | None  # with form fields in `data`
    timeout: float | None  # the longest silence in seconds


class Requests:
    """The request methods by name, in terms of `open`."""

    def open(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ClientStream:
        """Send a request and return when the head of its response is here; the body is still to be read."""
        raise NotImplementedError

    def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a request and return its whole response; the options are those of `RequestOptions`.

        Raises: `IncompleteBody` for a body that is cut, `TimeoutError` for silence, `ConnectionError` for no response,
        `TypeError` for an option that does not exist.
        """
        stream = self.open(method, path, **options)
        body = stream.read_all()
        return ClientResponse(stream.status_code, stream.headers, body, stream.reason, stream.http_version)

    def get(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("HEAD", path, **options)

    def post(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("DELETE", path, **options)

    def options(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        return self.request("OPTIONS", path, **options)


class HttpConnection(Requests):
    """One connection to a server, used for one request after the other while the server keeps it alive.

    `keep_alive=False` makes it good for one exchange: it closes itself when a body is over. `send_raw` with
    `read_response` is for what a well-behaved client would not say, pipelining included.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        timeout: float = 10.0,
        receive_buffer_bytes: int | None = None,
        keep_alive: bool = True,
        on_close: Callable[[Wire], None] = lambda wire: None,
    ) -> None:
        self.wire = Wire(origin, timeout=timeout, receive_buffer_bytes=receive_buffer_bytes, on_close=on_close)
        self.last_read_at = 0.0  # perf_counter() when the latest bytes arrived
        self._timeout = timeout
        self._keep_alive = keep_alive
        self._failure: h11.RemoteProtocolError | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._keep_alive and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def open(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ClientStream:
        _check_options(options)
        content_type, body = encode(options.get("data"), options.get("json"), options.get("files"))
        self._start(method, path, options.get("timeout"))
        fields = self._fields(method, header_pairs(options.get("headers")), content_type, body)
        began = perf_counter()
        self._send_request(h11.Request(method=method, target=request_target(path), headers=fields), body)
        return self._read_head(began)

    def send_raw(self, data: bytes) -> None:
        """Send these bytes, whatever they are; `read_response` reads the answers in turn."""
        self.wire.purpose = f"the raw request {data[:40]!r}"
        self.wire.send(data)

    def read_response(self, method: str = "GET") -> ClientResponse:
        """The next response to what `send_raw` sent; `method` decides whether it has a body (RFC 9112 section 6.3)."""
        stream = self.read_stream(method)
        body = stream.read_all()
        return ClientResponse(stream.status_code, stream.headers, body, stream.reason, stream.http_version)

    def read_stream(self, method: str = "GET") -> ClientStream:
        """As `read_response`, and returns when the head is here."""
        purpose = self.wire.purpose
        self._start(method, "/")
        self.wire.purpose = purpose
        request = h11.Request(method=method, target="/", headers=[("host", self.wire.origin.authority)])
        self._http.send(request)  # h11 must know what it is waiting for; these bytes go nowhere
        self._http.send(h11.EndOfMessage())
        return self._read_head(perf_counter())

    def next_piece(self) -> bytes:
        """The body bytes that the next read brings; `b""` at the end of the body."""
        self.wire.check()
        if self._failure is not None:
            raise self._failure
        pieces: list[bytes] = []
        while self._http.their_state is h11.SEND_BODY:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if not pieces:
                    raise
                self._failure = error  # what arrived before it comes first
                break
            if isinstance(event, h11.Data):
                pieces.append(bytes(event.data))
            elif event is h11.NEED_DATA:
                if pieces:
                    break
                self._read()
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connection; nothing if it is closed."""
        self.wire.close()

    def __enter__(self) -> HttpConnection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _fields(
        self, method: str, given: list[tuple[str, str]], content_type: str | None, body: Body
    ) -> list[tuple[str, str]]:
        """The header fields of a request: those given, and the necessary ones that are not among them."""
        names = {name.lower() for name, _ in given}
        fields = [("Host", self.wire.origin.authority)]
        if content_type is not None:
            fields.append(("Content-Type", content_type))
        if names & {"content-length", "transfer-encoding"}:
            pass  # the test knows better
        elif not isinstance(body, bytes):
            fields.append(("Transfer-Encoding", "chunked"))
        elif body or method in ("POST", "PUT", "PATCH"):  # RFC 9110 section 8.6: say so even when it is empty
            fields.append(("Content-Length", str(len(body))))
        return [*((name, value) for name, value in fields if name.lower() not in names), *given]

    def _start(self, method: str, path: str, timeout: float | None = None) -> None:
        if self._http.our_state is not h11.IDLE:
            if not (self._http.our_state is h11.DONE and self._http.their_state is h11.DONE):
                raise RuntimeError(
                    f"{method} {path}: the connection cannot take another request; {self.wire.purpose} is at "
                    f"{self._http.states}. Read its response to the end, or connect() again"
                )
            self._http.start_next_cycle()
        self.wire.purpose = f"{method} {path}"
        self.wire.timeout = self._timeout if timeout is None else timeout

    def _send_request(self, head: h11.Request, body: Body) -> None:
        whole = [body] if isinstance(body, bytes) else body
        sent = self.wire.send(self._http.send(head) or b"")
        for piece in whole:
            data = self._http.send(h11.Data(data=piece)) or b""
            sent = sent and self.wire.send(data, until_answered=True)
            if not sent:
                return  # refused early; the answer is there to be read, and this connection is spent
        self.wire.send(self._http.send(h11.EndOfMessage()) or b"")

    def _read_head(self, began: float) -> ClientStream:
        try:
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Response):
                    return ClientStream(self, event, began)
                if event is h11.NEED_DATA:
                    self._read(until=b"\r\n\r\n")  # the body is read when the test asks for it
        except h11.RemoteProtocolError as error:
            self.close()
            arrived, ended = self._http.trailing_data
            why = "the server closed the connection, no response" if ended and not arrived else f"no response: {error}"
            raise ConnectionResetError(f"{self.wire.purpose}: {why}") from error
        except BaseException:
            self.close()
            raise

    def _read(self, until: bytes | None = None) -> None:
        data = self.wire.receive(until=until)
        self.last_read_at = perf_counter()
        self._http.receive_data(data)


def _check_options(given: Iterable[str]) -> None:
    """Refuse an option that nobody reads: a test would believe that it was sent."""
    known = RequestOptions.__annotations__
    unknown = [name for name in given if name not in known]
    if unknown:
        raise TypeError(f"a request has no option {unknown[0]!r}: write one of {', '.join(known)}")


def request_target(path: str) -> str:
    """`path` as it stands in a request line: what a URL may not hold is percent-encoded."""
    return quote(path, safe=_AS_IT_IS)


def header_pairs(headers: RequestHeaders | None) -> list[tuple[str, str]]:
    if headers is None:
        return []
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)
