"""Rooms: who gets what, in which order, from which thread; and what is refused."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from catzilla import Catzilla, Disconnected, Forbidden, Position, Room
from catzilla import rooms as rooms_module
from catzilla._core import fanout as fanout_module
from catzilla.testing import LiveServer, WebSocketClosed
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.room_helpers import (
    Calls,
    Door,
    close_of,
    fanout_of,
    holds_no_thread,
    on_loop,
    received,
    received_until,
    together,
    wait_empty,
)

MEMBERS = 50
THREADS = 8
MESSAGES = 60  # of each thread


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)
    for name in ("lobby", "news"):
        app.room(name, public=True)
    return app


@pytest.fixture
def door(app):
    return Door(app)


@pytest.fixture
def live(app, door, live_server):
    return live_server(app)


# Joining and leaving.


def test_members_get_what_is_published_and_nobody_else(app, door, live):
    alice, bob, eve = door.open_many(live, 3)
    alice.ws.join("lobby")
    bob.ws.join(app.room("lobby"))
    eve.ws.join("news")
    app.room("lobby").publish("hello")
    assert received(alice) == received(bob) == ["hello"]
    assert received(eve) == []


def test_leaving_ends_it_for_this_one_alone(app, door, live):
    alice, bob = door.open_many(live, 2)
    for peer in (alice, bob):
        peer.ws.join("lobby")
    app.room("lobby").publish("before")
    alice.ws.leave("lobby")
    app.room("lobby").publish("after")
    assert received(alice) == ["before"]
    assert received(bob) == ["before", "after"]
    assert app.room("lobby").count() == 1


def test_joining_twice_is_joining_once(app, door, live):
    peer = door.open(live)
    peer.ws.join("lobby")
    peer.ws.join("lobby")
    app.room("lobby").publish("once")
    assert received(peer) == ["once"]
    peer.ws.leave("lobby")
    app.room("lobby").publish("not any more")
    assert received(peer) == []
    assert app.room("lobby").count() == 0


def test_leaving_a_room_never_joined_is_fine(app, door, live):
    alice, bob = door.open_many(live, 2)
    alice.ws.leave("lobby")
    bob.ws.join("lobby")
    alice.ws.leave("lobby")
    alice.ws.leave(app.room("news"))
    app.room("lobby").publish("still here")
    assert received(bob) == ["still here"]
    assert received(alice) == []


def test_one_can_come_back(app, door, live):
    peer = door.open(live)
    for i in range(5):
        peer.ws.join("lobby")
        app.room("lobby").publish(f"in {i}")
        peer.ws.leave("lobby")
        app.room("lobby").publish(f"out {i}")
    assert received(peer) == [f"in {i}" for i in range(5)]


def test_rooms_are_told_apart(app, door, live):
    peer = door.open(live)
    peer.ws.join("lobby")
    peer.ws.join("news")
    assert peer.ws.rooms == {"lobby", "news"}
    app.room("lobby").publish("1")
    app.room("news").publish("2")
    app.room("lobby").publish("3")
    peer.ws.leave("lobby")
    assert peer.ws.rooms == {"news"}
    app.room("lobby").publish("4")
    app.room("news").publish("5")
    assert received(peer) == ["1", "2", "3", "5"]


def test_count_and_members_follow_joins_leaves_and_ends(app, live_server):
    door = Door(app, "/as/{name}", auth=lambda request: request.path_params["name"])
    live = live_server(app)
    room = app.room("lobby")
    assert room.count() == 0
    assert room.members() == []
    alice, bob = door.open(live, "/as/alice"), door.open(live, "/as/bob")
    again = door.open(live, "/as/alice")
    for peer in (alice, bob, again):
        peer.ws.join("lobby")
    assert room.count() == 2
    assert sorted(room.members()) == ["alice", "bob"]
    alice.ws.leave("lobby")
    assert sorted(room.members()) == ["alice", "bob"]
    again.ws.leave("lobby")
    assert room.members() == ["bob"]
    bob.client.close()
    eventually(lambda: room.members() == [], "bob is gone")
    assert room.count() == 0


def test_anonymous_members_count_one_by_one(app, door, live):
    for peer in door.open_many(live, 3):
        peer.ws.join("lobby")
    assert app.room("lobby").members() == [None, None, None]
    assert app.room("lobby").count() == 3


@pytest.mark.parametrize("leave", ["close", "drop", "server"])
def test_who_is_gone_is_in_no_room(app, door, live, leave):
    alice, bob = door.open_many(live, 2)
    for peer in (alice, bob):
        peer.ws.join("lobby")
        peer.ws.join("news")
    if leave == "close":
        alice.client.close()
    elif leave == "drop":
        live.drop(alice.client)
    else:
        alice.ws.close(4000, "go")
        assert close_of(alice.client) == (4000, "go")
    assert alice.ws.wait_closed(PATIENCE)
    assert app.room("lobby").count() == app.room("news").count() == 1
    assert alice.ws.rooms == frozenset()
    with pytest.raises(Disconnected):
        alice.ws.join("lobby")
    alice.ws.leave("lobby")
    app.room("lobby").publish("bob alone")
    assert received(bob) == ["bob alone"]


# Order, and what one thread does.


def test_what_one_thread_does_is_in_order(app, door, live):
    peer = door.open(live)
    peer.ws.join("lobby")
    for i in range(100):
        peer.ws.send(f"sent {i}")
        app.room("lobby").publish(f"published {i}")
        peer.ws.send(f"sent again {i}")
    expected = [f"{what} {i}" for i in range(100) for what in ("sent", "published", "sent again")]
    assert received(peer) == expected


def test_what_was_published_before_a_join_is_not_delivered(app, door, live):
    peer = door.open(live)
    for i in range(50):
        app.room("lobby").publish(f"before {i}")
        peer.ws.join("lobby")
        app.room("lobby").publish(f"joined {i}")
        peer.ws.leave("lobby")
        app.room("lobby").publish(f"after {i}")
    assert received(peer) == [f"joined {i}" for i in range(50)]


@pytest.mark.parametrize("linear", [False, True], ids=["callbacks", "linear"])
def test_what_was_published_before_a_close_still_arrives(app, live_server, linear):
    @app.websocket("/bye")
    class Bye:
        def on_open(self, ws):
            say_goodbye(ws)

    @app.websocket("/bye/linear")
    def bye(ws):
        say_goodbye(ws)

    def say_goodbye(ws):
        ws.join("lobby")
        for i in range(20):
            app.room("lobby").publish(f"{i}")
        ws.close(4001, "that was all")
        app.room("lobby").publish("too late")

    client = live_server(app).websocket("/bye/linear" if linear else "/bye")
    assert [client.receive() for _ in range(20)] == [f"{i}" for i in range(20)]
    assert close_of(client) == (4001, "that was all")


def test_a_message_arrives_before_a_linear_handler_returns(app, live_server):
    @app.websocket("/once")
    def once(ws):
        ws.join("lobby")
        app.room("lobby").publish("the last word")

    client = live_server(app).websocket("/once")
    assert client.receive() == "the last word"
    assert close_of(client) == (1000, "")


# Publishing.


def test_the_excluded_one_gets_nothing(app, door, live):
    alice, bob, carol = peers = door.open_many(live, 3)
    for peer in peers:
        peer.ws.join("lobby")
    app.room("lobby").publish("not for alice", exclude=alice.ws)
    app.room("lobby").publish("not for bob", exclude=bob.ws)
    app.room("lobby").publish("for all")
    assert received(alice) == ["not for bob", "for all"]
    assert received(bob) == ["not for alice", "for all"]
    assert received(carol) == ["not for alice", "not for bob", "for all"]


def test_who_is_excluded_need_not_be_there(app, door, live):
    alice, bob = door.open_many(live, 2)
    bob.ws.join("lobby")
    app.room("lobby").publish("one", exclude=alice.ws)
    alice.client.close()
    assert alice.ws.wait_closed(PATIENCE)
    app.room("lobby").publish("two", exclude=alice.ws)
    assert received(bob) == ["one", "two"]


def test_the_only_member_may_be_the_excluded_one(app, door, live):
    alice = door.open(live)
    alice.ws.join("lobby")
    app.room("lobby").publish("to myself", exclude=alice.ws)
    assert received(alice) == []


@pytest.mark.parametrize("wrong", [7, object(), {"id": "x"}])
def test_only_a_websocket_can_be_excluded(app, wrong):
    with pytest.raises(TypeError, match="exclude takes a WebSocket"):
        app.room("lobby").publish("x", exclude=wrong)


@pytest.mark.parametrize(
    ("data", "arrives"),
    [
        ("text, ümläut, 🐱", "text, ümläut, 🐱"),
        ("", ""),
        (b"bytes \x00\xff", b"bytes \x00\xff"),
        (b"", b""),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        ({"a": [1, 2.5, None, True, "ü"]}, {"a": [1, 2.5, None, True, "ü"]}),
        ([], []),
        (None, None),
        (42, 42),
    ],
)
def test_each_kind_arrives_as_what_it_is(app, door, live, data, arrives):
    peer = door.open(live)
    peer.ws.join("lobby")
    app.room("lobby").publish(data, event="ignored on a raw socket")
    message = peer.client.receive()
    if isinstance(data, (str, bytes, bytearray, memoryview)):
        assert message == arrives
        assert type(message) is type(arrives)
    else:
        assert isinstance(message, str)
        assert json.loads(message) == arrives


def test_compressed_and_plain_members_get_the_same(app, live_server):
    plain, deflating = Door(app, "/plain"), Door(app, "/deflate", compression=True)
    live = live_server(app)
    peers = [plain.open(live), deflating.open(live, compression=True), deflating.open(live)]
    assert "permessage-deflate" in (peers[1].client.headers.get("sec-websocket-extensions") or "")
    for peer in peers:
        peer.ws.join("lobby")
    sent = [f"{i} " + "the same again and again " * 50 for i in range(30)]
    for text in sent:
        app.room("lobby").publish(text)
    for peer in peers:
        assert received(peer) == sent


@pytest.mark.parametrize("wrong", [object(), {1, 2}, {"a": object()}, float("nan")])
def test_what_is_no_json_is_refused_where_it_is_published(app, door, live, wrong):
    peer = door.open(live)
    peer.ws.join("lobby")
    position = app.room("lobby").position()
    with pytest.raises((TypeError, ValueError)):
        app.room("lobby").publish(wrong)
    assert app.room("lobby").position() == position
    assert received(peer) == []


@pytest.mark.parametrize("event", ["two\nlines", "a\rb", "nul\0"])
def test_an_event_name_that_no_stream_could_show_is_refused(app, event):
    with pytest.raises(ValueError):
        app.room("lobby").publish("x", event=event)
    assert app.room("lobby").position().offset == 0


def test_publishing_where_nobody_is(app, door, live):
    room = app.room("lobby")
    first, second = room.publish("nobody"), room.publish("nobody again")
    assert (second.epoch, second.offset) == (first.epoch, first.offset + 1)
    peer = door.open(live)
    peer.ws.join("lobby")
    assert received(peer) == []
    assert fanout_of(live).rooms.keys() == {"lobby"}


def test_publishing_without_a_server(app):
    room = app.room("before", history=10)
    assert room.publish("nobody serves").offset == 1
    assert [message.data for message in room.history()] == ["nobody serves"]
    assert room.count() == 0


def test_publishing_from_an_http_handler(app, door, live_server):
    @app.post("/say")
    def say(request):
        return {"position": str(app.room("lobby").publish(request.text()))}

    live = live_server(app)
    peers = door.open_many(live, 3)
    for peer in peers:
        peer.ws.join("lobby")
    answer = live.post("/say", data=b"from http")
    assert Position.parse(answer.json()["position"]) == app.room("lobby").position()
    for peer in peers:
        assert received(peer) == ["from http"]


def test_publishing_from_a_thread_that_no_request_has_touched(app, door, live):
    peer = door.open(live)
    peer.ws.join("lobby")
    together([lambda: [app.room("lobby").publish(str(i)) for i in range(100)]])
    assert received(peer) == [str(i) for i in range(100)]


def test_handlers_may_publish_to_the_room_they_are_in(app, live_server):
    """The classic echo chamber: each message of each goes to all."""

    @app.websocket("/echo")
    class Echo:
        def on_open(self, ws):
            ws.join("lobby")
            ws.send("ready")

        def on_message(self, ws, message):
            app.room("lobby").publish(message)

    live = live_server(app)
    clients = [live.websocket("/echo") for _ in range(5)]
    for client in clients:
        assert client.receive() == "ready"
    for n, client in enumerate(clients):
        for i in range(20):
            client.send(f"{n}:{i}")
    expected = {f"{n}:{i}" for n in range(5) for i in range(20)}
    for client in clients:
        got = [client.receive() for _ in range(100)]
        assert set(got) == expected
        for n in range(5):
            assert [text for text in got if text.startswith(f"{n}:")] == [f"{n}:{i}" for i in range(20)]


def test_many_threads_to_many_members(app, door, live):
    """Each thread's order is kept, and everything is delivered exactly once."""
    peers = door.open_many(live, MEMBERS)
    for peer in peers:
        peer.ws.join("lobby")
    room = app.room("lobby")
    positions: list[list[int]] = [[] for _ in range(THREADS)]

    def publish(thread: int) -> None:
        for i in range(MESSAGES):
            positions[thread].append(room.publish(f"{thread}:{i}").offset)

    together([lambda thread=thread: publish(thread) for thread in range(THREADS)])
    assert sorted(offset for each in positions for offset in each) == list(range(1, THREADS * MESSAGES + 1))
    in_order = [""] * (THREADS * MESSAGES)
    for thread, offsets in enumerate(positions):
        assert offsets == sorted(offsets)
        for i, offset in enumerate(offsets):
            in_order[offset - 1] = f"{thread}:{i}"
    for peer in peers:
        assert received(peer) == in_order, "all members see the room in the order of its positions"


