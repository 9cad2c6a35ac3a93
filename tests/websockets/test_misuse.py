"""What is written wrongly is refused where it is written, by a message that says what to write."""

from __future__ import annotations

import functools

import pytest

from catzilla import Catzilla, RouterGroup
from catzilla._core import codes
from catzilla.errors import RouteError
from catzilla.testing import WebSocketClosed
from tests.websockets.room_helpers import Calls, Door

# Closing.


@pytest.mark.parametrize(
    ("code", "reason", "error", "message"),
    [
        (1000, None, TypeError, r"reason is a str, not NoneType: write close\(1000, 'why'\)"),
        (4000, b"bytes", TypeError, "reason is a str, not bytes"),
        ("bye", "", ValueError, "close code 'bye' may not be sent: write 1000, or one of your own"),
        (None, "", ValueError, "None may not be sent: write 1000"),
        (True, "", ValueError, "True may not be sent: write 1000"),
        (1006, "", ValueError, "1006 may not be sent: write 1000"),
        (1000, "\ud800", ValueError, "reason is sent as UTF-8"),
        (1000, "ü" * 62, ValueError, "at most 123 bytes, this one has 124"),
    ],
)
def test_close_says_what_it_takes(code, reason, error, message):
    with pytest.raises(error, match=message) as caught:
        codes.check_close(code, reason)
    assert type(caught.value) is error


def test_a_close_that_is_refused_leaves_the_connection_open(app, live_server, notes):
    @app.websocket("/")
    def handler(ws):
        try:
            ws.close(1000, None)
        except TypeError as error:
            notes.add(str(error))
        ws.send("still open")

    client = live_server(app).websocket("/")
    assert "write close(1000, 'why')" in notes.next()
    assert client.receive() == "still open"
    with pytest.raises(WebSocketClosed):
        client.receive()


# Rooms.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": True}, "history=True: write how many messages"),
        ({"history_ttl": "x"}, "history_ttl='x': write how many seconds"),
        ({"history_ttl": True}, "history_ttl=True: write how many seconds"),
        ({"history_ttl": [1]}, "write how many seconds"),
        ({"public": "no"}, "public='no': write True or False"),
    ],
)
def test_options_of_a_room_of_the_wrong_type(app, options, message):
    with pytest.raises(ValueError, match=message):
        app.room("r", **options)


def test_origins_of_an_event_stream_are_checked_whoever_asks(app, live_server, notes):
    app.room("r", public=True)

    @app.get("/events")
    def events(request):
        try:
            return app.room("r").stream(request, origins="https://a.example")
        except RouteError as error:
            notes.add(str(error))
            return "refused"

    assert live_server(app).get("/events").text == "refused"
    assert 'write origins=["https://a.example"]' in notes.next()


class Named:
    id = "alice"


@pytest.mark.parametrize("wrong", ["alice", "", Named()], ids=["a str", "an empty str", "a principal"])
def test_exclude_takes_a_websocket_only(app, wrong):
    with pytest.raises(TypeError, match=r"exclude takes a WebSocket, not \w+: write exclude=ws"):
        app.room("r").publish("x", exclude=wrong)


def test_a_number_and_its_text_are_one_identity(app, live_server):
    app.room("r", public=True)
    calls = Calls()
    app.room("r").on_join(calls)
    number = Door(app, "/number", auth=lambda request: 1)
    text = Door(app, "/text", auth=lambda request: "1")

    @app.get("/events")
    def events(request):
        return app.room("r").stream(request, principal=1)

    live = live_server(app)
    peers = [number.open(live), text.open(live)]
    peers[1].ws.join("r")
    assert calls.wait(1) == ["1"]
    peers[0].ws.join("r")
    with live.stream("/events") as stream:
        next(stream)  # it is a member
        assert app.room("r").members() == ["1"]
    app.user(1).publish("for both")
    assert [peer.client.receive() for peer in peers] == ["for both"] * 2
    assert calls.so_far == ["1"]


async def waits(*given): ...


def generates(*given):
    yield


async def generates_later(*given):
    yield


class WaitsWhenCalled:
    async def __call__(self, *given): ...


@pytest.mark.parametrize("hook", ["authorize", "on_join", "on_leave"])
@pytest.mark.parametrize("function", [waits, generates, generates_later, WaitsWhenCalled()])
def test_a_hook_is_a_plain_function(app, hook, function):
    with pytest.raises(TypeError, match=rf"{hook} function .*\(room 'r'\) .* write def, without async and yield"):
        getattr(app.room("r"), hook)(function)


@pytest.mark.parametrize(
    ("hook", "function", "message"),
    [
        (
            "authorize",
            lambda: True,
            r"takes principal and request: write def authorize\(principal, request\): too many",
        ),
        ("authorize", lambda principal: True, r"write def authorize\(principal, request\): too many"),
        ("authorize", lambda principal, request, room: True, r"write def authorize\(principal, request\): missing"),
        ("on_join", lambda: None, r"takes principal: write def on_join\(principal\): too many"),
        (
            "on_join",
            lambda principal, room: None,
            r"write def on_join\(principal\): missing a required argument: 'room'",
        ),
        ("on_leave", lambda principal, *, room: None, r"write def on_leave\(principal\): missing .*'room'"),
        ("on_leave", Named, r"write def on_leave\(principal\): too many"),
    ],
)
def test_a_hook_takes_what_it_is_called_with(app, hook, function, message):
    with pytest.raises(TypeError, match=message) as refused:
        getattr(app.room("r"), hook)(function)
    assert "(room 'r')" in str(refused.value)
    assert not app.rooms.are_set_up


