"""`--uds`: an app on a Unix socket, and whose file it replaces, refuses and removes."""

from __future__ import annotations

import re
import signal
import socket
import stat

import pytest

from catzilla import Catzilla, EventStream, StreamingResponse, sleep
from catzilla.testing.http_client import HttpConnection
from catzilla.testing.wire import Origin
from tests.commands import commands, write_module
from tests.promises.helpers import eventually, services_of, wait_stalled

LISTENS = rb"listening on unix:web\.sock"


@pytest.fixture
def app():
    return Catzilla(production=True, show_banner=False)


# An app on a Unix socket.


def test_requests_one_after_the_other_on_one_connection(app, live_server, tmp_path):
    app.get("/")(lambda request: {"scheme": request.url.partition(":")[0], "client": request.client_ip})
    live = live_server(app, uds=str(tmp_path / "web.sock"))
    assert live.port == 0
    with live.connect() as connection:
        for _ in range(3):
            assert connection.get("/").json()["scheme"] == "http"


def test_events_arrive_one_by_one(app, live_server, tmp_path):
    @app.get("/")
    def events():
        def items():
            yield "first"
            yield sleep(0.2)
            yield "second"

        return EventStream(items())

    live = live_server(app, uds=str(tmp_path / "web.sock"))
    with live.events("/") as stream:
        assert [event.data for event in stream] == ["first", "second"]
    assert stream.arrivals[1] - stream.arrivals[0] > 0.1


def test_a_client_that_stalls_pauses_the_generator_and_one_that_leaves_closes_it(app, live_server, tmp_path):
    produced, closed = [], []

    @app.get("/")
    def endless():
        def items():
            try:
                while True:
                    produced.append(True)
                    yield b"x" * 65536
            finally:
                closed.append(True)

        return StreamingResponse(items())

    live = live_server(app, uds=str(tmp_path / "web.sock"))
    with live.stream("/") as stream:
        wait_stalled(live)
        assert len(produced) < 200, "what waits for the client is bounded"
        assert next(stream)
        assert closed == []
    eventually(lambda: closed, "the generator is closed")
    eventually(lambda: not services_of(live).connections, "the connection is forgotten")


def test_the_peer_address_is_no_address(app, live_server, tmp_path):
    app.get("/")(lambda request: [request.client_ip])
    live = live_server(app, uds=str(tmp_path / "web.sock"))
    assert live.get("/").json() in ([None], [""])


# Whose file it is.


@pytest.fixture
def start(tmp_path):
    """`start(*flags)` serves an app on the Unix socket `web.sock` of the test's directory."""
    write_module(tmp_path, '    app.get("/")(lambda: "hello")\n')
    with commands(tmp_path) as start_command:
        yield lambda *flags: start_command("-m", "catzilla", "run", "web:app", "--uds=web.sock", *flags)


def ask(tmp_path) -> str:
    with HttpConnection(Origin("", 0, uds=str(tmp_path / "web.sock"))) as connection:
        return connection.get("/").text


@pytest.mark.parametrize("flags", [[], ["--workers=2"]], ids=["one process", "two processes"])
def test_the_file_is_there_while_it_serves(start, tmp_path, flags):
    command = start(*flags)
    command.expect(LISTENS)
    assert stat.S_ISSOCK((tmp_path / "web.sock").stat().st_mode)
    assert ask(tmp_path) == "hello"
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert not (tmp_path / "web.sock").exists()


def test_a_file_that_a_dead_server_left_is_replaced(start, tmp_path):
    killed = start()
    killed.expect(LISTENS)
    killed.send(signal.SIGKILL)
    killed.end()
    left = (tmp_path / "web.sock").stat().st_ino
    start().expect(LISTENS)
    assert (tmp_path / "web.sock").stat().st_ino != left or ask(tmp_path) == "hello"
    assert ask(tmp_path) == "hello"


def test_a_socket_that_is_served_is_left_alone(start, tmp_path):
    start().expect(LISTENS)
    second = start()
    assert second.end() == 1
    assert re.fullmatch(rb"catzilla: cannot listen on web\.sock: .*in use\n", second.errors)
    assert ask(tmp_path) == "hello", "the first one serves on"


def test_another_file_is_left_alone(start, tmp_path):
    (tmp_path / "web.sock").write_text("precious")
    command = start()
    assert command.end() == 1
    assert command.errors == b"catzilla: cannot listen on web.sock: there is a file that is not a socket\n"
    assert (tmp_path / "web.sock").read_text() == "precious"


def test_a_directory_that_is_not_there(start, tmp_path):
    with commands(tmp_path) as start_command:
        command = start_command("-m", "catzilla", "run", "web:app", "--uds=nosuch/web.sock")
        assert command.end() == 1
    assert re.fullmatch(rb"catzilla: cannot listen on nosuch/web\.sock: .*\n", command.errors)


def test_a_start_that_fails_leaves_no_file(start, tmp_path):
    write_module(
        tmp_path,
        """
        @app.on_startup
        def connect():
            raise ValueError("no database")
        """,
    )
    assert start().end() == 1
    assert not (tmp_path / "web.sock").exists()


def test_the_library_leaves_no_file_either(app, live_server, tmp_path):
    path = tmp_path / "web.sock"

    def fail():
        raise ValueError("no database")

    live = live_server(app, uds=str(path))
    live.stop()
    assert not path.exists()
    app.on_startup(fail)
    with pytest.raises(ValueError, match="no database"):
        live_server(app, uds=str(path))
    assert not path.exists()


def test_a_client_that_half_closes_gets_its_answer(app, live_server, tmp_path):
    app.get("/")(lambda: "hello")
    path = tmp_path / "web.sock"
    live_server(app, uds=str(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer.endswith(b"hello")
