"""The slow side sets the pace, whichever it is: what waits is bounded, and nothing is lost or reordered."""

from __future__ import annotations

import random
import threading

import pytest

from catzilla import Disconnected, SlowConsumer
from catzilla.testing import raw_frame
from tests.promises.helpers import PATIENCE, RawClient, eventually
from tests.websockets.helpers import (
    BINARY,
    TEXT,
    closed_with,
    handshake,
    socket_of,
    sockets_of,
    wait_forgotten,
    waits_to_send,
)

KIB = 1024
MIB = 1024 * KIB
OUTBOX = 64 * KIB
READ = 256 * KIB  # at most what one read of a socket brings


def posted_bytes(connection) -> int:
    """What handlers have sent and the kernel has not taken."""
    return connection._posted - connection._taken


def one_waits_to_send(live) -> bool:
    return any(map(waits_to_send, sockets_of(live)))


def waiting_bytes(connection) -> int:
    """What has arrived and was not handled."""
    return connection._handling.received - connection._handling.handled


# A client that is slow to read.


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compressed"])
def test_send_blocks_while_the_client_does_not_read(app, live_server, notes, compression):
    count, size = 200, 32 * KIB

    @app.websocket("/", compression=True)
    def sending(ws):
        noise = random.Random(7).randbytes(size - 4)  # of which compression makes nothing smaller
        for number in range(count):
            ws.send(number.to_bytes(4, "big") + noise)
            notes.add(number)

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=30.0)
    client = live.websocket("/", receive_buffer_bytes=4096, compression=compression)
    if not compression:
        eventually(lambda: one_waits_to_send(live), "the handler waits")
        connection = socket_of(live)
        assert posted_bytes(connection) <= OUTBOX
        assert connection._transport.get_write_buffer_size() <= OUTBOX + 512 * KIB
        assert notes._queue.qsize() < count
    for number in range(count):
        message = client.receive()
        assert (len(message), int.from_bytes(message[:4], "big")) == (size, number)
    assert closed_with(client) == (1000, "")
    wait_forgotten(live)


@pytest.mark.parametrize("style", ["linear", "callbacks"])
def test_a_client_that_never_reads_is_a_slow_consumer(app, live_server, notes, style):
    def send_for_ever(ws):
        try:
            while True:
                ws.send(bytes(8 * KIB))
        except SlowConsumer as error:
            notes.add("slow" if isinstance(error, TimeoutError) else error)
            raise

    if style == "linear":
        app.websocket("/")(send_for_ever)
    else:

        @app.websocket("/")
        class Sending:
            def on_open(self, ws):
                pass

            def on_message(self, ws, message):
                send_for_ever(ws)

            def on_close(self, ws, code, reason):
                notes.add(code)

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=0.2)
    client = live.websocket("/", receive_buffer_bytes=4096)
    client.send("go")
    assert notes.next() == "slow"
    connection = socket_of(live)
    assert posted_bytes(connection) <= OUTBOX
    assert connection._transport.get_write_buffer_size() <= OUTBOX + 64 * KIB
    if style == "callbacks":
        assert notes.next() == 4008
    assert closed_with(client) == (4008, "too slow"), "it is told, should it ever read"
    wait_forgotten(live)


def test_a_slow_consumer_may_be_forgiven(app, live_server, notes, gate):
    @app.websocket("/")
    def sending(ws):
        sent = 0
        try:
            while True:
                ws.send(bytes(8 * KIB))
                sent += 1
        except SlowConsumer:
            notes.add(sent)
        gate.wait()
        ws.send("after all")

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=0.2)
    client = live.websocket("/", receive_buffer_bytes=4096)
    sent = notes.next()
    gate.open()
    for _ in range(sent):
        assert client.receive() == bytes(8 * KIB), "what was sent is not lost"
    assert client.receive() == "after all"
    assert closed_with(client) == (1000, "")