def test_hooks_may_take_more_than_they_are_called_with(app, live_server):
    calls = Calls()
    app.room("r").authorize(lambda *given: len(given) == 2)
    app.room("r").on_join(lambda principal, name="default": calls((principal, name)))
    app.room("r").on_join(adding(lambda principal, added: calls((principal, added))))
    app.room("r").on_join(calls)
    app.room("r").on_join(type)  # a builtin that does not tell what it takes
    door = Door(app, "/", auth=lambda request: "alice")
    door.open(live_server(app)).ws.join("r")
    assert calls.wait(3) == [("alice", "default"), ("alice", "added"), "alice"]


@pytest.mark.parametrize("limit", ["5", 1.5, True, [5]])
def test_a_history_has_a_number_of_messages(app, limit):
    for channel in (app.room("r"), app.user("alice")):
        with pytest.raises(TypeError, match=r"limit=.*: write how many messages, as in history\(5\)"):
            channel.history(limit)


# Handlers.


class Misspelled:
    def on_open(self, ws): ...

    def on_mesage(self, ws, message): ...


class Foreign:
    def on_message(self, ws, message): ...

    def on_disconnect(self, ws): ...


class Right:
    on_fire = False  # no method

    def on_chat(self, text): ...  # the user's own

    def on_message(self, ws, message): ...


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (Misspelled, "has on_mesage.*on_open, on_message, on_close; did you mean on_message[?]"),
        (Foreign, "has on_disconnect.*the callbacks are on_open, on_message, on_close; did you mean on_close[?]"),
        (Right(), "write the class, not an instance"),
    ],
    ids=["misspelled", "foreign", "an instance"],
)
def test_a_handler_that_would_never_be_called_is_refused(app, handler, message):
    with pytest.raises(RouteError, match=message):
        app.websocket("/")(handler)


def test_an_attribute_that_is_no_method_is_no_callback(app):
    app.websocket("/")(Right)
    assert app.routes() == [("WEBSOCKET", "/", f"{__name__}.Right")]


# Routes.


@pytest.mark.parametrize(
    ("subprotocols", "message"),
    [
        (5, "subprotocols is a list, not int"),
        ([1], "a subprotocol is a str such as 'chat.v1', not int"),
        (b"chat", "a subprotocol is a str"),
        (["chat", "a b"], "'a b' is no subprotocol"),
        ([""], "'' is no subprotocol"),
        (["a,b"], "'a,b' is no subprotocol"),
        (["chät"], "is no subprotocol"),
        (["chat", "bearer.abc"], "would carry a token and is never chosen: leave it out"),
        (["Bearer.abc"], "would carry a token"),
    ],
)
@pytest.mark.parametrize("make", [lambda: Catzilla(show_banner=False), RouterGroup], ids=["app", "group"])
def test_subprotocols_are_tokens(make, subprotocols, message):
    with pytest.raises(RouteError, match=message):
        make().websocket("/", subprotocols=subprotocols)


@pytest.mark.parametrize("compression", ["yes", "", 1, None, {"level": 9}])
@pytest.mark.parametrize("make", [lambda: Catzilla(show_banner=False), RouterGroup], ids=["app", "group"])
def test_compression_is_on_or_off(make, compression):
    with pytest.raises(RouteError, match=r"path '/': compression=.*: write True or False"):
        make().websocket("/", compression=compression)


def an_auth_that_yields(request):
    yield "alice"


class CallYields:
    def __call__(self, request):
        yield "alice"


class CallReturns:
    def __call__(self, request):
        return "alice"


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        (an_auth_that_yields, "yields: write return with the principal"),
        (CallYields(), "yields: write return with the principal"),
        (CallReturns, r"write an instance, auth=CallReturns\(\)"),
        (Right(), "an auth function is a function, not Right"),
        (lambda: "alice", r"takes the request: write def auth\(request\)"),
        (lambda request, more: "alice", r"takes the request: write def auth\(request\)"),
    ],
    ids=["generator", "generator call", "class", "instance without call", "no argument", "two arguments"],
)
def test_auth_takes_the_request_and_returns(app, auth, message):
    with pytest.raises(RouteError, match=message):
        app.websocket("/", auth=auth)


def adding(function):
    """As a decorator does that opens a session, say, for the function inside."""

    @functools.wraps(function)
    def wrapper(*given):
        return function(*given, "added")

    return wrapper


def test_auth_may_be_decorated_by_what_adds_arguments(app, live_server):
    @adding
    def auth(request, session):
        return session

    app.websocket("/", auth=auth)(lambda ws: ws.send(ws.principal))
    assert live_server(app).websocket("/").receive() == "added"


def test_auth_may_be_an_object_with_call(app, live_server):
    @app.websocket("/", auth=CallReturns(), subprotocols=iter(["chat"]))
    def handler(ws):
        ws.send(f"{ws.principal} {ws.subprotocol}")

    assert live_server(app).websocket("/", subprotocols=["chat"]).receive() == "alice chat"


# The client of tests.


def test_an_option_that_no_request_has_is_refused(app, live_server):
    app.post("/x")(lambda request: request.text())
    live = live_server(app)
    with pytest.raises(TypeError, match="no option 'body': write one of headers, data, json, files, timeout"):
        live.post("/x", body="text")
    with pytest.raises(TypeError, match="no option 'param'"):
        live.stream("/x", param={})
    with live.connect() as connection:
        with pytest.raises(TypeError, match="no option 'body'"):
            connection.post("/x", body="text")
        assert connection.post("/x", data="text").text == "text"  # nothing of it was sent
