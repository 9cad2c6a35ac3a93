"""A whole server on real sockets, with our loop and with the standard one: start, serve, stop and fail in order."""

from __future__ import annotations

import asyncio
import builtins
import gc
import socket
import ssl
import threading
import time
import weakref

import pytest
import trustme

from catzilla._core import server as server_module
from catzilla._core.current import current
from catzilla._core.limits import Limits
from catzilla._core.messages import FileSpan, Reply, Source
from catzilla._core.pace import Pace
from catzilla._core.server import HTTPServer, new_event_loop
from catzilla._core.sockets import bind_tcp, bind_unix
from tests.promises.helpers import eventually

GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"


class Plan:
    pace = Pace()

    def __init__(self, name: str) -> None:
        self.name = name


class Application:
    """Answers by the path; `answers` maps one to a function of the exchange."""

    def __init__(self) -> None:
        self.answers = {"/": lambda exchange: Reply(200, [], b"hello")}

    def plan(self, head) -> Plan:
        return Plan(head.path)

    def handle(self, exchange) -> Reply:
        return self.answers[exchange.target](exchange)


class Client:
    """A socket that reads what it asks for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(10)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, path: bytes = b"/") -> None:
        self.send(GET % path)

    def until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            piece = self.sock.recv(65536)
            assert piece, f"closed after {data!r}"
            data += piece
        return data

    def body(self, length: int, piece: int = 1 << 20) -> bytes:
        """The body of an answer of which the length is known, read in pieces."""
        data = b""
        while len(data.partition(b"\r\n\r\n")[2]) < length:
            received = self.sock.recv(piece)
            assert received, f"closed after {len(data)} bytes"
            data += received
        return data.partition(b"\r\n\r\n")[2]

    def rest(self) -> bytes:
        """Everything until the end of the connection; a reset is an end."""
        data = b""
        try:
            while piece := self.sock.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        return data


@pytest.fixture(params=["ours", "asyncio"], autouse=True)
def loops(request, monkeypatch):
    """Every test of this file runs on both loops."""
    if request.param == "asyncio":
        monkeypatch.setattr(server_module, "new_event_loop", asyncio.new_event_loop)


@pytest.fixture
def application():
    return Application()


@pytest.fixture
def serve(application, tmp_path):
    """`serve(**options)` gives a running server; `connect(server)` a client of it."""
    running: list[HTTPServer] = []

    def start(*, unix=False, **options) -> HTTPServer:
        options.setdefault("limits", Limits(shutdown_grace=0.5))
        sock = bind_unix(str(tmp_path / "sock")) if unix else bind_tcp("127.0.0.1", 0)
        server = HTTPServer(application, [sock], **options)
        server.address = sock.getsockname()
        server.family = sock.family
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.request_stop(0)
        assert server.wait(20)


@pytest.fixture
def connect():
    clients: list[Client] = []

    def open_(server: HTTPServer, context: ssl.SSLContext | None = None) -> Client:
        sock = socket.socket(server.family)
        clients.append(Client(sock))
        sock.connect(server.address)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
            clients.append(Client(sock))
        return clients[-1]

    yield open_
    for client in clients:
        client.sock.close()


def stop(server: HTTPServer, grace: float | None = None) -> float:
    """Stop it; how long that took, in seconds."""
    began = time.monotonic()
    server.request_stop(grace)
    assert server.wait(20)
    return time.monotonic() - began


# Serving.


def test_requests_are_answered(serve, connect):
    client = connect(serve())
    for _ in range(3):
        client.ask()
        assert client.until(b"hello").startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_unix_socket(serve, connect):
    client = connect(serve(unix=True))
    client.ask()
    client.until(b"hello")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    """The contexts of a server and of a client that trusts it."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)
    return ours, theirs


