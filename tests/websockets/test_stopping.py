"""`Server.stop()` ends every WebSocket within the grace, tells both sides 1001, and waits for nobody who is blocked."""

from __future__ import annotations

import threading
import time
from time import perf_counter

import pytest

from catzilla import Disconnected
from catzilla.testing import HandshakeRefused, raw_frame
from tests.promises.helpers import PATIENCE, RawClient, eventually, services_of
from tests.websockets.helpers import CLOSE, closed_with, handshake, sockets_of, waits_to_send

SECOND = 1.0
MARGIN = 1.0  # seconds, for a busy machine
GOING_AWAY = (1001, "the server is stopping")


class Stopping:
    """Stops a server on a thread of its own, so that clients can answer meanwhile."""

    def __init__(self, live, grace: float) -> None:
        self._server = live.server
        self._began = perf_counter()
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._stop, args=(grace,))
        self._thread.start()

    def _stop(self, grace: float) -> None:
        self._server.stop(grace)
        self.seconds = perf_counter() - self._began

    def wait(self) -> float:
        """The seconds that it took."""
        self._thread.join(60)
        assert not self._thread.is_alive(), "the server does not stop"
        return self.seconds


@pytest.fixture
def app(app, notes):
    @app.websocket("/callbacks")
    class Callbacks:
        def on_open(self, ws):
            notes.add("open")

        def on_close(self, ws, code, reason):
            notes.add(code, reason)

    @app.websocket("/linear")
    def linear(ws):
        notes.add("open")
        try:
            ws.receive()
        except Disconnected as end:
            notes.add(end.code, end.reason)

    @app.websocket("/iterating")
    def iterating(ws):
        notes.add("open")
        for _ in ws:
            pass
        notes.add(ws.close_code, ws.close_reason)

    return app


@pytest.mark.parametrize("path", ["/callbacks", "/linear", "/iterating"])
def test_both_sides_are_told_1001_and_it_takes_no_grace(app, live_server, notes, quiet, path):
    live = live_server(app)
    clients = [live.websocket(path) for _ in range(20)]
    assert notes.take(20) == ["open"] * 20
    stopping = Stopping(live, grace=20.0)
    for client in clients:
        assert closed_with(client) == GOING_AWAY
    assert stopping.wait() < SECOND + MARGIN
    assert notes.take(20) == [GOING_AWAY] * 20
    assert notes.rest() == []


@pytest.mark.parametrize("path", ["/callbacks", "/linear"])
def test_clients_that_do_not_answer_take_the_grace_and_no_more(app, live_server, notes, path):
    live = live_server(app)
    client = RawClient(live, handshake(path))
    assert notes.next() == "open"
    grace = 0.3
    assert Stopping(live, grace).wait() < grace + SECOND + MARGIN
    assert notes.next() == GOING_AWAY
    with pytest.raises(ConnectionResetError) as reset:
        client.read_to_end()
    assert reset.value.args[0].endswith(
        raw_frame(CLOSE, (1001).to_bytes(2, "big") + b"the server is stopping", masked=False)
    )


def test_a_thousand_idle_sockets(app, live_server, notes):
    count = 500
    live = live_server(app)
    clients = [RawClient(live, handshake("/callbacks")) for _ in range(count)]
    assert notes.take(count) == ["open"] * count
    for client in clients:
        client.read_until(b"\r\n\r\n")
    stopping = Stopping(live, grace=20.0)
    for client in clients:
        client.read_until(b"the server is stopping")
        client.send(raw_frame(CLOSE, (1001).to_bytes(2, "big")))
    assert stopping.wait() < SECOND + 2 * MARGIN
    assert notes.take(count) == [GOING_AWAY] * count


@pytest.mark.parametrize("style", ["linear", "on_open", "on_message"])
def test_a_handler_in_time_sleep_does_not_keep_the_server(app, live_server, notes, style):
    asleep = threading.Event()

    def sleep():
        asleep.set()
        time.sleep(4.0)

    if style == "linear":
        app.websocket("/")(lambda ws: sleep())
    else:

        @app.websocket("/")
        class Sleeping:
            def on_open(self, ws):
                if style == "on_open":
                    sleep()

            def on_message(self, ws, message):
                sleep()

    live = live_server(app, allow_leaks=True)
    client = live.websocket("/")
    client.send("go")
    assert asleep.wait(PATIENCE)
    grace = 0.3
    stopping = Stopping(live, grace)
    assert closed_with(client) == GOING_AWAY, "the client is told at once"
    assert stopping.wait() < grace + SECOND + MARGIN


