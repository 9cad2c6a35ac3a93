"""catzilla: plain synchronous handlers and generators; WebSockets as callbacks and as one function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from catzilla import Catzilla, Response, StreamingResponse, WebSocket, sleep
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


everybody = app.room("all", public=True)


@app.websocket("/echo")
class Echo:
    """Holds no thread while nothing arrives."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


@app.websocket("/echo-linear")
def echo(ws: WebSocket) -> None:
    """Holds a thread for as long as it is connected."""
    for message in ws:
        ws.send(message)


@app.websocket("/broadcast")
class Member:
    def on_open(self, ws: WebSocket) -> None:
        ws.join("all")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        everybody.publish(message)


@app.websocket("/broadcast-linear")
def member(ws: WebSocket) -> None:
    ws.join("all")
    for message in ws:
        everybody.publish(message)
