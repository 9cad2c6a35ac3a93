"""Callbacks that have proven instant run on the thread that leads the loop; whatever they do then, nobody waits for it.

Blocked callbacks wait for the test, so what is answered meanwhile was not waiting for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading

import pytest
import trustme

from catzilla import Catzilla
from catzilla._core import leader as leader_module
from catzilla._core import pace as pace_module
from catzilla._core import server as server_module
from catzilla._core.outbox import Packet
from catzilla._core.pace import INSTANT_PROOF
from catzilla._core.wire import Wire
from catzilla._core.ws import frame
from catzilla.errors import Disconnected
from catzilla.testing import raw_frame
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.helpers import CLOSE, TEXT, closed_with, socket_of, sockets_of, wait_forgotten, waits_to_send

LEADING = "catzilla-loop"


@pytest.fixture
def unhurried(monkeypatch):
    """A busy machine may stop any thread for a tick; here only what blocks is taken for what blocks."""
    for module in (leader_module, pace_module):
        monkeypatch.setattr(module, "TICK", 0.1)
    monkeypatch.setattr(pace_module, "INSTANT", 60.0)


def pace_of(live, index=0):
    return sockets_of(live)[index]._handling._handler.pace


def prove(live, client, message="quick"):
    """Exchange messages until callbacks of that route run on the thread that leads."""
    for _ in range(50):
        for _ in range(INSTANT_PROOF):
            client.send(message)
            client.receive()
        if pace_of(live).is_instant and services_of(live).turns._quick._leadership._follower is not None:
            return
    raise AssertionError("a callback that returns at once has not proven instant")


@pytest.fixture
def echo(app, gate, unhurried):
    """Answers with its thread's name; "block" waits for the test, after it has said so."""

    @app.websocket("/")
    class Echo:
        def on_message(self, ws, message):
            if message == "block":
                gate.wait()
            ws.send(threading.current_thread().name)

    @app.get("/")
    def hello():
        return "hello"

    return app


def test_they_run_on_the_thread_that_leads(echo, live_server):
    live = live_server(echo)
    client = live.websocket("/")
    client.send("first")
    assert client.receive().startswith("catzilla-socket"), "nothing is known of it yet"
    prove(live, client)
    client.send("quick")
    assert client.receive().startswith(LEADING)


def test_one_that_blocks_after_all_delays_nobody(echo, live_server, gate):
    live = live_server(echo)
    blocked, other = live.websocket("/"), live.websocket("/")
    prove(live, other)
    blocked.send("block")
    gate.wait_arrived()
    other.send("quick")
    assert other.receive().startswith("catzilla-socket"), "the loop goes on, and callbacks are on probation"
    late = live.websocket("/")
    late.send("quick")
    assert late.receive().startswith("catzilla-socket")
    assert live.get("/").text == "hello"
    assert not pace_of(live).is_instant
    gate.open()
    assert blocked.receive().startswith(LEADING), "it ends where it began"
    for each in (blocked, other, late):
        each.close()
    wait_forgotten(live)


def test_several_that_block_at_the_same_time_delay_nobody(echo, live_server, gate):
    live = live_server(echo)
    clients = [live.websocket("/") for _ in range(8)]
    prove(live, clients[0])
    for client in clients[1:]:
        client.send("block")
    gate.wait_arrived(7)
    clients[0].send("quick")
    assert clients[0].receive()
    assert live.get("/").text == "hello"
    gate.open()
    for client in clients[1:]:
        assert client.receive()


def test_what_they_ask_of_the_loop_is_answered(app, live_server, unhurried):
    """`members` and `count` wait for the loop, which is theirs at that moment."""
    room = app.room("all", public=True)

    @app.websocket("/", auth=lambda request: "ada")
    class Asking:
        def on_open(self, ws):
            ws.join("all")

        def on_message(self, ws, message):
            ws.send_json([room.count(), room.members()] if message == "ask" else message)

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client)
    for _ in range(3):
        client.send("ask")
        assert client.receive_json() == [1, ["ada"]]


