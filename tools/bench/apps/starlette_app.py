"""Starlette: `app` with synchronous handlers and generators, `async_app` with asynchronous ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tools.bench import work


def hello(request: Request) -> Response:
    return PlainTextResponse(work.HELLO)


def streamed(generate: Callable[[], Iterator[bytes]]) -> Callable[[Request], Response]:
    """A synchronous handler that streams a plain generator."""

    def handler(request: Request) -> Response:
        return StreamingResponse(generate())

    return handler


app = Starlette(
    routes=[
        Route("/", hello),
        Route("/chunks8k", streamed(lambda: work.repeat(work.CHUNK_8K))),
        Route("/chunks64k", streamed(lambda: work.repeat(work.CHUNK_64K))),
        Route("/lines", streamed(lambda: work.repeat(work.LINE))),
        Route("/first", streamed(work.first)),
        Route("/fresh", streamed(work.fresh)),
        Route("/ticks", streamed(work.ticks)),
    ]
)


async def async_hello(request: Request) -> Response:
    return PlainTextResponse(work.HELLO)


async def each(items: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A generator that never waits by itself, as an asynchronous one."""
    for item in items:
        yield item


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


def async_streamed(generate: Callable[[], AsyncIterator[bytes]]) -> Callable[[Request], object]:
    """An asynchronous handler that streams an asynchronous generator."""

    async def handler(request: Request) -> Response:
        return StreamingResponse(generate())

    return handler


async_app = Starlette(
    routes=[
        Route("/", async_hello),
        Route("/chunks8k", async_streamed(lambda: each(work.repeat(work.CHUNK_8K)))),
        Route("/chunks64k", async_streamed(lambda: each(work.repeat(work.CHUNK_64K)))),
        Route("/lines", async_streamed(lambda: each(work.repeat(work.LINE)))),
        Route("/first", async_streamed(first)),
        Route("/fresh", async_streamed(lambda: each(work.fresh()))),
        Route("/ticks", async_streamed(ticks)),
        Route("/parked", async_streamed(parked)),
    ]
)