@pytest.mark.parametrize("unix", [False, True])
def test_tls(application, serve, connect, tls, unix):
    application.answers["/stream"] = lambda exchange: Reply(200, [], Source(iter([b"x" * 100_000] * 20)))
    server = serve(unix=unix, ssl_context=tls[0])
    client = connect(server, tls[1])
    client.ask()
    client.until(b"hello")
    client.ask(b"/stream")
    assert client.until(b"\r\n0\r\n\r\n").count(b"x") == 2_000_000


def test_a_client_that_does_not_speak_tls_costs_nothing(serve, connect, tls):
    server = serve(ssl_context=tls[0])
    plain = connect(server)
    plain.ask()
    assert b"200" not in plain.rest()
    client = connect(server, tls[1])
    client.ask()
    client.until(b"hello")


def test_a_large_stream_to_a_slow_reader_is_whole(application, serve, connect):
    threads = set()

    def items():
        for number in range(300):
            threads.add(threading.current_thread().name)
            yield b"%04d" % number + b"x" * 9996

    application.answers["/stream"] = lambda exchange: Reply(200, [(b"Content-Length", b"3000000")], Source(items()))
    server = serve()
    client = connect(server)
    client.ask(b"/stream")
    body = client.body(3_000_000, piece=20_000)
    assert body == b"".join(b"%04d" % n + b"x" * 9996 for n in range(300))
    assert len(threads) == 1


def test_a_file_goes_through_the_kernel(application, serve, connect, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 200_000)
    application.answers["/file"] = lambda exchange: Reply(200, [], FileSpan(path.open("rb"), 5, 1_999_990))
    client = connect(serve())
    client.ask(b"/file")
    assert client.body(1_999_990) == (b"0123456789" * 200_000)[5:1_999_995]
    client.ask()
    client.until(b"hello")


def test_a_body_is_read_at_the_handlers_pace(application, serve, connect):
    application.answers["/up"] = lambda exchange: Reply(200, [], b"%d!" % sum(map(len, exchange.body.chunks())))
    client = connect(serve())
    client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
    assert client.until(b"!").endswith(b"3000000!")


def test_a_client_that_resets_closes_its_generator(application, serve, connect):
    closed = threading.Event()

    def items():
        try:
            while True:
                yield b"x" * 10_000
        finally:
            closed.set()

    application.answers["/stream"] = lambda exchange: Reply(200, [], Source(items()))
    client = connect(serve())
    client.ask(b"/stream")
    client.sock.recv(1)
    client.sock.close()
    assert closed.wait(10)


def test_the_access_log_is_written(serve, connect, caplog):
    caplog.set_level("INFO", "catzilla.access")
    server = serve(access_log=True)
    client = connect(server)
    client.ask()
    client.until(b"hello")
    stop(server)
    assert '"GET / HTTP/1.1" status=200 bytes=5' in caplog.text


# Starting.


def test_what_keeps_it_from_starting_is_raised(application, monkeypatch):
    async def fail(self, loop, services, sock):
        raise OSError("no more sockets")

    monkeypatch.setattr(HTTPServer, "_listen", fail)
    sock = bind_tcp("127.0.0.1", 0)
    server = HTTPServer(application, [sock], limits=Limits())
    with pytest.raises(OSError, match="no more sockets"):
        server.start()
    assert server.wait(10)
    assert sock.fileno() == -1, "closed"


def test_stopping_what_was_never_started(application):
    with bind_tcp("127.0.0.1", 0) as sock:
        HTTPServer(application, [sock], limits=Limits()).request_stop()


def test_a_failure_while_it_serves_is_logged_and_ends_it(application, serve, caplog, monkeypatch):
    async def fail(self, services):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(HTTPServer, "_stop_connections", fail)
    server = serve()
    stop(server)
    assert "the server failed" in caplog.text


# Stopping.


def test_an_idle_server_stops_at_once_and_leaves_no_thread(serve, connect):
    before = set(threading.enumerate())
    server = serve()
    client = connect(server)
    client.ask()
    client.until(b"hello")
    assert stop(server, 60) < 10
    assert client.rest() == b""
    server.request_stop()
    server._first_leader.join(10)
    assert [t.name for t in set(threading.enumerate()) - before if t.name.startswith("catzilla")] == []
    with pytest.raises(OSError):
        connect(server)


