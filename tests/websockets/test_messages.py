"""Messages both ways over real connections: their types, sizes, fragments, limits, compression and control frames."""

from __future__ import annotations

import json
import threading
import zlib

import pytest

from catzilla.testing import ClientWebSocket, raw_frame
from tests.promises.helpers import PATIENCE, RawClient, eventually, services_of
from tests.websockets.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    closed_with,
    handshake,
    socket_of,
    wait_forgotten,
)
from tests.websockets.packing import Packer, traced_peak

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def app(app):
    @app.websocket("/echo")
    class Echo:
        def on_message(self, ws, message):
            ws.send(message)

    @app.websocket("/linear")
    def linear(ws):
        for message in ws:
            ws.send(message)

    @app.websocket("/packed", compression=True)
    def packed(ws):
        for message in ws:
            ws.send(message)

    @app.websocket("/length")
    class Length:
        def on_message(self, ws, message):
            ws.send_json([type(message).__name__, len(message)])

    app.get("/hello")(lambda: "hello")
    return app


MESSAGES = ["hello", b"hello", "", b"", "grüße \N{SNAKE} \0", bytes(range(256))]


@pytest.mark.parametrize("path", ["/echo", "/linear", "/packed"])
def test_texts_and_bytes_keep_their_type(app, live_server, path):
    with live_server(app).websocket(path, compression=path == "/packed") as client:
        for message in MESSAGES:
            client.send(message)
            received = client.receive()
            assert received == message
            assert type(received) is type(message)


@pytest.mark.parametrize("path", ["/echo", "/packed"])
@pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536, 300_000])
def test_sizes_around_those_of_the_heads(app, live_server, path, size):
    with live_server(app).websocket(path, compression=path == "/packed") as client:
        text, data = "x" * size, bytes(number % 251 for number in range(size))
        client.send(text)
        client.send(data)
        assert client.receive() == text
        assert client.receive() == data


@pytest.mark.parametrize("path", ["/echo", "/linear", "/packed"])
def test_many_messages_in_one_burst_keep_their_order(app, live_server, path):
    count = 3000
    burst = b"".join(raw_frame(TEXT, str(number).encode()) for number in range(count))
    with live_server(app).websocket(path) as client:
        sender = threading.Thread(target=client.send_raw, args=(burst,))
        sender.start()
        assert [client.receive() for _ in range(count)] == [str(number) for number in range(count)]
        sender.join(PATIENCE)


def test_a_message_byte_by_byte(app, live_server):
    with live_server(app).websocket("/echo") as client:
        for byte in raw_frame(TEXT, "slow ü".encode()) + raw_frame(BINARY, b"x" * 130):
            client.send_raw(bytes([byte]))
        assert client.receive() == "slow ü"
        assert client.receive() == b"x" * 130


def test_send_json_and_receive_json(app, live_server):
    @app.websocket("/json")
    def double(ws):
        ws.send_json({"twice": ws.receive_json()["number"] * 2, "text": "ü"})
        ws.send_json(ws.receive_json())

    with live_server(app).websocket("/json") as client:
        client.send_json({"number": 21})
        received = client.receive()
        assert isinstance(received, str)
        assert json.loads(received) == {"twice": 42, "text": "ü"}
        client.send(b"[1]")  # JSON in a binary message is JSON
        assert client.receive_json() == [1]


@pytest.mark.parametrize("message", [None, 1, 1.5, ["a"], {"a": 1}, object()], ids=repr)
def test_what_cannot_be_sent_says_what_to_write(app, live_server, notes, message):
    @app.websocket("/odd")
    def odd(ws):
        try:
            ws.send(message)
        except TypeError as error:
            notes.add(str(error))
        ws.send("still open")

    with live_server(app).websocket("/odd") as client:
        assert client.receive() == "still open"
    text = notes.next()
    assert type(message).__name__ in text
    assert "send_json" in text


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_every_kind_are_taken_as_they_are_now(app, live_server, kind):
    @app.websocket("/kinds")
    def kinds(ws):
        store = bytearray(b"before")
        ws.send(kind(store))
        store[:] = b"after "
        ws.send("done")

    with live_server(app).websocket("/kinds") as client:
        assert client.receive() == b"before"
        assert client.receive() == "done"


# Fragments.