def test_a_message_larger_than_the_outbox_is_sent(app, live_server):
    @app.websocket("/")
    def sending(ws):
        for number in range(3):
            ws.send(bytes([number]) * (8 * MIB))

    live = live_server(app, socket_outbox_bytes=OUTBOX)
    client = live.websocket("/", receive_buffer_bytes=4096)
    for number in range(3):
        assert client.receive() == bytes([number]) * (8 * MIB)


@pytest.mark.parametrize("how", ["drop", "close"])
def test_a_client_that_leaves_ends_a_send_that_is_blocked(app, live_server, notes, quiet, how):
    @app.websocket("/")
    def sending(ws):
        try:
            while True:
                ws.send(bytes(8 * KIB))
        except Disconnected as end:
            notes.add(end.code)

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=60.0, close_timeout=0.5)
    client = RawClient(live, handshake("/"), receive_buffer_bytes=4096)
    eventually(lambda: one_waits_to_send(live), "the handler waits")
    if how == "drop":
        client.reset()
    else:
        client.send(raw_frame(8, (4000).to_bytes(2, "big")))
    assert notes.next() == (1006 if how == "drop" else 4000)
    client.close()
    wait_forgotten(live)


def test_a_stalled_client_delays_nobody_else(app, live_server):
    @app.websocket("/endless")
    class Endless:
        def on_open(self, ws):
            while True:
                ws.send(bytes(64 * KIB))

    @app.websocket("/echo")
    class Echo:
        def on_message(self, ws, message):
            ws.send(message)

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=60.0)
    stalled = [live.websocket("/endless", receive_buffer_bytes=4096) for _ in range(10)]
    eventually(lambda: sum(map(waits_to_send, sockets_of(live))) == 10, "all of them wait")
    with live.websocket("/echo") as client:
        for number in range(50):
            client.send(str(number))
            assert client.receive() == str(number)
    for client in stalled:
        live.drop(client)
    wait_forgotten(live)


def test_sends_of_many_threads_are_all_delivered_each_in_its_order(app, live_server):
    threads, count = 8, 300

    @app.websocket("/")
    def sending(ws):
        def send(name):
            for number in range(count):
                ws.send(f"{name} {number}".ljust(500 if number % 7 else 20_000))

        senders = [threading.Thread(target=send, args=(name,)) for name in range(threads)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(60)

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=30.0)
    client = live.websocket("/", receive_buffer_bytes=16384)
    following = [0] * threads
    for _ in range(threads * count):
        name, number = map(int, client.receive().split())
        assert number == following[name]
        following[name] += 1
    assert following == [count] * threads
    assert closed_with(client) == (1000, "")


def test_what_waits_for_a_client_that_catches_up_now_and_then_arrives_in_order(app, live_server):
    count = 400

    @app.websocket("/")
    class Sending:
        def on_open(self, ws):
            for number in range(count):
                ws.send(number.to_bytes(4, "big") * 4000)

    live = live_server(app, socket_outbox_bytes=OUTBOX)
    client = live.websocket("/", receive_buffer_bytes=4096)
    for number in range(count):
        if number % 100 == 0:
            eventually(lambda last=number >= count - 100: one_waits_to_send(live) or last, "the handler waits")
        assert client.receive() == number.to_bytes(4, "big") * 4000


# A handler that is slow to take.


def sending_in_background(client, messages) -> threading.Thread:
    def send():
        for message in messages:
            client.send(message)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("style", ["linear", "callbacks"])
