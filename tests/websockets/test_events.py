"""A room as Server-Sent Events: no thread, resumable by `Last-Event-ID`, and gone when its client is."""

from __future__ import annotations

import json
import logging
from time import monotonic

import pytest

from catzilla import Catzilla, Position, streaming_stats
from tests.promises.helpers import RawClient, eventually, services_of
from tests.websockets.room_helpers import Door, holds_no_thread, on_loop, received

READERS = 200


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)
    app.room("plain", public=True)
    app.room("kept", public=True, history=5)

    @app.get("/events/{room}")
    def events(request, room):
        return app.room(room).stream(request)

    return app


@pytest.fixture(autouse=True)
def close_raw_clients(live_server):
    yield
    while RawClient.opened:
        RawClient.opened.pop().close()


@pytest.fixture
def live(app, live_server):
    return live_server(app)


def data_of(events, count):
    return [next(events).data for _ in range(count)]


def test_two_hundred_streams_hold_no_thread(app, live):
    readers = [live.events("/events/plain") for _ in range(READERS)]
    workers = services_of(live).workers
    assert app.room("plain").count() == READERS

    def idle():
        figures = workers.statistics()
        return figures.threads == figures.idle and not figures.queued

    eventually(idle, "every thread is idle")
    assert holds_no_thread(live)
    stats = streaming_stats()
    assert (stats.active_streams, stats.parked_streams, stats.running_streams) == (READERS, READERS, 0)
    for i in range(3):
        app.room("plain").publish({"n": i})
    for reader in readers:
        assert [json.loads(text) for text in data_of(reader, 3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert live.get("/nothing").status_code == 404
    for reader in readers:
        reader.close()
    eventually(lambda: app.room("plain").count() == 0, "all are gone")


def test_the_opening_sets_an_id_and_fires_nothing(app, live):
    position = app.room("plain").publish("before")
    with live.stream("/events/plain") as stream:
        assert stream.headers["content-type"].split(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        assert next(stream) == f"id: {position}\nretry: 3000\n\n".encode()
    with live.events("/events/plain") as events:
        app.room("plain").publish("after")
        event = next(events)
        assert (event.event, event.data) == ("message", "after")
        assert event.id == str(Position(position.epoch, position.offset + 1))


def test_events_have_ids_names_and_whatever_text(app, live):
    with live.events("/events/plain") as events:
        positions = [
            app.room("plain").publish("two\nlines", event="named"),
            app.room("plain").publish({"a": "ü"}),
            app.room("plain").publish(b"bytes \xff"),
            app.room("plain").publish("data: id: :"),
        ]
        got = [next(events) for _ in positions]
    assert [event.id for event in got] == list(map(str, positions))
    assert [event.event for event in got] == ["named", "message", "message", "message"]
    assert got[0].data == "two\nlines"
    assert json.loads(got[1].data) == {"a": "ü"}
    assert got[2].data == "bytes \ufffd"
    assert got[3].data == "data: id: :"


def test_sockets_and_streams_of_one_room_get_the_same(app, live_server):
    door = Door(app)
    live = live_server(app)
    peer = door.open(live)
    peer.ws.join("plain")
    with live.events("/events/plain") as events:
        for i in range(20):
            app.room("plain").publish(f"{i}")
        app.room("plain").publish("streams alone", exclude=peer.ws)
        assert data_of(events, 21) == [*map(str, range(20)), "streams alone"]
    assert received(peer) == [*map(str, range(20))]


# Resuming.


def test_who_reconnects_gets_what_it_has_missed(app, live):
    with live.events("/events/kept") as events:
        app.room("kept").publish("seen")
        last = next(events).id
    for i in range(4):
        app.room("kept").publish(f"missed {i}", event="late")
    with live.events("/events/kept", last_event_id=last) as events:
        app.room("kept").publish("live")
        got = [next(events) for _ in range(5)]
    assert [event.data for event in got] == [f"missed {i}" for i in range(4)] + ["live"]
    assert [event.event for event in got] == ["late"] * 4 + ["message"]
    offset = Position.parse(last).offset
    assert [Position.parse(event.id).offset for event in got] == list(range(offset + 1, offset + 6))


def test_an_idle_stream_can_resume_from_its_opening(app, live):
    with live.stream("/events/kept") as stream:
        last = next(stream).decode().split("\n")[0].removeprefix("id: ")
    assert Position.parse(last).offset == 0
    app.room("kept").publish("missed")
    with live.events("/events/kept", last_event_id=last) as events:
        assert next(events).data == "missed"


def test_the_id_may_stand_in_the_query_and_the_header_wins(app, live):
    first, second = app.room("kept").publish("1"), app.room("kept").publish("2")
    app.room("kept").publish("3")
    with live.events(f"/events/kept?last_event_id={first}") as events:
        assert data_of(events, 2) == ["2", "3"]
    with live.events(f"/events/kept?last_event_id={first}", last_event_id=str(second)) as events:
        assert data_of(events, 1) == ["3"]


def test_who_is_up_to_date_has_missed_nothing(app, live):
    last = app.room("plain").publish("seen")
    with live.events("/events/plain", last_event_id=str(last)) as events:
        app.room("plain").publish("live")
        assert next(events).data == "live"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda position: Position(position.epoch, 1), "trimmed"),
        (lambda position: Position("somethingelse", 3), "epoch"),
        (lambda position: Position(position.epoch, position.offset + 1), "epoch"),
        (lambda position: "no position at all", "epoch"),
    ],
)
def test_who_cannot_be_brought_up_to_date_is_told_why(app, live, make, why):
    for i in range(10):
        position = app.room("kept").publish(i)
    with live.events("/events/kept", last_event_id=str(make(position))) as events:
        gap = next(events)
        assert (gap.event, json.loads(gap.data), gap.id) == ("gap", {"why": why}, str(position))
        app.room("kept").publish("live")
        after = next(events)
        assert (after.data, after.event) == ("live", "message")
    with live.events("/events/kept", last_event_id=gap.id) as events:
        assert next(events).data == "live", "the id of the gap is one to resume from"