def test_members_come_and_go_while_threads_publish(app, door, live):
    """A member sees an unbroken stretch: everything from its join to its leave, nothing twice."""
    peers = door.open_many(live, 10)
    room = app.room("lobby")
    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            room.publish(str(n))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        stretches = []
        for peer in peers:
            peer.ws.join("lobby")
            seen = [int(peer.client.receive()) for _ in range(20)]
            peer.ws.leave("lobby")
            stretches.append(seen + [int(text) for text in received(peer)])
    finally:
        stop.set()
        publisher.join(PATIENCE)
    for stretch in stretches:
        assert stretch == list(range(stretch[0], stretch[0] + len(stretch)))


def test_a_publisher_in_a_tight_loop_is_held_back_by_the_loop(app, door, live):
    """While the loop is busy, publishing stops after a bounded number; and goes on when the loop does."""
    peer = door.open(live)
    peer.ws.join("lobby")
    room, fanout = app.room("lobby"), fanout_of(live)
    busy, release = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        release.wait(PATIENCE)

    published = 0
    done = threading.Event()

    def publish() -> None:
        nonlocal published
        for i in range(3 * fanout_module.MAX_LAG):
            room.publish(str(i))
            published += 1
        done.set()

    services_of(live).handle.post(block)
    assert busy.wait(PATIENCE)
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        eventually(lambda: fanout._lag >= fanout_module.MAX_LAG, "the publisher has run ahead as far as it may")
        assert not done.wait(0.2), "it was not held back"
        assert published <= fanout_module.MAX_LAG
    finally:
        release.set()
        publisher.join(PATIENCE)
    assert done.is_set()
    assert received(peer) == [str(i) for i in range(3 * fanout_module.MAX_LAG)]
    assert on_loop(live, lambda: (fanout._lag, fanout._lag_bytes)) == (0, 0)


