"""websockets, its threaded server: a thread a connection. `python -m tools.bench.apps.websockets_sync_app PORT`."""

from __future__ import annotations

import contextlib
import sys
import threading
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tools.bench import work

members: set[ServerConnection] = set()
members_lock = threading.Lock()


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def member(connection: ServerConnection) -> None:
    with members_lock:
        members.add(connection)
    try:
        for message in connection:
            with members_lock:
                everybody = list(members)
            for each in everybody:
                with contextlib.suppress(ConnectionClosed):
                    each.send(message)
    finally:
        with members_lock:
            members.discard(connection)


def route(connection: ServerConnection) -> None:
    assert connection.request is not None, "the handshake is over"
    (member if connection.request.path == "/broadcast" else echo)(connection)


def hello(connection: ServerConnection, request: Request) -> Response | None:
    """Answers `GET /`, which is no handshake."""
    return connection.respond(HTTPStatus.OK, work.HELLO.decode()) if request.path == "/" else None


if __name__ == "__main__":
    # No compression, and neither a thread nor a timer for keepalive.
    address = ("127.0.0.1", int(sys.argv[1]))
    with serve(route, *address, process_request=hello, compression=None, ping_interval=None) as server:
        server.serve_forever()
