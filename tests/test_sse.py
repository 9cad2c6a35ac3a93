"""Events as bytes: every field, every line end, every refusal; and Hypothesis: what is written is read back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.sse import Event, comment, encode_event
from catzilla.sse_parser import EventParser, ReceivedEvent


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (Event("hi"), b"data: hi\n\n"),
        (Event(""), b"data: \n\n"),
        (Event("a\nb"), b"data: a\ndata: b\n\n"),
        (Event("a\r\nb\rc\n"), b"data: a\ndata: b\ndata: c\ndata: \n\n"),
        (Event(" lead"), b"data:  lead\n\n"),
        (Event("not\u2028a line"), "data: not\u2028a line\n\n".encode()),
        (Event({"n": 1}), b'data: {"n":1}\n\n'),
        (Event([1, "é"]), 'data: [1,"é"]\n\n'.encode()),
        (Event(None), b"data: null\n\n"),
        (Event("x", id=7), b"id: 7\ndata: x\n\n"),
        (Event("x", id="", event="tick", retry=1500), b"id: \nevent: tick\nretry: 1500\ndata: x\n\n"),
    ],
)
def test_an_event_is_encoded(event, data):
    assert event.encode() == data
    assert encode_event(event) == data


@pytest.mark.parametrize(
    ("item", "data"), [("a\nb", b"data: a\ndata: b\n\n"), ({"a": "b\n"}, b'data: {"a":"b\\n"}\n\n')]
)
def test_dicts_and_strings_are_events(item, data):
    assert encode_event(item) == data


@pytest.mark.parametrize("item", [42, None, b"x", ["a"]])
def test_anything_else_is_no_event(item):
    with pytest.raises(TypeError, match=f"not {type(item).__name__}: write Event"):
        encode_event(item)


@pytest.mark.parametrize("field", ["id", "event"])
@pytest.mark.parametrize(("mark", "called"), [("\r", "CR"), ("\n", "LF"), ("\0", "NUL")])
def test_what_would_end_or_void_a_field_is_refused(field, mark, called):
    with pytest.raises(ValueError, match=f"{field} {re.escape(repr(f'a{mark}b'))} has {called}"):
        Event("x", **{field: f"a{mark}b"})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"retry": -1}, ValueError),
        ({"retry": 1.5}, TypeError),
        ({"retry": True}, TypeError),
        ({"id": True}, TypeError),
        ({"id": 1.5}, TypeError),
        ({"event": 5}, TypeError),
        ({"data": object()}, TypeError),
    ],
)
def test_wrong_fields_are_refused_where_they_are_written(arguments, error):
    with pytest.raises(error):
        Event(**{"data": "x", **arguments})


def test_equal_events_are_equal():
    assert Event({"a": 1}, id=1) == Event({"a": 1}, id="1")
    assert Event("a") != Event("b")
    assert len({Event("a"), Event("a")}) == 1


@pytest.mark.parametrize(("text", "data"), [("", b":\n"), ("ping", b": ping\n"), ("a\nb\r\rc", b": a\n: b\n:\n: c\n")])
def test_a_comment_ends_no_event(text, data):
    assert comment(text) == data
    parser = EventParser()
    parser.receive_data(b"event: tick\n" + comment(text) + b"data: x\n\n")
    assert parser.next_event() == ReceivedEvent("x", "tick")
    assert parser.next_event() is None


texts = st.text(st.characters(exclude_categories=["Cs"]))
fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"))


@given(texts, st.none() | fields, st.none() | fields, st.none() | st.integers(0, 10**9))
def test_what_is_written_is_read_back(data, identifier, name, retry):
    parser = EventParser()
    parser.receive_data(Event(data, identifier, name, retry).encode())
    expected = data.replace("\r\n", "\n").replace("\r", "\n")
    assert parser.next_event() == ReceivedEvent(expected, name or "message", identifier or "", retry)
    assert parser.next_event() is None
