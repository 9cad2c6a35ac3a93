"""Promise 6, from outside: Ctrl-C, SIGTERM and `app.stop()` end a real process, whatever it is doing.

Each test starts a process that listens on a free port, learns the port from its banner, and sends it a signal.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from time import monotonic, perf_counter

import pytest

from catzilla._core.limits import Limits

ROOT = Path(__file__).parent.parent
GRACE = 0.5  # the setting of every process here
SECOND = 1.0  # what the promise adds to it
MARGIN = 1.5  # for a busy machine, and for the interpreter to end

PREAMBLE = """
import sys, threading, time
from catzilla import Catzilla, EventStream, StreamingResponse, current_stream, sleep

def say(what):
    print(what, flush=True)

app = Catzilla(production=PRODUCTION, log_requests=False)

def noted(items, name):
    say(f"{name} began")
    try:
        yield from items
    finally:
        say(f"{name} finally")

@app.get("/hello")
def hello():
    return "hello"

@app.get("/events")
def events():
    def items():
        yield "hello"
        yield sleep(60)
    return EventStream(noted(items(), "events"))

@app.get("/endless")
def endless():
    def items():
        while True:
            yield "x" * 1000
            yield sleep(0.01)
    return StreamingResponse(noted(items(), "endless"))

@app.get("/flood")
def flood():
    def items():
        while True:
            yield "x" * 10000
    return StreamingResponse(noted(items(), "flood"))

@app.get("/waiting")
def waiting():
    def items():
        yield "hello"
        current_stream().sleep(60)
    return StreamingResponse(noted(items(), "waiting"))

@app.get("/blocked")
def blocked():
    say("blocked began")
    time.sleep(60)
    say("blocked ended")
    return "late"

@app.get("/blocked-stream")
def blocked_stream():
    def items():
        yield "hello"
        say("blocked-stream began")
        time.sleep(60)
    return StreamingResponse(items())

@app.get("/short")
def short():
    say("short began")
    time.sleep(0.2)
    return "in time"

@app.get("/writer")
def writer():
    response = StreamingResponse()
    try:
        with response.writer() as w:
            while True:
                w.write("x" * 1000)
                say("writer began") if w is not None and not began else None
                began.append(True)
                current_stream().sleep(0.01)
    finally:
        say("writer finally")
began = []

@app.get("/stop")
def stop():
    app.stop()
    return "stopping"

