"""Serving an app: one server in this process, and the blocking `run` behind `app.listen` and `catzilla run`.

Decides what starting and stopping mean for an app (hooks, statistics, signals, the banner). The server itself is
`_core/server.py`, several processes are `_core/supervisor.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from catzilla import app as app_module
from catzilla import stats
from catzilla._core.limits import Limits
from catzilla._core.server import HTTPServer
from catzilla._core.sockets import bind_tcp, bind_unix, describe
from catzilla._core.supervisor import Supervisor
from catzilla.app import Catzilla
from catzilla.banner import banner
from catzilla.brokers.memory import MemoryBroker
from catzilla.errors import SettingsError
from catzilla.settings import Settings

logger = logging.getLogger("catzilla")

CTRL_C_GRACE = 0.5  # seconds, in development and unless another grace is set: whoever presses Ctrl-C is waiting


class Server:
    """An app on an address, served by a thread of this process: `start`, then `stop`.

    `sockets`, already listening, take the place of the address in `settings`.
    """

    def __init__(
        self, app: Catzilla, settings: Settings | None = None, *, sockets: Sequence[socket.socket] | None = None
    ) -> None:
        self.app = app
        self.settings = settings or Settings()
        self._sockets = list(sockets) if sockets is not None else None
        self._http: HTTPServer | None = None
        self._urls: list[str] = []
        self._port = 0
        self._stopped = threading.Lock()  # taken by whoever finishes the stop

    def __repr__(self) -> str:
        return f"<Server {' '.join(self._urls) or 'not started'}>"

    @property
    def urls(self) -> list[str]:
        """Where it listens: `http://127.0.0.1:8000`, or `unix:/run/app.sock`."""
        return list(self._urls)

    @property
    def port(self) -> int:
        """The TCP port it listens on; 0 on a Unix socket."""
        return self._port

    def start(self) -> None:
        """Run the startup hooks, listen and serve; returns once it listens. [any thread]

        Raises: `OSError` when the address is taken, `SettingsError` for a certificate that cannot be read, and what a
        startup hook raises.
        """
        settings, app = self.settings, self.app
        context = tls_context(settings)
        sockets = self._sockets if self._sockets is not None else bind(settings)
        self._urls = [describe(sock, secure=context is not None) for sock in sockets]
        self._port = next((sock.getsockname()[1] for sock in sockets if sock.family != socket.AF_UNIX), 0)
        app.pipeline.limits = settings.limits
        try:
            for hook in app.startup_hooks:
                hook()
            http = HTTPServer(
                app.pipeline,
                sockets,
                limits=settings.limits,
                ssl_context=context,
                access_log=logs_access(app, settings),
                on_start=app.rooms.attach,
            )
            http.start()
        except BaseException:
            for sock in sockets:
                sock.close()
            self._remove_socket_file()
            raise
        self._http = http
        assert http.services is not None
        stats.register(http.services)
        app.servers.append(self)

    def request_stop(self, grace: float | None = None) -> None:
        """Begin to stop and return at once; `grace` in seconds replaces the setting `shutdown_grace`. [any thread]"""
        if self._http is not None:
            self._http.request_stop(grace)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has stopped and run the shutdown hooks; False when `timeout` seconds pass first."""
        http = self._http
        if http is None:
            return True
        if not http.wait(timeout):
            return False
        if self._stopped.acquire(blocking=False):
            assert http.services is not None
            stats.unregister(http.services)
            self.app.rooms.detach(http.services)
            self.app.servers.remove(self)
            self._remove_socket_file()
            self._warn_of_abandoned(http.left_threads)
            for hook in reversed(self.app.shutdown_hooks):
                try:
                    hook()
                except Exception:
                    logger.exception("a shutdown hook failed: hook=%r", hook)
        return True

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called by the last thread of its loop when it has ended; at once if it has."""
        assert self._http is not None
        self._http.on_end = callback
        if self._http.wait(0):
            callback()

    def raise_failure(self) -> None:
        """Raise what ended the server, if it was not asked to end."""
        if self._http is not None and self._http.failure is not None:
            raise self._http.failure

    def stop(self, grace: float | None = None) -> None:
        """Stop, and return when it has: at most the grace and a second later. [any thread but a worker]"""
        self.request_stop(grace)
        self.wait()

    def unclosed_streams(self) -> list[str]:
        """After `stop`: the handlers of streams whose generators were stuck in user code to the end."""
        return list(self._http.left_streams) if self._http is not None else []

    def _warn_of_abandoned(self, threads: list[str]) -> None:
        if threads:
            logger.warning(
                "server=%s stopped with handlers still running, which are abandoned: count=%d threads=%s; have them "
                "end on Disconnected, or set a longer shutdown_grace",
                " ".join(self._urls),
                len(threads),
                ",".join(threads),
            )

    def _remove_socket_file(self) -> None:
        if self._sockets is None:
            remove_socket_file(self.settings)


def bind(settings: Settings) -> list[socket.socket]:
    """The listening sockets that the settings ask for. Raises: `OSError` naming the address."""
    if settings.uds is not None:
        return [bind_unix(settings.uds)]
    return [bind_tcp(settings.host, settings.port)]


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """The sockets of `bind` for as long as the context lasts; then they are closed and a socket file is removed."""
    sockets = bind(settings)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()
        remove_socket_file(settings)


def remove_socket_file(settings: Settings) -> None:
    """Remove the file of the Unix socket that the settings ask for, if they do and it is there."""
    if settings.uds is not None:
        with contextlib.suppress(OSError):
            os.unlink(settings.uds)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS side of the settings, None without a certificate. Raises: `SettingsError` when it cannot be read."""
    if settings.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"cannot use the certificate {settings.ssl_certfile}: {error}") from None
    return context


