"""Rate limits: messages, joins and new connections; off unless asked for."""

from __future__ import annotations

import math

import pytest

from catzilla import Catzilla, Forbidden, RateLimited, streaming_stats
from catzilla._core.limits import Limits
from catzilla.testing import WebSocketClosed, raw_frame
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.room_helpers import Calls, Door, close_of, received, refusal_of

SLOWLY = 0.001  # a second, so one in a thousand seconds: none comes back during a test; the burst is one


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)
    for i in range(300):
        app.room(f"r{i}", public=True)
    return app


def test_they_are_off_by_default(app, live_server):
    assert (Limits().message_rate, Limits().join_rate, Limits().connect_rate) == (0, 0, 0)
    handled = Calls()

    @app.websocket("/count")
    class Count:
        def on_message(self, ws, message):
            handled(message)

    door = Door(app)
    live = live_server(app, max_rooms=300)
    client = live.websocket("/count")
    for i in range(1000):
        client.send(str(i))
    assert handled.wait(1000) == [str(i) for i in range(1000)]
    peer = door.open(live)
    for i in range(300):
        peer.ws.join(f"r{i}")
    door.open_many(live, 50)


# Messages.


@pytest.fixture
def handled(app):
    """What a socket with callbacks, and one with a linear handler, have handled; and how it ended."""
    handled = Calls()

    @app.websocket("/callbacks")
    class Callbacks:
        def on_message(self, ws, message):
            handled(message)

        def on_close(self, ws, code, reason):
            handled(("end", code))

    @app.websocket("/linear")
    def linear(ws):
        for message in ws:
            handled(message)
        handled(("end", ws.close_code))

    return handled


@pytest.mark.parametrize("path", ["/callbacks", "/linear"])
def test_too_many_messages_close_with_4013(app, handled, live_server, path):
    live = live_server(app, message_rate=2)  # and ten at once
    client = live.websocket(path)
    sent = 0
    with pytest.raises(WebSocketClosed) as end:
        for sent in range(1000):
            client.send(str(sent))
            if sent % 5 == 4:
                client.ping()  # not all in one read of the server's
    assert end.value.code == 4013
    eventually(lambda: ("end", 4013) in handled.so_far, "the handler knows")
    *messages, last = handled.so_far
    assert last == ("end", 4013)
    assert messages == [str(i) for i in range(len(messages))]
    assert 5 <= len(messages) <= sent
    eventually(lambda: services_of(live).websockets == 0, "the connection is closed")


def test_the_burst_is_five_seconds_worth(app, handled, live_server):
    client = live_server(app, message_rate=100 * SLOWLY).websocket("/callbacks")
    client.send("the first")  # a burst is at least one
    assert handled.wait(1) == ["the first"]
    client.send("the second")
    assert close_of(client)[0] == 4013
    assert handled.wait(2) == ["the first", ("end", 4013)]


def test_what_came_before_the_one_too_many_is_handled_though_it_came_in_one_read(app, handled, live_server):
    before = streaming_stats().rate_limited
    client = live_server(app, message_rate=2).websocket("/callbacks")  # ten at once
    client.send_raw(b"".join(raw_frame(1, str(i).encode()) for i in range(12)))
    assert close_of(client)[0] == 4013
    assert handled.wait(11) == [*(str(i) for i in range(10)), ("end", 4013)]
    assert streaming_stats().rate_limited == before + 1


def test_fragments_are_one_message_and_control_frames_none(app, handled, live_server):
    client = live_server(app, message_rate=SLOWLY).websocket("/callbacks")
    for _ in range(20):
        client.ping(timeout=PATIENCE)
    pieces = [raw_frame(1, b"in", fin=False), *[raw_frame(0, b".", fin=False)] * 20, raw_frame(0, b"pieces")]
    for piece in pieces:
        client.send_raw(piece)
    assert handled.wait(1) == ["in" + "." * 20 + "pieces"]


def test_each_connection_has_a_rate_of_its_own(app, handled, live_server):
    live = live_server(app, message_rate=SLOWLY)
    first, second = live.websocket("/callbacks"), live.websocket("/callbacks")
    first.send("1")
    first.send("2")
    assert close_of(first)[0] == 4013
    second.send("3")
    eventually(lambda: "3" in handled.so_far, "the other is not concerned")
    second.ping()


# Joins.


def test_too_many_joins_raise(app, live_server):
    door = Door(app)
    peer = door.open(live_server(app, join_rate=1.0 / 1000 + 1))  # a burst of five
    joined = 0
    with pytest.raises(RateLimited, match="join_rate") as limited:
        for joined in range(300):
            peer.ws.join(f"r{joined}")
    assert joined >= 5
    assert 0 < limited.value.after <= 1
    assert peer.ws.rooms == {f"r{i}" for i in range(joined)}
    app.room(f"r{joined}").publish("not joined")
    app.room("r0").publish("joined")
    assert received(peer) == ["joined"]


def test_joining_what_is_joined_takes_nothing(app, live_server):
    door = Door(app)
    live = live_server(app, join_rate=SLOWLY)
    peer, other = door.open_many(live, 2)
    for _ in range(20):
        peer.ws.join("r0")
    with pytest.raises(RateLimited) as limited:
        peer.ws.join("r1")
    assert math.isclose(limited.value.after, 1 / SLOWLY, rel_tol=0.2)
    other.ws.join("r1")


def test_a_join_that_is_refused_counts(app, live_server):
    asked = Calls()
    app.room("locked").authorize(lambda principal, request: asked("asked") and False)
    peer = Door(app).open(live_server(app, join_rate=SLOWLY))
    with pytest.raises(Forbidden):
        peer.ws.join("locked")
    for _ in range(5):
        with pytest.raises(RateLimited):
            peer.ws.join("locked")
    assert asked.so_far == ["asked"], "a hook may be dear"


def test_joins_that_nobody_catches_close_with_4013(app, live_server):
    @app.websocket("/greedy")
    class Greedy:
        def on_open(self, ws):
            for i in range(300):
                ws.join(f"r{i}")

    live = live_server(app, join_rate=1)
    assert close_of(live.websocket("/greedy"))[0] == 4013
    eventually(lambda: app.room("r0").count() == 0, "it is in no room")


# New connections.


def test_too_many_connections_get_429(app, live_server):
    door = Door(app)
    live = live_server(app, connect_rate=0.4)  # two at once
    door.open_many(live, 2)
    refused = refusal_of(live, "/ws")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert live.get("/").status_code == 404, "plain requests are not concerned"


def test_who_is_refused_is_not_asked_who_it_is(app, live_server):
    asked = Calls()
    door = Door(app, "/who", auth=lambda request: asked("asked") or "alice")
    live = live_server(app, connect_rate=SLOWLY)
    door.open(live)
    for _ in range(5):
        assert refusal_of(live, "/who").status_code == 429
    assert asked.so_far == ["asked"]


def test_all_routes_share_the_rate_of_an_address(app, live_server):
    one, two = Door(app, "/one"), Door(app, "/two")
    live = live_server(app, connect_rate=SLOWLY)
    one.open(live)
    assert refusal_of(live, two.path).status_code == 429