def test_large_messages_are_held_back_by_their_bytes(app, door, live):
    room, fanout = app.room("lobby"), fanout_of(live)
    busy, release, done = threading.Event(), threading.Event(), threading.Event()
    data = b"x" * (256 * 1024)

    def block() -> None:
        busy.set()
        release.wait(PATIENCE)

    def publish() -> None:
        for _ in range(64):
            room.publish(data)
        done.set()

    services_of(live).handle.post(block)
    assert busy.wait(PATIENCE)
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        eventually(lambda: fanout._lag_bytes >= fanout_module.MAX_LAG_BYTES, "the publisher has run ahead")
        assert not done.wait(0.2), "it was not held back"
        assert fanout._lag_bytes <= fanout_module.MAX_LAG_BYTES + len(data) + fanout_module.MESSAGE_COST
    finally:
        release.set()
        publisher.join(PATIENCE)
    assert done.is_set()
    assert on_loop(live, lambda: (fanout._lag, fanout._lag_bytes)) == (0, 0)


def test_a_publisher_is_let_go_when_its_server_stops(app, door, live):
    room = app.room("lobby")
    stop, error = threading.Event(), []

    def publish() -> None:
        try:
            while not stop.is_set():
                room.publish("on and on")
        except BaseException as failure:
            error.append(failure)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        eventually(lambda: room.position().offset > 100, "it publishes")
        live.stop()
        after = room.position().offset
        eventually(lambda: room.position().offset > after, "it goes on publishing, to nobody")
    finally:
        stop.set()
        publisher.join(PATIENCE)
    assert not publisher.is_alive()
    assert error == []


