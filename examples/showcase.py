"""Every example live on one page, beside the server's own statistics.

Run it with `catzilla run examples.showcase:app`, then open http://127.0.0.1:8000 in a browser.

The page is showcase.html. What it shows is the handlers of the other examples, mounted here; only what makes sense on
a page alone (throughput, a slow reader, failures, live statistics) is written in this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catzilla import (
    Catzilla,
    Event,
    EventStream,
    FileResponse,
    HTTPError,
    RouterGroup,
    StreamingResponse,
    sleep,
    streaming_stats,
)
from examples import (
    admin_socket,
    backpressure,
    basic_stream,
    chat,
    csv_export,
    csv_writer,
    file_download,
    json_lines,
    progress,
    room_as_events,
    server_sent_events,
    stream_stats,
    streaming_writer,
    ticker,
    token_stream,
    upload,
    websocket_echo,
)

FOLDER = Path(__file__).parent
MIB = 1024 * 1024
BLOCK = bytes(64 * 1024)

app = Catzilla()

# The other examples.

live = RouterGroup(prefix="/live")
live.get("/stream")(basic_stream.stream_endpoint)
live.get("/events")(server_sent_events.sse_endpoint)
live.get("/csv")(csv_writer.csv_endpoint)
live.get("/csv-file")(streaming_writer.csv_stream)
live.get("/json-stream")(json_lines.json_stream_endpoint)
live.get("/large-file")(backpressure.stream_large_file)
live.get("/stats")(stream_stats.show_streaming_stats)
live.get("/tokens")(token_stream.tokens)
live.get("/export")(csv_export.export)
live.get("/progress")(progress.progress)
live.get("/files")(file_download.list_files)
live.get("/files/{name}")(file_download.download)
live.get("/upload")(upload.form)
live.post("/upload")(upload.upload)
live.websocket("/echo")(websocket_echo.echo)
live.websocket("/echo-callbacks")(websocket_echo.Echo)
app.include_routes(live)

for add in [chat.add_chat, ticker.add_ticker, room_as_events.add_news, admin_socket.add_admin]:
    add(app)  # with rooms, which belong to an app

for begin, end in [
    (backpressure.make_large_file, backpressure.remove_large_file),
    (csv_export.make_database, csv_export.remove_database),
]:
    app.on_startup(begin)
    app.on_shutdown(end)


# The page.


@app.get("/")
def page() -> FileResponse:
    return FileResponse(FOLDER / "showcase.html", headers={"Cache-Control": "no-cache"})


@app.get("/source/{name}")
def source(name: str) -> FileResponse:
    """The file behind a card."""
    if name not in file_download.names():
        raise HTTPError(404, f"there is no example {name!r}")
    return FileResponse(FOLDER / name, content_type="text/plain")


# How fast, and what a slow reader does.


@app.get("/throughput/{mib:int}")
def throughput(mib: int) -> StreamingResponse:
    """So many MiB, in chunks of 64 KiB."""
    if not 1 <= mib <= 1024:
        raise HTTPError(400, "ask for 1 to 1024 MiB")
    blocks = (BLOCK for _ in range(mib * MIB // len(BLOCK)))
    return StreamingResponse(blocks, content_type="application/octet-stream")


produced: dict[str, int] = {}
"""By the name that the page gave to a run: how many bytes the generator for it has made so far."""


@app.get("/endless/{run}")
def endless(run: str) -> StreamingResponse:
    """As much as the client reads, and little more. The page watches `produced` in the live statistics.

    `no-store`, because Chromium reads far ahead of a page for the sake of its cache.
    """

    def blocks() -> Iterator[bytes]:
        produced[run] = 0
        try:
            while True:
                produced[run] += len(BLOCK)
                yield BLOCK
        finally:
            del produced[run]

    return StreamingResponse(blocks(), "application/octet-stream", headers={"Cache-Control": "no-store"})


@app.get("/stats")
def live_stats() -> EventStream:
    """The statistics twice a second, with a row for each stream."""

    def events() -> Iterator[Any]:
        while True:
            stats = streaming_stats()
            yield Event(
                {
                    "active": stats.active_streams,
                    "parked": stats.parked_streams,
                    "sockets": stats.active_websockets,
                    "total": stats.total_streams,
                    "bytes": stats.total_bytes_streamed,
                    "mbps": stats.avg_throughput_mbps,
                    "pauses": stats.backpressure_pauses,
                    "disconnects": stats.client_disconnects,
                    "errors": stats.connection_errors,
                    "threads": stats.threads,
                    "streams": [stream._asdict() for stream in stats.streams],
                    "produced": produced,
                }
            )
            yield sleep(0.5)

    return EventStream(events())


# Failures.


@app.get("/errors/early")
def early_failure() -> StreamingResponse:
    """Fails before the first item: nothing was sent yet, so the client gets a real 500."""

    def lines() -> Iterator[str]:
        raise RuntimeError("the database is down")
        yield "never reached\n"

    return StreamingResponse(lines())


@app.get("/errors/late")
def late_failure() -> StreamingResponse:
    """Fails in the middle: the connection is cut, so that nobody takes what arrived for the whole."""

    def lines() -> Iterator[Any]:
        for number in range(1, 6):
            yield f"line {number} of 10\n"
            yield sleep(0.15)
        raise RuntimeError("the database went away")

    return StreamingResponse(lines())


if __name__ == "__main__":
    app.listen()
