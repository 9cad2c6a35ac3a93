"""`app.user(id).publish`: every connection of one principal, and nobody else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

import pytest

from catzilla import Catzilla
from tests.promises.helpers import PATIENCE, eventually
from tests.websockets.room_helpers import Door, fanout_of, on_loop, received, together, wait_empty


@pytest.fixture
def app():
    return Catzilla(production=True, show_banner=False)


@pytest.fixture
def door(app):
    return Door(app, "/as/{name}", auth=lambda request: request.path_params["name"])


@dataclass
class Principal:
    id: object


def test_every_connection_of_the_principal_and_nobody_else(app, door, live_server):
    other = Door(app, "/other/{name}", auth=lambda request: Principal(request.path_params["name"]))
    anonymous = Door(app, "/anonymous")
    live = live_server(app)
    mine = [door.open(live, "/as/alice"), door.open(live, "/as/alice"), other.open(live, "/other/alice")]
    others = [door.open(live, "/as/bob"), door.open(live, "/as/alice2"), anonymous.open(live)]
    app.user("alice").publish("for alice")
    app.user("bob").publish(b"for bob")
    app.user("alice").publish({"for": "alice"})
    for peer in mine:
        first, second = received(peer)
        assert (first, json.loads(second)) == ("for alice", {"for": "alice"})
    assert [received(peer) for peer in others] == [[b"for bob"], [], []]


def test_it_needs_no_join_and_is_no_room(app, door, live_server):
    peer = door.open(live_server(app), "/as/alice")
    app.user("alice").publish("hello")
    assert received(peer) == ["hello"]
    assert peer.ws.rooms == frozenset()
    for name in ("~alice", "~"):
        with pytest.raises(ValueError, match=r"app\.user"):
            peer.ws.join(name)
        with pytest.raises(ValueError, match=r"app\.user"):
            app.room(name)


def test_the_very_first_thing_a_handler_publishes_to_its_principal_arrives(app, live_server):
    @app.websocket("/hello", auth=lambda request: "alice")
    class Hello:
        def on_open(self, ws):
            app.user(ws.principal).publish("welcome")
            ws.send("ready")

    @app.websocket("/hello/linear", auth=lambda request: "bob")
    def hello(ws):
        app.user("bob").publish("welcome")
        ws.send("ready")

    live = live_server(app)
    for path in ("/hello", "/hello/linear"):
        client = live.websocket(path)
        assert [client.receive(), client.receive()] == ["welcome", "ready"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (7, 7),
        ({"id": "alice"}, "alice"),
        ({"id": "alice"}, {"id": "alice", "name": "Alice"}),
        (Principal("alice"), Principal("alice")),
        (Principal(UUID(int=5)), str(UUID(int=5))),
        ("ümläut/with space", "ümläut/with space"),
    ],
)
def test_a_principal_is_found_by_its_id_or_itself(app, live_server, given, asked):
    door = Door(app, "/me", auth=lambda request: given)
    peer = door.open(live_server(app))
    app.user(asked).publish("found")
    assert received(peer) == ["found"]
    assert app.user(asked).count() == 1


@pytest.mark.parametrize("wrong", [None, object(), 1.5, {"name": "alice"}, Principal(None)])
def test_who_has_no_id_is_refused(app, wrong):
    with pytest.raises(TypeError):
        app.user(wrong)


def test_one_connection_may_be_excluded(app, door, live_server):
    live = live_server(app)
    first, second = door.open(live, "/as/alice"), door.open(live, "/as/alice")
    app.user("alice").publish("the other tab", exclude=first.ws)
    assert received(first) == []
    assert received(second) == ["the other tab"]


def test_from_http_and_from_threads(app, door, live_server):
    @app.post("/tell/{name}")
    def tell(request, name):
        app.user(name).publish(request.text())
        return "told"

    live = live_server(app)
    alice, bob = door.open(live, "/as/alice"), door.open(live, "/as/bob")
    assert live.post("/tell/alice", data=b"from http").text == "told"
    together(
        [
            lambda: [app.user("alice").publish(f"a{i}") for i in range(50)],
            lambda: [app.user("bob").publish(f"b{i}") for i in range(50)],
        ]
    )
    assert received(alice) == ["from http", *(f"a{i}" for i in range(50))]
    assert received(bob) == [f"b{i}" for i in range(50)]


def test_what_is_published_is_kept_for_who_is_away(app):
    inbox = app.user("alice")
    positions = [inbox.publish(i) for i in range(120)]
    kept = inbox.history()
    assert [message.data for message in kept] == list(range(20, 120)), "100 messages"
    assert inbox.position() == positions[-1]
    for _ in range(20):
        inbox.publish("x" * 60_000)
    assert len(inbox.history()) == 4, "256 KiB"
    assert app.user("bob").history() == []


def test_an_inbox_goes_with_its_last_connection(app, door, live_server):
    live = live_server(app, presence_delay=0.01)
    first, second = door.open(live, "/as/alice"), door.open(live, "/as/alice")
    assert app.user("alice").members() == ["alice"]
    assert on_loop(live, lambda: set(fanout_of(live).rooms)) == {"~alice"}
    first.client.close()
    assert first.ws.wait_closed(PATIENCE)
    assert app.user("alice").count() == 1
    app.user("alice").publish("one is left")
    assert received(second) == ["one is left"]
    live.drop(second.client)
    eventually(lambda: app.user("alice").count() == 0, "nobody is left")
    wait_empty(live)


def test_an_inbox_is_none_of_the_rooms_that_a_connection_may_join(app, door, live_server):
    for i in range(3):
        app.room(f"r{i}", public=True)
    peer = door.open(live_server(app, max_rooms=2), "/as/alice")
    peer.ws.join("r0")
    peer.ws.join("r1")
    with pytest.raises(ValueError, match="max_rooms"):
        peer.ws.join("r2")


def test_two_servers_reach_all_connections(app, door, live_server):
    one, two = live_server(app), live_server(app)
    here, there, other = door.open(one, "/as/alice"), door.open(two, "/as/alice"), door.open(two, "/as/bob")
    app.user("alice").publish("wherever")
    assert received(here) == received(there) == ["wherever"]
    assert received(other) == []
