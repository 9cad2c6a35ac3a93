"""Every stream is read three ways: whole, byte by byte, and with what follows still unfinished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.errors import ProtocolError
from catzilla.sse_parser import EventParser, ReceivedEvent

# (bytes, the events in them); the first ones are the examples of WHATWG HTML section 9.2.6.
STREAMS = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ReceivedEvent("YHOO\n+2\n10")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [ReceivedEvent("first event", id="1"), ReceivedEvent("second event"), ReceivedEvent(" third event")],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [ReceivedEvent(""), ReceivedEvent("\n")]),
    (b"data:test\n\ndata: test\n\n", [ReceivedEvent("test"), ReceivedEvent("test")]),
    (b"", []),
    (b"\n\n\n", []),
    (b"data: x\r\n\r\ndata: y\r\rdata: z\n\n", [ReceivedEvent("x"), ReceivedEvent("y"), ReceivedEvent("z")]),
    (b"\xef\xbb\xbfdata: x\n\n", [ReceivedEvent("x")]),
    (b"data: x\n\n\xef\xbb\xbfdata: lost\n\n", [ReceivedEvent("x")]),
    ("data: Zoë 名\n\n".encode(), [ReceivedEvent("Zoë 名")]),
    (b"data: \xff\n\n", [ReceivedEvent("\ufffd")]),
    (b"event: a\nevent: b\ndata: x\n\ndata: y\n\n", [ReceivedEvent("x", "b"), ReceivedEvent("y")]),
    (b"event: a\n\ndata: x\n\n", [ReceivedEvent("x")]),
    (b"id: 5\n\ndata: x\n\n", [ReceivedEvent("x", id="5")]),
    (b"id: 5\nid: 6\0\ndata: x\n\n", [ReceivedEvent("x", id="5")]),
    (b"retry: 10\ndata: x\n\ndata: y\n\n", [ReceivedEvent("x", retry=10), ReceivedEvent("y")]),
    (b"retry: 1s\nretry: -1\nretry:\nretry: \xd9\xa3\ndata: x\n\n", [ReceivedEvent("x")]),
    (b"unknown: 1\nDATA: x\n data: y\ndata: z\n\n", [ReceivedEvent("z")]),
    (b"data: a:b\n\n", [ReceivedEvent("a:b")]),
]


def take(parser: EventParser) -> list[ReceivedEvent]:
    return list(iter(parser.next_event, None))


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_whole(stream, events):
    parser = EventParser()
    parser.receive_data(stream)
    assert take(parser) == events


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_byte_by_byte(stream, events):
    parser = EventParser()
    for index in range(len(stream)):
        parser.receive_data(stream[index : index + 1])
        parser.receive_data(b"")
    assert take(parser) == events


@pytest.mark.parametrize(("stream", "events"), [pair for pair in STREAMS if pair[0].endswith(b"\n\n")])
def test_with_trailing_data(stream, events):
    parser = EventParser()
    parser.receive_data(stream + b"data: half an")
    assert take(parser) == events
    parser.receive_data(b" event\n")
    assert take(parser) == []
    parser.receive_data(b"\n")
    assert [event.data for event in take(parser)] == ["half an event"]


def test_an_event_is_there_as_soon_as_its_carriage_return_is():
    parser = EventParser()
    parser.receive_data(b"data: x\r\n\r")
    assert take(parser) == [ReceivedEvent("x")]
    parser.receive_data(b"\ndata: y\r\n\r\n")
    assert take(parser) == [ReceivedEvent("y")]


def test_the_last_event_id_stays():
    parser = EventParser()
    parser.receive_data(b"id: 1\ndata: x\n\ndata: y\n\n")
    assert [event.id for event in take(parser)] == ["1", "1"]
    assert parser.last_event_id == "1"


@pytest.mark.parametrize("stream", [b"x" * 200, b"data: x\n" * 200, b"data: " + b"x" * 200 + b"\n\n"])
@pytest.mark.parametrize("step", [1, 7, 2000])
def test_an_event_has_a_largest_size(stream, step):
    parser = EventParser(max_event_bytes=100)
    with pytest.raises(ProtocolError, match="larger than 100 bytes"):
        for index in range(0, len(stream), step):
            parser.receive_data(stream[index : index + step])


def test_many_events_within_the_size_are_no_large_one():
    parser = EventParser(max_event_bytes=100)
    parser.receive_data(b"data: some text\n\n" * 100)
    assert len(take(parser)) == 100


lines = st.sampled_from(
    [b"data: x", b"data", b"id: 1", b"event: e", b": c", b"", b"", b"retry: 5", b"\xef\xbb\xbf", b"junk"]
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(lines, ends)), st.lists(st.integers(1, 5)))
def test_how_the_bytes_are_cut_changes_nothing(pairs, sizes):
    stream = b"".join(line + end for line, end in pairs)
    whole, cut = EventParser(), EventParser()
    whole.receive_data(stream)
    position = 0
    for size in sizes:
        cut.receive_data(stream[position : position + size])
        position += size
    cut.receive_data(stream[position:])
    assert take(cut) == take(whole)
    assert cut.last_event_id == whole.last_event_id


@given(st.binary())
def test_any_bytes_are_read(data):
    parser = EventParser()
    parser.receive_data(data)
    take(parser)
