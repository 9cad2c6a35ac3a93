"""A real server for tests, in this process, with its client and its faults.

Decides what a test may ask for and in which order things end: clients first, so that the server sees them leave, then
the server, then the search for leaks. Everything below `Server` and the clients is theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from catzilla.serve import Server
from catzilla.settings import Settings
from catzilla.testing import leaks
from catzilla.testing.errors import LeakError
from catzilla.testing.event_client import ClientEvents
from catzilla.testing.http_client import ClientStream, HttpConnection, RequestHeaders, RequestOptions, Requests
from catzilla.testing.websocket_client import ClientWebSocket
from catzilla.testing.wire import Origin, Wire

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from catzilla.app import Catzilla

SHUTDOWN_GRACE = 1.0  # seconds; a test that leaves a handler running should not cost five
LEAK_TIMEOUT = 1.0  # seconds for the threads of a stopped server to end


class HasWire(Protocol):
    """A client object with a connection underneath."""

    @property
    def wire(self) -> Wire: ...


class LiveServer(Requests):
    """`app` served on an ephemeral port of 127.0.0.1 from the moment this is made; a context manager that stops it.

    `settings` are those of `catzilla.settings`, limits included, by name; environment variables are not read, and
    `shutdown_grace` is one second unless given. `client_timeout` is the longest silence in seconds that any client
    accepts. With `allow_leaks`, what outlives the server is no error. Raises: `OSError`, `SettingsError`.
    """

    def __init__(
        self, app: Catzilla, *, allow_leaks: bool = False, client_timeout: float = 10.0, **settings: Any
    ) -> None:
        self.app = app
        self.allow_leaks = allow_leaks
        self.client_timeout = client_timeout
        self._settings = {"shutdown_grace": SHUTDOWN_GRACE, **settings}
        if "uds" not in settings:
            self._settings = {"host": "127.0.0.1", "port": 0, **self._settings}
        self.known_threads = leaks.server_threads()  # what was there before is not this server's
        self._wires: set[Wire] = set()
        self.unclosed_streams: list[str] = []  # known when the server has stopped: names of handlers
        self._server: Server | None = None
        self._start()

    # --- addresses -----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port; it stays the same over `restart`."""
        return self.origin.port

    @property
    def url(self) -> str:
        """Such as `http://127.0.0.1:40123`, without a slash at the end."""
        return f"{'https' if self.origin.tls else 'http'}://{self.origin.authority}"

    @property
    def ws_url(self) -> str:
        """Such as `ws://127.0.0.1:40123`, without a slash at the end."""
        return f"{'wss' if self.origin.tls else 'ws'}://{self.origin.authority}"

    @property
    def server(self) -> Server:
        """The running `catzilla.serve.Server`. Raises `RuntimeError` when it is stopped."""
        if self._server is None:
            raise RuntimeError("this live server is stopped; restart() it first")
        return self._server

    # --- clients -------------------------------------------------------------------------------------------------

    def connect(self, *, receive_buffer_bytes: int | None = None, keep_alive: bool = True) -> HttpConnection:
        """A connection of its own, for several requests in turn and for raw bytes.

        `receive_buffer_bytes` bounds what the client's kernel takes in unread (the kernel doubles it, and has a
        minimum of about 2 KiB).
        """
        connection = HttpConnection(
            self.origin,
            timeout=self.client_timeout,
            receive_buffer_bytes=receive_buffer_bytes,
            keep_alive=keep_alive,
            on_close=self._wires.discard,
        )
        self._wires.add(connection.wire)
        return connection

    def open(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ClientStream:
        """As `stream`, with any method."""
        return self.connect(keep_alive=False).open(method, path, **options)

    def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        receive_buffer_bytes: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> ClientStream:
        """Send a request on a connection of its own and return when the head of its response is here.

        The body is read only when it is iterated: a stream that is left alone is a client that has stalled.
        """
        connection = self.connect(receive_buffer_bytes=receive_buffer_bytes, keep_alive=False)
        return connection.open(method, path, **options)

    def events(
        self,
        path: str,
        *,
        last_event_id: str | None = None,
        receive_buffer_bytes: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> ClientEvents:
        """An iterator over the Server-Sent Events of `path`; `last_event_id` as an `EventSource` that reconnects."""
        given = options.pop("headers", None) or {}
        headers = [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")]
        if last_event_id is not None:
            headers.append(("Last-Event-ID", last_event_id))
        headers.extend(given.items() if hasattr(given, "items") else given)
        options["headers"] = headers
        return ClientEvents(self.stream(path, receive_buffer_bytes=receive_buffer_bytes, **options))

    def websocket(
        self,
        path: str,
        *,
        headers: RequestHeaders | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        compression: bool = False,
        receive_buffer_bytes: int | None = None,
        timeout: float | None = None,
    ) -> ClientWebSocket:
        """An open WebSocket; it is read, and its pings answered, only while a call of it waits for something.

        `headers` replace those of the handshake that have the same name. `compression` offers permessage-deflate.
        `timeout` is in seconds, for the handshake and for every later wait. Raises: `HandshakeRefused` with the
        response if the server gives another than 101, `ProtocolViolation`, `TimeoutError`, `ConnectionError`.
        """
        wire = Wire(
            self.origin,
            timeout=self.client_timeout if timeout is None else timeout,
            receive_buffer_bytes=receive_buffer_bytes,
            on_close=self._wires.discard,
        )
        self._wires.add(wire)
        return ClientWebSocket(
            wire, path, headers=headers, origin=origin, subprotocols=subprotocols, compression=compression
        )

    # --- faults --------------------------------------------------------------------------------------------------

    def freeze(self, client: HasWire) -> None:
        """Make a stream, an event stream, a WebSocket or a connection read nothing more until `thaw`.

        Nothing is read between two iterations or calls anyway, so this is for a client that another thread iterates,
        and to be sure: a read in this thread raises `Frozen`, one in another thread waits.
        """
        client.wire.freeze()

    def thaw(self, client: HasWire) -> None:
        """Undo `freeze`."""
        client.wire.thaw()

    def throttle(self, client: HasWire, bytes_per_s: float | None) -> None:
        """Make a client read at most `bytes_per_s` when it is iterated; None lets it read freely again."""
        client.wire.throttle(bytes_per_s)

    def drop(self, client: HasWire) -> None:
        """Make a client vanish without a goodbye: its connection is reset (TCP RST)."""
        client.wire.drop()

    def restart(self) -> None:
        """Stop the server as `stop` does, but leave the clients to find out, and start it again on the same port."""
        self._stop_server(None)
        self._start()

    # --- the end -------------------------------------------------------------------------------------------------

    def stop(self, grace: float | None = None) -> None:
        """Close every client, then stop the server; nothing if it is stopped.

        Blocks for `grace` seconds, by default the setting `shutdown_grace`, and a little more.
        """
        for wire in list(self._wires):
            wire.close()
        self._stop_server(grace)

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        self.stop()
        if exc_type is None:
            check_leaks([self])

    def _start(self) -> None:
        server = Server(self.app, Settings.load(self._settings, environ={}))
        server.start()
        self._server = server
        uds, certificate = self._settings.get("uds"), self._settings.get("ssl_certfile")
        if uds is None:
            self._settings["port"] = server.port
        self.origin = Origin(self._settings.get("host", "localhost"), self._settings.get("port", 0), uds, certificate)

    def _stop_server(self, grace: float | None) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop(grace)
            self.unclosed_streams.extend(server.unclosed_streams())

    def __repr__(self) -> str:
        return f"<LiveServer {self.url}, {'stopped' if self._server is None else 'running'}>"


def check_leaks(servers: Sequence[LiveServer]) -> None:
    """Raise `LeakError` if something outlived these servers, all stopped; waits a second at most for their threads.

    All at once, because a thread does not tell which server it belongs to: `servers` is in the order of starting. One
    server among them that allows leaks therefore excuses every thread.
    """
    unclosed = [name for server in servers if not server.allow_leaks for name in server.unclosed_streams]
    threads: list[threading.Thread] = []
    if servers and not any(server.allow_leaks for server in servers):
        threads = leaks.leaked_threads(servers[0].known_threads, LEAK_TIMEOUT)
    found = leaks.describe(threads, unclosed)
    if found:
        raise LeakError(f"the live server left something behind: {found}")