def test_a_room_that_keeps_nothing_says_so(app, live):
    first = app.room("plain").publish("1")
    app.room("plain").publish("2")
    with live.events("/events/plain", last_event_id=str(first)) as events:
        gap = next(events)
        assert (gap.event, json.loads(gap.data)) == ("gap", {"why": "trimmed"})


# The end.


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_leaving_is_noticed(app, live, leave):
    stay, go = live.events("/events/plain"), live.events("/events/plain")
    assert app.room("plain").count() == 2
    (go.close if leave == "close" else lambda: live.drop(go))()
    eventually(lambda: app.room("plain").count() == 1, "one is gone")
    app.room("plain").publish("who is there")
    assert next(stay).data == "who is there"


def test_stopping_ends_the_streams_at_once(app, live_server):
    live = live_server(app, shutdown_grace=30)
    for _ in range(20):
        live.events("/events/plain")
    began = monotonic()
    live.server.stop()
    assert monotonic() - began < 5


def test_head_has_the_head_and_joins_nothing(app, live):
    answer = live.head("/events/plain")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    assert answer.body == b""
    assert app.room("plain").count() == 0
    assert on_loop(live, lambda: services_of(live).fanout.rooms) == {}


def test_silence_is_filled_with_heartbeats(app, live_server):
    @app.get("/beating")
    def beating(request):
        return app.room("plain").stream(request, heartbeat=0.02)

    live = live_server(app)
    with live.stream("/beating") as stream:
        body = b""
        while body.count(b":\n\n") < 3:
            body += next(stream)
        app.room("plain").publish("between")
        while b"data: between\n" not in body:
            body += next(stream)
    assert body.startswith(b"id: ")


def test_http_1_0_gets_its_events_too(app, live):
    with RawClient(live, b"GET /events/plain HTTP/1.0\r\nHost: test\r\n\r\n") as client:
        client.read_until(b"retry: 3000\n\n")
        app.room("plain").publish("old")
        assert b"data: old\n" in client.read_until(b"data: old\n")
    eventually(lambda: app.room("plain").count() == 0, "it is gone")


# Origins: a stranger's page with the user's cookies.


@pytest.mark.parametrize(
    ("headers", "origins", "status"),
    [
        ({"Origin": "https://evil.example", "Cookie": "session=1"}, None, 403),
        ({"Origin": "null", "Cookie": "session=1"}, None, 403),
        ({"Origin": "https://evil.example"}, None, 200),
        ({"Cookie": "session=1"}, None, 200),
        ({"Origin": "own", "Cookie": "session=1"}, None, 200),
        ({"Origin": "https://evil.example", "Cookie": "session=1"}, ["https://evil.example"], 200),
        ({"Origin": "https://evil.example", "Cookie": "session=1"}, "*", 200),
        ({"Origin": "https://other.example", "Cookie": "session=1"}, ["https://evil.example"], 403),
    ],
)
def test_a_foreign_page_with_cookies_is_refused(app, live_server, caplog, headers, origins, status):
    @app.get("/guarded")
    def guarded(request):
        return app.room("plain").stream(request, origins=origins)

    live = live_server(app)
    headers = {name: live.url if value == "own" else value for name, value in headers.items()}
    with caplog.at_level(logging.WARNING), live.stream("/guarded", headers=headers) as stream:
        assert stream.status_code == status
        assert app.room("plain").count() == (status == 200)
    if status == 403:
        assert f"stream(request, origins=[{headers['Origin']!r}])" in caplog.text, "how to allow it"