def logs_access(app: Catzilla, settings: Settings) -> bool:
    """Whether a line is logged for each response: the setting, else the app's word, else in development."""
    if settings.access_log is not None:
        return settings.access_log
    return not app.production if app.log_requests is None else app.log_requests


def run(app: Catzilla, settings: Settings, *, sockets: Sequence[socket.socket] | None = None) -> None:
    """Serve until Ctrl-C, SIGTERM or `app.stop()`; with `settings.workers` over 1, in that many processes. Blocks.

    Raises: as `Server.start` does, and `SettingsError` for `reload`: only a command can be run again.
    """
    if settings.reload and sockets is None:
        raise SettingsError("reload needs the command line: catzilla run module:app --reload")
    configure_logging()
    if settings.workers == 1:
        _serve_one(app, settings, sockets, show=app.show_banner)
        return
    tls_context(settings)  # what is wrong with it is one error here, not one a process again and again
    with listening(settings) if sockets is None else contextlib.nullcontext(list(sockets)) as shared:
        if app.show_banner:
            urls = [describe(sock, secure=settings.ssl_certfile is not None) for sock in shared]
            print(banner(app, urls, settings), file=sys.stderr, flush=True)
        _warn_of_split_rooms(app, settings.workers)  # here and not in `Server`: once, not once a process
        grace = settings.limits.shutdown_grace + 1.0

        def refuse() -> None:  # our copy of the listening sockets kept the kernel accepting for processes that stop
            for sock in shared:
                sock.close()

        Supervisor(settings.workers, lambda: _serve_one(app, settings, shared, show=False), grace, refuse).run()


def _warn_of_split_rooms(app: Catzilla, workers: int) -> None:
    """Say what several processes without a shared broker mean, to an app that has anything to split."""
    has_sockets = bool(app.pipeline.sockets.routes())
    if isinstance(app.rooms.broker, MemoryBroker) and (has_sockets or app.rooms.are_set_up):
        logger.warning(
            "workers=%d broker=memory rooms and presence are per process, and a ticket is good once per process: run "
            "one process, or pass Catzilla(broker=...) one that the processes share",
            workers,
        )


def _serve_one(app: Catzilla, settings: Settings, sockets: Sequence[socket.socket] | None, *, show: bool) -> None:
    server = Server(app, settings, sockets=sockets)
    server.start()
    with _Signals(server) as signals:  # before the banner: whoever reads it may send a signal
        if show:
            print(banner(app, server.urls, settings), file=sys.stderr, flush=True)
        signals.wait()


class _Signals:
    """Has SIGINT and SIGTERM stop a server, and the second of them end the process at once.

    The main thread waits on a descriptor and not on a lock: the kernel may hand a signal of the process to any thread
    that it interrupts anyway (the loop's, for io_uring). Python then notes it, but only a byte on the wakeup
    descriptor makes the main thread look.

    Outside the main thread Python takes no signal handlers; then `app.stop()` is the way to stop.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_main = threading.current_thread() is threading.main_thread()
        self._reader, self._writer = socket.socketpair()
        self._seen = False

    def __enter__(self) -> _Signals:
        self._writer.setblocking(False)
        if self._is_main:
            self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
            self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._server.when_ended(self._wake)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_main:
            signal.set_wakeup_fd(self._previous_fd)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def wait(self) -> None:
        """Block until the server has ended."""
        while not self._server.wait(0):
            self._reader.recv(4096)  # a signal's number, whose handler runs before the next line, or the end
        self._server.raise_failure()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full, and so awake; or closed already
            self._writer.send(b"\0")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._seen:
            os._exit(128 + number)
        self._seen = True
        server = self._server
        is_set = server.settings.limits.shutdown_grace != Limits.shutdown_grace  # whoever sets it means Ctrl-C, too
        hurry = number == signal.SIGINT and not server.app.production and not is_set
        server.request_stop(CTRL_C_GRACE if hurry else None)


def configure_logging() -> None:
    """Send catzilla's log lines to standard error, unless the user has set up logging."""
    if logging.getLogger().handlers or logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


app_module.runner = run