@pytest.mark.parametrize("path", ["/echo", "/linear"])
def test_control_frames_between_fragments(app, live_server, path):
    with live_server(app).websocket(path) as client:
        client.send_raw(raw_frame(TEXT, b"hel", fin=False))
        client.send_raw(raw_frame(PING, b"one") + raw_frame(PONG, b"unasked"))
        client.send_raw(raw_frame(CONTINUATION, b"", fin=False) + raw_frame(PING, b"two"))
        client.send_raw(raw_frame(CONTINUATION, b"lo"))
        frames = [client.receive_frame() for _ in range(3)]
        assert [(frame.opcode, frame.payload) for frame in frames] == [(PONG, b"one"), (PONG, b"two"), (TEXT, b"hello")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_empty_fragments(app, live_server, opcode):
    with live_server(app).websocket("/length") as client:
        client.send_raw(raw_frame(opcode, fin=False) + raw_frame(CONTINUATION, fin=False) + raw_frame(CONTINUATION))
        assert client.receive_json() == ["str" if opcode == TEXT else "bytes", 0]


def test_a_character_split_over_fragments(app, live_server):
    text = "a\N{SNAKE}ü"
    with live_server(app).websocket("/echo") as client:
        first, *others = (bytes([byte]) for byte in text.encode())
        client.send_raw(raw_frame(TEXT, first, fin=False))
        for byte in others:
            client.send_raw(raw_frame(PING) + raw_frame(CONTINUATION, byte, fin=False))
        client.send_raw(raw_frame(CONTINUATION))
        assert client.receive() == text


def test_a_message_in_as_many_fragments_as_are_allowed(app, live_server):
    most = 8
    with live_server(app, max_message_fragments=most).websocket("/length") as client:
        for _ in range(3):  # the count is a message's
            client.send_raw(raw_frame(BINARY, b"x", fin=False))
            client.send_raw(raw_frame(CONTINUATION, b"x", fin=False) * (most - 2))
            client.send_raw(raw_frame(CONTINUATION, b"x"))
            assert client.receive_json() == ["bytes", most]


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_a_message_in_too_many_fragments(app, live_server, payload, quiet):
    most = 8
    live = live_server(app, max_message_fragments=most)
    client = live.websocket("/length")
    client.send_raw(raw_frame(BINARY, payload, fin=False) + raw_frame(CONTINUATION, payload, fin=False) * (most - 1))
    assert closed_with(client)[0] == 1009, "before the rest has come"
    wait_forgotten(live)


# The limit.


def test_a_message_of_exactly_the_limit(app, live_server):
    with live_server(app).websocket("/length") as client:
        client.send("x" * MIB)
        assert client.receive_json() == ["str", MIB]
        client.send(bytes(MIB))
        assert client.receive_json() == ["bytes", MIB]
        client.send_raw(raw_frame(BINARY, bytes(MIB - 1), fin=False) + raw_frame(CONTINUATION, b"x"))
        assert client.receive_json() == ["bytes", MIB]


def too_big() -> dict[str, bytes]:
    """Heads of messages of one byte over a limit of 1,000, whose payloads never come."""
    return {
        "at once": raw_frame(BINARY, announced_bytes=1001),
        "a text": raw_frame(TEXT, announced_bytes=1001),
        "in the second fragment": raw_frame(BINARY, bytes(600), fin=False)
        + raw_frame(CONTINUATION, announced_bytes=401, fin=False),
        "in the last fragment": raw_frame(TEXT, b"x" * 1000, fin=False) + raw_frame(CONTINUATION, announced_bytes=1),
        "2 to the 62": raw_frame(BINARY, announced_bytes=1 << 62),
        "2 to the 63": raw_frame(BINARY, announced_bytes=1 << 63),
    }


@pytest.mark.parametrize("name", too_big())
@pytest.mark.parametrize("path", ["/length", "/packed"])
def test_a_message_over_the_limit_is_closed_before_it_has_come(app, live_server, quiet, path, name):
    live = live_server(app, max_message_bytes=1000)
    client = live.websocket(path, compression=path == "/packed")
    client.send_raw(too_big()[name])
    assert closed_with(client)[0] == 1009
    wait_forgotten(live)


def test_a_client_in_the_middle_of_a_message_that_is_too_big_is_told_so(app, live_server, quiet):
    """Reset by unread bytes, it would never see why: the server reads on for a moment."""
    live = live_server(app)
    client = live.websocket("/length")
    data = raw_frame(BINARY, bytes(4 * MIB))

    def send() -> None:
        try:
            client.wire.send(data)
        except OSError:
            pass  # the server has said what it had to say

    sender = threading.Thread(target=send)
    sender.start()
    assert closed_with(client)[0] == 1009
    client.wire.close()
    sender.join(PATIENCE)
    wait_forgotten(live)


# Compression.


def packed_client(live, path: str = "/packed") -> ClientWebSocket:
    client = live.websocket(path, compression=True)
    assert "permessage-deflate" in client.headers["sec-websocket-extensions"]
    return client


def test_compressed_messages_build_on_those_before(app, live_server):
    with packed_client(live_server(app)) as client:
        text = "what was said before costs little " * 10
        sizes = []
        for _ in range(3):
            before = client.wire.received_bytes
            client.send(text)
            assert client.receive() == text
            sizes.append(client.wire.received_bytes - before)
        assert sizes[1] < sizes[0]


def test_compressed_fragments_with_control_frames_between(app, live_server):
    packer = Packer()
    with packed_client(live_server(app)) as client:
        for text in ("one ü", "two", ""):
            data = packer.pack(text.encode())
            client.send_raw(raw_frame(TEXT, data[:1], fin=False, reserved=4) + raw_frame(PING, b"p"))
            client.send_raw(raw_frame(CONTINUATION, data[1:], fin=False) + raw_frame(CONTINUATION))
            assert client.receive() == text


def test_a_compressed_connection_takes_plain_messages_too(app, live_server):
    with packed_client(live_server(app)) as client:
        client.send_raw(raw_frame(TEXT, b"plain"))
        assert client.receive() == "plain"


def test_the_limit_counts_what_is_unpacked(app, live_server):
    packer = Packer()
    live = live_server(app, max_message_bytes=1000)
    with packed_client(live) as client:
        client.send_raw(raw_frame(BINARY, packer.pack(bytes(1000)), reserved=4))
        assert client.receive() == bytes(1000)
        client.send_raw(raw_frame(BINARY, packer.pack(bytes(1001)), reserved=4))
        assert closed_with(client)[0] == 1009


def test_the_limit_counts_what_is_unpacked_from_all_fragments(app, live_server):
    packer = Packer()
    data = packer.pack(bytes(3000))
    half = len(data) // 2
    live = live_server(app, max_message_bytes=1000)
    client = packed_client(live)
    client.send_raw(raw_frame(BINARY, data[:half], fin=False, reserved=4) + raw_frame(CONTINUATION, data[half:]))
    assert closed_with(client)[0] == 1009


def test_a_bomb_is_not_unpacked(app, live_server, quiet):
    live = live_server(app)
    client = packed_client(live)
    packer = zlib.compressobj(9, wbits=-12)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < MIB, "it would be refused for its packed size"
    frame = raw_frame(BINARY, bomb[:-4], reserved=4)
    with traced_peak() as peak:
        client.send_raw(frame)
        assert closed_with(client)[0] == 1009
    assert peak() < 8 * MIB
    wait_forgotten(live)


# Control frames.


@pytest.mark.parametrize("payload", [b"", b"x", bytes(125)])
def test_a_ping_is_answered_with_its_payload(app, live_server, payload):
    with live_server(app).websocket("/echo") as client:
        client.send_raw(raw_frame(PING, payload))
        frame = client.receive_frame()
        assert (frame.opcode, frame.payload) == (PONG, payload)


def test_a_ping_is_answered_while_the_handler_is_blocked(app, live_server, gate):
    @app.websocket("/held")
    def held(ws):
        gate.wait()

    with live_server(app).websocket("/held") as client:
        gate.wait_arrived()
        client.ping(b"there?")
        gate.open()


def test_the_handler_may_ping(app, live_server):
    @app.websocket("/pinging")
    def pinging(ws):
        ws.ping()
        ws.receive()

    with live_server(app).websocket("/pinging") as client:
        assert client.receive_frame().opcode == PING


def test_a_flood_of_pings_from_who_does_not_read(app, live_server):
    """Every pong that the client does not take would be held, unless only the last one counts."""
    live = live_server(app)
    client = RawClient(live, handshake("/echo"), receive_buffer_bytes=4096)
    client.read_until(b"\r\n\r\n")
    connection = socket_of(live)
    burst = raw_frame(PING, bytes(125)) * 500
    while not connection.paused:
        client.send(burst)
    for _ in range(300):
        client.send(burst)
    client.send(raw_frame(PING, b"the last"))
    eventually(lambda: connection._pong.endswith(b"the last"), "all pings are seen")
    assert connection._transport.get_write_buffer_size() < 2 * MIB
    assert len(connection._pong) < KIB
    received = b""
    while not received.endswith(b"the last"):
        received += client.socket.recv(MIB)
    assert len(received) < 20 * MIB
    client.send(raw_frame(TEXT, b"still here"))
    assert client.read_until(b"still here")
    client.send(raw_frame(CLOSE))
    client.read_to_end()
    wait_forgotten(live)


def test_nothing_of_a_connection_is_left(app, live_server):
    live = live_server(app)
    for path in ("/echo", "/linear", "/packed"):
        with live.websocket(path, compression=True) as client:
            for message in MESSAGES:
                client.send(message)
                assert client.receive() == message
    wait_forgotten(live)
    services = services_of(live)
    assert services.messages_received == services.messages_sent == 3 * len(MESSAGES)
