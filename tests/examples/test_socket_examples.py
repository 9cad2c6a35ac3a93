"""Each example with a WebSocket on a live server: what it says, to whom, and who is kept out."""

from __future__ import annotations

import json
import threading

import pytest

from catzilla import streaming_stats
from catzilla.testing import HandshakeRefused, WebSocketClosed
from examples import admin_socket, chat, room_as_events, ticker, websocket_echo
from tests.promises.helpers import eventually

# The echo.


def test_an_echo(live_server):
    with live_server(websocket_echo.app).websocket("/echo") as ws:
        for message in ("Miaow", "", "Größe 🐈", b"\x00\xff"):
            ws.send(message)
            assert ws.receive() == message


def test_an_echo_in_callbacks(live_server):
    live = live_server(websocket_echo.app)
    with live.websocket("/echo-callbacks") as one, live.websocket("/echo-callbacks") as other:
        for ws in (one, other):  # each has an instance, and a count, of its own
            ws.send("Miaow")
            ws.send(b"\x00")
            assert [ws.receive(), ws.receive()] == ["1: 'Miaow'", r"2: b'\x00'"]


# The chat.


class Visitor:
    """One tab of the chat, as its page sees it."""

    def __init__(self, live, name, room="lobby"):
        self.ws = live.websocket(f"/chat/{room}?name={name}")
        self.here: list[str] = []
        self.lines: dict[str, dict] = {}

    def take(self):
        message = self.ws.receive_json()
        self.here = message.get("here", self.here)
        for line in message.get("history", [message]):
            self.lines.setdefault(line["id"], line)

    def until(self, condition):
        while not condition():
            self.take()

    def until_here(self, *names):
        self.until(lambda: self.here == list(names))

    def said(self):
        return [(line["who"], line["text"]) for line in self.lines.values() if "text" in line]

    def notes(self):
        return [line["note"] for line in self.lines.values() if "note" in line]


@pytest.fixture
def chat_server(live_server):
    """The chat in an app of its own: rooms and their history live as long as their app."""
    app = chat.Catzilla()
    chat.add_chat(app)
    return live_server(app, presence_delay=0.05)


def test_a_chat(chat_server):
    alice = Visitor(chat_server, "alice")
    alice.until_here("alice")
    bob = Visitor(chat_server, "bob")
    for each in (alice, bob):
        each.until_here("alice", "bob")
    alice.ws.send("hello bob")
    bob.until(lambda: bob.said() == [("alice", "hello bob")])
    bob.ws.send("hello alice")
    for each in (alice, bob):
        each.until(lambda each=each: each.said() == [("alice", "hello bob"), ("bob", "hello alice")])
    bob.ws.close()
    alice.until_here("alice")
    alice.until(lambda: "bob left" in alice.notes())


def test_a_chat_tells_a_newcomer_what_was_said(chat_server):
    alice = Visitor(chat_server, "alice")
    for number in range(60):
        alice.ws.send(f"line {number}")
    alice.until(lambda: len(alice.said()) == 60)
    bob = chat_server.websocket("/chat/lobby?name=bob")
    while "history" not in (history := bob.receive_json()):
        pass  # his own arrival may come first
    said = [line["text"] for line in history["history"] if "text" in line]
    assert said == [f"line {number}" for number in range(60 - len(said), 60)]
    assert len(history["history"]) == 50


def test_two_tabs_are_one_person(chat_server):
    first, second = Visitor(chat_server, "alice"), Visitor(chat_server, "alice")
    for tab in (first, second):
        tab.until_here("alice")
    second.ws.close()
    first.ws.send("still here")
    first.until(lambda: first.said() == [("alice", "still here")])
    assert first.notes() == ["alice came in"]
    assert chat_server.get("/chat/rooms").json() == {"lobby": 1, "kitchen": 0, "garden": 0}


def test_rooms_of_a_chat_are_apart(chat_server):
    alice, bob = Visitor(chat_server, "alice"), Visitor(chat_server, "bob", "kitchen")
    alice.until_here("alice")
    bob.until_here("bob")
    bob.ws.send("only here")
    bob.until(lambda: bob.said() == [("bob", "only here")])
    alice.ws.send("and here")
    alice.until(alice.said)
    assert alice.said() == [("alice", "and here")]


@pytest.mark.parametrize("query", ["", "?name=", "?name=%20", f"?name={'x' * 21}"])
def test_nobody_chats_without_a_name(chat_server, query):
    with pytest.raises(HandshakeRefused) as refused:
        chat_server.websocket(f"/chat/lobby{query}")
    assert refused.value.status_code == 401


def test_a_chat_has_no_other_rooms(chat_server):
    with chat_server.websocket("/chat/attic?name=alice") as ws, pytest.raises(WebSocketClosed) as closed:
        ws.receive()
    assert (closed.value.code, closed.value.reason) == (4503, "forbidden")


