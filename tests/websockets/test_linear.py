"""Linear handlers: a function on a thread of its own for as long as its connection, told of the end by one error."""

from __future__ import annotations

import contextvars
import threading

import pytest

from catzilla import Disconnected, HTTPError, InvalidMessage, SlowConsumer
from catzilla.testing import HandshakeRefused, WebSocketClosed, raw_frame
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.helpers import CLOSE, TEXT, closed_with, sockets_of, wait_forgotten
from tests.websockets.room_helpers import Calls


def failures(caplog) -> list[str]:
    """What was logged with a traceback."""
    return [record.getMessage() for record in caplog.records if record.exc_info]


# Receiving.


@pytest.mark.parametrize("how", ["close", "drop", "bad frame"])
def test_iteration_ends_with_the_connection(app, live_server, notes, quiet, how):
    @app.websocket("/")
    def handler(ws):
        for message in ws:
            notes.add(message)
        assert list(ws) == [], "and it stays ended"
        notes.add(ws.closed, ws.close_code)

    live = live_server(app)
    client = live.websocket("/")
    client.send("one")
    client.send(b"two")
    assert notes.take(2) == ["one", b"two"]
    if how == "close":
        client.close(4000)
    elif how == "drop":
        live.drop(client)
    else:
        client.send_raw(raw_frame(3))
        closed_with(client)
    assert notes.next() == (True, {"close": 4000, "drop": 1006, "bad frame": 1002}[how])
    wait_forgotten(live)


def test_receive_with_a_timeout(app, live_server, notes):
    @app.websocket("/")
    def handler(ws):
        for timeout in (0, 0.01):
            try:
                ws.receive(timeout)
            except TimeoutError as error:
                notes.add(str(error))
        ws.send("ready")
        notes.add(ws.receive(timeout=PATIENCE))
        try:
            ws.receive_json(timeout=0.01)
        except TimeoutError:
            notes.add("again")

    with live_server(app).websocket("/") as client:
        assert client.receive() == "ready"
        client.send("here")
        assert notes.take(4) == ["no message within 0 s", "no message within 0.01 s", "here", "again"]


def test_receive_without_waiting_gives_what_has_come(app, live_server, notes, gate):
    @app.websocket("/")
    def handler(ws):
        gate.wait()
        notes.add([ws.receive(0), ws.receive(0)])

    live = live_server(app)
    client = live.websocket("/")
    client.send("one")
    client.send("two")
    eventually(lambda: services_of(live).messages_received == 2, "they have come")
    gate.open()
    assert notes.next() == ["one", "two"]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_messages_before_the_end_are_received_before_the_end(app, live_server, notes, gate, how):
    @app.websocket("/")
    def handler(ws):
        gate.wait()
        try:
            while True:
                notes.add(ws.receive(PATIENCE))
        except Disconnected as end:
            notes.add(end.code)

    live = live_server(app)
    client = live.websocket("/")
    gate.wait_arrived()
    count = 10
    for number in range(count):
        client.send(str(number))
    eventually(lambda: services_of(live).messages_received == count, "they have come")
    client.close(4000) if how == "close" else live.drop(client)
    eventually(lambda: not sockets_of(live), "the connection is gone")
    gate.open()
    assert notes.take(count + 1) == [*map(str, range(count)), 4000 if how == "close" else 1006]