def test_a_blocked_callback_is_left_behind_and_others_are_told(app, live_server, notes, gate):
    @app.websocket("/held")
    class Held:
        def on_message(self, ws, message):
            gate.wait()

    live = live_server(app, allow_leaks=True)
    held = live.websocket("/held")
    held.send("go")
    gate.wait_arrived()
    other = live.websocket("/callbacks")
    assert notes.next() == "open"
    grace = 0.3
    stopping = Stopping(live, grace)
    assert closed_with(other) == closed_with(held) == GOING_AWAY
    assert notes.next() == GOING_AWAY
    assert stopping.wait() < grace + SECOND + MARGIN


def test_a_callback_that_ends_within_the_grace_is_waited_for(app, live_server, notes, gate):
    @app.websocket("/held")
    class Held:
        def on_message(self, ws, message):
            gate.wait()
            notes.add("handled")

        def on_close(self, ws, code, reason):
            notes.add(code)

    live = live_server(app)
    client = live.websocket("/held")
    client.send("go")
    gate.wait_arrived()
    stopping = Stopping(live, grace=20.0)
    assert closed_with(client) == GOING_AWAY
    gate.open()
    stopping.wait()
    assert notes.rest() == ["handled", 1001]


def test_a_linear_handler_that_cleans_up_within_the_grace_is_waited_for(app, live_server, notes, gate):
    @app.websocket("/cleaning")
    def cleaning(ws):
        try:
            ws.receive()
        finally:
            gate.wait()
            notes.add("cleaned")

    live = live_server(app)
    client = live.websocket("/cleaning")
    stopping = Stopping(live, grace=20.0)
    assert closed_with(client) == GOING_AWAY
    gate.wait_arrived()
    gate.open()
    stopping.wait()
    assert notes.rest() == ["cleaned"]


def test_a_send_that_is_blocked_is_told(app, live_server, notes):
    @app.websocket("/endless")
    def endless(ws):
        try:
            while True:
                ws.send(bytes(65536))
        except Disconnected as end:
            notes.add(end.code, end.reason)

    live = live_server(app, socket_outbox_bytes=65536, send_timeout=60.0)
    RawClient(live, handshake("/endless"), receive_buffer_bytes=4096)
    eventually(lambda: any(map(waits_to_send, sockets_of(live))), "the handler waits")
    grace = 0.3
    assert Stopping(live, grace).wait() < grace + SECOND + MARGIN
    assert notes.rest() == [GOING_AWAY]


def test_in_the_middle_of_a_close_handshake(app, live_server, notes):
    """The close that is under way has its own code, and is not waited for any longer than others."""

    @app.websocket("/closing")
    class Closing:
        def on_open(self, ws):
            ws.close(4000)

        def on_close(self, ws, code, reason):
            notes.add(code)

    live = live_server(app, close_timeout=60.0)
    client = RawClient(live, handshake("/closing"))
    client.read_until(raw_frame(CLOSE, (4000).to_bytes(2, "big"), masked=False))
    assert notes.next() == 4000
    grace = 0.3
    assert Stopping(live, grace).wait() < grace + SECOND + MARGIN
    assert notes.rest() == []


def test_in_the_middle_of_a_handshake(app, live_server, notes, gate, quiet):
    """Whoever is being authenticated when the server stops is refused, or cut; nothing opens any more."""

    def auth(request):
        gate.wait()
        return "alice"

    @app.websocket("/slow", auth=auth)
    class Slow:
        def on_open(self, ws):
            notes.add("open")

    live = live_server(app)
    client = RawClient(live, handshake("/slow"))
    gate.wait_arrived()
    stopping = Stopping(live, grace=20.0)
    eventually(lambda: services_of(live).stopping, "the server is stopping")
    gate.open()
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    client.close()
    stopping.wait()
    assert notes.rest() == []


def test_a_new_server_takes_new_sockets(app, live_server, notes):
    live = live_server(app)
    client = live.websocket("/callbacks")
    assert notes.next() == "open"
    live.restart()
    assert closed_with(client)[0] in (1001, 1006)
    assert notes.next() == GOING_AWAY
    with live.websocket("/callbacks"):
        assert notes.next() == "open"
    with pytest.raises(HandshakeRefused):
        live.websocket("/nothing")
