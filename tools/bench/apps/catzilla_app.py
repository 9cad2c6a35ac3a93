"""catzilla: plain synchronous handlers and generators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from catzilla import Catzilla, Response, StreamingResponse, sleep
from tools.bench import work

app = Catzilla(production=True, show_banner=False, log_requests=False)


@app.get("/")
def hello() -> Response:
    return Response(body=work.HELLO)


@app.get("/chunks8k")
def chunks8k() -> StreamingResponse:
    return StreamingResponse(work.repeat(work.CHUNK_8K))


@app.get("/chunks64k")
def chunks64k() -> StreamingResponse:
    return StreamingResponse(work.repeat(work.CHUNK_64K))


@app.get("/lines")
def lines() -> StreamingResponse:
    return StreamingResponse(work.repeat(work.LINE))


@app.get("/first")
def first() -> StreamingResponse:
    return StreamingResponse(work.first())


@app.get("/fresh")
def fresh() -> StreamingResponse:
    return StreamingResponse(work.fresh())


@app.get("/ticks")
def ticks() -> StreamingResponse:
    return StreamingResponse(work.ticks())


@app.get("/ticks-parked")
def ticks_parked() -> StreamingResponse:
    """The same schedule with pauses that hold no thread."""

    def events() -> Iterator[Any]:
        schedule = work.Schedule()
        for _ in range(work.ENDLESS):
            yield schedule.event()
            yield sleep(schedule.pause())

    return StreamingResponse(events())


@app.get("/parked")
def parked() -> StreamingResponse:
    def events() -> Iterator[Any]:
        yield work.PARKED
        yield sleep(work.PARKED_SECONDS)

    return StreamingResponse(events())