def test_everything_that_finds_the_peer_gone_raises_the_same(app, live_server, notes):
    @app.websocket("/")
    def handler(ws):
        assert ws.wait_closed(PATIENCE)
        for call in (
            lambda: ws.send("x"),
            lambda: ws.send(b"x"),
            lambda: ws.send_json({}),
            ws.receive,
            ws.receive_json,
            lambda: ws.receive(1.0),
            ws.ping,
            lambda: ws.join("room"),
        ):
            with pytest.raises(Disconnected) as end:
                call()
            notes.add(end.value.code, end.value.reason)
        assert isinstance(end.value, ConnectionError)
        ws.leave("room")
        ws.close()
        notes.add("done")

    app.room("room", public=True)
    client = live_server(app).websocket("/")
    client.close(4000, "bye")
    assert notes.take(9) == [(4000, "bye")] * 8 + ["done"]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_handler_that_only_sends_learns_that_its_peer_has_left(app, live_server, notes, quiet, how):
    @app.websocket("/")
    def handler(ws):
        pause = threading.Event()
        try:
            while True:
                ws.send("tick")
                pause.wait(0.001)
        except Disconnected as end:
            notes.add(end.code)
            raise

    live = live_server(app)
    client = live.websocket("/")
    assert client.receive() == "tick"
    if how == "drop":
        live.drop(client)
    else:
        client.send_raw(raw_frame(CLOSE, (4000).to_bytes(2, "big")))
    assert notes.next() == (1006 if how == "drop" else 4000)
    wait_forgotten(live)


def test_disconnected_need_not_be_caught(app, live_server, quiet, caplog):
    @app.websocket("/")
    def handler(ws):
        while True:
            ws.receive()

    live = live_server(app)
    live.websocket("/").close()
    live.drop(live.websocket("/"))
    wait_forgotten(live)
    assert failures(caplog) == []


def test_disconnected_of_another_connection_is_a_failure(app, live_server, caplog):
    """It is not this connection's end, so it must not pass for it."""

    @app.websocket("/")
    def handler(ws):
        raise Disconnected(4000, "of something else")

    live = live_server(app)
    assert closed_with(live.websocket("/"))[0] == 1011
    eventually(lambda: len(failures(caplog)) == 1, "it is logged")


# JSON.


@pytest.mark.parametrize("message", ["", "{", "nan?", b"\xff", "[" * 100_000], ids=["empty", "{", "nan", "ff", "deep"])
def test_a_message_that_is_not_json_closes_with_1007(app, live_server, quiet, caplog, message):
    app.websocket("/")(lambda ws: ws.receive_json())
    live = live_server(app)
    client = live.websocket("/")
    client.send(message)
    code, reason = closed_with(client)
    assert code == 1007
    assert "JSON" in reason
    wait_forgotten(live)
    assert failures(caplog) == []


def test_a_message_that_is_not_json_may_be_caught(app, live_server):
    @app.websocket("/")
    def handler(ws):
        for _ in range(2):
            try:
                ws.send_json(ws.receive_json())
            except ValueError as error:  # which an `InvalidMessage` is
                ws.send("what?" if isinstance(error, InvalidMessage) else repr(error))

    with live_server(app).websocket("/") as client:
        client.send("{")
        assert client.receive() == "what?"
        client.send("{}")
        assert client.receive() == "{}"


# Failures.


class Strange(BaseException):
    """Something that no handler of exceptions expects."""


@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("secret"), SystemExit(3), Strange("secret")], ids=repr
)
def test_a_handler_that_raises_closes_with_1011(app, live_server, caplog, error):
    @app.websocket("/failing")
    def failing(ws):
        ws.receive()
        raise error

    @app.websocket("/fine")
    def fine(ws):
        for message in ws:
            ws.send(message)

    live = live_server(app)
    with live.websocket("/fine") as other:
        client = live.websocket("/failing")
        client.send("go")
        code, reason = closed_with(client)
        assert code == 1011
        assert "secret" not in reason
        other.send("unaffected")
        assert other.receive() == "unaffected"
    wait_forgotten(live)
    (line,) = failures(caplog)
    assert "failing" in line


def test_what_a_handler_sent_before_it_raised_arrives(app, live_server):
    @app.websocket("/")
    def failing(ws):
        ws.send("one")
        ws.send("two")
        raise ValueError

    client = live_server(app).websocket("/")
    assert [client.receive(), client.receive()] == ["one", "two"]
    assert closed_with(client)[0] == 1011