def test_a_request_under_way_is_answered_within_the_grace(application, serve, connect, monkeypatch):
    began, stopping = threading.Event(), threading.Event()
    original = HTTPServer._stop_connections

    async def stop_connections(self, services):
        stopping.set()
        await original(self, services)

    def slow(exchange):
        began.set()
        assert stopping.wait(10)
        return Reply(200, [], b"late")

    monkeypatch.setattr(HTTPServer, "_stop_connections", stop_connections)
    application.answers["/slow"] = slow
    server = serve()
    client = connect(server)
    client.ask(b"/slow")
    assert began.wait(10)
    stop(server, 60)
    answer = client.rest()
    assert answer.endswith(b"late")
    assert b"connection: close" in answer


def test_a_stream_has_the_grace_to_finish_and_is_then_cut(application, serve, connect):
    closed = []

    def items():
        try:
            yield b"first"
            current.waits.wait_for(threading.Condition(), lambda: False)
        except BaseException as error:
            closed.append(error)
            raise

    application.answers["/stream"] = lambda exchange: Reply(200, [], Source(items()))
    server = serve()
    client = connect(server)
    client.ask(b"/stream")
    client.until(b"first\r\n")
    stop(server, 0.1)
    assert client.rest() == b""
    assert [error.code for error in closed] == [1001]
    assert (server.left_threads, server.left_streams) == ([], [])


def test_who_is_stuck_in_user_code_is_named_and_left_behind(application, serve, connect):
    free = threading.Event()
    began = threading.Event()

    def stuck():
        yield b"first"
        began.set()
        free.wait(20)
        yield b"never"

    application.answers["/stuck"] = lambda exchange: Reply(200, [], Source(stuck()))
    server = serve()
    client = connect(server)
    client.ask(b"/stuck")
    assert began.wait(10)
    took = stop(server, 0.1)
    assert server.left_streams == ["/stuck"]
    assert len(server.left_threads) == 1
    assert took < 10
    free.set()


def test_stopping_from_another_thread_twice(serve):
    server = serve()
    threads = [threading.Thread(target=server.request_stop, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert server.wait(20)


def test_without_uvloop_the_standard_loop_serves(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "uvloop":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    loop = new_event_loop()
    try:
        assert type(loop).__module__.startswith("asyncio")
    finally:
        loop.close()


def test_an_on_end_that_fails_is_called_once(serve, monkeypatch):
    calls, told = [], []
    monkeypatch.setattr(threading, "excepthook", told.append)
    server = serve()

    def fail():
        calls.append(threading.current_thread().name)
        raise RuntimeError("a fault of ours")

    server.on_end = fail
    stop(server, 0)
    server._first_leader.join(10)
    assert calls == ["catzilla-loop"]
    assert server.failure is None
    assert len(told) == 1


def test_a_failure_that_cannot_be_logged_still_ends_the_server(serve, connect, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda about: None)
    server = serve()

    def log(*about, **options):
        raise OSError("the log is full")

    async def fail(services):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(server_module.logger, "error", log)
    monkeypatch.setattr(server, "_stop_connections", fail)
    server.request_stop(0)
    assert server.wait(10)
    assert isinstance(server.failure, RuntimeError)
    with pytest.raises(OSError):
        connect(server)


def test_a_stopped_server_is_freed_without_a_garbage_collection(application):
    """Its buffers and connections would otherwise stay for as long as no collection comes by."""
    sock = bind_tcp("127.0.0.1", 0)
    server = HTTPServer(application, [sock], limits=Limits())
    server.start()
    gone = weakref.ref(server), weakref.ref(server.services), weakref.ref(server.services.turns)
    stop(server, 0)
    server._first_leader.join(10)
    gc.disable()
    try:
        del server
        eventually(lambda: [each() for each in gone] == [None] * 3, "it is freed")
    finally:
        gc.enable()
