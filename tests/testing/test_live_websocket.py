"""The WebSockets of a live server against catzilla itself."""

from __future__ import annotations

import struct
import threading
import time

import pytest
import trustme

from catzilla import Catzilla, Disconnected
from catzilla.testing import Frozen, HandshakeRefused, LeakError, LiveServer, WebSocketClosed, raw_frame
from tests.promises.helpers import eventually


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)

    @app.websocket("/echo")
    def echo(ws):
        for message in ws:
            ws.send(message)

    @app.websocket("/callbacks/{name}", subprotocols=["chat"], compression=True)
    class Callbacks:
        def on_open(self, ws, name):
            ws.send(f"hello {name}")

        def on_message(self, ws, message):
            ws.send(message)

    return app


@pytest.fixture
def flood(app):
    """Adds `/flood`, which sends until it cannot; gives how many messages were sent, and the event of its end."""
    sent, ended = [], threading.Event()

    @app.websocket("/flood")
    def flood(ws):
        try:
            while True:
                ws.send(bytes(16_384))
                sent.append(1)
        except Disconnected:
            ended.set()

    return sent, ended


@pytest.mark.parametrize("path", ["/echo", "/callbacks/me"])
def test_messages(app, live_server, path):
    with live_server(app).websocket(path) as ws:
        if path != "/echo":
            assert ws.receive() == "hello me"
        for message in ("hello", "", b"\x00\xff", "x" * 200_000):
            ws.send(message)
            assert ws.receive() == message
        ws.send_json({"a": 1})
        assert ws.receive_json() == {"a": 1}
        assert ws.ping(b"?") < 10


def test_subprotocol_headers_and_compression(app, live_server):
    live = live_server(app)
    ws = live.websocket("/callbacks/a%20b?c=d", subprotocols=["x", "chat"], compression=True, origin=live.url)
    assert ws.subprotocol == "chat"
    assert "permessage-deflate" in ws.headers["Sec-WebSocket-Extensions"]
    assert ws.receive() == "hello a b"
    ws.send("x" * 50_000)
    assert ws.receive() == "x" * 50_000
    assert ws.wire.received_bytes < 5_000


@pytest.mark.parametrize(
    ("path", "options", "status_code"),
    [
        ("/nowhere", {}, 404),
        ("/echo", {"origin": "https://other.example"}, 403),
        ("/echo", {"headers": {"Sec-WebSocket-Version": "12"}}, 426),
        ("/echo", {"headers": {"Sec-WebSocket-Key": "short"}}, 400),
    ],
)
def test_a_refusal(app, live_server, path, options, status_code):
    with pytest.raises(HandshakeRefused, match=f"the WebSocket {path} was refused: {status_code} ") as raised:
        live_server(app).websocket(path, **options)
    assert raised.value.status_code == status_code
    assert raised.value.headers["content-length"] == str(len(raised.value.body))


def test_both_ends_can_close(app, live_server):
    @app.websocket("/once")
    def once(ws):
        ws.send("one")
        ws.close(4000, "that is all")

    live = live_server(app)
    ws = live.websocket("/once")
    assert ws.receive() == "one"
    with pytest.raises(WebSocketClosed) as raised:
        ws.receive()
    assert (raised.value.code, raised.value.reason) == (4000, "that is all")

    ws = live.websocket("/echo")
    ws.close(4001, "enough")
    assert (ws.close_code, ws.close_reason) == (4001, "enough")


def test_a_handler_that_returns_ends_the_iteration(app, live_server):
    @app.websocket("/three")
    def three(ws):
        for number in range(3):
            ws.send_json(number)

    ws = live_server(app).websocket("/three")
    assert list(ws) == ["0", "1", "2"]
    assert ws.close_code == 1000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raw_frame(1, b"x", masked=False), 1002),
        (raw_frame(3, b"x"), 1002),
        (raw_frame(1, b"x", reserved=2), 1002),
        (raw_frame(8, struct.pack("!H", 1005)), 1002),
        (raw_frame(1, b"\xff"), 1007),
        (raw_frame(2, b"", announced_bytes=1 << 40)[:14], 1009),
    ],
)
def test_bad_frames(app, live_server, data, code):
    ws = live_server(app).websocket("/echo")
    ws.send_raw(data)
    frame = ws.receive_frame()
    assert (frame.opcode, int.from_bytes(frame.payload[:2], "big"), frame.fin) == (8, code, True)
    with pytest.raises(WebSocketClosed) as raised:
        ws.receive_frame()
    assert raised.value.code == code


