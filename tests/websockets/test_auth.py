"""Who may connect and who may join: refused as plain HTTP before the upgrade, by exception in the handler after it."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

import pytest

from catzilla import Catzilla, Forbidden, HTTPError, RedirectResponse, Response, bearer_token
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.room_helpers import Calls, Door, close_of, received, refusal_of

FOREIGN = "https://evil.example"


@pytest.fixture
def app():
    return Catzilla(production=True, show_banner=False)


@pytest.fixture
def live(app, live_server):
    """A factory, because routes come first."""
    return lambda **settings: live_server(app, **settings)


@dataclass
class User:
    id: str
    is_staff: bool = False
    expires_at: float | None = None


def by_token(request):
    token = bearer_token(request)
    if token is None:
        raise HTTPError(401, "no token", {"WWW-Authenticate": "Bearer"})
    if token == "banned":
        raise HTTPError(403, "you are banned")
    return User(token)


def check_nothing_was_called(door, live):
    """Neither the handler nor anything after it."""
    assert services_of(live).websockets == 0
    assert door.arrived.empty()


# Before the upgrade.


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [({}, 401, "no token"), ({"Authorization": "Bearer banned"}, 403, "you are banned")],
)
@pytest.mark.parametrize("linear", [False, True])
def test_who_is_refused_gets_plain_http_and_the_handler_is_not_called(app, live, headers, status, text, linear):
    door = Door(app, auth=by_token, linear=linear)
    server = live()
    refused = refusal_of(server, "/ws", headers=headers)
    assert refused.status_code == status
    assert text in refused.text
    assert refused.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert "sec-websocket-accept" not in refused.headers
    check_nothing_was_called(door, server)


def test_a_refusal_goes_through_the_error_handlers_of_the_app(app, live):
    Door(app, auth=by_token)
    app.set_exception_handler(HTTPError, lambda request, error: ({"sorry": error.status_code}, error.status_code))
    refused = refusal_of(live(), "/ws")
    assert refused.status_code == 401
    assert refused.response.json() == {"sorry": 401}


class Word(str):
    """A str of another class."""


@pytest.mark.parametrize("nobody", [None, False, "", Word()], ids=repr)
def test_nobody_is_401(app, live, nobody):
    door = Door(app, auth=lambda request: nobody)
    server = live()
    assert refusal_of(server, "/ws").status_code == 401
    check_nothing_was_called(door, server)


def test_an_auth_that_raises_is_500_with_one_traceback_and_no_text(app, live, caplog):
    def broken(request):
        raise RuntimeError("secret detail")

    door = Door(app, auth=broken)
    server = live()
    refused = refusal_of(server, "/ws")
    assert refused.status_code == 500
    assert "secret detail" not in refused.text
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    check_nothing_was_called(door, server)


ANSWERS = {
    "a tuple": (({"error": "sign in first"}, 401), r"\(dict, int\)"),
    "a status of HTTP": (("no", HTTPStatus.FORBIDDEN), r"\(str, HTTPStatus\)"),
    "a tuple with headers": (("no", 401, {"X-Why": "x"}), r"\(str, int, dict\)"),
    "a response": (Response(401), "Response"),
    "a redirect": (RedirectResponse("/login"), "RedirectResponse"),
    "an error": (HTTPError(401), "HTTPError"),
    "another error": (ValueError("no"), "ValueError"),
    "a class of errors": (Forbidden, "Forbidden"),
}


@pytest.mark.parametrize(("answer", "found"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("linear", [False, True])
def test_a_refusal_that_is_returned_lets_nobody_in_and_the_log_says_what_to_write(
    app, live, caplog, answer, found, linear
):
    def signed_in(request):
        return answer

    door = Door(app, auth=signed_in, linear=linear)
    server = live()
    refused = refusal_of(server, "/ws")
    assert refused.status_code == 500
    assert "signed_in" not in refused.text
    remedy = r"which would let everybody in: raise HTTPError\(401\), do not return it"
    assert re.search(rf"auth function {__name__}\S*signed_in returned {found}, {remedy}", caplog.text)
    check_nothing_was_called(door, server)


def test_a_coroutine_that_is_returned_lets_nobody_in(app, live, caplog):
    """What is hidden behind a plain function is met when it is called; it is awaited by nobody."""

    async def later(request):
        return "alice"

    door = Door(app, auth=lambda request: later(request))
    server = live()
    assert refusal_of(server, "/ws").status_code == 500
    assert "returned a coroutine, which would let everybody in" in caplog.text
    check_nothing_was_called(door, server)


class Account(NamedTuple):
    name: str
    number: int


@pytest.mark.parametrize("principal", [True, 0, Account("alice", 401), ("alice", True), ("alice",), "no"], ids=repr)
def test_what_only_looks_like_a_refusal_is_a_principal(app, live, principal):
    assert Door(app, auth=lambda request: principal).open(live()).ws.principal is principal


def test_an_expiry_that_is_no_time_says_so_in_the_log(app, live, caplog):
    door = Door(app, auth=lambda request: User("alice", expires_at=10**400))
    server = live()
    assert refusal_of(server, "/ws").status_code == 500
    assert "ValueError: the expires_at of this User is beyond any time; None means that it never expires" in caplog.text
    check_nothing_was_called(door, server)


def test_auth_runs_once_on_a_worker_and_sees_the_request(app, live):
    calls = Calls()

    def auth(request):
        calls((request.path, request.path_params["room"], request.query_params["q"], request.cookies["session"]))
        return User("alice")

    door = Door(app, "/chat/{room}", auth=auth)
    peer = door.open(live(), "/chat/lobby?q=1", headers={"Cookie": "session=s3"})
    assert calls.so_far == [("/chat/lobby", "lobby", "1", "s3")]
    assert peer.ws.principal == User("alice")


def test_without_auth_there_is_no_principal(app, live):
    assert Door(app).open(live()).ws.principal is None


def test_the_principal_is_the_very_object(app, live):
    alice = User("alice")
    assert Door(app, auth=lambda request: alice).open(live()).ws.principal is alice


def test_a_bearer_subprotocol_lets_in_and_is_never_echoed(app, live):
    door = Door(app, auth=by_token, subprotocols=["chat"])
    server = live()
    token = "a/b=c d".replace(" ", "+")
    peer = door.open(server, subprotocols=["bearer." + quote(token, safe=""), "chat"])
    assert peer.ws.principal.id == token
    assert peer.client.subprotocol == peer.ws.subprotocol == "chat"
    assert "bearer" not in str(list(peer.client.headers.items())).lower()
    alone = door.open(server, subprotocols=["bearer.alice"])
    assert alone.ws.principal.id == "alice"
    assert alone.client.subprotocol is None
    assert "sec-websocket-protocol" not in alone.client.headers


# Tickets.


@pytest.fixture
def tickets(app):
    return Door(app, "/chat", auth=app.tickets.redeem), Door(app, "/other", auth=app.tickets.redeem)


def test_a_ticket_lets_in_once(app, live, tickets):
    door, _ = tickets
    server = live()
    ticket = app.tickets.issue({"id": "alice"}, "/chat")
    assert door.open(server, f"/chat?ticket={ticket}").ws.principal == {"id": "alice"}
    assert refusal_of(server, f"/chat?ticket={ticket}").status_code == 401


def test_a_ticket_for_another_path_does_not_and_is_not_used_up(app, live, tickets):
    door, _ = tickets
    server = live()
    ticket = app.tickets.issue("alice", "/chat")
    assert refusal_of(server, f"/other?ticket={ticket}").status_code == 401
    assert door.open(server, f"/chat?ticket={ticket}").ws.principal == "alice"


def test_tickets_that_are_none(app, live, tickets):
    server = live()
    ticket = app.tickets.issue("alice", "/chat")
    forged = Catzilla(show_banner=False, secret="another").tickets.issue("alice", "/chat")
    for query in ("", "?ticket=", f"?ticket={ticket}x", f"?ticket={forged}", f"?ticket={ticket}&ticket={ticket}"):
        refused = refusal_of(server, f"/chat{query}")
        assert refused.status_code == 401, query
        assert refused.headers["www-authenticate"] == "Ticket"
    check_nothing_was_called(tickets[0], server)


def test_an_expired_ticket(app, live, tickets):
    server = live()
    ticket = app.tickets.issue("alice", "/chat", ttl=0.001)
    began = time.time()
    eventually(lambda: time.time() > began + 0.002, "it has expired")
    refused = refusal_of(server, f"/chat?ticket={ticket}")
    assert refused.status_code == 401
    assert "expired" in refused.text


def test_a_ticket_stands_in_no_log(app, live, tickets, caplog):
    door, _ = tickets
    server = live(access_log=True)
    ticket = app.tickets.issue("alice", "/chat")
    with caplog.at_level(logging.DEBUG):
        door.open(server, f"/chat?ticket={ticket}").client.close()
        refusal_of(server, f"/chat?ticket={ticket}")
        eventually(lambda: caplog.text.count("ticket=***") >= 2, "both are in the access log")
        server.stop()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("catzilla")]
    assert sum("ticket=***" in line for line in ours) == 2
    assert not any(ticket in line for line in ours)  # the test's own client logs what it sends


# Origins.


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (None, None, True),
        (None, "own", True),
        (None, FOREIGN, False),
        (None, "null", False),
        (None, "http://127.0.0.1:1", False),
        (None, "garbage", False),
        ([FOREIGN], FOREIGN, True),
        ([FOREIGN], "own", False),
        ([FOREIGN], "https://evil.example.org", False),
        ([FOREIGN], None, True),
        ([FOREIGN], "null", False),
        ("*", FOREIGN, True),
        ("*", "null", True),
        ("*", None, True),
    ],
)
def test_the_origin_is_checked(app, live, caplog, origins, origin, allowed):
    asked = Calls()
    door = Door(app, origins=origins, auth=lambda request: asked("asked") or "alice")
    server = live()
    origin = server.url if origin == "own" else origin
    if allowed:
        assert door.open(server, origin=origin).ws.principal == "alice"
        assert "refused" not in caplog.text
        return
    refused = refusal_of(server, "/ws", origin=origin)
    assert refused.status_code == 403
    assert asked.so_far == [], "who comes from elsewhere is not asked who it is"
    (record,) = [record for record in caplog.records if "refused" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert f"@app.websocket(..., origins=[{origin!r}])" in record.getMessage(), "how to allow it"
    check_nothing_was_called(door, server)


# Expiry.


def test_credentials_that_expire_close_with_4501(app, live):
    ended = Calls()

    @app.websocket("/linear", auth=lambda request: User("bob", expires_at=time.time() + 0.15))
    def linear(ws):
        for _ in ws:
            pass
        ended(ws.close_code)

    door = Door(app, auth=lambda request: User("alice", expires_at=time.time() + 0.15))
    app.room("lobby", public=True)
    server = live()
    peer = door.open(server)
    peer.ws.join("lobby")
    assert close_of(peer.client)[0] == 4501
    assert door.closed.get(timeout=PATIENCE)[1] == 4501
    assert app.room("lobby").count() == 0
    assert close_of(server.websocket("/linear"))[0] == 4501
    assert ended.wait(1) == [4501]


def test_credentials_that_have_expired_are_401(app, live):
    door = Door(app, auth=lambda request: User("alice", expires_at=time.time() - 1))
    server = live()
    assert refusal_of(server, "/ws").status_code == 401
    check_nothing_was_called(door, server)


def test_credentials_that_expire_later_do_not_matter(app, live):
    door = Door(app, auth=lambda request: User("alice", expires_at=time.time() + 3600))
    peer = door.open(live())
    assert received(peer) == []
    peer.client.close()
    assert peer.ws.wait_closed(PATIENCE)


# Rooms.


@pytest.fixture
def staff_room(app):
    """Only for the staff; gives what its hook was asked."""
    asked = Calls()

    @app.room("staff").authorize
    def may(principal, request):
        asked((principal, request.path))
        return principal.is_staff

    return asked


def by_name(request):
    name = request.path_params["name"]
    return User(name, is_staff=name == "boss")


def test_a_room_without_permission_raises_and_nothing_is_joined(app, live, staff_room):
    joined = Calls()
    app.room("staff").on_join(joined)
    door = Door(app, "/as/{name}", auth=by_name)
    server = live()
    boss, guest = door.open(server, "/as/boss"), door.open(server, "/as/guest")
    with pytest.raises(Forbidden) as refused:
        guest.ws.join("staff")
    assert refused.value.status_code == 403
    assert guest.ws.rooms == frozenset()
    boss.ws.join("staff")
    app.room("staff").publish("confidential")
    assert received(guest) == []
    assert received(boss) == ["confidential"]
    assert app.room("staff").members() == [boss.ws.principal]
    assert joined.wait(1) == [boss.ws.principal]
    assert staff_room.so_far == [(guest.ws.principal, "/as/guest"), (boss.ws.principal, "/as/boss")]


def test_a_room_is_closed_unless_it_says_otherwise(app, live):
    peer = Door(app).open(live())
    for room in ("nothing settled", app.room("settled otherwise", history=5)):
        with pytest.raises(Forbidden, match="public=True"):
            peer.ws.join(room)
    assert received(peer) == []


def test_the_hook_decides_even_where_the_room_is_public(app, live):
    app.room("both", public=True)
    app.room("both").authorize(lambda principal, request: False)
    with pytest.raises(Forbidden):
        Door(app).open(live()).ws.join("both")


REMEDY = "room 'secret' is neither public nor has it an authorize hook: write app.room('secret', public=True)"


def test_forbidden_that_nobody_catches_closes_with_4503(app, live, caplog):
    @app.websocket("/callbacks")
    class Callbacks:
        def on_open(self, ws):
            ws.join("secret")

    @app.websocket("/linear")
    def linear(ws):
        ws.join("secret")

    server = live()
    for path in ("/callbacks", "/linear"):
        caplog.clear()
        assert close_of(server.websocket(path)) == (4503, "forbidden")
        assert caplog.text.count(REMEDY) == 1, "the log alone says what to write"
    assert app.room("secret").count() == 0


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/json"])
@pytest.mark.parametrize("production", [True, False])
def test_a_stranger_is_not_told_how_to_open_a_room(live_server, caplog, accept, production):
    app = Catzilla(production=production, show_banner=False)
    app.get("/events")(lambda request: app.room("secret").stream(request))
    refused = live_server(app).get("/events", headers={"Accept": accept})
    assert refused.status_code == 403
    assert "this room is not for you" in refused.text
    assert "secret" not in refused.text
    assert "public" not in refused.text
    (record,) = [record for record in caplog.records if REMEDY in record.getMessage()]
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


def test_whom_the_hook_refuses_is_told_the_same_and_nobody_is_warned(app, live, caplog):
    app.room("secret").authorize(lambda principal, request: False)
    app.get("/events/{room}")(lambda request, room: app.room(room).stream(request))
    server = live()
    refused = server.get("/events/secret")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    unknown = server.get("/events/unknown")
    assert (refused.status_code, refused.body) == (unknown.status_code, unknown.body)


def test_an_error_handler_is_told_why(app, live):
    seen = Calls()
    app.set_exception_handler(Forbidden, lambda request, error: seen(str(error)) or ("no", 403))
    app.get("/events")(lambda request: app.room("secret").stream(request))
    assert live().get("/events").text == "no"
    assert REMEDY in seen.wait(1)[0]


def test_forbidden_may_be_caught_and_the_connection_goes_on(app, live):
    @app.websocket("/polite")
    class Polite:
        def on_message(self, ws, message):
            try:
                ws.join(message)
            except Forbidden as error:
                ws.send(f"refused: {error.status_code}")
            else:
                ws.send("joined")

    app.room("open", public=True)
    client = live().websocket("/polite")
    client.send("secret")
    client.send("open")
    assert [client.receive(), client.receive()] == ["refused: 403", "joined"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), Forbidden("for a reason")])
def test_an_authorize_that_raises_joins_nothing(app, live, error):
    @app.room("lobby").authorize
    def may(principal, request):
        raise error

    @app.get("/events")
    def events(request):
        return app.room("lobby").stream(request)

    peer = Door(app).open(server := live())
    with pytest.raises(type(error)):
        peer.ws.join("lobby")
    app.room("lobby").publish("x")
    assert received(peer) == []
    assert peer.ws.rooms == frozenset()
    assert server.get("/events").status_code == (403 if isinstance(error, Forbidden) else 500)
    assert app.room("lobby").count() == 0


@pytest.mark.parametrize(("answer", "found"), ANSWERS.values(), ids=ANSWERS)
def test_an_authorize_that_returns_a_refusal_joins_nothing_and_says_what_to_write(app, live, answer, found):
    @app.room("lobby").authorize
    def may(principal, request):
        return answer

    app.get("/events")(lambda request: app.room("lobby").stream(request))
    peer = Door(app).open(server := live())
    remedy = r"which would let everybody in: return False or raise Forbidden\(\), do not return it"
    with pytest.raises(TypeError, match=rf"room 'lobby': authorize function \S*may returned {found}, {remedy}"):
        peer.ws.join("lobby")
    assert server.get("/events").status_code == 500
    app.room("lobby").publish("x")
    assert received(peer) == []
    assert app.room("lobby").count() == 0


@pytest.mark.parametrize("answer", [True, 1, "yes", Account("alice", 401), ["a member"]], ids=repr)
def test_what_an_authorize_returns_is_taken_as_true(app, live, answer):
    app.room("lobby").authorize(lambda principal, request: answer)
    peer = Door(app).open(live())
    peer.ws.join("lobby")
    assert peer.ws.rooms == {"lobby"}


def test_an_event_stream_honours_both(app, live, staff_room):
    app.room("open", public=True)

    @app.get("/events/{room}/{name}")
    def events(request, room, name):
        return app.room(room).stream(request, principal=by_name(request))

    server = live()
    refused = server.get("/events/staff/guest")
    assert refused.status_code == 403
    assert "text/event-stream" not in refused.headers["content-type"]
    assert server.get("/events/neither/boss").status_code == 403
    with server.events("/events/staff/boss") as boss, server.events("/events/open/guest") as guest:
        app.room("staff").publish("confidential")
        app.room("open").publish("open")
        assert (next(boss).data, next(guest).data) == ("confidential", "open")
    assert staff_room.so_far[0] == (User("guest"), "/events/staff/guest")
    assert len(staff_room.so_far) == 2
