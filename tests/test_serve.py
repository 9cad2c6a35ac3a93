"""Serving an app: hooks, addresses, certificates, logging and signals around a server."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import ssl
import threading

import pytest
import trustme

from catzilla import Catzilla, serve, stats
from catzilla._core.limits import Limits
from catzilla.banner import banner
from catzilla.errors import SettingsError
from catzilla.serve import Server, _Signals, bind, configure_logging, logs_access, run, tls_context
from catzilla.settings import Settings
from tests.brokers.faulty_brokers import ThreadedBroker

QUICK = Limits(shutdown_grace=0.2)


@pytest.fixture
def app():
    app = Catzilla(show_banner=False)
    app.get("/")(lambda request: "hello")
    return app


@pytest.fixture
def settings():
    return Settings(port=0, access_log=False, limits=QUICK)


@pytest.fixture
def server(app, settings):
    server = Server(app, settings)
    yield server
    server.stop(0)


def ask(server: Server) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data


# A server.


def test_it_starts_serves_and_stops(app, server):
    assert repr(server) == "<Server not started>"
    assert (server.port, server.urls) == (0, [])
    server.start()
    assert server.port > 0
    assert server.urls == [f"http://127.0.0.1:{server.port}"]
    assert repr(server) == f"<Server {server.urls[0]}>"
    assert app.servers == [server]
    assert ask(server).endswith(b"hello")
    server.stop()
    assert app.servers == []
    assert server.unclosed_streams() == []
    with pytest.raises(OSError):
        ask(server)


def test_stopping_what_was_never_started(server):
    server.request_stop()
    assert server.wait(0) is True
    assert server.unclosed_streams() == []


def test_handlers_that_are_abandoned_are_warned_of_once(app, server, caplog):
    running, release = queue.SimpleQueue(), threading.Event()

    @app.get("/stuck")
    def stuck():
        running.put(threading.current_thread())
        release.wait(10)
        return "late"

    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        thread = running.get(timeout=10)
        server.stop(0)
    server.wait()
    release.set()
    thread.join(10)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    text = f"server={server.urls[0]} stopped with handlers still running, which are abandoned: count=1 threads="
    assert warning.getMessage().startswith(f"{text}{thread.name};")


def test_a_stop_that_abandons_nobody_warns_of_nothing(server, caplog):
    server.start()
    ask(server)
    server.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_waiting_with_a_timeout(server):
    server.start()
    assert server.wait(0.001) is False
    server.request_stop()
    assert server.wait(10) is True
    assert server.wait(10) is True


def test_hooks_run_around_it_and_the_last_ones_first(app, server):
    seen = []
    for name in ("one", "two"):
        app.on_startup(lambda name=name: seen.append(f"start {name}"))
        app.on_shutdown(lambda name=name: seen.append(f"stop {name}"))
    server.start()
    assert seen == ["start one", "start two"]
    server.stop()
    server.stop()
    assert seen[2:] == ["stop two", "stop one"]


def test_a_startup_hook_that_fails_keeps_it_from_starting(app, settings):
    def fail():
        raise ValueError("no database")

    app.on_startup(fail)
    server = Server(app, settings)
    with pytest.raises(ValueError, match="no database"):
        server.start()
    assert app.servers == []
    with socket.socket() as sock:  # the port is free again
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", server.port))


def test_a_port_in_use(app, server):
    server.start()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        Server(app, Settings(port=server.port)).start()
    assert app.servers == [server]


def test_a_unix_socket_file_is_removed_at_the_end(app, tmp_path):
    path = tmp_path / "sock"
    server = Server(app, Settings(uds=str(path), limits=QUICK))
    server.start()
    assert (server.port, server.urls) == (0, [f"unix:{path}"])
    assert path.exists()
    server.stop()
    assert not path.exists()


def test_a_unix_socket_file_that_somebody_has_removed(app, tmp_path):
    path = tmp_path / "sock"
    server = Server(app, Settings(uds=str(path), limits=QUICK))
    server.start()
    path.unlink()
    server.stop()


def test_sockets_that_were_handed_over(app, settings):
    (sock,) = bind(settings)
    port = sock.getsockname()[1]
    server = Server(app, settings, sockets=[sock])
    server.start()
    assert server.port == port
    assert ask(server).endswith(b"hello")
    server.stop()


def test_the_limits_of_the_settings_reach_the_requests(app, server):
    server.start()
    assert app.pipeline.limits is QUICK


def test_it_is_counted_while_it_serves_and_its_totals_after(server):
    before = stats.streaming_stats()
    server.start()
    ask(server)
    server.stop()
    after = stats.streaming_stats()
    assert after.total_requests == before.total_requests + 1
    assert after.connections == before.connections


# Certificates.


@pytest.fixture
def certificate(tmp_path):
    issued = trustme.CA().issue_cert("localhost")
    path, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(path), append=True)
    return str(path), str(key)


def test_no_certificate_is_no_tls():
    assert tls_context(Settings()) is None


def test_a_certificate(certificate, app):
    settings = Settings(port=0, ssl_certfile=certificate[0], ssl_keyfile=certificate[1], limits=QUICK)
    context = tls_context(settings)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    server = Server(app, settings)
    server.start()
    assert server.urls == [f"https://127.0.0.1:{server.port}"]
    server.stop()


def test_a_certificate_that_cannot_be_read_leaves_no_socket_behind(app, tmp_path):
    settings = Settings(port=0, ssl_certfile=str(tmp_path / "nowhere.pem"))
    with pytest.raises(SettingsError, match=r"cannot use the certificate .*nowhere\.pem"):
        Server(app, settings).start()


def test_a_key_that_does_not_fit(certificate, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
    with pytest.raises(SettingsError, match="cannot use the certificate"):
        tls_context(Settings(ssl_certfile=certificate[0], ssl_keyfile=str(other)))


# Logging.


@pytest.mark.parametrize(
    ("setting", "word", "production", "expected"),
    [
        (None, None, False, True),
        (None, None, True, False),
        (None, False, False, False),
        (None, True, True, True),
        (True, False, True, True),
        (False, True, False, False),
    ],
)
def test_who_decides_about_the_access_log(setting, word, production, expected):
    app = Catzilla(production=production, log_requests=word)
    assert logs_access(app, Settings(access_log=setting)) is expected


@pytest.fixture
def unset(monkeypatch):
    """`unset()` makes logging what it is before anybody has set it up; pytest itself sets it up for each test."""

    def clear() -> logging.Logger:
        logger = logging.getLogger("catzilla")
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "level", logger.level)
        return logger

    yield clear
    monkeypatch.undo()
    logging.getLogger("catzilla").setLevel(logging.getLogger("catzilla").level)  # forgets what is cached


def test_log_lines_go_to_standard_error_unless_the_user_has_said_where(unset):
    logger = unset()
    configure_logging()
    configure_logging()
    assert len(logger.handlers) == 1
    assert logger.level == logging.INFO


def test_the_users_logging_is_left_alone(unset):
    logger = unset()
    logging.getLogger().addHandler(logging.NullHandler())
    configure_logging()
    assert logger.handlers == []


# Running.


def test_run_serves_until_the_app_is_stopped(app, settings, capsys):
    app.show_banner = True

    class Servers(list):
        """Stops the app as soon as it is served, from another thread."""

        def append(self, server):
            super().append(server)
            threading.Thread(target=app.stop).start()

    app.servers = Servers()
    runner = threading.Thread(target=run, args=(app, settings))
    runner.start()
    runner.join(20)
    assert not runner.is_alive()
    assert "catzilla is listening on http://127.0.0.1:" in capsys.readouterr().err


def test_several_processes_are_supervised(app, monkeypatch, capsys):
    made = []

    class Supervised:
        def __init__(self, count, target, grace, on_stop):
            made.append((count, round(grace, 3)))
            self.target = target

        def run(self):
            self.target()

    def serve_one(app, settings, shared, *, show):
        assert not show, "the banner is shown once, by the first process"
        made.append([sock.getsockname()[1] > 0 for sock in shared])

    monkeypatch.setattr(serve, "Supervisor", Supervised)
    monkeypatch.setattr(serve, "_serve_one", serve_one)
    app.show_banner = True
    run(app, Settings(port=0, workers=3, limits=QUICK))
    assert made == [(3, 1.2), [True]]
    assert "3 processes" in capsys.readouterr().err


@pytest.fixture
def serve_in(monkeypatch):
    """`serve_in(workers, app)` runs it as far as its processes, of which none is started."""

    class Supervised:
        def __init__(self, count, target, grace, on_stop): ...

        def run(self): ...

    monkeypatch.setattr(serve, "Supervisor", Supervised)
    monkeypatch.setattr(serve, "_serve_one", lambda app, settings, shared, *, show: None)
    return lambda workers, app: run(app, Settings(port=0, workers=workers, limits=QUICK))


def with_a_socket(app):
    app.websocket("/")(lambda ws: None)


def with_a_room(app):
    app.room("lobby", public=True)


def with_a_name(app):
    app.room("lobby")


@pytest.mark.parametrize("prepare", [with_a_socket, with_a_room])
def test_several_processes_without_a_shared_broker_are_warned_of_once(app, serve_in, caplog, prepare):
    prepare(app)
    serve_in(3, app)
    (warning,) = caplog.records
    assert (warning.name, warning.levelname) == ("catzilla", "WARNING")
    for part in ("workers=3", "rooms and presence are per process", "a ticket is good once per process"):
        assert part in warning.getMessage()
    assert "run one process, or pass Catzilla(broker=...)" in warning.getMessage()


@pytest.mark.parametrize(
    ("workers", "broker", "prepare"),
    [(1, None, with_a_socket), (3, ThreadedBroker, with_a_socket), (3, None, with_a_name)],
    ids=["one process", "a broker of ones own", "nothing to split"],
)
def test_what_is_not_split_is_not_warned_of(serve_in, caplog, workers, broker, prepare):
    app = Catzilla(show_banner=False, broker=broker and broker())
    prepare(app)
    serve_in(workers, app)
    assert caplog.records == []
    app.rooms.broker.close()


def test_the_banner():
    app = Catzilla(production=True)
    assert banner(app, ["http://a:1", "unix:/s"], Settings()) == (
        "catzilla is listening on http://a:1, unix:/s (production, 0 routes); Ctrl-C stops it"
    )


class Stopped:
    """A server that keeps how it was asked to stop."""

    def __init__(self, production: bool, grace: float = 5.0) -> None:
        self.app = Catzilla(production=production)
        self.settings = Settings(limits=Limits(shutdown_grace=grace))
        self.asked: list[float | None] = []

    def request_stop(self, grace: float | None = None) -> None:
        self.asked.append(grace)

    def when_ended(self, callback) -> None:
        self.end = callback


@pytest.mark.parametrize(
    ("number", "production", "grace", "expected"),
    [
        (signal.SIGTERM, False, 5.0, None),
        (signal.SIGTERM, True, 5.0, None),
        (signal.SIGINT, True, 5.0, None),
        (signal.SIGINT, False, 5.0, serve.CTRL_C_GRACE),
        (signal.SIGINT, False, 0.1, None),  # a grace that is set is the one that is meant
        (signal.SIGINT, False, 30.0, None),
    ],
)
def test_signals_stop_it_and_ctrl_c_hurries_in_development(number, production, grace, expected, monkeypatch):
    class Left(BaseException):
        """The process would have ended here."""

    def leave(status):
        raise Left(status)

    monkeypatch.setattr(os, "_exit", leave)
    server, before = Stopped(production, grace), signal.getsignal(number)
    with _Signals(server):
        signal.raise_signal(number)
        assert server.asked == [expected]
        with pytest.raises(Left) as caught:  # the second one ends the process at once
            signal.raise_signal(number)
        assert caught.value.args == (128 + number,)
        assert server.asked == [expected]
    assert signal.getsignal(number) is before


def test_outside_of_the_main_thread_there_are_no_signals():
    seen = []

    def use():
        with _Signals(Stopped(False)):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert seen == [before]


def test_the_end_of_the_server_ends_the_wait(app, server):
    server.start()
    with _Signals(server) as signals:
        threading.Thread(target=app.stop).start()
        signals.wait()
    assert server.wait(0)


def test_a_server_that_has_ended_already_is_not_waited_for(server):
    server.start()
    server.stop()
    with _Signals(server) as signals:
        signals.wait()


def test_a_server_that_failed_says_so_to_who_waits(server, monkeypatch, caplog):
    async def fail(self, services):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("catzilla._core.server.HTTPServer._stop_connections", fail)
    server.start()
    with _Signals(server) as signals, pytest.raises(RuntimeError, match="a fault of ours"):
        server.request_stop()
        signals.wait()
