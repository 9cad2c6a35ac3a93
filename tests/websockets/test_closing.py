"""The end of a connection, whoever begins it and however it goes wrong: what each side is told, and how soon."""

from __future__ import annotations

import threading
from time import perf_counter

import pytest

from catzilla import Disconnected
from catzilla.testing import WebSocketClosed, raw_frame
from tests.promises.helpers import PATIENCE, RawClient, eventually
from tests.websockets.helpers import (
    CLOSE,
    TEXT,
    closed_with,
    handshake,
    socket_of,
    sockets_of,
    wait_forgotten,
    waits_to_send,
)

MARGIN = 1.0  # seconds, for a busy machine


def goodbye(code: int, reason: bytes = b"") -> bytes:
    return raw_frame(CLOSE, code.to_bytes(2, "big") + reason)


@pytest.fixture
def app(app, notes):
    @app.websocket("/callbacks")
    class Callbacks:
        def on_message(self, ws, message):
            notes.add(message)

        def on_close(self, ws, code, reason):
            notes.add(code, reason)

    @app.websocket("/linear")
    def linear(ws):
        try:
            while True:
                notes.add(ws.receive())
        except Disconnected as end:
            notes.add(end.code, end.reason)

    return app


BOTH = pytest.mark.parametrize("path", ["/callbacks", "/linear"])


# By the client.


@BOTH
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
def test_the_client_closes(app, live_server, notes, quiet, path, code):
    live = live_server(app)
    client = live.websocket(path)
    client.send("last words")
    client.close(code, "bye ü")
    assert (client.close_code, client.close_reason) == (code, "bye ü"), "its code is given back"
    assert notes.take(2) == ["last words", (code, "bye ü")]
    wait_forgotten(live)


@BOTH
def test_the_client_closes_without_a_code(app, live_server, notes, path):
    live = live_server(app)
    client = live.websocket(path)
    client.send_raw(raw_frame(CLOSE))
    assert closed_with(client) == (1005, "")
    assert notes.next() == (1005, "")
    wait_forgotten(live)


@BOTH
def test_the_longest_reason(app, live_server, notes, path):
    client = live_server(app).websocket(path)
    client.close(4000, "x" * 123)
    assert notes.next() == (4000, "x" * 123)


@BOTH
def test_nothing_after_the_close_frame_is_looked_at(app, live_server, notes, quiet, path):
    live = live_server(app)
    client = RawClient(live, handshake(path))
    client.read_until(b"\r\n\r\n")
    client.send(raw_frame(TEXT, b"before") + goodbye(1000) + raw_frame(TEXT, b"after") + b"\xff" * 100)
    client.read_to_end()
    assert notes.take(2) == ["before", (1000, "")]
    wait_forgotten(live)
    assert notes.rest() == []


@BOTH
def test_the_client_is_dropped(app, live_server, notes, quiet, path):
    live = live_server(app)
    client = live.websocket(path)
    client.send("last words")
    assert notes.next() == "last words"
    live.drop(client)
    code, _ = notes.next()
    assert code == 1006
    wait_forgotten(live)


@BOTH
def test_the_client_ends_its_side_without_a_word(app, live_server, notes, quiet, path):
    live = live_server(app)
    client = RawClient(live, handshake(path) + raw_frame(TEXT, b"last words"))
    client.read_until(b"\r\n\r\n")
    client.half_close()
    assert notes.next() == "last words"
    assert notes.next()[0] == 1006
    wait_forgotten(live)


@BOTH
def test_the_client_ends_its_side_behind_its_close_frame(app, live_server, notes, quiet, path):
    live = live_server(app)
    client = RawClient(live, handshake(path))
    client.read_until(b"\r\n\r\n")
    client.send(goodbye(4000, b"bye"))
    client.half_close()
    assert client.read_to_end() == raw_frame(CLOSE, b"\x0f\xa0bye", masked=False)
    assert notes.next() == (4000, "bye")
    wait_forgotten(live)


# By the handler.


def test_a_handler_that_returns_closes_with_1000(app, live_server, quiet):
    app.websocket("/brief")(lambda ws: ws.send("hello"))
    live = live_server(app)
    client = live.websocket("/brief")
    assert client.receive() == "hello"
    assert closed_with(client) == (1000, "")
    wait_forgotten(live)