def test_one_that_waits_for_a_slow_client_delays_nobody(app, live_server, unhurried):
    @app.websocket("/")
    class Download:
        def on_message(self, ws, message):
            for _ in range(100 if message == "much" else 1):
                ws.send(bytes(100_000 if message == "much" else 1))

    live = live_server(app)
    other = live.websocket("/")
    prove(live, other)
    (waiting,) = sockets_of(live)
    slow = live.websocket("/")
    connection = next(each for each in sockets_of(live) if each is not waiting)
    live.freeze(slow)
    slow.send("much")
    eventually(lambda: waits_to_send(connection), "it waits for its client")
    other.send("quick")
    assert other.receive() == b"\0"
    live.thaw(slow)
    for _ in range(100):
        assert len(slow.receive()) == 100_000


def test_messages_stay_in_order_whoever_handles_them(app, live_server, monkeypatch):
    """One connection, whose callbacks move from workers to the leader and back, several times."""
    monkeypatch.setattr(pace_module, "INSTANT_PROOF_AGAIN", 300)
    seen, threads = [], set()

    @app.websocket("/")
    class Ordered:
        def on_message(self, ws, message):
            seen.append(int(message))
            threads.add(threading.current_thread().name.rstrip("-0123456789"))
            if len(seen) % 700 == 0:
                threading.Event().wait(0.02)  # overstays
            if len(seen) % 100 == 0:
                ws.send(message)

    live = live_server(app)
    client = live.websocket("/")
    count = 6000
    for number in range(count):
        client.send(str(number))
    for number in range(99, count, 100):
        assert client.receive() == str(number)
    assert seen == list(range(count))
    assert threads == {"catzilla-socket", LEADING}


def test_an_exception_is_what_it_is_on_a_worker(app, live_server, unhurried, caplog):
    @app.websocket("/")
    class Fragile:
        def on_message(self, ws, message):
            if message == "bad":
                raise ValueError("no such thing")
            ws.send(message)

    live = live_server(app)
    good, bad = live.websocket("/"), live.websocket("/")
    prove(live, good)
    bad.send("bad")
    assert closed_with(bad) == (1011, "")
    assert "no such thing" in caplog.text
    good.send("quick")
    assert good.receive() == "quick"


def test_a_stop_does_not_wait_for_one_that_blocks(echo, live_server, gate, caplog):
    live = live_server(echo, allow_leaks=True)
    client = live.websocket("/")
    prove(live, client)
    client.send("block")
    gate.wait_arrived()
    live.stop()
    assert "stopped with handlers still running" in caplog.text
    assert LEADING in caplog.text
    gate.open()
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith(LEADING)], "its thread ends")


def test_a_close_behind_a_message_is_handled_by_a_worker(app, live_server, unhurried):
    """In the same segment: the connection has ended before its last message is handled."""
    closed = threading.Event()
    seen = []

    @app.websocket("/")
    class Closing:
        def on_message(self, ws, message):
            if message == "bye":
                seen.append(threading.current_thread().name)
            else:
                ws.send(message)

        def on_close(self, ws, code, reason):
            if seen:
                seen.append(threading.current_thread().name)
                closed.set()

    live = live_server(app)
    client, other = live.websocket("/"), live.websocket("/")
    prove(live, client)
    client.send_raw(raw_frame(TEXT, b"bye") + raw_frame(CLOSE, b"\x03\xe8"))
    assert closed.wait(PATIENCE)
    assert [name.rstrip("-0123456789") for name in seen] == [LEADING, "catzilla-socket"]
    assert pace_of(live).is_instant
    other.close()


def test_a_log_that_fails_leaves_the_server_alive(app, live_server, unhurried):
    class Broken(logging.Filter):
        def filter(self, record):
            raise OSError("the log is full")

    @app.websocket("/")
    class Fragile:
        def on_message(self, ws, message):
            if message == "bad":
                raise ValueError
            ws.send(message)

    @app.get("/")
    def hello():
        return "hello"

    live = live_server(app)
    good, bad = live.websocket("/"), live.websocket("/")
    prove(live, good)
    loggers = [logging.getLogger("catzilla")]
    broken = Broken()
    for each in loggers:
        each.addFilter(broken)
    try:
        bad.send("bad")
        good.send("quick")
        assert good.receive() == "quick"
        assert live.get("/").text == "hello"
    finally:
        for each in loggers:
            each.removeFilter(broken)