@app.on_shutdown
def bye():
    say("shutdown hook")
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, source: str = "", *, production: bool = True, **settings: object) -> None:
        settings = {"port": 0, "shutdown_grace": GRACE, **settings}
        arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        script = (
            PREAMBLE.replace("PRODUCTION", repr(production)) + textwrap.dedent(source) + f"\napp.listen({arguments})\n"
        )
        script += 'say("listen returned")\n'
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.errors = b""
        self.output = b""
        self.sockets: list[socket.socket] = []
        self.selector = selectors.DefaultSelector()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            self.selector.register(stream, selectors.EVENT_READ)
        found = self.expect(rb"http://127\.0\.0\.1:(\d+)")
        self.port = int(found.group(1))

    def expect(self, pattern: bytes, timeout: float = 15.0) -> re.Match[bytes]:
        """Wait until the process has said something that matches."""
        deadline = monotonic() + timeout
        while True:
            found = re.search(pattern, self.errors) or re.search(pattern, self.output)
            if found:
                return found
            assert self._read(deadline - monotonic()), f"no {pattern!r} in {self.errors!r} nor {self.output!r}"

    def _read(self, timeout: float) -> bool:
        """Take what the process says next; False when it says nothing more, or nothing in time."""
        for key, _ in self.selector.select(max(0.0, timeout)):
            data = os.read(key.fd, 65536)
            if not data:
                self.selector.unregister(key.fileobj)
            elif key.fileobj is self.process.stdout:
                self.output += data
            else:
                self.errors += data
            return bool(self.selector.get_map())
        return False

    def open(self, path: str, receive_buffer_bytes: int | None = None) -> socket.socket:
        """Send a request and leave it open."""
        client = socket.socket()
        self.sockets.append(client)
        client.settimeout(10)
        if receive_buffer_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        client.connect(("127.0.0.1", self.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return client

    def send(self, number: int) -> float:
        self.process.send_signal(number)
        return perf_counter()

    def end(self, timeout: float = 20.0) -> int:
        """Wait for the process and take its last words; returns its exit code."""
        deadline = monotonic() + timeout
        while self._read(deadline - monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - monotonic()))

    def close(self) -> None:
        for client in self.sockets:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.selector.close()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def start():
    """A factory of `Process`; whatever is left of them is killed."""
    processes: list[Process] = []

    def make(source: str = "", **settings) -> Process:
        processes.append(Process(source, **settings))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


def rest(client: socket.socket) -> bytes:
    """What is left to read, with a reset taken for an end."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


@signals
@pytest.mark.parametrize("production", [True, False], ids=["production", "development"])
def test_everything_at_once(start, number, production):
    """All kinds of open work in one process; it ends within the grace and a second."""
    process = start(production=production)
    idle = process.open("/hello")
    assert b"hello" in idle.recv(65536)
    silent = socket.create_connection(("127.0.0.1", process.port), 10)
    process.sockets.append(silent)
    clients = {
        path: process.open(path)
        for path in ("/events", "/endless", "/waiting", "/blocked", "/blocked-stream", "/writer")
    }
    process.open("/flood", receive_buffer_bytes=4096)
    for path in clients:
        process.expect(path[1:].encode() + b" began")
    process.expect(b"flood began")

    sent_at = process.send(number)
    code = process.end()
    took = perf_counter() - sent_at
    assert took < GRACE + SECOND + MARGIN, f"it took {took:.1f} s; it said {process.errors.decode()}"
    assert code == 0
    for name in (b"events", b"endless", b"waiting", b"writer", b"flood"):
        assert process.output.count(name + b" finally") == 1, f"the finally of {name!r} did not run once"
    assert b"blocked ended" not in process.output
    assert process.output.count(b"shutdown hook") == 1
    assert process.output.endswith(b"listen returned\n")
    assert b"Traceback" not in process.errors, process.errors.decode()


@signals
@pytest.mark.parametrize("path", ["/events", "/hello"])
def test_what_has_no_end_of_its_own_does_not_cost_the_grace(start, number, path):
    """An event stream and an idle connection are closed at once: their clients come back by themselves."""
    process = start(shutdown_grace=30.0)
    client = process.open(path)
    assert b"hello" in client.recv(65536) or b"hello" in client.recv(65536)
    sent_at = process.send(number)
    assert process.end() == 0
    assert perf_counter() - sent_at < SECOND + MARGIN
    if path == "/events":
        assert b"events finally" in process.output


@pytest.mark.parametrize("path", ["/endless", "/flood"])
def test_an_endless_stream_gets_the_grace_and_no_more(start, path):
    process = start()
    client = process.open(path, receive_buffer_bytes=4096)
    process.expect(path[1:].encode() + b" began")
    sent_at = process.send(signal.SIGTERM)
    assert process.end() == 0
    assert GRACE - 0.1 < perf_counter() - sent_at < GRACE + SECOND + MARGIN
    assert b"0\r\n\r\n" not in rest(client), "a stream that was cut looks whole"


def test_a_response_that_is_nearly_done_is_finished(start):
    process = start(shutdown_grace=10.0)
    client = process.open("/short")
    process.expect(b"short began")
    sent_at = process.send(signal.SIGTERM)
    answer = rest(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"in time" in answer
    assert b"connection: close" in answer.lower()
    assert process.end() == 0
    assert perf_counter() - sent_at < 0.2 + SECOND + MARGIN


def test_nobody_is_accepted_any_more(start):
    process = start(shutdown_grace=5.0)
    client = process.open("/endless")
    process.expect(b"endless began")
    process.send(signal.SIGTERM)
    deadline = monotonic() + 5
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        while monotonic() < deadline:  # the signal may not have been taken yet
            process.open("/hello").close()
    assert client.recv(1), "the stream that was open ended with the port"
    client.close()
    assert process.end() == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_exits_at_once(start, first, second):
    process = start(shutdown_grace=60.0)
    process.open("/blocked")
    process.expect(b"blocked began")
    process.open("/endless").recv(1)
    process.send(first)
    # The first signal is taken when the port is closed; a second that came before it would be the first.
    while True:
        try:
            process.open("/hello").close()
        except (ConnectionRefusedError, ConnectionResetError):
            break
    sent_at = process.send(second)
    assert process.end() == 128 + second
    assert perf_counter() - sent_at < MARGIN


def test_ctrl_c_in_development_is_quicker_than_the_grace(start):
    process = start(production=False, shutdown_grace=Limits.shutdown_grace)
    process.open("/endless")
    process.expect(b"endless began")
    sent_at = process.send(signal.SIGINT)
    assert process.end() == 0
    assert perf_counter() - sent_at < 0.5 + SECOND + MARGIN < Limits.shutdown_grace
    assert b"endless finally" in process.output


def test_ctrl_c_in_development_keeps_to_a_grace_that_is_set(start):
    source = """
        @app.get("/slow")
        def slow():
            say("slow began")
            time.sleep(1.5)
            return "in time"
    """
    process = start(source, production=False, shutdown_grace=10.0)
    client = process.open("/slow")
    process.expect(b"slow began")
    process.send(signal.SIGINT)
    assert rest(client).endswith(b"in time")
    assert process.end() == 0


def test_app_stop_from_a_handler(start):
    process = start()
    client = process.open("/stop")
    assert b"stopping" in rest(client)
    assert process.end() == 0
    assert b"listen returned" in process.output


@signals
def test_several_processes(start, number):
    """Each of them has its streams; all end within the grace and a second."""
    process = start(workers=2)
    for _ in range(6):
        process.open("/events").recv(1)
        process.open("/endless").recv(1)
    process.open("/blocked")
    process.expect(b"blocked began")
    sent_at = process.send(number)
    code = process.end()
    assert perf_counter() - sent_at < GRACE + SECOND + MARGIN
    assert code == 0
    assert process.output.count(b"events finally") == 6
    assert process.output.count(b"endless finally") == 6


def test_several_processes_accept_nobody_while_they_stop(start):
    process = start(workers=2, shutdown_grace=60.0)
    process.open("/blocked")
    process.expect(b"blocked began")
    process.send(signal.SIGTERM)
    deadline = monotonic() + 10
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        while monotonic() < deadline:  # the signal may not have been taken yet
            process.open("/hello").close()


def test_a_signal_right_after_the_start(start):
    process = start()
    process.send(signal.SIGTERM)
    assert process.end() == 0
    assert b"Traceback" not in process.errors