def test_what_a_handler_returns_is_not_sent(app, live_server):
    app.websocket("/brief")(lambda ws: "ignored")
    client = live_server(app).websocket("/brief")
    with pytest.raises(WebSocketClosed) as end:
        client.receive()
    assert end.value.code == 1000


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1013, 3000, 4000, 4999])
def test_a_linear_handler_closes(app, live_server, notes, code):
    @app.websocket("/closing")
    def closing(ws):
        ws.send("before")
        ws.close(code, "because ü")
        assert ws.closed
        with pytest.raises(Disconnected) as end:
            ws.send("after")
        assert (end.value.code, end.value.reason) == (code, "because ü")
        with pytest.raises(Disconnected):
            ws.receive()
        ws.close(4001, "another")  # closing twice is fine, and the first counts
        assert list(ws) == []
        assert ws.wait_closed(PATIENCE)
        notes.add(ws.close_code, ws.close_reason)

    live = live_server(app)
    client = live.websocket("/closing")
    assert client.receive() == "before"
    assert closed_with(client) == (code, "because ü")
    assert notes.next() == (code, "because ü")
    wait_forgotten(live)


@pytest.mark.parametrize("where", ["on_open", "on_message"])
def test_a_callback_closes(app, live_server, notes, where):
    @app.websocket("/closing")
    class Closing:
        def on_open(self, ws):
            notes.add("open")
            if where == "on_open":
                ws.close(4000, "because")

        def on_message(self, ws, message):
            notes.add(message)
            ws.close(4000, "because")

        def on_close(self, ws, code, reason):
            notes.add(code, reason)
            assert ws.closed
            with pytest.raises(Disconnected):
                ws.send("too late")

    live = live_server(app)
    client = live.websocket("/closing")
    client.send_raw(raw_frame(TEXT, b"one") + raw_frame(TEXT, b"two"))
    assert closed_with(client) == (4000, "because")
    assert notes.take(2 if where == "on_open" else 3)[-1] == (4000, "because")
    wait_forgotten(live)
    assert notes.rest() == [], "what waits behind a close is not handled"


@pytest.mark.parametrize("style", ["linear", "callbacks"])
def test_another_thread_closes(app, live_server, notes, quiet, style):
    if style == "linear":

        @app.websocket("/closing")
        def closing(ws):
            thread = threading.Thread(target=ws.close, args=(4000, "from elsewhere"))
            thread.start()
            try:
                ws.receive()
            except Disconnected as end:
                notes.add(end.code, end.reason)
            thread.join(PATIENCE)

    else:

        @app.websocket("/closing")
        class Closing:
            def on_open(self, ws):
                self.thread = threading.Thread(target=ws.close, args=(4000, "from elsewhere"))
                self.thread.start()

            def on_close(self, ws, code, reason):
                self.thread.join(PATIENCE)
                notes.add(code, reason)

    live = live_server(app)
    client = live.websocket("/closing")
    assert closed_with(client) == (4000, "from elsewhere")
    assert notes.next() == (4000, "from elsewhere")
    wait_forgotten(live)


def test_another_thread_closes_under_a_send_that_is_blocked(app, live_server, notes):
    sockets = []

    @app.websocket("/endless")
    def endless(ws):
        sockets.append(ws)
        try:
            while True:
                ws.send(bytes(65536))
        except Disconnected as end:
            notes.add(end.code)

    live = live_server(app, send_timeout=60.0, socket_outbox_bytes=65536)
    client = RawClient(live, handshake("/endless"), receive_buffer_bytes=4096)
    eventually(lambda: any(map(waits_to_send, sockets_of(live))), "the handler waits")
    sockets[0].close(4000, "enough")
    assert notes.next() == 4000
    received = b""
    goodbye_frame = raw_frame(CLOSE, b"\x0f\xa0enough", masked=False)
    while not received.endswith(goodbye_frame):
        received = received[-100:] + client.socket.recv(1 << 20)


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, 70000, "1000", None, 1000.0])
def test_a_code_that_may_not_be_sent(app, live_server, notes, code):
    @app.websocket("/closing")
    def closing(ws):
        try:
            ws.close(code)
        except (TypeError, ValueError) as error:
            notes.add(str(error))
        assert not ws.closed
        ws.send("still open")

    with live_server(app).websocket("/closing") as client:
        assert client.receive() == "still open"
    text = notes.next()
    assert repr(code) in text
    assert "1000" in text
    assert "4000 to 4999" in text


@pytest.mark.parametrize("reason", ["x" * 124, "ü" * 62])
def test_a_reason_that_is_too_long(app, live_server, notes, reason):
    @app.websocket("/closing")
    def closing(ws):
        try:
            ws.close(1000, reason)
        except ValueError as error:
            notes.add(str(error))
        assert not ws.closed

    client = live_server(app).websocket("/closing")
    assert closed_with(client) == (1000, "")
    text = notes.next()
    assert "123" in text
    assert "124" in text