def test_callbacks_that_block_have_a_budget_wherever_they_run(echo, live_server, gate):
    live = live_server(echo, max_callbacks=2)
    clients = [live.websocket("/") for _ in range(5)]
    prove(live, clients[0])
    for client in clients:
        client.send("block")
    gate.wait_arrived(2)
    assert live.get("/").text == "hello"
    with pytest.raises(AssertionError):
        gate.wait_arrived(timeout=0.1)
    gate.open()
    for client in clients:
        assert client.receive()


def test_the_context_of_a_connection_is_the_same_on_either_thread(app, live_server, unhurried):
    who = contextvars.ContextVar("who")

    @app.websocket("/")
    class Remembering:
        def on_open(self, ws):
            who.set("ada")

        def on_message(self, ws, message):
            ws.send(who.get())

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client)
    client.send("quick")
    assert client.receive() == "ada"
    assert socket_of(live).ended is None


# What a callback sends first is written at once, by the thread that leads; all else is posted, as ever.


@pytest.fixture
def never_replaced(monkeypatch):
    """Nobody takes the loop over, so what leaves while a callback is held up has not waited for the loop."""
    for module in (leader_module, pace_module):
        monkeypatch.setattr(module, "TICK", 60.0)
    monkeypatch.setattr(pace_module, "INSTANT", 60.0)


def test_the_first_message_leaves_before_the_callback_returns(app, live_server, gate, never_replaced):
    @app.websocket("/")
    class Answering:
        def on_message(self, ws, message):
            ws.send(f"{message} 1")
            if message == "held":
                gate.wait()
                ws.send(f"{message} 2")

    live = live_server(app)
    client = live.websocket("/")
    for _ in range(2 * INSTANT_PROOF):
        client.send("quick")
        client.receive()
    client.send("held")
    gate.wait_arrived()
    assert client.receive() == "held 1"
    gate.open()
    assert client.receive() == "held 2"


def test_whatever_is_sent_is_received_in_that_order(app, live_server, unhurried):
    """By the callback itself, once and several times, by a room, and by a thread that the callback waits for."""
    room = app.room("all", public=True)

    def elsewhere(ws, text):
        thread = threading.Thread(target=ws.send, args=(text,))
        thread.start()
        thread.join()

    @app.websocket("/")
    class Mixed:
        def on_open(self, ws):
            ws.join("all")

        def on_message(self, ws, message):
            ways = {"s": ws.send, "p": room.publish, "t": lambda text: elsewhere(ws, text)}
            for index, way in enumerate(message):
                ways[way](f"{message} {index}")

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client, "s")
    for message in ("s", "ss", "ps", "sp", "sps", "pss", "ts", "st", "tst", "pts", "spt", "tps") * 3:
        client.send(message)
        assert [client.receive() for _ in message] == [f"{message} {index}" for index in range(len(message))]


def test_what_waits_for_the_end_of_a_turn_of_the_loop_leaves_before(app, live_server, unhurried):
    """A lap may end when posts have been taken and nothing is written yet; here the callback plays the loop's part."""

    @app.websocket("/")
    class Answering:
        def on_message(self, ws, message):
            if message == "both":
                ws._connection.services.fanout.send(ws._connection, Packet(TEXT, b"", frame(TEXT, b"first")))
            ws.send("second")

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client)
    for _ in range(3):
        client.send("both")
        assert [client.receive(), client.receive()] == ["first", "second"]


def test_messages_that_come_together_are_answered_in_order(echo, live_server):
    live = live_server(echo)
    client = live.websocket("/")
    prove(live, client)
    client.send_raw(b"".join(raw_frame(TEXT, b"quick") for _ in range(300)))
    for _ in range(300):
        assert client.receive().startswith(LEADING)