# Two servers of one app.


def test_two_servers_of_one_app_share_its_rooms(app, door, live_server):
    one, two = live_server(app), live_server(app)
    here, there = door.open(one), door.open(two)
    assert here.ws.id != there.ws.id
    here.ws.join("lobby")
    there.ws.join("lobby")
    room = app.room("lobby")
    room.publish("to both")
    room.publish("there alone", exclude=here.ws)
    assert received(here) == ["to both"]
    assert received(there) == ["to both", "there alone"]
    assert room.count() == 2
    one.stop()
    assert room.count() == 1
    room.publish("one server is left")
    assert received(there) == ["one server is left"]


def test_a_restarted_server_has_empty_rooms(app, door, live):
    peer = door.open(live)
    peer.ws.join("lobby")
    position = app.room("lobby").publish("before")
    live.restart()
    assert app.room("lobby").count() == 0
    peer = door.open(live)
    peer.ws.join("lobby")
    assert app.room("lobby").publish("after") == Position(position.epoch, position.offset + 1)
    assert received(peer) == ["after"]


def test_two_apps_have_rooms_of_their_own(app, door, live, live_server):
    other = Catzilla(production=True, show_banner=False)
    other.room("lobby", public=True)
    other_door = Door(other)
    here, there = door.open(live), other_door.open(live_server(other))
    here.ws.join("lobby")
    there.ws.join("lobby")
    app.room("lobby").publish("here")
    other.room("lobby").publish("there")
    assert received(here) == ["here"]
    assert received(there) == ["there"]


