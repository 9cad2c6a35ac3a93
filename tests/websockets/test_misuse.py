"""What is written wrongly is refused where it is written, by a message that says what to write."""

from __future__ import annotations

import functools
import logging

import pytest

from catzilla import Catzilla, HTTPError, Request, RouterGroup, WebSocket
from catzilla._core import codes
from catzilla.errors import RouteError
from catzilla.testing import WebSocketClosed
from tests.promises.helpers import eventually
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
        (
            "authorize",
            lambda request, principal: True,
            r"write def authorize\(principal, request\): it has request where principal is passed",
        ),
        ("authorize", lambda request, user: True, "it has request where principal is passed"),
        ("authorize", lambda user, principal: True, "it has principal where request is passed"),
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


def a_class_with(name):
    """A handler class with a method of that name beside its callback."""
    return type("Handler", (), {name: lambda self, *given: None, "on_close": lambda self, ws, code, reason: None})


class Right:
    on_fire = False  # no method
    onMessage = "a word"

    def on_chat(self, text): ...  # the user's own

    def online(self): ...  # this one, too

    def message(self): ...

    def _on_message(self): ...

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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("onMessage", "on_message"),
        ("onmessage", "on_message"),
        ("on_Message", "on_message"),
        ("OnOpen", "on_open"),
        ("onopen", "on_open"),
        ("onClose", "on_close"),
        ("ON_CLOSE", "on_close"),
        ("onConnect", "on_open"),
        ("onDisconnect", "on_close"),
        ("onreceive", "on_message"),
    ],
)
def test_a_callback_in_another_spelling_is_refused(app, name, meant):
    with pytest.raises(RouteError, match=f"has {name}, which is never called: .*; did you mean {meant}[?]"):
        app.websocket("/")(a_class_with(name))


@pytest.mark.parametrize(
    ("callback", "function"),
    [
        ("on_open", lambda self, ws, request: None),
        ("on_message", lambda self, ws, message, request: None),
        ("on_close", lambda self, ws, code, reason, request: None),
    ],
)
def test_a_callback_gets_no_request(app, callback, function):
    handler = type("Handler", (), {callback: function})
    with pytest.raises(RouteError, match=rf"{callback} takes 'request' .*: leave it out, the request is ws\.request"):
        app.websocket("/")(handler)


def request_first(request, ws, room): ...


def request_last(ws, room, request=None): ...


def request_alone(r: Request): ...


def socket_last(room, ws): ...


def annotated_last(room, client: WebSocket): ...


def by_keyword(*, ws, room): ...


def no_socket(room): ...


def nothing(): ...


def named_only(**given): ...


def another_name(websocket, name): ...


FIRST = "a WebSocket handler takes the WebSocket first, then parameters of the path: write "
THE_REQUEST = "; the request is ws.request"
ANOTHER_NAME = (
    "takes 'name', but path '/a/{room}' calls its parameter room: write def another_name(websocket, room), or {name} "
    "in the path, or give 'name' a default"
)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (request_first, f"{FIRST}def request_first(ws, room){THE_REQUEST}"),
        (request_last, f"{FIRST}def request_last(ws, room){THE_REQUEST}"),
        (request_alone, f"{FIRST}def request_alone(ws){THE_REQUEST}"),
        (socket_last, f"{FIRST}def socket_last(ws, room)"),
        (annotated_last, f"{FIRST}def annotated_last(client, room)"),
        (by_keyword, f"{FIRST}def by_keyword(ws, room)"),
        (no_socket, f"{FIRST}def no_socket(ws, room)"),
        (nothing, f"{FIRST}def nothing(ws)"),
        (named_only, f"{FIRST}def named_only(ws)"),
        (lambda room: None, f"{FIRST}def handler(ws, room)"),
        (
            another_name,
            ANOTHER_NAME,
        ),
    ],
)
def test_a_linear_handler_takes_the_websocket_first(app, handler, message):
    with pytest.raises(RouteError) as refused:
        app.websocket("/a/{room}")(handler)
    assert str(refused.value).endswith(message)
    assert handler.__name__ in str(refused.value)
    assert "'/a/{room}'" in str(refused.value)
    assert app.routes() == []


def test_a_linear_handler_of_other_paths(app):
    with pytest.raises(RouteError, match=r"but path '/' has no parameters: write \{name\} in the path, or give 'name'"):
        app.websocket("/")(another_name)
    with pytest.raises(RouteError, match=r"but path '/\{a\}/\{b\}' calls its parameters a, b: write def another_name"):
        app.websocket("/{a}/{b}")(another_name)
    with pytest.raises(RouteError, match=r"write def handler\(websocket, ws\)"):
        app.websocket("/{ws}")(lambda ws: None)