def test_a_public_room_that_is_not_the_chats_is_not_joined(live_server, caplog):
    app = chat.Catzilla()
    chat.add_chat(app)
    came = []
    app.room("news", public=True).on_join(came.append)
    live = live_server(app, presence_delay=0.05)
    with live.websocket("/chat/news?name=alice") as ws, pytest.raises(WebSocketClosed) as closed:
        ws.receive()
    assert (closed.value.code, closed.value.reason) == (4503, "forbidden")
    assert "the chat has no room 'news'" in caplog.text
    Visitor(live, "bob").until_here("bob")  # the hooks of what was joined before have run
    assert came == []


def test_a_chat_says_nothing_empty_and_nothing_endless(chat_server):
    alice = Visitor(chat_server, "alice")
    for message in (" ", b"bytes", "x" * 501):
        alice.ws.send(message)
    alice.until(alice.said)
    assert alice.said() == [("alice", "x" * 500)]


# The ticker.


@pytest.fixture
def quick_ticker(monkeypatch):
    monkeypatch.setattr(ticker, "SECONDS_A_TICK", 0.005)


def test_a_ticker(live_server, quick_ticker):
    with live_server(ticker.app).websocket("/ticker/socket") as ws:
        seen: dict[str, list[float]] = {symbol: [] for symbol in ticker.OPENING}
        while not all(len(prices) > 3 for prices in seen.values()):
            update = ws.receive_json()
            seen[update["symbol"]].append(update["price"])
        assert all(len(set(prices)) > 1 for prices in seen.values())
        for symbol in ("CAT", "KIWI", "OWL"):
            ws.send(f"ignore {symbol}")
        ws.send("ignore DODO")
        while "error" not in (answer := ws.receive_json()):
            pass  # what was on its way before
        assert answer["error"] == "write watch or ignore, and one of CAT, KIWI, OWL, YAK"
        assert {ws.receive_json()["symbol"] for _ in range(20)} == {"YAK"}
        ws.send("watch CAT")
        while ws.receive_json()["symbol"] != "CAT":
            pass


def test_whoever_does_not_keep_up_gets_the_newest_price(live_server, monkeypatch):
    monkeypatch.setattr(ticker, "SECONDS_A_TICK", 3600)
    live = live_server(ticker.app, socket_outbox_messages=8)
    room = ticker.app.room("ticker/CAT")
    with live.websocket("/ticker/socket", receive_buffer_bytes=4096) as ws:
        ws.send("not a wish")
        while "error" not in ws.receive_json():
            pass  # the last prices, if the market was open before; behind them it has joined
        before = streaming_stats().slow_conflated
        for price in range(2000):
            room.publish({"symbol": "CAT", "price": price, "news": "x" * 10_000})
        eventually(lambda: streaming_stats().slow_conflated > before, "the prices that wait are replaced")
        seen = [ws.receive_json()["price"]]
        while seen[-1] != 1999:
            seen.append(ws.receive_json()["price"])
        assert seen == sorted(seen)
        assert len(seen) < 2000


def test_the_market_closes_with_the_app(live_server):
    live = live_server(ticker.app)
    assert "market" in [thread.name for thread in threading.enumerate()]
    with live.websocket("/ticker/socket") as ws:
        ws.receive_json()
    live.stop()
    assert "market" not in [thread.name for thread in threading.enumerate()]
    with live_server(ticker.app).websocket("/ticker/socket") as ws:  # and opens again
        ws.receive_json()


# One room, two ways.


def test_a_room_as_a_websocket_and_as_events(live_server):
    live = live_server(room_as_events.app)
    start = live.get("/news/position").json()["position"]
    with live.events("/news/events", last_event_id=start) as events, live.websocket("/news/socket") as ws:
        ws.send("over the socket")
        assert ws.receive() == "over the socket"
        answer = live.post("/news", data="over HTTP")
        assert ws.receive() == "over HTTP"
        first, second = next(events), next(events)
        assert (first.data, second.data) == ("over the socket", "over HTTP")
        assert second.id == answer.json()["position"]
    live.post("/news", data="while nobody listens")
    with live.events("/news/events", last_event_id=first.id) as events:
        assert [next(events).data, next(events).data] == ["over HTTP", "while nobody listens"]


def test_news_without_words(live_server):
    assert live_server(room_as_events.app).post("/news", data=" ").status_code == 400


# The console.


@pytest.fixture
def console(live_server, monkeypatch):
    monkeypatch.setattr(admin_socket, "sessions", {})
    return live_server(admin_socket.app)


def sign_in(live, name="ada", password="enigma"):
    response = live.post("/admin/login", data={"name": name, "password": password})
    assert response.status_code == 303
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    return {"Cookie": cookie.partition(";")[0]}


def refusal(live, path="/admin/socket", **options):
    with pytest.raises(HandshakeRefused) as refused:
        live.websocket(path, **options)
    return refused.value.status_code