# Names, limits and options.


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "new\nline", "tab\t", "nul\0", "\x7f", "~alice", "~", "\u2028", "\ud800"], ids=ascii
)
def test_names_that_are_none_are_refused(app, door, live, name):
    peer = door.open(live)
    with pytest.raises(ValueError, match="no name of a room"):
        app.room(name)
    with pytest.raises(ValueError, match="no name of a room"):
        peer.ws.join(name)
    assert peer.ws.rooms == frozenset()


@pytest.mark.parametrize("name", [None, 7, b"lobby", ["lobby"]])
def test_names_are_text(app, door, live, name):
    peer = door.open(live)
    with pytest.raises(TypeError, match="name is a str"):
        app.room(name)
    with pytest.raises(TypeError, match="name is a str"):
        peer.ws.join(name)


@pytest.mark.parametrize("name", ["x", "x" * 128, "a b/c:d?é-猫", "lobby~alice"])
def test_names_that_are_fine(app, door, live, name):
    app.room(name, public=True)
    peer = door.open(live)
    peer.ws.join(name)
    app.room(name).publish("hello")
    assert received(peer) == ["hello"]


def test_joins_at_the_same_time_do_not_pass_the_limit_of_rooms(app, door, live_server):
    both_asked = threading.Barrier(2)

    def asks_a_database(principal, request):
        both_asked.wait(PATIENCE)
        return True

    for name in ("one", "two"):
        app.room(name).authorize(asks_a_database)
    peer = door.open(live_server(app, max_rooms=1))
    refused = Calls()

    def join(name):
        try:
            peer.ws.join(name)
        except ValueError as error:
            refused(str(error))

    threads = [threading.Thread(target=join, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(peer.ws.rooms) == 1
    assert "max_rooms" in refused.wait(1)[0]


def test_a_connection_is_in_so_many_rooms_and_no_more(app, door, live_server):
    for i in range(5):
        app.room(f"r{i}", public=True)
    live = live_server(app, max_rooms=3)
    peer, other = door.open_many(live, 2)
    for i in range(3):
        peer.ws.join(f"r{i}")
    with pytest.raises(ValueError, match="max_rooms"):
        peer.ws.join("r3")
    peer.ws.join("r2")  # it is in there already
    app.room("r3").publish("not joined")
    app.room("r2").publish("joined")
    assert received(peer) == ["joined"]
    peer.ws.leave("r0")
    peer.ws.join("r3")
    app.room("r3").publish("now it is")
    assert received(peer) == ["now it is"]
    other.ws.join("r4")  # the limit is each connection's own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": -1}, "how many messages"),
        ({"history": "100"}, "how many messages"),
        ({"history": 1.5}, "how many messages"),
        ({"history_ttl": 0}, "how many seconds"),
        ({"history_ttl": -5}, "how many seconds"),
        ({"history_ttl": float("nan")}, "how many seconds"),
        ({"on_slow": "drop"}, "drop_oldest"),
        ({"on_slow": ""}, "disconnect"),
    ],
)
def test_options_that_make_no_sense_are_refused(app, options, message):
    with pytest.raises(ValueError, match=message):
        app.room("lobby", **options)


