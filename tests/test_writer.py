"""A writer like a file: collected outside of a request, live inside of one, and each way to end it."""

from __future__ import annotations

import csv
import gc
import json
import threading

import pytest

from catzilla import StreamingResponse
from catzilla._core.current import current
from catzilla._core.errors import Disconnected
from catzilla._core.waits import Waits
from catzilla.writer import StreamingWriter


class LiveStream:
    """The stream behind a live writer, as far as a writer knows it."""

    name = "handler"

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.ended: list[bool] = []
        self.waits = Waits()

    def write(self, data: bytes) -> None:
        self.waits.check()
        self.data.append(data)

    def end(self, *, failed: bool = False) -> None:
        self.ended.append(failed)


@pytest.fixture
def response():
    return StreamingResponse()


@pytest.fixture
def live():
    """Inside of a request: what is written goes to this stream, and `started` counts how often it began."""
    stream = LiveStream()
    stream.started = []

    def go_live(response):
        stream.started.append(response)
        return stream

    current.go_live = go_live
    yield stream
    current.go_live = None


# Outside of a request.


def test_what_is_written_is_collected(response):
    with response.writer() as writer:
        assert writer.write("é") == 1
        assert writer.write(b"bytes") == 5
        assert writer.write(bytearray(b"!")) == 1
        assert writer.write(memoryview(b"?")) == 1
        writer.writelines(["a", b"b"])
        writer.flush()
        assert repr(writer) == "<StreamingWriter not started>"
    assert response.body == "ébytes!?ab".encode()
    assert writer.closed
    assert repr(writer) == "<StreamingWriter closed>"


def test_it_is_a_file_to_whoever_writes_to_files(response):
    writer = response.writer()
    assert writer.writable()
    csv.writer(writer).writerow([1, "two, three"])
    json.dump({"a": 1}, writer)
    print("line", file=writer)
    assert response.body == b'1,"two, three"\r\n{"a": 1}line\n'


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_closed_writer_is_closed_like_a_file(response, end):
    writer = response.writer()
    getattr(writer, end)()
    writer.close()
    for use in (lambda: writer.write("x"), writer.flush, lambda: writer.writelines(["x"])):
        with pytest.raises(ValueError, match="closed StreamingWriter"):
            use()


@pytest.mark.parametrize("data", [42, None, ["x"], 1.5])
def test_only_text_and_bytes_can_be_written(response, data):
    with pytest.raises(TypeError, match=rf"write\(\) takes str or bytes, not {type(data).__name__}"):
        response.writer().write(data)


def test_one_writer_and_no_content():
    response = StreamingResponse()
    response.writer()
    with pytest.raises(ValueError, match="has a writer already"):
        response.writer()
    with pytest.raises(ValueError, match="has content already"):
        StreamingWriter(StreamingResponse(["a"]))


# Inside of one.


def test_the_first_write_goes_live_once(response, live):
    writer = response.writer()
    assert live.started == []
    writer.write("a")
    writer.write(b"b")
    assert live.started == [response]
    assert live.data == [b"a", b"b"]
    assert repr(writer) == "<StreamingWriter live>"
    writer.close()
    writer.close()
    assert live.ended == [False]
    assert response.body == b""


def test_flush_sends_the_head_alone(response, live):
    writer = response.writer()
    writer.flush()
    writer.flush()
    assert live.started == [response]
    assert live.data == []
    writer.close()


def test_closing_without_a_write_is_an_empty_body(response, live):
    response.writer().close()
    assert live.started == [response]
    assert live.ended == [False]


def test_two_threads_that_write_first_start_one_stream(response, live):
    writer = response.writer()
    barrier = threading.Barrier(4)

    def write(number):
        barrier.wait()
        writer.write(str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert live.started == [response]
    assert sorted(live.data) == [b"0", b"1", b"2", b"3"]
    writer.close()


def test_a_failure_inside_with_cuts(response, live):
    with pytest.raises(ZeroDivisionError), response.writer() as writer:
        writer.write("partial")
        _ = 1 / 0
    assert live.ended == [True]
    assert writer.closed


def test_a_failure_before_the_first_write_is_left_to_the_error_handlers(response, live):
    with pytest.raises(ZeroDivisionError), response.writer():
        _ = 1 / 0
    assert live.started == []


def test_aborting(response, live):
    writer = response.writer()
    writer.write("partial")
    writer.abort()
    assert live.ended == [True]


def test_a_start_that_fails_is_told(response):
    def go_live(response):
        raise Disconnected

    current.go_live = go_live
    try:
        writer = response.writer()
        with pytest.raises(Disconnected):
            writer.write("x")
    finally:
        current.go_live = None


def test_a_forgotten_writer_is_cut_and_warned_about(response, live, caplog):
    response.writer().write("partial")
    response._writer = None  # the response is gone too, once the handler has returned
    gc.collect()
    assert live.ended == [True]
    assert "stream=handler: a StreamingWriter was dropped without close(); cut" in caplog.text


def test_giving_up_because_the_client_has_left_is_no_mistake(response, live, caplog):
    writer = response.writer()
    writer.write("partial")
    live.waits.interrupt(Disconnected())
    response._writer = None
    del writer
    gc.collect()
    assert live.ended == [True]
    assert caplog.text == ""


def test_a_writer_that_was_never_made_right_is_dropped_quietly(caplog):
    with pytest.raises(ValueError):
        StreamingWriter(StreamingResponse(["a"]))
    gc.collect()
    assert caplog.text == ""
