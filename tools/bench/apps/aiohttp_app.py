"""aiohttp on uvloop: asynchronous handlers that write each item. `python -m tools.bench.apps.aiohttp_app PORT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import uvloop
from aiohttp import WSMessage, WSMsgType, web

from tools.bench import work

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(body=work.HELLO, content_type="text/plain")


def streamed(generate: Callable[[], Iterator[bytes]]) -> Handler:
    """Streams a plain generator that never waits by itself."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for item in generate():
            await response.write(item)
        return response

    return handler


def async_streamed(generate: Callable[[], AsyncIterator[bytes]]) -> Handler:
    """Streams an asynchronous generator."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for item in generate():
            await response.write(item)
        return response

    return handler


async def first() -> AsyncIterator[bytes]:
    yield next(work.first())
    await asyncio.sleep(work.FIRST_BYTE_PAUSE)
    yield b"end\n"


async def ticks() -> AsyncIterator[bytes]:
    schedule = work.Schedule()
    for _ in range(work.ENDLESS):
        yield schedule.event()
        await asyncio.sleep(schedule.pause())


async def parked() -> AsyncIterator[bytes]:
    yield work.PARKED
    await asyncio.sleep(work.PARKED_SECONDS)


members: set[web.WebSocketResponse] = set()


async def reply(socket: web.WebSocketResponse, message: WSMessage) -> None:
    if message.type is WSMsgType.TEXT:
        await socket.send_str(message.data)
    else:
        await socket.send_bytes(message.data)


async def echo(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        await reply(socket, message)
    return socket


async def broadcast(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    members.add(socket)
    try:
        async for message in socket:
            for member in list(members):
                await reply(member, message)
    finally:
        members.discard(socket)
    return socket


def make_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/chunks8k", streamed(lambda: work.repeat(work.CHUNK_8K)))
    app.router.add_get("/chunks64k", streamed(lambda: work.repeat(work.CHUNK_64K)))
    app.router.add_get("/lines", streamed(lambda: work.repeat(work.LINE)))
    app.router.add_get("/first", async_streamed(first))
    app.router.add_get("/fresh", streamed(work.fresh))
    app.router.add_get("/ticks", async_streamed(ticks))
    app.router.add_get("/parked", async_streamed(parked))
    app.router.add_get("/echo", echo)
    app.router.add_get("/broadcast", broadcast)
    return app


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop)
