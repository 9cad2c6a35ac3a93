"""Server-Sent Events as the test client reads them."""

from __future__ import annotations

import pytest

from catzilla.testing.errors import IncompleteBody, NotAnEventStream
from catzilla.testing.event_client import ClientEvents

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def events(connect):
    """A factory: gives the `ClientEvents` of a server that answers with these pieces."""

    def make(*pieces: bytes) -> ClientEvents:
        def script(peer):
            peer.read_head()
            peer.say(*pieces)

        return ClientEvents(connect(script).open("GET", "/events"))

    return make


def test_events_have_their_fields(events):
    first, second = events(HEAD, chunk(b"id: 7\nevent: tick\ndata: one\n\n"), chunk(b"data: two\n\n"), chunk(b""))
    assert (first.id, first.event, first.data, first.retry) == ("7", "tick", "one", None)
    assert (second.event, second.data) == ("message", "two")


def test_an_event_in_pieces_and_several_in_one(events):
    stream = events(HEAD, chunk(b"data: o"), chunk(b"ne\n\ndata: two\n\ndata: thr"), chunk(b"ee\n\n"), chunk(b""))
    assert [event.data for event in stream] == ["one", "two", "three"]
    assert len(stream.arrivals) == 3
    assert stream.arrivals == sorted(stream.arrivals)


def test_an_event_that_is_not_finished_is_none(events):
    assert list(events(HEAD, chunk(b"data: half\n"), chunk(b""))) == []


def test_a_stream_that_is_cut(events):
    stream = events(HEAD, chunk(b"data: one\n\n"))
    assert next(stream).data == "one"
    with pytest.raises(IncompleteBody, match="GET /events"):
        next(stream)


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Type: text/event-stream\r\n", "404 with text/event-stream"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", "200 with text/html"),
        (b"HTTP/1.1 200 OK\r\n", "200 with nothing"),
    ],
)
def test_another_answer_can_be_looked_at_but_not_iterated(events, head, answer):
    stream = events(head, b"Content-Length: 0\r\n\r\n")
    assert str(stream.status_code) in answer
    with pytest.raises(NotAnEventStream, match=f"GET /events was answered {answer}, not 200"):
        next(stream)


def test_closing_closes_the_connection(events):
    with events(HEAD, chunk(b"data: one\n\n")) as stream:
        assert next(stream).data == "one"
    assert stream.wire.closed