def test_a_client_is_not_read_while_its_handler_is_behind(app, live_server, notes, gate, style):
    if style == "linear":

        @app.websocket("/")
        def held(ws):
            gate.wait()
            for message in ws:
                notes.add(int.from_bytes(message[:4], "big"))

    else:

        @app.websocket("/")
        class Held:
            def on_message(self, ws, message):
                gate.wait()
                notes.add(int.from_bytes(message[:4], "big"))

    live = live_server(app)
    client = live.websocket("/", timeout=60.0)
    count, size = 400, 64 * KIB
    sender = sending_in_background(client, (number.to_bytes(4, "big") * (size // 4) for number in range(count)))
    gate.wait_arrived()
    connection = socket_of(live)
    eventually(lambda: not connection.is_reading, "the inbox is full")
    assert sender.is_alive(), "the kernel cannot hold all of it"
    assert 256 * KIB < waiting_bytes(connection) <= 256 * KIB + READ + size
    gate.open()
    assert notes.take(count) == list(range(count))
    sender.join(PATIENCE)
    assert not sender.is_alive()
    eventually(lambda: connection.is_reading, "it is read again")
    client.close()
    wait_forgotten(live)


def test_the_inbox_counts_messages_too(app, live_server, notes, gate):
    @app.websocket("/")
    class Held:
        def on_message(self, ws, message):
            gate.wait()
            notes.add(message)

    live = live_server(app, socket_inbox_messages=4)
    client = live.websocket("/")
    client.send("0")
    gate.wait_arrived()
    for number in range(1, 5):
        client.send(str(number))
    connection = socket_of(live)
    eventually(lambda: len(connection._handling.inbox) == 4, "they have come")
    assert connection.is_reading
    client.send("5")
    eventually(lambda: not connection.is_reading, "that is one too many")
    for number in range(6, 20):
        client.send(str(number))
    gate.open()
    assert notes.take(20) == [str(number) for number in range(20)]


@pytest.mark.parametrize("message", ["", b""], ids=["text", "binary"])
def test_empty_messages_count(app, live_server, gate, message):
    @app.websocket("/")
    class Held:
        def on_message(self, ws, message):
            gate.wait()

    live = live_server(app, socket_inbox_messages=4)
    client = live.websocket("/")
    client.send_raw(raw_frame(TEXT if message == "" else BINARY) * 10)
    gate.wait_arrived()
    eventually(lambda: not socket_of(live).is_reading, "the inbox is full")


def test_an_echo_to_who_never_reads_holds_a_bounded_amount(app, live_server, notes):
    """Full in both directions: the handler waits in `send`, so nothing is read, so the client cannot send either."""

    @app.websocket("/")
    class Echo:
        def on_message(self, ws, message):
            ws.send(message)

        def on_close(self, ws, code, reason):
            notes.add(code)

    live = live_server(app, socket_outbox_bytes=OUTBOX, send_timeout=60.0)
    client = live.websocket("/", receive_buffer_bytes=4096, timeout=0.5)
    with pytest.raises(TimeoutError):
        for _ in range(2000):
            client.send(bytes(16 * KIB))
    connection = socket_of(live)
    assert not connection.is_reading
    assert posted_bytes(connection) <= OUTBOX
    assert waiting_bytes(connection) <= 256 * KIB + READ + 16 * KIB
    live.drop(client)
    eventually(lambda: connection.gone or connection.ended, "it is gone", timeout=PATIENCE)
    assert notes.next() == 1006
    wait_forgotten(live)


def test_a_client_that_leaves_while_it_is_not_read_is_missed(app, live_server, notes, gate, quiet):
    """Its messages come first, and its end behind them."""

    @app.websocket("/")
    class Held:
        def on_message(self, ws, message):
            gate.wait()
            notes.add(message)

        def on_close(self, ws, code, reason):
            notes.add(code)

    live = live_server(app, socket_inbox_messages=2)
    client = RawClient(live, handshake("/"))
    client.read_until(b"\r\n\r\n")
    for number in range(10):
        client.send(raw_frame(TEXT, str(number).encode()))
    gate.wait_arrived()
    eventually(lambda: not socket_of(live).is_reading, "the inbox is full")
    client.send(raw_frame(8, (4000).to_bytes(2, "big")))
    gate.open()
    assert notes.take(11) == [*map(str, range(10)), 4000]
    client.close()
    wait_forgotten(live)
