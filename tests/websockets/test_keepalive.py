"""Pings by the loop: who answers lives, who does not is cut, and nobody is cut for what the server did not read."""

from __future__ import annotations

import pytest

from catzilla import Disconnected
from catzilla.testing import raw_frame
from tests.promises.helpers import RawClient, eventually
from tests.websockets.helpers import PING, PONG, TEXT, handshake, socket_of, wait_forgotten

OFTEN = {"ping_interval": 0.05, "pong_timeout": 0.05}  # seconds
PATIENT = {"ping_interval": 0.05, "pong_timeout": 5.0}


@pytest.fixture
def app(app, notes):
    @app.websocket("/callbacks")
    class Callbacks:
        def on_open(self, ws):
            notes.add("open")

        def on_message(self, ws, message):
            ws.send(message)

        def on_close(self, ws, code, reason):
            notes.add(code)

    @app.websocket("/linear")
    def linear(ws):
        notes.add("open")
        try:
            while True:
                ws.send(ws.receive())
        except Disconnected as end:
            notes.add(end.code)

    return app


@pytest.mark.parametrize("path", ["/callbacks", "/linear"])
def test_a_client_that_never_answers_is_cut(app, live_server, notes, quiet, path):
    live = live_server(app, **OFTEN)
    client = RawClient(live, handshake(path))
    assert notes.take(2) == ["open", 1006]
    with pytest.raises(ConnectionResetError) as reset:
        client.read_to_end()
    assert b"\x89\x00" in reset.value.args[0] or reset.value.args[0] == b"", "it was pinged"
    wait_forgotten(live)
    assert notes.rest() == []


@pytest.mark.parametrize("path", ["/callbacks", "/linear"])
def test_a_client_that_answers_lives(app, live_server, notes, path):
    live = live_server(app, ping_interval=0.02, pong_timeout=2.0)
    with live.websocket(path) as client:
        for _ in range(10):
            assert client.receive_frame().opcode == PING  # and it is answered, as a client does
        client.send("still here")
        assert client.receive() == "still here"
    assert notes.take(2) == ["open", 1000]


def test_a_client_that_says_anything_lives(app, live_server, notes):
    """Messages show that it is there as well as a pong would."""
    live = live_server(app, ping_interval=0.02, pong_timeout=2.0)
    client = RawClient(live, handshake("/callbacks"))
    client.read_until(b"\r\n\r\n")
    for number in range(10):
        text = b"message %d" % number
        client.send(raw_frame(TEXT, text))
        client.read_until(text)
        client.read_until(b"\x89\x00")  # the next ping, unanswered
    assert notes.rest() == ["open"]


def test_a_pong_that_nobody_asked_for_is_fine(app, live_server):
    with live_server(app).websocket("/callbacks") as client:
        client.send_raw(raw_frame(PONG, b"here I am") * 3)
        client.send("hello")
        assert client.receive() == "hello"


@pytest.mark.parametrize("style", ["callbacks", "linear"])
def test_a_handler_that_is_blocked_does_not_cost_its_client_the_connection(app, live_server, gate, notes, style):
    """The inbox is full, so nothing is read, and the pongs are among what is not read."""
    if style == "callbacks":

        @app.websocket("/held")
        class Held:
            def on_message(self, ws, message):
                gate.wait()
                notes.add(message)

    else:

        @app.websocket("/held")
        def held(ws):
            gate.wait()
            for message in ws:
                notes.add(message)

    live = live_server(app, socket_inbox_messages=2, **OFTEN)
    client = live.websocket("/held")
    count = 20
    client.send_raw(b"".join(raw_frame(TEXT, str(number).encode()) for number in range(count)))
    gate.wait_arrived()
    eventually(lambda: not socket_of(live).is_reading, "the inbox is full")
    for _ in range(6):  # several times the pong timeout
        assert client.receive_frame().opcode == PING
    gate.open()
    assert notes.take(count) == [str(number) for number in range(count)]
    for _ in range(3):
        assert client.receive_frame().opcode == PING
    client.close()


def test_a_handler_that_is_blocked_without_messages_does_not_either(app, live_server, gate, notes):
    @app.websocket("/held")
    def held(ws):
        gate.wait()
        ws.send("released")

    live = live_server(app, ping_interval=0.02, pong_timeout=2.0)
    with live.websocket("/held") as client:
        for _ in range(5):
            assert client.receive_frame().opcode == PING
        gate.open()
        while (frame := client.receive_frame()).opcode == PING:
            pass
        assert frame.payload == b"released"


def test_a_client_that_takes_nothing_is_cut_after_the_write_stall(app, live_server, notes):
    @app.websocket("/endless")
    class Endless:
        def on_open(self, ws):
            try:
                while True:
                    ws.send(bytes(65536))
            except Disconnected as end:
                notes.add(end.code)
                raise

        def on_close(self, ws, code, reason):
            notes.add(code)

    live = live_server(app, write_stall_timeout=0.3, send_timeout=30.0, **PATIENT)
    RawClient(live, handshake("/endless"), receive_buffer_bytes=4096)
    assert notes.next() == 1006
    wait_forgotten(live)


def test_who_was_behind_and_has_caught_up_is_pinged_again(app, live_server):
    @app.websocket("/much")
    def much(ws):
        ws.send(bytes(4 * 1024 * 1024))
        ws.receive()

    live = live_server(app, **PATIENT)
    with live.websocket("/much", receive_buffer_bytes=4096) as client:
        eventually(lambda: socket_of(live).paused, "the client is behind")
        assert len(client.receive()) == 4 * 1024 * 1024
        assert client.receive_frame().opcode == PING
        client.send("done")
