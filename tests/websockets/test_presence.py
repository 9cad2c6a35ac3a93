"""Presence: one join however many tabs, a leave only once it has lasted, and hooks in the order of what happened."""

from __future__ import annotations

import logging
import threading

import pytest

from catzilla import Catzilla, room_server
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.room_helpers import (
    Calls,
    Door,
    close_of,
    fanout_of,
    holds_no_thread,
    on_loop,
    received,
    wait_empty,
)

LONG = 60.0  # seconds; longer than any test
SHORT = 0.02


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)
    app.room("lobby", public=True)
    app.room("news", public=True)
    return app


@pytest.fixture
def calls(app):
    """What the hooks of the lobby were called with."""
    calls = Calls()
    room = app.room("lobby")

    @room.on_join
    def joined(principal):
        calls(("join", principal))

    @room.on_leave
    def left(principal):
        calls(("leave", principal))

    return calls


@pytest.fixture
def door(app):
    return Door(app, "/as/{name}", auth=lambda request: request.path_params["name"])


def test_three_tabs_are_one_join(app, door, calls, live_server):
    live = live_server(app, presence_delay=SHORT)
    tabs = [door.open(live, "/as/alice") for _ in range(3)]
    for tab in tabs:
        tab.ws.join("lobby")
    bob = door.open(live, "/as/bob")
    bob.ws.join("lobby")
    assert calls.wait(2) == [("join", "alice"), ("join", "bob")]
    assert sorted(app.room("lobby").members()) == ["alice", "bob"]
    tabs[0].client.close()
    tabs[1].ws.leave("lobby")
    live.drop(tabs[2].client)
    assert calls.wait(3) == [("join", "alice"), ("join", "bob"), ("leave", "alice")]
    assert app.room("lobby").members() == ["bob"]


def test_two_tabs_of_one_gone_are_no_leave(app, door, calls, live_server):
    live = live_server(app, presence_delay=SHORT)
    first, second, third = [door.open(live, "/as/alice") for _ in range(3)]
    for tab in (first, second, third):
        tab.ws.join("lobby")
    assert app.room("lobby").members() == ["alice"]
    first.client.close()
    second.ws.leave("lobby")
    eventually(lambda: services_of(live).websockets == 2, "the first is gone")
    # A later departure of somebody else has been told: one of alice's would have been before it.
    bob = door.open(live, "/as/bob")
    bob.ws.join("lobby")
    bob.ws.leave("lobby")
    assert calls.wait(3) == [("join", "alice"), ("join", "bob"), ("leave", "bob")]
    third.ws.leave("lobby")
    assert calls.wait(4)[3:] == [("leave", "alice")]


def test_who_comes_back_in_time_has_not_left(app, door, calls, live_server):
    live = live_server(app, presence_delay=LONG)
    for _ in range(5):
        tab = door.open(live, "/as/alice")
        tab.ws.join("lobby")
        assert app.room("lobby").members() == ["alice"]
        tab.client.close()
        assert tab.ws.wait_closed(PATIENCE)
        assert app.room("lobby").members() == []
    last = door.open(live, "/as/alice")
    last.ws.join("lobby")
    last.ws.leave("lobby")
    last.ws.join("lobby")
    live.stop()  # whoever is gone then has left
    assert calls.so_far == [("join", "alice"), ("leave", "alice")]


def test_who_comes_back_late_joins_again(app, door, calls, live_server):
    live = live_server(app, presence_delay=SHORT)
    for i in range(1, 4):
        tab = door.open(live, "/as/alice")
        tab.ws.join("lobby")
        assert app.room("lobby").members() == ["alice"]  # before it leaves, which races otherwise
        tab.client.close()
        assert calls.wait(2 * i) == [("join", "alice"), ("leave", "alice")] * i
    wait_empty(live)


def test_without_a_delay_a_leave_is_told_at_once(app, door, calls, live_server):
    live = live_server(app, presence_delay=0)
    tab = door.open(live, "/as/alice")
    for _ in range(3):
        tab.ws.join("lobby")
        tab.ws.leave("lobby")
    assert calls.wait(6) == [("join", "alice"), ("leave", "alice")] * 3
    assert on_loop(live, lambda: dict(fanout_of(live).rooms)).keys() == {"~alice"}


def test_hooks_run_in_the_order_of_what_happened_one_at_a_time(app, door, live_server):
    calls, running = Calls(), threading.Lock()
    room = app.room("lobby")

    def hook(what):
        def run(principal):
            assert running.acquire(blocking=False), "two hooks of one room at once"
            calls((what, principal))
            running.release()

        return run

    room.on_join(hook("first join"))
    room.on_join(hook("second join"))
    room.on_leave(hook("leave"))
    live = live_server(app, presence_delay=0)
    names = [f"user{i}" for i in range(20)]
    peers = {name: door.open(live, f"/as/{name}") for name in names}
    expected = []
    for name in names:
        peers[name].ws.join("lobby")
        expected += [("first join", name), ("second join", name)]
    for name in reversed(names):
        peers[name].ws.leave("lobby")
        expected.append(("leave", name))
    assert calls.wait(len(expected)) == expected