@pytest.mark.parametrize("hook", ["authorize", "on_join", "on_leave"])
def test_a_hook_is_a_function(app, hook):
    with pytest.raises(TypeError, match="takes a function, not str"):
        getattr(app.room("lobby"), hook)("alice")


def test_a_room_is_its_name(app):
    assert app.room("lobby") == app.room("lobby")
    assert hash(app.room("lobby")) == hash(app.room("lobby"))
    assert app.room("lobby") != app.room("news")
    assert app.room("lobby") != Catzilla(show_banner=False).room("lobby")
    assert app.room("lobby").name == "lobby"
    assert isinstance(app.room("lobby"), Room)
    assert "lobby" in repr(app.room("lobby"))


def test_options_are_kept_by_calls_that_give_none(app, door, live):
    app.room("later", public=True, history=5)
    app.room("later")
    app.room("later", on_slow="gap")
    door.open(live).ws.join("later")
    for i in range(7):
        app.room("later").publish(i)
    assert [message.data for message in app.room("later").history()] == [2, 3, 4, 5, 6]


def test_an_option_that_replaces_another_is_told(app, caplog):
    """The last word counts; but a room that two places set up otherwise is hardly meant."""
    app.room("lobby", history=50, on_slow="conflate")
    app.room("lobby", public=True, history=50)
    assert caplog.records == []
    app.room("lobby", history=10, on_slow="gap")
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "room='lobby' history=10 replaces 50",
        "room='lobby' on_slow='gap' replaces 'conflate'",
    ]
    assert app.rooms.config("lobby").history == 10


def test_a_room_may_be_set_up_while_the_app_serves(app, door, live):
    peer = door.open(live)
    with pytest.raises(Forbidden):
        peer.ws.join("later")
    app.room("later", public=True)
    peer.ws.join("later")
    app.room("later").publish("hello")
    assert received(peer) == ["hello"]