def test_what_was_sent_before_a_close_arrives_before_it(app, live_server):
    count = 200

    @app.websocket("/much")
    def much(ws):
        for number in range(count):
            ws.send(number.to_bytes(2, "big") * 5000)
        ws.close(4000)

    live = live_server(app)
    client = live.websocket("/much", receive_buffer_bytes=4096)
    assert [int.from_bytes(client.receive()[:2], "big") for _ in range(count)] == list(range(count))
    assert closed_with(client) == (4000, "")


@pytest.mark.parametrize("style", ["linear", "callbacks"])
def test_a_client_that_never_answers_a_close_is_cut_in_time(app, live_server, notes, quiet, style):
    if style == "linear":
        app.websocket("/closing")(lambda ws: ws.close(4000))
    else:

        @app.websocket("/closing")
        class Closing:
            def on_open(self, ws):
                ws.close(4000)

            def on_close(self, ws, code, reason):
                notes.add(code)

    timeout = 0.3
    live = live_server(app, close_timeout=timeout)
    client = RawClient(live, handshake("/closing"))
    client.read_until(raw_frame(CLOSE, b"\x0f\xa0", masked=False))
    began = perf_counter()
    client.send(raw_frame(TEXT, b"as if nothing had happened") * 10)
    with pytest.raises(ConnectionResetError):
        client.read_to_end()
    assert perf_counter() - began < timeout + MARGIN
    if style == "callbacks":
        assert notes.next() == 4000, "the code is the one that it was closed with"
    wait_forgotten(live)


def test_a_client_that_takes_nothing_does_not_keep_a_close_waiting_for_ever(app, live_server, notes):
    @app.websocket("/closing")
    def closing(ws):
        ws.send(bytes(8 * 1024 * 1024))
        ws.close(4000)
        notes.add(ws.wait_closed(PATIENCE))

    live = live_server(app, close_timeout=0.3)
    RawClient(live, handshake("/closing"), receive_buffer_bytes=4096)
    assert notes.next() is True
    wait_forgotten(live)


def test_a_client_that_takes_nothing_and_closes_is_cut_too(app, live_server, notes):
    @app.websocket("/sending")
    class Sending:
        def on_open(self, ws):
            ws.send(bytes(8 * 1024 * 1024))
            notes.add("sent")

        def on_close(self, ws, code, reason):
            notes.add(code)

    live = live_server(app, write_stall_timeout=0.3, close_timeout=0.3)
    client = RawClient(live, handshake("/sending"), receive_buffer_bytes=4096)
    assert notes.next() == "sent"
    eventually(lambda: socket_of(live).paused, "the client is behind")
    client.send(goodbye(4000))
    assert notes.next() == 4000
    wait_forgotten(live)


def test_both_close_at_once(app, live_server, notes, gate, quiet):
    """Neither has seen the other's close frame when it sends its own: each is the answer to the other."""

    @app.websocket("/closing")
    class Closing:
        def on_message(self, ws, message):
            ws.close(4001, "server")

        def on_close(self, ws, code, reason):
            notes.add(code, reason)

    live = live_server(app)
    client = RawClient(live, handshake("/closing"))
    client.read_until(b"\r\n\r\n")
    client.send(raw_frame(TEXT, b"close!"))
    eventually(lambda: socket_of(live).ended, "the server has closed")
    client.send(goodbye(4002, b"client"))
    assert client.read_to_end() == raw_frame(CLOSE, b"\x0f\xa1server", masked=False)
    assert notes.next() == (4001, "server")
    wait_forgotten(live)
    assert notes.rest() == []


def test_wait_closed(app, live_server, notes):
    @app.websocket("/waiting")
    class Waiting:
        def on_open(self, ws):
            def wait():
                notes.add(ws.wait_closed(0.01))
                notes.add(ws.wait_closed(PATIENCE))
                notes.add(ws.wait_closed())

            self.thread = threading.Thread(target=wait)
            self.thread.start()

        def on_close(self, ws, code, reason):
            self.thread.join(PATIENCE)

    client = live_server(app).websocket("/waiting")
    assert notes.next() is False
    client.close()
    assert notes.take(2) == [True, True]


def test_the_state_of_a_socket(app, live_server, notes):
    @app.websocket("/state")
    class State:
        def on_open(self, ws):
            notes.add(ws.closed, ws.close_code, ws.close_reason)
            ws.state.name = "alice"

        def on_close(self, ws, code, reason):
            notes.add(ws.closed, ws.close_code, ws.close_reason)
            notes.add(ws.state.name)
            ws.close(4000)  # fine, and too late
            notes.add(ws.close_code)

    client = live_server(app).websocket("/state")
    assert notes.next() == (False, None, None)
    client.close(4321, "so")
    assert notes.take(3) == [(True, 4321, "so"), "alice", 4321]