def test_a_slow_hook_delays_neither_messages_nor_other_rooms(app, door, live_server):
    entered, release, calls = threading.Event(), threading.Event(), Calls()

    @app.room("lobby").on_join
    def slow(principal):
        entered.set()
        release.wait(PATIENCE)
        calls(("lobby", principal))

    app.room("news").on_join(lambda principal: calls(("news", principal)))
    live = live_server(app)
    peer = door.open(live, "/as/alice")
    try:
        peer.ws.join("lobby")
        assert entered.wait(PATIENCE)
        peer.ws.join("news")
        app.room("lobby").publish("hello")
        assert received(peer) == ["hello"]
        assert calls.wait(1) == [("news", "alice")]
    finally:
        release.set()
    assert calls.wait(2) == [("news", "alice"), ("lobby", "alice")]


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_hooks_that_do_not_keep_up_are_left_with_the_truth(app, door, live_server, monkeypatch, times, stays):
    """Whoever keeps a list from what the hooks say must not keep a ghost: what is left out are pairs."""
    monkeypatch.setattr(room_server, "CONDENSE_FROM", 3)
    entered, release, calls = threading.Event(), threading.Event(), Calls()

    @app.room("lobby").on_join
    def joined(principal):
        if principal == "blocker":
            entered.set()
            release.wait(PATIENCE)
        calls(("join", principal))

    @app.room("lobby").on_leave
    def left(principal):
        calls(("leave", principal))

    live = live_server(app, presence_delay=0)
    try:
        door.open(live, "/as/blocker").ws.join("lobby")
        assert entered.wait(PATIENCE)
        goer, stayer = door.open(live, "/as/goer"), door.open(live, "/as/stayer")
        for _ in range(times):
            goer.ws.join("lobby")
            goer.ws.leave("lobby")
            app.room("lobby").count()  # behind both, on the loop
        stayer.ws.join("lobby")
        if stays:
            goer.ws.join("lobby")
        app.room("lobby").count()
    finally:
        release.set()
    eventually(lambda: holds_no_thread(live), "the hooks have run")
    for name, is_there in (("goer", stays), ("stayer", True)):
        mine = [what for what, who in calls.so_far if who == name]
        assert mine == ["join", "leave"] * (len(mine) // 2) + ["join"] * is_there, f"{name}: {mine}"


def test_a_hook_that_raises_is_logged_and_the_next_one_runs(app, door, live_server, caplog):
    calls = Calls()
    room = app.room("lobby")

    @room.on_join
    def broken(principal):
        raise RuntimeError("broken hook")

    room.on_join(lambda principal: calls(("join", principal)))
    live = live_server(app, presence_delay=0)
    peer = door.open(live, "/as/alice")
    with caplog.at_level(logging.ERROR, logger="catzilla"):
        peer.ws.join("lobby")
        assert calls.wait(1) == [("join", "alice")]
    records = [record for record in caplog.records if "a hook failed" in record.getMessage()]
    assert len(records) == 1
    assert "lobby" in records[0].getMessage()
    assert records[0].exc_info is not None
    app.room("lobby").publish("still here")
    assert received(peer) == ["still here"]
    assert app.room("lobby").members() == ["alice"]


def test_a_hook_may_ask_and_publish(app, door, live_server):
    room = app.room("lobby")

    @room.on_join
    def announce(principal):
        room.publish({"joined": principal, "here": sorted(room.members())})

    live = live_server(app)
    alice, bob = door.open(live, "/as/alice"), door.open(live, "/as/bob")
    alice.ws.join("lobby")
    assert alice.client.receive_json() == {"joined": "alice", "here": ["alice"]}
    bob.ws.join("lobby")
    expected = {"joined": "bob", "here": ["alice", "bob"]}
    assert alice.client.receive_json() == expected
    assert bob.client.receive_json() == expected


def test_anonymous_members_are_told_one_by_one(app, calls, live_server):
    door = Door(app, "/anonymous")
    live = live_server(app, presence_delay=SHORT)
    peers = door.open_many(live, 3)
    for peer in peers:
        peer.ws.join("lobby")
    assert calls.wait(3) == [("join", None)] * 3
    for peer in peers:
        peer.client.close()
    assert calls.wait(6)[3:] == [("leave", None)] * 3


class Principal:
    def __init__(self, name):
        self.id = name


@pytest.mark.parametrize(
    "make", [Principal, lambda name: {"id": name, "more": 1}, lambda name: name], ids=["object", "dict", "str"]
)
def test_who_it_is_is_the_id_of_the_principal(app, calls, live_server, make):
    door = Door(app, "/by/{name}", auth=lambda request: make(request.path_params["name"]))
    live = live_server(app, presence_delay=SHORT)
    first, second = door.open(live, "/by/alice"), door.open(live, "/by/alice")
    for peer in (first, second):
        peer.ws.join("lobby")
    assert app.room("lobby").count() == 1
    (joined,) = calls.wait(1)
    assert joined[1] is first.ws.principal
    first.ws.leave("lobby")
    second.ws.leave("lobby")
    assert [what for what, _ in calls.wait(2)] == ["join", "leave"]


def test_each_room_has_a_presence_of_its_own(app, door, calls, live_server):
    live = live_server(app, presence_delay=0)
    news = Calls()
    app.room("news").on_join(lambda principal: news(("join", principal)))
    app.room("news").on_leave(lambda principal: news(("leave", principal)))
    alice, bob = door.open(live, "/as/alice"), door.open(live, "/as/bob")
    alice.ws.join("lobby")
    bob.ws.join("news")
    alice.ws.join("news")
    alice.ws.leave("lobby")
    assert calls.wait(2) == [("join", "alice"), ("leave", "alice")]
    assert news.wait(2) == [("join", "bob"), ("join", "alice")]
    assert app.room("news").members() == ["bob", "alice"]


def test_who_reads_events_is_present_too(app, door, calls, live_server):
    @app.get("/events")
    def events(request):
        return app.room("lobby").stream(request, principal=request.query_params["user"])

    live = live_server(app, presence_delay=SHORT)
    tab = door.open(live, "/as/alice")
    tab.ws.join("lobby")
    streams = [live.events("/events?user=alice") for _ in range(2)]
    eventually(lambda: len(services_of(live).bridge.streams) == 2, "both streams are open")
    assert app.room("lobby").members() == ["alice"], "one identity, however it is connected"
    bob = live.events("/events?user=bob")
    eventually(lambda: sorted(app.room("lobby").members()) == ["alice", "bob"], "bob is there")
    assert calls.wait(2) == [("join", "alice"), ("join", "bob")]
    for stream in (*streams, bob):
        stream.close()
    assert calls.wait(3)[2:] == [("leave", "bob")]
    tab.client.close()
    assert calls.wait(4)[3:] == [("leave", "alice")]


def test_at_the_stop_of_the_server_everybody_leaves(app, door, calls, live_server):
    live = live_server(app, presence_delay=LONG)
    gone, there = door.open(live, "/as/gone"), door.open(live, "/as/there")
    for peer in (gone, there):
        peer.ws.join("lobby")
    assert app.room("lobby").members() == ["gone", "there"]
    gone.client.close()
    assert gone.ws.wait_closed(PATIENCE)
    live.server.stop()
    assert sorted(calls.so_far) == [("join", "gone"), ("join", "there"), ("leave", "gone"), ("leave", "there")]
    assert close_of(there.client)[0] in (1001, 1006)


def test_a_hook_that_runs_when_the_server_stops_is_waited_for(app, door, live_server):
    entered, finished = threading.Event(), threading.Event()

    @app.room("lobby").on_leave
    def slow(principal):
        entered.set()
        threading.Event().wait(0.1)  # work that takes a while
        finished.set()

    live = live_server(app, presence_delay=LONG)
    door.open(live, "/as/alice").ws.join("lobby")
    on_loop(live, lambda: None)
    live.stop()
    assert entered.is_set()
    assert finished.is_set()


def test_a_crowd_that_comes_and_goes_leaves_nothing_behind(app, door, calls, live_server):
    live = live_server(app, presence_delay=SHORT)
    names = [f"user{i % 7}" for i in range(28)]
    peers = [door.open(live, f"/as/{name}") for name in names]
    for peer in peers:
        peer.ws.join("lobby")
    assert app.room("lobby").count() == 7
    for n, peer in enumerate(peers):
        (peer.client.close, lambda peer=peer: live.drop(peer.client), lambda peer=peer: peer.ws.leave("lobby"))[n % 3]()
    for peer in peers:
        live.drop(peer.client)
    wait_empty(live)

    def told(what):
        return [who for each, who in calls.so_far if each == what]

    eventually(lambda: sorted(told("join")) == sorted(told("leave")) != [], "the hooks have run")
    eventually(lambda: holds_no_thread(live), "no thread is held")
    seen = calls.so_far
    for name in set(names):
        mine = [what for what, who in seen if who == name]
        assert mine == ["join", "leave"] * (len(mine) // 2)
        assert mine