@pytest.mark.parametrize(
    "handler",
    [
        lambda whatever, room: whatever.send(room),
        lambda whatever, socket="default", *, room: whatever.send(room),
        lambda ws, **given: ws.send(given["room"]),
        lambda *given, **named: given[0].send(named["room"]),
        lambda *given, room: given[0].send(room),
    ],
)
def test_signatures_of_a_linear_handler(app, live_server, handler):
    app.websocket("/a/{room}")(handler)
    assert live_server(app).websocket("/a/lobby").receive() == "lobby"


class WaitsInCallback:
    async def on_message(self, ws, message): ...


@pytest.mark.parametrize("handler", [waits, generates_later, WaitsInCallback])
def test_who_writes_async_is_not_told_to_yield(app, handler):
    with pytest.raises(RouteError, match=r"write plain def, without await|write plain def without async") as refused:
        app.websocket("/")(handler)
    assert "yield streams" not in str(refused.value)
    assert "with yield" not in str(refused.value)
    with pytest.raises(RouteError, match=r"auth function .* write plain def") as refused:
        app.websocket("/", auth=waits)
    assert "yield" not in str(refused.value)


# What is returned.


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("returned", "kind"),
    [("hello", "a str"), (({"error": "no"}, 403), "a tuple"), (0, "an int"), (False, "a bool"), (Named(), "a Named")],
)
def test_what_a_linear_handler_returns_goes_nowhere_and_is_warned_of_once(app, live_server, caplog, returned, kind):
    @app.websocket("/")
    def says_it_wrongly(ws):
        ws.send("right")
        return returned

    live = live_server(app)
    for _ in range(3):
        client = live.websocket("/")
        assert client.receive() == "right"
        with pytest.raises(WebSocketClosed) as closed:
            client.receive()
        assert closed.value.code == 1000
    (warning,) = warnings_of(caplog)
    assert f"says_it_wrongly returned {kind}, which goes nowhere: a WebSocket handler sends with ws.send(" in warning
    assert warning.startswith(f"handler={__name__}.")


@pytest.mark.parametrize("callback", ["on_open", "on_message", "on_close"])
def test_what_a_callback_returns_goes_nowhere_and_is_warned_of_once(app, live_server, notes, caplog, callback):
    class Returns:
        def on_open(self, ws):
            return "open" if callback == "on_open" else None

        def on_message(self, ws, message):
            ws.send(message)
            return message if callback == "on_message" else None

        def on_close(self, ws, code, reason):
            notes.add(code)
            return "close" if callback == "on_close" else None

    app.websocket("/")(Returns)
    live = live_server(app)
    for _ in range(2):
        with live.websocket("/") as client:
            for message in ("one", "two"):
                client.send(message)
                assert client.receive() == message
        notes.next()
    eventually(lambda: warnings_of(caplog), "it is warned of")
    live.stop()  # nothing more is logged
    (warning,) = warnings_of(caplog)
    assert f"Returns.{callback} returned a str, which goes nowhere: a WebSocket handler sends with ws.send(" in warning


def test_handlers_that_return_nothing_are_not_warned_of(app, live_server, caplog):
    app.websocket("/")(Right)
    app.websocket("/linear")(lambda ws: ws.send("x"))
    live = live_server(app)
    with live.websocket("/") as client:
        client.send("x")
    assert live.websocket("/linear").receive() == "x"
    live.stop()
    assert warnings_of(caplog) == []


# Event streams.


class Item:
    def __getitem__(self, name):
        raise TypeError("another mistake")


@pytest.mark.parametrize(
    ("hook", "principal", "is_told"),
    [
        (lambda principal, request: principal.is_staff, None, True),
        (lambda principal, request: principal["staff"], None, True),
        (lambda principal, request: request.no_such_attribute, None, False),
        (lambda principal, request: HTTPError(401), None, False),
        (lambda principal, request: principal.is_staff, "alice", False),
        (lambda principal, request: principal["staff"], Item(), False),
    ],
)
def test_a_stream_whose_principal_was_forgotten_says_so_in_the_log(app, live_server, caplog, hook, principal, is_told):
    app.room("r").authorize(hook)
    app.get("/events")(lambda request: app.room("r").stream(request, principal=principal))
    assert live_server(app).get("/events").status_code == 500
    advice = "event stream failed: path='/events': write stream(request, principal=...)"
    assert (advice in warnings_of(caplog)) is is_told
    assert sum(record.exc_info is not None for record in caplog.records) == 1


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