def test_the_first_room_that_is_forgotten_is_named_and_further_ones_are_not(app, door, live, monkeypatch, caplog):
    monkeypatch.setattr(rooms_module, "MAX_PASSING", 2)
    peer = door.open(live)
    for name in ("first", "second"):
        app.room(name, public=True)
    app.room("first", history=5)  # is there already
    app.room("first").publish("used")  # and now used after the second
    assert caplog.records == []
    for name in ("third", "fourth"):
        app.room(name, public=True)
    (warning,) = caplog.records
    assert (warning.name, warning.levelname) == ("catzilla", "WARNING")
    assert warning.getMessage().startswith("room='second' forgotten with its authorize and other hooks, its history")
    assert "more than 2 rooms" in warning.getMessage()
    assert "set rooms up before it does" in warning.getMessage()
    for name in ("first", "second"):
        with pytest.raises(Forbidden):
            peer.ws.join(name)
    app.room("lobby", history=5)  # which was set up before the app served
    peer.ws.join("lobby")


def test_a_room_that_is_closed_to_the_public_again_takes_no_new_ones(app, door, live):
    alice, bob = door.open_many(live, 2)
    alice.ws.join("lobby")
    app.room("lobby", public=False)
    with pytest.raises(Forbidden):
        bob.ws.join("lobby")
    app.room("lobby").publish("alice is in")
    assert received(alice) == ["alice is in"]


# History and position.


def test_history_keeps_the_newest(app):
    room = app.room("kept", history=3)
    positions = [room.publish(data, event=event) for data, event in HISTORY]
    kept = room.history()
    assert [(message.data, message.event) for message in kept] == HISTORY[-3:]
    assert [message.position for message in kept] == positions[-3:]
    assert [message.data for message in room.history(2)] == [data for data, _ in HISTORY[-2:]]
    assert room.history(0) == []
    assert len(room.history(100)) == 3
    with pytest.raises(ValueError):
        room.history(-1)


HISTORY = [("text", None), (b"\x00\xff", "binary"), ({"json": [1]}, "update"), ("", None), ([], None)]


def test_history_says_when(app):
    began = time.time()
    app.room("kept", history=3).publish("now")
    (message,) = app.room("kept").history()
    assert began - 0.01 <= message.time <= time.time() + 0.01, "seconds since 1970"


def test_a_room_keeps_nothing_unless_asked_to(app):
    app.room("lobby").publish("gone")
    assert app.room("lobby").history() == []


def test_position_is_that_of_the_last_message(app):
    room = app.room("lobby")
    start = room.position()
    assert start.offset == 0
    for i in range(1, 4):
        assert room.publish("x") == Position(start.epoch, i) == room.position()
    assert app.room("news").position().epoch != start.epoch
    assert re.fullmatch(r"[0-9a-z]+-3", str(room.position()))


# The snippets of the documentation, as they stand.

CHAT = """
@app.websocket("/chat/{room}", auth=current_user, origins=None, subprotocols=None)
def chat(ws):                            # linear: one worker thread while connected
    ws.join(ws.path_params["room"])
    for message in ws:                   # str or bytes; ends when the peer closes
        app.room(ws.path_params["room"]).publish(message, exclude=ws)

@app.websocket("/ticker")
class Ticker:                            # callbacks: no thread while idle, one instance a connection, in order
    def on_open(self, ws): ws.join("ticker")
    def on_message(self, ws, message): ...
    def on_close(self, ws, code, reason): ...
"""

ROOMS = """
room = app.room("lobby", history=100, history_ttl=300, public=False, on_slow="disconnect")
@room.authorize
def may(principal, request): return principal.is_staff
"""


class User:
    def __init__(self, name: str, *, is_staff: bool = False) -> None:
        self.id = name
        self.is_staff = is_staff


def current_user(request):
    return User(request.query_params.get("user", "somebody"))


def test_the_chat_of_the_documentation(live_server):
    app = Catzilla(production=True, show_banner=False)
    exec(CHAT, {"app": app, "current_user": current_user})
    app.room("lobby", public=True)
    live = live_server(app)
    alice, bob = live.websocket("/chat/lobby?user=alice"), live.websocket("/chat/lobby?user=bob")
    eventually(lambda: app.room("lobby").count() == 2, "both have joined")
    alice.send("hello")
    alice.send(b"\x00\x01")
    assert [bob.receive(), bob.receive()] == ["hello", b"\x00\x01"]
    bob.send("hi")
    assert alice.receive() == "hi"
    assert {principal.id for principal in app.room("lobby").members()} == {"alice", "bob"}
    alice.close()
    eventually(lambda: app.room("lobby").count() == 1, "alice has left")
    bob.close()
    eventually(lambda: holds_no_thread(live), "the handlers have returned")


