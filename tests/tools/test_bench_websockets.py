"""The bench of WebSockets: its frames, its counting, and that a server that answers wrongly gets no figure."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tools.bench import work, ws_scenarios
from tools.bench.clients import websocket, wire, ws_broadcast, ws_echo, ws_hold
from tools.bench.clients.busy import Busy
from tools.bench.peers import PEERS
from tools.bench.scenario import Amount

ROOT = Path(__file__).parents[2]
Handler = Callable[[ServerConnection], None]

UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[int]:
    """A WebSocket server of this process that does what `handler` does; the value is its port."""

    def quiet(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            handler(connection)

    with serve(quiet, "127.0.0.1", 0, compression=None, close_timeout=0.1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(10)
    assert not thread.is_alive()


# Frames


def test_frames_are_those_of_the_rfc() -> None:
    hello = work.Payload(b"Hello", text=True)
    assert websocket.frame(hello).hex() == "810548656c6c6f"
    assert websocket.frame(hello, websocket.MASK).hex() == "818537fa213d7f9f4d5158"
    assert websocket.frame(work.Payload(bytes(256), text=False))[:4].hex() == "827e0100"


def test_a_payload_has_its_size_and_is_text_only_when_it_says_so() -> None:
    assert [len(work.payload(size, text).data) for size in (32, 60_000) for text in (True, False)] == [
        32,
        32,
        60_000,
        60_000,
    ]
    assert work.payload(60_000, text=True).data.isascii()
    with pytest.raises(UnicodeDecodeError):
        work.payload(60_000, text=False).data.decode()
    calls = [work.roll_call(number, 32).data for number in range(ws_broadcast.ROLL_CALLS)]
    assert {len(call) for call in calls} == {32}
    assert len(set(calls)) == len(calls)


@pytest.mark.parametrize(
    "answer",
    [
        UPGRADE.replace(b"xOo=", b"xOO="),
        UPGRADE.replace(b"101 Switching Protocols", b"200 OK"),
        UPGRADE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        UPGRADE + b"\x81\x00",
    ],
)
def test_an_upgrade_that_was_not_asked_for_is_refused(answer: bytes) -> None:
    websocket.check_upgrade(UPGRADE)
    with pytest.raises(wire.Unexpected):
        websocket.check_upgrade(answer)


# Counting


@pytest.mark.parametrize("size", [1, 33, 34, 35, 1000])
def test_frames_are_compared_wherever_they_are_cut(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    reply = websocket.frame(work.payload(32, text=True))
    expected, position, sent = ws_echo.Expected(reply), 0, reply * 7
    for start in range(0, len(sent), size):
        theirs.sendall(sent[start : start + size])
        position += expected.read(ours, position)
    assert position == 7 * 34


def test_one_wrong_byte_is_found_deep_in_a_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reply = websocket.frame(work.payload(32, text=True))
    sent = bytearray(reply * 100)
    sent[3000] ^= 1
    theirs.sendall(sent)
    with pytest.raises(wire.Unexpected, match="expected the frames"):
        ws_echo.Expected(reply).read(ours, 0)


def test_a_connection_that_ends_is_no_echo(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(wire.Unexpected, match="closed"):
        ws_echo.Expected(b"reply").read(ours, 0)


def test_a_conversation_is_refilled_when_half_of_its_window_is_back(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    talk = ws_echo.Conversation(ours, b"message", ws_echo.Expected(b"reply"), window=4)
    in_flight = []
    talk.fill()
    for _ in range(4):
        theirs.sendall(b"reply")
        talk.advance()
        talk.fill()
        in_flight.append(talk.in_flight)
    assert in_flight == [3, 4, 3, 4]
    assert (talk.returned, theirs.recv(1000)) == (4, b"message" * 8)


def test_what_the_kernel_does_not_take_is_sent_later(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    message = os.urandom(300_000)
    talk = ws_echo.Conversation(ours, message, ws_echo.Expected(b"reply"), window=1)
    received = b""
    talk.fill()
    assert talk.unsent
    while len(received) < len(message):
        received += theirs.recv(65536)
        talk.push()
    assert received == message
    assert talk.in_flight == 1


def test_who_is_busy_is_seen() -> None:
    busy = Busy([os.getpid()])
    while busy.shares()["server_busy"] == 0:
        sum(range(1000))
    shares = busy.shares()
    assert shares["client_busy"] > 0


def test_an_idle_socket_answers_pings_and_nothing_else(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"\x89\x04ping")
    assert ws_hold.answer_ping(ours)
    assert theirs.recv(100) == b"\x8a\x84" + bytes(4) + b"ping"
    theirs.sendall(b"\x88\x00")
    assert not ws_hold.answer_ping(ours)


# Servers that answer wrongly


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ws_echo, ws_broadcast):
        monkeypatch.setattr(module, "DRAIN_PATIENCE", 0.3)
    monkeypatch.setattr(ws_broadcast, "ROLL_CALL_PATIENCE", 0.1)


def echo_but(mistake: Callable[[int, str], list[str]]) -> Handler:
    """Echoes nine messages, and what `mistake` makes of the next ones."""

    def handler(connection: ServerConnection) -> None:
        for number, message in enumerate(connection):
            assert isinstance(message, str)
            for reply in mistake(number, message) if number > 8 else [message]:
                connection.send(reply)

    return handler


def echoes(port: int, window: int = 1) -> float:
    figures = ws_echo.measure(port, "/echo", seconds=0.1, connections=3, size=32, window=window, pids=[os.getpid()])
    return float(figures["messages_per_s"])


@pytest.mark.parametrize("window", [1, 16])
def test_an_honest_echo_gets_a_figure(window: int) -> None:
    with serving(echo_but(lambda number, message: [message])) as port:
        assert echoes(port, window) > 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        (lambda number, message: [message.upper()], "expected the frames"),
        (lambda number, message: [message[:-1]], "expected the frames"),
        (
            lambda number, message: [message, message] if number > 12 else [message],
            "more arrived|echoes did not arrive",
        ),
        (lambda number, message: [], "did not arrive"),
    ],
    ids=["other", "shorter", "twice", "lost"],
)
def test_a_wrong_echo_gets_none(mistake: Callable[[int, str], list[str]], complaint: str) -> None:
    with serving(echo_but(mistake)) as port, pytest.raises(wire.Unexpected, match=complaint):
        echoes(port)


class Room:
    """A room of this process, with hooks for what may go wrong in one."""

    def __init__(self, late: bool = False, forgets_after: int = 1 << 40) -> None:
        self._members: list[ServerConnection] = []
        self._late = late
        self._forgets_after = forgets_after
        self._published = 0
        self._lock = threading.Lock()

    def member(self, connection: ServerConnection) -> None:
        with self._lock:
            self._members.append(connection)
        for message in connection:
            self.publish(message)

    def publish(self, message: str | bytes) -> None:
        with self._lock:
            self._published += 1
            forgets_one = (self._late and self._published == 1) or self._published > self._forgets_after
            for each in self._members[:-1] if forgets_one else self._members:
                each.send(message)


def deliveries(port: int) -> float:
    figures = ws_broadcast.measure(port, "/room", seconds=0.1, connections=5, size=32, window=4, pids=[os.getpid()])
    return float(figures["deliveries_per_s"])


def test_deliveries_to_all_members_are_counted() -> None:
    with serving(Room().member) as port:
        assert deliveries(port) > 0


@pytest.mark.usefixtures("impatient")
def test_a_member_that_joins_late_is_waited_for() -> None:
    with serving(Room(late=True).member) as port:
        assert deliveries(port) > 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("after", "complaint"), [(0, "of 5 members 1 received nothing"), (ws_broadcast.ROLL_CALLS, "a member received")]
)
def test_a_member_that_is_forgotten_spoils_the_figure(after: int, complaint: str) -> None:
    with serving(Room(forgets_after=after).member) as port, pytest.raises(wire.Unexpected, match=complaint):
        deliveries(port)


# The whole


def test_peers_without_websockets_take_no_part() -> None:
    socketless = {name for name, peer in PEERS.items() if peer.skip_reason("ws_echo")}
    assert {"blocking-socket", "gunicorn-flask", "granian-flask", "uvicorn-starlette"} <= socketless
    assert not socketless & {"aiohttp", "websockets-asyncio", "websockets-sync", "picows", "socketify", "flask-sock"}
    assert PEERS["picows"].skip_reason("hello")


def test_idle_sockets_are_weighed_and_their_threads_counted() -> None:
    sample = ws_scenarios.measure_memory(PEERS["websockets-sync"], Amount(1, 0.1, 20))
    assert sample["threads"] is not None
    assert sample["threads"] >= 20
    assert sample["requests_per_s"] is None, "it closes after each response"


@pytest.mark.parametrize("peer", ["catzilla", "catzilla-linear"])
def test_every_scenario_of_websockets_runs(peer: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    names = [scenario.name for scenario in ws_scenarios.WS_SCENARIOS]
    sizes = ["--seconds", "0.1", "--n", "4", "--rounds", "1", "--json", str(file)]
    command = [sys.executable, "-m", "tools.bench", *names, *sizes, "--peers", peer]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    document = json.loads(file.read_text())["scenarios"]
    assert list(document) == names
    for name, scenario in document.items():
        (sample,) = scenario["peers"][peer]["samples"]
        assert all(value > 0 for key, value in sample.items() if key.endswith("_per_s")), name
        assert sample.keys() == {metric["key"] for metric in scenario["metrics"]}
