"""Promise 8: `writer.write` works from any thread, with no context needed, during the handler and long after it."""

from __future__ import annotations

import csv
import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from catzilla import Disconnected, StreamingResponse
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of, streams_of, wait_stalled

THREADS = 8
LINES = 300


@pytest.fixture
def writers(app):
    """Serves `/`, which returns an open writer; gives the queue on which the test finds that writer."""
    opened: queue.SimpleQueue = queue.SimpleQueue()

    @app.get("/")
    def handler():
        response = StreamingResponse()
        opened.put(response.writer())
        return response

    return opened


def in_thread(function, *args):
    """Run in a thread that no request has ever touched, and give what it gives."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result(PATIENCE)


def lines_of(thread: int) -> list[bytes]:
    return [f"{thread}:{i}:".encode() + b"x" * (i % 97) for i in range(LINES)]


def test_another_thread_writes_while_the_handler_runs(app, live_server):
    @app.get("/")
    def handler():
        response = StreamingResponse()
        with response.writer() as w:
            in_thread(w.write, "from another thread, ")
            w.write("from the handler")
        return response

    assert live_server(app).get("/").text == "from another thread, from the handler"


def test_another_thread_writes_and_closes_long_after_the_handler(app, live_server, writers):
    live = live_server(app)
    with live.stream("/") as client:
        w = writers.get(timeout=PATIENCE)
        eventually(lambda: services_of(live).workers.statistics().requests == 0, "the handler is through")
        for i in range(50):
            assert in_thread(w.write, f"{i}\n") == len(f"{i}\n")
            assert next(client) == f"{i}\n".encode()
        in_thread(w.close)
        assert next(client, None) is None
    assert w.closed


def test_a_response_whose_writer_is_open_holds_no_thread(app, live_server, writers):
    live = live_server(app, max_requests=2)
    clients = [live.stream("/") for _ in range(10)]
    opened = [writers.get(timeout=PATIENCE) for _ in clients]
    eventually(lambda: services_of(live).workers.statistics().requests == 0, "the handlers are through")
    for w in opened:
        w.write("still here")
        w.close()
    assert [client.read_all() for client in clients] == [b"still here"] * 10


@pytest.mark.parametrize("buffer", [16 * 1024, 1024 * 1024], ids=["under backpressure", "without"])
def test_several_threads_at_once_lose_and_tear_nothing(app, live_server, writers, buffer):
    live = live_server(app, stream_buffer_bytes=buffer, stream_buffer_start_bytes=16 * 1024)
    with live.stream("/", receive_buffer_bytes=8192) as client:
        w = writers.get(timeout=PATIENCE)
        w.flush()
        eventually(lambda: streams_of(live), "the stream is there")
        (stream,) = streams_of(live)
        begin = threading.Barrier(THREADS)

        def write(thread: int) -> None:
            begin.wait(PATIENCE)
            for line in lines_of(thread):
                w.write(line + b"\n")

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()

        def close() -> None:
            for thread in threads:
                thread.join(PATIENCE)
            w.close()

        closer = threading.Thread(target=close)
        closer.start()
        received = client.read_all().splitlines()
        closer.join(PATIENCE)
    for thread in range(THREADS):
        mine = [line for line in received if line.startswith(b"%d:" % thread)]
        assert mine == lines_of(thread), f"the lines of thread {thread} are not whole and in order"
    assert len(received) == THREADS * LINES
    assert stream.pending == 0, "what is held was miscounted, and its bound with it"


def test_the_first_write_may_come_from_several_threads(app, live_server, writers):
    """One of them sends the head; none of them sends it twice."""
    live = live_server(app)
    for _ in range(20):
        with RawClient(live, get("/")) as client:
            w = writers.get(timeout=PATIENCE)
            begin = threading.Barrier(4)

            def write(w=w, begin=begin) -> None:
                begin.wait(PATIENCE)
                w.write("one line\n")

            threads = [threading.Thread(target=write) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            w.close()
            answer = client.read_until(b"0\r\n\r\n")
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.count(b"one line\n") == 4


def test_close_from_another_thread_ends_a_blocked_write(app, live_server, writers):
    live = live_server(app, stream_buffer_bytes=16 * 1024, stream_buffer_start_bytes=16 * 1024)
    client = live.stream("/", receive_buffer_bytes=4096)
    w = writers.get(timeout=PATIENCE)
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def write() -> None:
        try:
            while True:
                w.write("x" * 1024)
        except ValueError as error:
            ended.put(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    wait_stalled(live)
    w.close()
    assert "closed" in ended.get(timeout=PATIENCE)
    thread.join(PATIENCE)
    assert set(client.read_all()) == {ord("x")}
    eventually(lambda: not streams_of(live), "the stream is through")


def test_close_from_many_threads_is_one_close(app, live_server, writers):
    live = live_server(app)
    for _ in range(20):
        with RawClient(live, get("/")) as client:
            w = writers.get(timeout=PATIENCE)
            w.write("all")
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda _, w=w: w.close(), range(6)))
            assert client.read_until(b"0\r\n\r\n").count(b"0\r\n\r\n") == 1


def test_every_thread_is_told_when_the_client_is_gone(app, live_server, writers):
    live = live_server(app, stream_buffer_bytes=16 * 1024, stream_buffer_start_bytes=16 * 1024)
    client = live.stream("/", receive_buffer_bytes=4096)
    w = writers.get(timeout=PATIENCE)
    told: queue.SimpleQueue[type] = queue.SimpleQueue()

    def write() -> None:
        try:
            while True:
                w.write("x" * 1024)
        except Exception as error:
            told.put(type(error))

    threads = [threading.Thread(target=write) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    wait_stalled(live)
    client.wire.drop()
    assert [told.get(timeout=PATIENCE) for _ in threads] == [Disconnected] * THREADS
    for thread in threads:
        thread.join(PATIENCE)
    with pytest.raises(Disconnected):
        w.write("more")


def test_a_thread_that_serves_one_request_may_write_to_another(app, live_server, writers):
    """No context is needed, and a wrong one does no harm."""

    @app.get("/say/{what}")
    def say(what):
        shared[0].write(what)
        return "said"

    shared = []
    live = live_server(app)
    with live.stream("/") as client:
        shared.append(writers.get(timeout=PATIENCE))
        assert live.get("/say/hello").text == "said"
        assert next(client) == b"hello"
        shared[0].close()
        assert client.read_all() == b""


def test_file_like_helpers_work_from_any_thread(app, live_server, writers):
    def work(w):
        csv.writer(w, lineterminator="\n").writerows([["a", 1], ["b", 2]])
        json.dump({"n": [1, 2]}, w)
        print("", "end", file=w)
        w.close()

    with live_server(app).stream("/") as client:
        in_thread(work, writers.get(timeout=PATIENCE))
        assert client.read_all() == b'a,1\nb,2\n{"n": [1, 2]} end\n'


def test_a_writer_that_everybody_has_forgotten_is_cut(app, live_server, writers, caplog):
    """Not left open for ever: the client learns that nothing more will come, and that it was not the end."""
    live = live_server(app)
    with live.stream("/") as client:
        w = writers.get(timeout=PATIENCE)
        w.write("half")
        assert next(client) == b"half"
        del w
        with pytest.raises(EOFError):
            client.read_all()
    assert "without close()" in caplog.text