def test_a_unix_socket(app, live_server, tmp_path):
    with live_server(app, uds=str(tmp_path / "catzilla.sock")).websocket("/echo") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"


def test_tls(app, live_server, tmp_path):
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    live = live_server(app, ssl_certfile=str(tmp_path / "server.pem"))
    assert live.ws_url.startswith("wss://")
    ws = live.websocket("/echo", origin=live.url)
    ws.send("x" * 100_000)
    assert ws.receive() == "x" * 100_000
    ws.close()
    assert ws.close_code == 1000


def test_the_limits_of_waits(app, live_server):
    ws = live_server(app, client_timeout=0.1).websocket("/echo")
    with pytest.raises(TimeoutError, match=r"no message within 0\.1 s"):
        ws.receive()
    assert live_server(app, client_timeout=0.1).websocket("/echo", timeout=7).wire.timeout == 7


# --- faults --------------------------------------------------------------------------------------------------------


def test_a_frozen_client_stops_the_sender(app, flood, live_server):
    sent, ended = flood
    live = live_server(app, send_timeout=30)
    ws = live.websocket("/flood", receive_buffer_bytes=4096)
    live.freeze(ws)
    still, before = threading.Event(), -1
    while len(sent) != before:  # until the sender has not got on for that long
        before = len(sent)
        still.wait(0.5)
    with pytest.raises(Frozen):
        ws.receive()
    live.thaw(ws)
    for _ in range(before + 10):
        assert ws.receive() == bytes(16_384)
    assert not ended.is_set()
    live.drop(ws)
    assert ended.wait(10)


def test_a_throttled_client_gets_everything_slowly(app, live_server):
    live = live_server(app)
    ws = live.websocket("/echo")
    ws.send(bytes(4000))
    live.throttle(ws, 20_000)
    began = time.monotonic()
    assert ws.receive(timeout=0.5) == bytes(4000)
    assert time.monotonic() - began > 0.1


@pytest.mark.parametrize("leave", ["drop", "close", "stop"])
def test_a_client_that_goes_ends_the_handler(app, flood, live_server, leave):
    _, ended = flood
    live = live_server(app)
    ws = live.websocket("/flood")
    ws.receive()
    {"drop": lambda: live.drop(ws), "close": ws.close, "stop": live.stop}[leave]()
    assert ended.wait(10)
    assert ws.wire.closed


def test_a_restart_closes_with_1001_and_keeps_the_port(app, live_server):
    live = live_server(app)
    ws = live.websocket("/callbacks/me")
    assert ws.receive() == "hello me"
    end = []
    reader = threading.Thread(target=lambda: end.append(list(ws)), daemon=True)
    reader.start()
    live.restart()
    reader.join(10)
    assert end == [[]]
    assert ws.close_code == 1001
    live.websocket("/echo").close()


def test_a_stopped_server_leaves_no_client(app, live_server):
    live = live_server(app)
    sockets = [live.websocket("/echo") for _ in range(3)]
    with pytest.raises(HandshakeRefused):
        live.websocket("/nowhere")
    assert len(live._wires) == 3
    sockets[0].close()
    assert len(live._wires) == 2
    live.stop()
    assert not live._wires
    with pytest.raises(ConnectionAbortedError, match="the test closed this connection"):
        sockets[1].receive()


def test_a_handler_that_outlives_the_server_is_a_leak(app, live_server):
    running, release, threads = threading.Event(), threading.Event(), []

    @app.websocket("/stuck")
    def stuck_handler(ws):
        threads.append(threading.current_thread())
        running.set()
        release.wait(20)

    leak = pytest.raises(LeakError, match=r"the thread catzilla-socket-\d+ still runs `.*stuck_handler`")
    with leak, LiveServer(app, shutdown_grace=0.1) as live:
        live.websocket("/stuck")
        assert running.wait(10)
    release.set()
    eventually(lambda: not threads[0].is_alive(), "the stuck thread ends")
