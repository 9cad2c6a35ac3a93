"""websockets on uvloop, its asyncio server: `python -m tools.bench.apps.websockets_asyncio_app PORT`."""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

from tools.bench import work

members: set[ServerConnection] = set()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def member(connection: ServerConnection) -> None:
    members.add(connection)
    try:
        async for message in connection:
            broadcast(members, message)
    finally:
        members.discard(connection)


async def route(connection: ServerConnection) -> None:
    assert connection.request is not None, "the handshake is over"
    await (member if connection.request.path == "/broadcast" else echo)(connection)


def hello(connection: ServerConnection, request: Request) -> Response | None:
    """Answers `GET /`, which is no handshake."""
    return connection.respond(HTTPStatus.OK, work.HELLO.decode()) if request.path == "/" else None


async def main(port: int) -> None:
    # No compression, and neither a task nor a timer for keepalive.
    async with serve(route, "127.0.0.1", port, process_request=hello, compression=None, ping_interval=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main(int(sys.argv[1])))
