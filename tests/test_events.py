"""Responses for rows and events: how one item becomes bytes, and what their heads say."""

from __future__ import annotations

import csv
import io
import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla import CSVResponse, Event, EventStream, JSONLinesResponse
from tests.requests_made import make_head


def sent(response) -> bytes:
    """The body, encoded item by item as a stream is."""
    source = response.reply(make_head()).body
    return b"".join(source.encode(item) for item in source.items)


def test_an_event_stream():
    response = EventStream([Event("hello", event="greeting", id="7"), {"a": 1}, "text"], heartbeat=3)
    source = response.reply(make_head()).body
    assert (source.event_stream, source.heartbeat) == (True, 3.0)
    assert response.content_type.startswith("text/event-stream")
    assert response.get_header("Cache-Control") == "no-cache"
    body = sent(response).decode()
    assert "event: greeting\n" in body
    assert "id: 7\n" in body
    assert 'data: {"a":1}\n\n' in body or 'data: {"a": 1}\n\n' in body
    assert body.endswith("data: text\n\n")


def test_heartbeats_of_an_event_stream():
    assert EventStream([]).reply(make_head()).body.heartbeat == 15.0
    assert EventStream([], heartbeat=0).reply(make_head()).body.heartbeat == 0.0
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="write seconds, or 0 for none"):
            EventStream([], heartbeat=wrong)


def test_json_lines():
    response = JSONLinesResponse([{"a": "é"}, [1], "s", None, date(2024, 1, 2)])
    assert response.content_type == "application/x-ndjson"
    lines = sent(response).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [{"a": "é"}, [1], "s", None, "2024-01-02"]


@given(st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_every_row_is_one_line(rows):
    lines = sent(JSONLinesResponse(rows)).split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == rows


def test_a_row_that_is_no_json():
    with pytest.raises(TypeError):
        sent(JSONLinesResponse([object()]))


def test_csv():
    response = CSVResponse([[1, "two, three"], ("é", None)], header=["a", "b"], filename="my data.csv")
    assert response.content_type == "text/csv; charset=utf-8"
    assert 'filename="my data.csv"' in response.get_header("Content-Disposition")
    assert sent(response) == 'a,b\r\n1,"two, three"\r\né,\r\n'.encode()


def test_csv_without_header_or_filename():
    response = CSVResponse(iter([[1]]))
    assert response.get_header("Content-Disposition") is None
    assert sent(response) == b"1\r\n"


def test_a_header_goes_before_rows_that_are_none():
    assert sent(CSVResponse([], header=iter(["a", "b"]))) == b"a,b\r\n"


def test_the_rows_of_a_function_are_made_when_it_is_sent():
    made = []
    response = CSVResponse(lambda: made.append(1) or [[1], [2]], header=["n"])
    assert made == []
    assert sent(response) == b"n\r\n1\r\n2\r\n"


@pytest.mark.parametrize("row", ["text", b"bytes"])
def test_a_row_that_is_text_is_a_mistake(row):
    with pytest.raises(TypeError, match="a CSV row is a list or tuple of values, not"):
        sent(CSVResponse([row]))


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10)


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=6))
def test_what_csv_writes_csv_reads(rows):
    text = sent(CSVResponse(rows)).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows


def test_a_dictionary_is_no_csv_row():
    encode = CSVResponse([], header=["a"])._encoder()
    with pytest.raises(TypeError, match=r"not dict .*write row\.values\(\)"):
        encode({"a": 1})