def test_the_reason_says_more_while_it_is_developed(app, live_server):
    @app.websocket("/")
    def failing(ws):
        raise ValueError("it was this: " + "ü" * 200)

    app.production = app.pipeline.production = False
    app.websocket("/dev")(failing)
    client = live_server(app).websocket("/dev")
    code, reason = closed_with(client)
    assert code == 1011
    assert reason.startswith("ValueError: it was this: üü")


def test_an_exception_that_cannot_say_what_it_is_closes_all_the_same(app, live_server, caplog):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    app.production = app.pipeline.production = False

    @app.websocket("/")
    def failing(ws):
        raise Mute

    assert closed_with(live_server(app).websocket("/")) == (1011, "Mute")
    (line,) = failures(caplog)
    assert "failing" in line


@pytest.mark.parametrize(
    ("error", "code"),
    [(HTTPError(403), 4503), (HTTPError(401), 4501), (HTTPError(404), 1011), (SlowConsumer("slow"), 4008)],
    ids=str,
)
def test_exceptions_that_say_why_have_codes(app, live_server, error, code):
    @app.websocket("/")
    def failing(ws):
        raise error

    assert closed_with(live_server(app).websocket("/"))[0] == code


def test_an_error_status_that_cannot_be_sent_any_more_is_told_without_a_traceback(app, live_server, caplog):
    @app.websocket("/")
    def failing(ws):
        raise HTTPError(404, "no such item")

    assert closed_with(live_server(app).websocket("/")) == (1011, "")
    (line,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert line.exc_info is None
    assert "404 no such item" in line.getMessage()
    assert "write ws.close(4000, reason)" in line.getMessage()


# Threads, contexts and budgets.


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
local = threading.local()


def test_what_auth_has_set_is_there(app, live_server):
    def auth(request):
        variable.set(request.query_params["name"])
        request.context["seen"] = True
        return request.query_params["name"]

    @app.websocket("/", auth=auth)
    def handler(ws):
        ws.send_json([variable.get(), ws.principal, ws.request.context["seen"]])

    live = live_server(app)
    for name in ("alice", "bob"):
        with live.websocket(f"/?name={name}") as client:
            assert client.receive_json() == [name, name, True]


def test_a_handler_stays_on_its_thread_and_in_its_context(app, live_server):
    @app.websocket("/{name}")
    def handler(ws, name):
        local.name = name
        token = variable.set(name)
        for _ in ws:
            ws.send_json([local.name, variable.get(), threading.current_thread().name])
        variable.reset(token)

    live = live_server(app)
    clients = {name: live.websocket(f"/{name}") for name in "abcdef"}
    threads = {}
    for _ in range(3):
        for name, client in clients.items():
            client.send("?")
            mine, own, thread = client.receive_json()
            assert mine == own == name
            assert threads.setdefault(name, thread) == thread
    assert len(set(threads.values())) == len(clients), "a thread each"


def test_over_the_budget_is_a_503_before_the_upgrade(app, live_server, notes):
    @app.websocket("/linear")
    def linear(ws):
        notes.add("runs")
        for message in ws:
            ws.send(message)

    @app.websocket("/callbacks")
    class Callbacks:
        def on_message(self, ws, message):
            ws.send(message)

    app.get("/")(lambda: "hello")
    limit = 3
    live = live_server(app, max_sockets=limit)
    clients = [live.websocket("/linear") for _ in range(limit)]
    assert notes.take(limit) == ["runs"] * limit
    for _ in range(5):
        with pytest.raises(HandshakeRefused) as refused:
            live.websocket("/linear")
        assert refused.value.status_code == 503
        assert int(refused.value.headers["retry-after"]) >= 1
    assert services_of(live).websockets == limit
    with live.websocket("/callbacks") as other:
        other.send("a budget of its own")
        assert other.receive() == "a budget of its own"
    assert live.get("/").text == "hello"
    clients[0].close()
    eventually(lambda: services_of(live).turns.statistics().linear == limit - 1, "there is a place again")
    with live.websocket("/linear") as client:
        client.send("in")
        assert client.receive() == "in"
    for client in clients:
        client.close()
    wait_forgotten(live)


def test_who_is_refused_for_the_budget_leaves_nothing_behind(app, live_server, notes):
    """A principal's inbox is entered with the opening; there was none."""

    @app.websocket("/", auth=lambda request: request.query_params["name"])
    def linear(ws):
        notes.add("runs")
        ws.receive()

    live = live_server(app, max_sockets=1)
    client = live.websocket("/?name=alice")
    assert notes.next() == "runs"
    with pytest.raises(HandshakeRefused):
        live.websocket("/?name=bob")
    assert set(services_of(live).fanout.rooms) == {"~alice"}
    app.user("bob").publish("nobody is there")
    client.close()
    wait_forgotten(live)


def test_linear_handlers_run_side_by_side(app, live_server, gate):
    @app.websocket("/")
    def handler(ws):
        gate.wait()
        ws.send("done")

    live = live_server(app)
    count = 50
    clients = [live.websocket("/") for _ in range(count)]
    gate.wait_arrived(count)
    gate.open()
    for client in clients:
        assert client.receive() == "done"


def test_a_handler_for_each_connection(app, live_server):
    """Nothing is shared but what the application shares."""

    @app.websocket("/count")
    def count(ws):
        for number, _ in enumerate(ws):
            ws.send(str(number))

    live = live_server(app)
    first, second = live.websocket("/count"), live.websocket("/count")
    for _ in range(2):
        first.send("")
    second.send("")
    assert [first.receive(), first.receive(), second.receive()] == ["0", "1", "0"]


def test_receive_belongs_to_linear_handlers(app, live_server, notes):
    @app.websocket("/")
    class Callbacks:
        def on_open(self, ws):
            with pytest.raises(RuntimeError, match="on_message"):
                ws.receive()
            notes.add("refused")

    live_server(app).websocket("/")
    assert notes.next() == "refused"


def test_a_client_that_leaves_before_the_handler_runs(app, live_server, notes, quiet):
    """It runs all the same, and finds out."""

    @app.websocket("/")
    def handler(ws):
        notes.add(list(ws))

    live = live_server(app)
    for _ in range(20):
        client = live.websocket("/")
        client.send_raw(raw_frame(TEXT, b"last words"))
        live.drop(client)
    for messages in notes.take(20):
        assert messages in ([], ["last words"])
    wait_forgotten(live)


def test_close_code_of_a_test_client(app, live_server):
    """The client of these tests says what it was told, so that the tests above mean something."""
    app.websocket("/")(lambda ws: ws.close(4321, "so"))
    client = live_server(app).websocket("/")
    with pytest.raises(WebSocketClosed) as end:
        client.receive()
    assert (end.value.code, end.value.reason) == (4321, "so")


def test_two_threads_that_receive_share_the_messages_and_both_learn_of_the_end(app, live_server):
    got, ended = Calls(), Calls()

    @app.websocket("/two")
    def two(ws):
        def receive():
            try:
                while True:
                    got(ws.receive())
            except Disconnected as error:
                ended(error.code)

        threads = [threading.Thread(target=receive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    client = live_server(app).websocket("/two")
    client.send_raw(b"".join(raw_frame(TEXT, str(i).encode()) for i in range(200)))
    assert sorted(got.wait(200), key=int) == [str(i) for i in range(200)]
    client.close()
    assert ended.wait(2) == [1000, 1000]


def test_who_receives_the_last_message_leaves_the_end_to_the_other(app, live_server):
    """Both wait when the last message and the end arrive together: one wake-up serves for both."""
    ended = Calls()

    @app.websocket("/two")
    def two(ws):
        def receive():
            try:
                ws.receive()
            except Disconnected as error:
                ended(error.code)
            else:
                ended("a message")

        threads = [threading.Thread(target=receive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    live = live_server(app)
    for round_ in range(1, 31):
        client = live.websocket("/two")
        client.send_raw(raw_frame(TEXT, b"last") + raw_frame(CLOSE, b"\x03\xe8"))
        assert {1000, "a message"} == set(ended.wait(2 * round_)[-2:])