def test_the_console_is_closed_to_strangers(console):
    assert refusal(console) == 401
    assert refusal(console, headers={"Cookie": "session=made-up"}) == 401
    assert refusal(console, headers={"Authorization": "Bearer made-up"}) == 401
    assert refusal(console, "/admin/socket?ticket=made-up") == 401
    assert console.post("/admin/ticket").status_code == 401
    assert console.post("/admin/login", data={"name": "ada", "password": "wrong"}).status_code == 401
    assert console.post("/admin/login", data={"name": "eve", "password": "enigma"}).status_code == 401
    assert "password" in console.get("/admin").text


def test_the_console_by_cookie(console):
    cookie = sign_in(console)
    assert "With the cookie" in console.get("/admin", headers=cookie).text
    with console.websocket("/admin/socket", headers=cookie, origin=console.url, subprotocols=["admin"]) as ws:
        assert ws.subprotocol == "admin"
        assert ws.receive_json()["hello"] == "ada"
        ws.send("stats")
        assert ws.receive_json() == {"websockets": 1, "connections": 1}
    assert refusal(console, headers=cookie, origin="https://elsewhere.example") == 403


def test_the_console_by_ticket(console):
    ticket = console.post("/admin/ticket", headers=sign_in(console)).json()["ticket"]
    with console.websocket(f"/admin/socket?ticket={ticket}") as ws:
        assert ws.receive_json()["hello"] == "ada"
    assert refusal(console, f"/admin/socket?ticket={ticket}") == 401  # it was good once


@pytest.mark.parametrize(
    "credentials",
    [{"headers": {"Authorization": "Bearer let-me-in"}}, {"subprotocols": ["admin", "bearer.let-me-in"]}],
    ids=["header", "subprotocol"],
)
def test_the_console_by_token(console, credentials):
    with console.websocket("/admin/socket", **credentials) as ws:
        assert ws.receive_json()["hello"] == "ada"
        assert ws.subprotocol in ("admin", None)


def test_administrators_hear_each_other(console):
    token = {"Authorization": "Bearer let-me-in"}
    with console.websocket("/admin/socket", headers=token) as one:
        one.receive_json()
        with console.websocket("/admin/socket", headers=sign_in(console)) as other:
            other.receive_json()
            other.send("restarting at noon")
            assert one.receive_json() == other.receive_json() == {"from": "ada", "text": "restarting at noon"}


def test_who_is_no_staff_does_not_get_into_the_room(console):
    with console.websocket("/admin/socket", headers=sign_in(console, "bob", "builder")) as ws:
        with pytest.raises(WebSocketClosed) as closed:
            ws.receive()
        assert (closed.value.code, closed.value.reason) == (4503, "forbidden")
    assert admin_socket.app.room("control").members() == []


def test_a_session_that_ends_closes_its_sockets(console, monkeypatch):
    monkeypatch.setattr(admin_socket, "SESSION_SECONDS", 1.0)
    cookie = sign_in(console)
    ticket = console.post("/admin/ticket", headers=cookie).json()["ticket"]
    with (
        console.websocket("/admin/socket", headers=cookie) as by_cookie,
        console.websocket(f"/admin/socket?ticket={ticket}") as by_ticket,
    ):
        for ws in (by_cookie, by_ticket):
            assert ws.receive_json()["hello"] == "ada"
            with pytest.raises(WebSocketClosed) as closed:
                ws.receive()
            assert closed.value.code == 4501
    assert refusal(console, headers=cookie) == 401
    assert "password" in console.get("/admin", headers=cookie).text
    sign_in(console)
    assert len(admin_socket.sessions) == 1  # the old one is forgotten


# All of them.


@pytest.mark.parametrize(
    ("module", "path", "headers"),
    [
        (websocket_echo, "/echo", {}),
        (websocket_echo, "/echo-callbacks", {}),
        (chat, "/chat/garden?name=alice", {}),
        (ticker, "/ticker/socket", {}),
        (room_as_events, "/news/socket", {}),
        (admin_socket, "/admin/socket", {"Authorization": "Bearer let-me-in"}),
    ],
)
def test_a_stop_says_goodbye(live_server, module, path, headers):
    live = live_server(module.app, shutdown_grace=5)
    with live.websocket(path, headers=headers) as ws:
        stopping = threading.Thread(target=live.server.stop)
        stopping.start()
        try:
            with pytest.raises(WebSocketClosed) as closed:
                while True:
                    ws.receive()
            assert closed.value.code == 1001
        finally:
            stopping.join(10)
        assert not stopping.is_alive()


@pytest.mark.parametrize(
    ("module", "path"),
    [(chat, "/chat"), (ticker, "/ticker"), (room_as_events, "/news")],
)
def test_a_page_is_served(live_server, module, path):
    page = live_server(module.app).get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "//" not in page.text.replace(" // ", "")  # it asks nobody else
    assert json.dumps(module.PAGE.name)[1:-1] in module.__doc__