def test_what_the_kernel_does_not_take_is_accounted_for(app, live_server, unhurried):
    size = 20_000_000  # more than the kernel takes for a client that does not read

    @app.websocket("/")
    class Download:
        def on_message(self, ws, message):
            ws.send(bytes(size if message == "much" else 1))

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client)
    connection = socket_of(live)
    sent = services_of(live).messages_sent
    live.freeze(client)
    client.send("much")
    eventually(lambda: connection.paused, "the kernel has not taken it all")
    assert connection._posted - connection._taken > size
    client.send("little")
    eventually(lambda: waits_to_send(connection), "what is behind waits for it")
    live.thaw(client)
    assert len(client.receive()) == size
    assert client.receive() == bytes(1)
    eventually(lambda: connection._posted == connection._taken, "and then nothing is on its way")
    assert services_of(live).messages_sent == sent + 2


@pytest.fixture(params=["uvloop", "standard"])
def loop_of_choice(request, monkeypatch):
    if request.param == "standard":
        monkeypatch.setattr(server_module, "new_event_loop", asyncio.new_event_loop)


@pytest.mark.parametrize("wire", ["tcp", "tls", "uds"])
def test_whatever_is_below_takes_what_is_written_between_two_laps(
    app, live_server, gate, never_replaced, loop_of_choice, wire, tmp_path
):
    @app.websocket("/")
    class Answering:
        def on_message(self, ws, message):
            ws.send("x" * int(message))
            if message == "70000":
                gate.wait()

    ways = {"tcp": {}, "tls": {"ssl_certfile": certificate(tmp_path)}, "uds": {"uds": str(tmp_path / "web.sock")}}
    live = live_server(app, **ways[wire])
    client = live.websocket("/")

    def ask(size):
        client.send(str(size))
        assert client.receive() == "x" * size

    for _ in range(2 * INSTANT_PROOF):
        ask(1)
    ask(70_000)  # while the callback is held
    gate.open()
    ask(5_000_000)  # more than the kernel takes: the rest waits for the loop
    ask(1)


def certificate(folder):
    path = folder / "server.pem"
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


def test_a_socket_of_another_server_is_written_by_the_thread_of_its_own_loop(app, live_server, unhurried, monkeypatch):
    others, writers = [], []

    def serve(app):
        @app.websocket("/")
        class Echo:
            def on_open(self, ws):
                others.append(ws)

            def on_message(self, ws, message):
                (others[1] if message == "across" else ws).send(message)

        return live_server(app)

    here, there = serve(app), serve(Catzilla(show_banner=False))
    near, far = here.websocket("/"), there.websocket("/")
    prove(here, near)
    connection = socket_of(there)
    write = Wire.write

    def noted(self, buffers):
        if self is connection:
            writers.append((threading.current_thread(), services_of(there).loop.is_running()))
        return write(self, buffers)

    monkeypatch.setattr(Wire, "write", noted)
    for _ in range(3):
        near.send("across")
        assert far.receive() == "across"
    leader = services_of(there).turns._quick._leadership._leader
    assert writers == 3 * [(leader.thread, True)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of 3.12 and later, where there are threads
def test_a_forked_child_sends_nothing(app, live_server, unhurried):
    @app.websocket("/")
    class Forking:
        def on_message(self, ws, message):
            if message == "fork":
                child = os.fork()
                if not child:
                    try:
                        ws.send("from the child")
                    finally:
                        os._exit(0)
                os.waitpid(child, 0)
            ws.send(message)

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client)
    client.send("fork")
    assert client.receive() == "fork"


def test_nothing_is_sent_to_who_is_gone(app, live_server, unhurried):
    seen = []

    @app.websocket("/")
    class Closing:
        def on_message(self, ws, message):
            if message == "close":
                ws.close(4000, "enough")
                with pytest.raises(Disconnected):
                    ws.send("late")
                seen.append(ws.close_code)
            else:
                ws.send(message)

    live = live_server(app)
    client = live.websocket("/")
    prove(live, client)
    client.send("close")
    assert closed_with(client) == (4000, "enough")
    assert len(seen) == 1