def test_the_chat_of_the_documentation_refuses_a_room_that_is_not_public(live_server):
    app = Catzilla(production=True, show_banner=False)
    exec(CHAT, {"app": app, "current_user": current_user})
    live = live_server(app)
    assert close_of(live.websocket("/chat/secret?user=eve"))[0] == 4503
    assert app.room("secret").count() == 0


def test_the_ticker_of_the_documentation(live_server):
    app = Catzilla(production=True, show_banner=False)
    exec(CHAT, {"app": app, "current_user": current_user})
    app.room("ticker", public=True)
    live = live_server(app)
    clients = [live.websocket("/ticker") for _ in range(10)]
    eventually(lambda: app.room("ticker").count() == 10, "all have joined")
    eventually(lambda: holds_no_thread(live), "an idle socket holds no thread")
    for i in range(5):
        app.room("ticker").publish({"price": i})
    for client in clients:
        client.send("ignored")
        assert [client.receive_json() for _ in range(5)] == [{"price": i} for i in range(5)]
        client.close()
    wait_empty_soon(live)


def wait_empty_soon(live: LiveServer) -> None:
    eventually(lambda: services_of(live).websockets == 0, "no WebSocket is open")
    eventually(lambda: fanout_of(live).principals("ticker") == [], "the room is empty")


def test_the_room_of_the_documentation(live_server):
    app = Catzilla(production=True, show_banner=False)
    exec(CHAT, {"app": app, "current_user": staff_or_not})
    exec(ROOMS, {"app": app})
    live = live_server(app)
    staff, guest = live.websocket("/chat/lobby?staff=1"), live.websocket("/chat/lobby")
    with pytest.raises(WebSocketClosed) as end:
        guest.receive()
    assert end.value.code == 4503
    eventually(lambda: app.room("lobby").count() == 1, "the one of the staff has joined")
    for i in range(120):
        app.room("lobby").publish(i)
    assert [staff.receive_json() for _ in range(120)] == list(range(120))
    assert [message.data for message in app.room("lobby").history()] == list(range(20, 120))


def staff_or_not(request):
    is_staff = "staff" in request.query_params
    return User("staff" if is_staff else "guest", is_staff=is_staff)


# The end.


def test_rooms_are_forgotten_when_all_have_left(app, door, live_server):
    live = live_server(app, presence_delay=0.01)
    peers = door.open_many(live, 4)
    for peer in peers:
        peer.ws.join("lobby")
        peer.ws.join("news")
    assert on_loop(live, lambda: set(fanout_of(live).rooms)) == {"lobby", "news"}
    peers[0].ws.leave("lobby")
    peers[1].client.close()
    live.drop(peers[2].client)
    peers[3].ws.close()
    assert close_of(peers[3].client)[0] == 1000
    live.drop(peers[0].client)
    wait_empty(live)


def test_a_burst_for_one_member_leaves_in_few_writes(app, door, live):
    """Fifty messages that the loop finds at once are one write, not fifty."""
    peer = door.open(live)
    peer.ws.join("lobby")
    connection = peer.ws._connection
    writes: list[int] = []
    write = connection._transport.write

    class Counting:
        def __init__(self, transport):
            self._transport = transport

        def __getattr__(self, name):
            return getattr(self._transport, name)

        def write(self, data):
            writes.append(len(data))
            write(data)

    busy, release = threading.Event(), threading.Event()

    def block() -> None:
        connection._transport = Counting(connection._transport)
        busy.set()
        release.wait(PATIENCE)

    services_of(live).handle.post(block)
    assert busy.wait(PATIENCE)
    for i in range(50):
        app.room("lobby").publish(f"{i:04}")
    release.set()
    assert received_until(peer.client, "0049") == [f"{i:04}" for i in range(49)]
    assert writes == [50 * 6]
