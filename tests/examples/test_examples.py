"""Each example on a live server: what arrives, and that it arrives as it is made.

Where a stream takes long, the test reads its beginning and leaves; the fixture then fails it if the generator stays
open. What arrives "live" is compared with the whole time, never with a clock.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import json
import logging
import sqlite3
import threading

import pytest

from examples import (
    backpressure,
    basic_stream,
    csv_export,
    csv_writer,
    file_download,
    json_lines,
    progress,
    server_sent_events,
    stream_stats,
    streaming_writer,
    token_stream,
    upload,
)


def came_live(arrivals: list[float]) -> bool:
    """Whether the first piece was there long before the last."""
    return len(arrivals) > 2 and arrivals[0] < arrivals[-1] / 2


def test_basic_stream(live_server):
    with live_server(basic_stream.app).stream("/stream") as stream:
        assert stream.headers["content-type"].startswith("text/plain")
        assert stream.read_all().decode() == "".join(f"Count: {i}\n" for i in range(10))
        assert came_live(stream.arrivals)


def test_server_sent_events(live_server, hurry):
    hurry(server_sent_events, 0.2)
    with live_server(server_sent_events.app).events("/events") as events:
        first, second, third = (next(events) for _ in range(3))
        assert [event.id for event in (first, second, third)] == ["0", "1", "2"]
        assert third.data.startswith("{'count': 2, 'timestamp': ")
        assert came_live(events.arrivals)


def test_all_server_sent_events(live_server, hurry):
    hurry(server_sent_events)
    events = list(live_server(server_sent_events.app).events("/events"))
    assert [event.id for event in events] == [str(i) for i in range(20)]


WRITERS = [
    pytest.param(csv_writer, 100, id="response.writer"),
    pytest.param(streaming_writer, 1000, id="StreamingWriter"),
]


@pytest.mark.parametrize(("module", "rows"), WRITERS)
def test_a_csv_that_is_written(module, rows, live_server, hurry):
    hurry(module)
    response = live_server(module.app).get("/csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert response.text.splitlines() == ["id,name,value", *(f"{i},item-{i},{i * 10}" for i in range(rows))]


@pytest.mark.parametrize(("module", "rows"), WRITERS)
def test_a_csv_is_sent_while_it_is_written(module, rows, live_server, caplog):
    live = live_server(module.app)
    with live.stream("/csv") as stream:
        begun = b""
        while begun.count(b"\n") < 5:
            begun += next(stream)
        assert begun.startswith(b"id,name,value\n0,item-0,0\n1,item-1,10\n")
        assert begun.count(b"\n") < rows
        assert came_live(stream.arrivals)
    live.stop()
    gc.collect()  # the writer with it
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []  # a client may leave


def test_json_lines(live_server):
    response = live_server(json_lines.app).get("/json-stream")
    assert response.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in response.body.splitlines()]
    assert [row["id"] for row in rows] == list(range(50))
    assert rows[2]["value"] == 2 * 3.14159


def test_backpressure_sends_the_whole_file(live_server):
    live = live_server(backpressure.app)
    folder = backpressure.folder
    digest, size = hashlib.sha256(), 0
    for piece in live.stream("/large-file"):
        digest.update(piece)
        size += len(piece)
    assert size == backpressure.SIZE_BYTES
    assert digest.digest() == hashlib.sha256((folder / "large_file.bin").read_bytes()).digest()
    live.stop()
    assert not folder.exists()


def test_backpressure_pauses_the_generator(live_server, monkeypatch):
    """The client reads nothing more: the generator stops far from the end of the file, and is closed when it leaves."""
    reads, closed = threading.Semaphore(0), threading.Event()

    class Watched(io.FileIO):
        def read(self, size=-1):
            reads.release()
            return super().read(size)

        def close(self):
            closed.set()
            super().close()

    monkeypatch.setattr(backpressure, "open", lambda name, mode: Watched(backpressure.folder / name, mode))
    with live_server(backpressure.app).stream("/large-file", receive_buffer_bytes=4096) as stream:
        next(stream)
        chunks = 0
        while reads.acquire(timeout=0.5):  # until it has not read for that long
            chunks += 1
        assert 0 < chunks * 8192 < backpressure.SIZE_BYTES / 2
        assert not closed.is_set()
    assert closed.wait(10)


def test_stream_stats(live_server):
    live = live_server(stream_stats.app)
    with live_server(basic_stream.app).stream("/stream") as stream:
        next(stream)
        stats = live.get("/admin/stream-stats").json()
    assert set(stats) == {"active_streams", "total_bytes_streamed", "avg_throughput_mbps", "connection_errors"}
    assert stats["active_streams"] == 1
    assert stats["total_bytes_streamed"] > 0


def test_token_stream(live_server, monkeypatch):
    monkeypatch.setattr(token_stream, "SECONDS_A_TOKEN", 0.003)
    with live_server(token_stream.app).stream("/tokens?prompt=Is+it+{live}%3F") as stream:
        assert stream.read_all().decode() == token_stream.ANSWER.format(prompt="Is it {live}?")
        assert came_live(stream.arrivals)


def test_csv_export(live_server, monkeypatch):
    """Several at once, each on its own connection and thread."""
    monkeypatch.setattr(csv_export, "ROWS", 3000)
    live = live_server(csv_export.app)
    folder = csv_export.folder
    streams = [live.stream("/export") for _ in range(6)]
    for stream in streams:
        assert stream.headers["content-disposition"] == 'attachment; filename="orders.csv"'
        header, *rows = csv.reader(io.StringIO(stream.read_all().decode(), newline=""))
        assert header == ["id", "customer", "amount"]
        assert [row[0] for row in rows] == [str(i) for i in range(1, 3001)]
    live.stop()
    assert not folder.exists()


def test_a_csv_export_that_is_left_closes_its_connection_on_its_thread(live_server, monkeypatch):
    opened, closed = [], []
    done = threading.Event()

    class Watched(sqlite3.Connection):
        def close(self):
            super().close()
            closed.append(threading.get_ident())
            done.set()

    live = live_server(csv_export.app)

    def connect():
        opened.append(threading.get_ident())
        return sqlite3.connect(csv_export.folder / "orders.sqlite3", factory=Watched)

    monkeypatch.setattr(csv_export, "connect", connect)
    with live.stream("/export", receive_buffer_bytes=4096) as stream:
        assert next(stream).startswith(b"id,customer,amount\r\n")
    assert done.wait(10)
    assert opened == closed


def test_progress(live_server, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_A_STEP", 0.005)
    events = live_server(progress.app).events("/progress")
    *steps, last = events
    assert [json.loads(step.data)["done"] for step in steps] == list(range(1, progress.STEPS + 1))
    assert {step.event for step in steps} == {"progress"}
    assert last.event == "done"
    assert came_live(events.arrivals)


def test_progress_that_nobody_watches_is_cancelled(live_server, monkeypatch):
    ended = threading.Event()
    job = progress.job

    def watched(report, cancelled):
        job(report, cancelled)
        assert cancelled.is_set()
        ended.set()

    monkeypatch.setattr(progress, "job", watched)
    with live_server(progress.app).events("/progress") as events:
        assert next(events).id == "1"
    assert ended.wait(10)


def test_file_download(live_server):
    live = live_server(file_download.app)
    assert "file_download.py" in live.get("/files").json()
    whole = live.get("/files/upload.py")
    assert whole.body == (file_download.FOLDER / "upload.py").read_bytes()
    assert whole.headers["content-disposition"] == 'attachment; filename="upload.py"'
    part = live.get("/files/upload.py", headers={"Range": "bytes=3-9"})
    assert (part.status_code, part.body) == (206, whole.body[3:10])
    assert live.get("/files/nothing.py").status_code == 404
    assert live.get("/files/..%2Fpyproject.toml").status_code == 404


def test_upload(live_server):
    live = live_server(upload.app)
    assert 'enctype="multipart/form-data"' in live.get("/upload").text
    content = bytes(range(256)) * 8192  # larger than what is kept in memory
    answer = live.post("/upload", data={"note": "hello"}, files={"file": ("data.bin", content, "text/plain")})
    assert answer.json() == {
        "filename": "data.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "note": "hello",
    }
    assert live.post("/upload", data={"note": "no file"}).status_code == 400
