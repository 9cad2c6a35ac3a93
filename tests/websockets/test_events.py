"""A room as Server-Sent Events: no thread, resumable by `Last-Event-ID`, and gone when its client is."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
import weakref
from time import monotonic

import pytest

from catzilla import Catzilla, EventStream, Position, sleep, streaming_stats
from catzilla.testing import IncompleteBody
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of, streams_of
from tests.websockets.room_helpers import Calls, Door, holds_no_thread, on_loop, received

READERS = 200
SHORT = 0.2  # seconds, of a principal that expires while a test waits for it


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


# At a stop. What is cut a browser logs as an error; what ends, it asks for again.


def test_stopping_ends_the_streams_at_once_and_as_whole_responses(app, live_server):
    left = Calls()
    app.room("plain").on_leave(lambda principal: left("left"))
    live = live_server(app, shutdown_grace=30)
    readers = [live.stream("/events/plain") for _ in range(20)]
    app.room("plain").publish("the last")
    began = monotonic()
    live.server.stop()
    assert monotonic() - began < 5
    for reader in readers:
        assert b"data: the last\n" in reader.read_all(), "raises for a response that was cut"
    assert left.so_far == ["left"] * 20


def test_stopping_ends_the_streams_of_http_1_0_without_a_reset(app, live_server):
    live = live_server(app, shutdown_grace=30)
    client = RawClient(live, get("/events/plain", version="1.0"))
    client.read_until(b"retry: 3000\n\n")
    live.server.stop()
    assert client.read_to_end() == b""


def test_stopping_cuts_the_event_streams_of_generators(app, live_server):
    @app.get("/generator")
    def generator():
        def items():
            yield "hello"
            yield sleep(60)

        return EventStream(items())

    live = live_server(app, shutdown_grace=30)
    with live.stream("/generator") as stream:
        next(stream)
        live.server.stop()
        with pytest.raises(IncompleteBody):
            stream.read_all()


def test_a_stream_that_begins_while_the_server_stops_ends_at_once(app, live_server):
    running, release = threading.Event(), threading.Event()

    @app.get("/late")
    def late(request):
        running.set()
        assert release.wait(PATIENCE)
        return app.room("plain").stream(request)

    live = live_server(app)
    client = RawClient(live, get("/late"))
    assert running.wait(PATIENCE)
    live.server.request_stop(grace=30)
    eventually(lambda: services_of(live).stopping, "the server is stopping")
    release.set()
    answer = client.read_to_end()
    assert b"connection: close\r\n" in answer
    assert b"\nretry: 3000\n\n" in answer
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert live.server.wait(PATIENCE)


@pytest.fixture
def slow(app, live_server):
    """A client that does not read, with events in its socket's buffers and more that wait."""
    app.room("slow", public=True, on_slow="drop_oldest")
    live = live_server(app)
    stream = live.stream("/events/slow", receive_buffer_bytes=4096)
    eventually(lambda: streams_of(live), "the stream has begun")
    (fed,) = streams_of(live)
    while not on_loop(live, lambda: fed._outbox is not None and len(fed._outbox) > 3):
        app.room("slow").publish("x" * 50_000)
    app.room("slow").publish("the last")
    return live, stream


def test_a_slow_client_does_not_hold_up_the_stop_beyond_the_grace(slow):
    live, stream = slow
    began = monotonic()
    live.server.stop(grace=0.2)
    assert monotonic() - began < 2.2
    with pytest.raises(IncompleteBody):
        stream.read_all()


def test_a_slow_client_that_reads_on_within_the_grace_gets_everything(app, slow):
    live, stream = slow
    live.server.request_stop(grace=30)
    eventually(lambda: services_of(live).stopping, "the server is stopping")
    assert b"data: the last\n" in stream.read_all()
    assert live.server.wait(PATIENCE)


# A principal that expires.


@pytest.fixture
def session(app):
    """When the principal of `/mine` expires; `seconds` from its first request, where that is not settled."""
    session = {"seconds": SHORT}

    @app.get("/mine")
    def mine(request):
        ends = session.setdefault("ends", time.time() + session["seconds"])
        return app.room("plain").stream(request, principal={"id": "alice", "expires_at": ends})

    return session


def test_a_stream_ends_when_its_principal_expires(app, live, session):
    with live.connect() as connection:
        stream = connection.open("GET", "/mine")
        assert stream.read_all().startswith(b"id: "), "raises for a response that was cut"
        assert time.time() >= session["ends"] - 0.01
        assert app.room("plain").count() == 0
        assert connection.get("/mine").status_code == 401, "on the same connection: it is asked anew"
    assert services_of(live).bridge.streams == set()


def test_a_stream_of_http_1_0_ends_when_its_principal_expires(app, live, session):
    answer = RawClient(live, get("/mine", version="1.0")).read_to_end()
    assert answer.endswith(b"\nretry: 3000\n\n")
    assert app.room("plain").count() == 0


def test_who_comes_back_with_new_credentials_has_missed_nothing(app, live):
    @app.get("/kept")
    def kept(request):
        ends = time.time() + (3600 if request.get_header("last-event-id") else SHORT)
        return app.room("kept").stream(request, principal={"id": "alice", "expires_at": ends})

    with live.stream("/kept") as stream:
        last = stream.read_all().decode().split("\n")[0].removeprefix("id: ")
    app.room("kept").publish("missed")
    with live.events("/kept", last_event_id=last) as events:
        assert next(events).data == "missed"


def test_a_principal_that_has_expired_is_401_and_the_room_is_not_asked(app, live, session):
    app.room("plain").authorize(lambda principal, request: pytest.fail("asked about somebody who is nobody any more"))
    session["ends"] = time.time() - 1
    for refused in (live.get("/mine"), live.head("/mine")):
        assert refused.status_code == 401
    assert live.get("/mine").text == "401 Unauthorized\nthe credentials have expired\n"
    assert app.room("plain").count() == 0


def test_a_principal_that_expires_in_the_handler_is_401(app, live):
    @app.get("/held")
    def held(request):
        ends = time.time() + 0.01
        response = app.room("plain").stream(request, principal={"id": "alice", "expires_at": ends})
        eventually(lambda: time.time() > ends, "it has expired")
        return response

    assert live.get("/held").status_code == 401


def test_a_stream_is_not_kept_until_its_principal_expires(app, live, session):
    session["seconds"] = 3600
    with live.events("/mine") as events:
        app.room("plain").publish("hello")
        assert next(events).data == "hello"
        (stream,) = map(weakref.ref, streams_of(live))
        assert stream()._expiry.callback is not None

    def is_collected():
        gc.collect()
        return stream() is None

    eventually(is_collected, "nothing keeps the stream")
    assert app.room("plain").count() == 0


def test_an_expires_at_that_is_none_is_the_programmers_mistake(app, live, session, caplog):
    session["ends"] = "tomorrow"
    assert live.get("/mine").status_code == 500
    assert "the expires_at of a principal is seconds since 1970 or a datetime" in caplog.text


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
