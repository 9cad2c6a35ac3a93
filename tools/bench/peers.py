"""Who is measured: how each server is started, in a configuration that does it justice.

Every peer is one process serving (gunicorn and granian add one that watches it), without an access log. Decides nothing
about starting and stopping (`server.py`) or about what is measured (`scenarios.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata

DEFAULT_THREADS = 64
"""Worker threads of the servers that need a number; scenarios with many slow responses ask for more."""

Command = Callable[[int, int], list[str]]
"""From a port and a number of worker threads to the command line, after the interpreter."""


@dataclass(frozen=True)
class Peer:
    """One server under measurement."""

    name: str
    about: str
    """Its configuration in words, for the report."""
    command: Command
    packages: tuple[str, ...]
    """The distributions whose versions belong in the report."""
    paths: dict[str, str] = field(default_factory=dict)
    """Paths that differ from those of the work, such as another way to write `/ticks`."""
    only: frozenset[str] | None = None
    """The scenarios it takes part in; None for all."""
    skips: dict[str, str] = field(default_factory=dict)
    """Scenarios it cannot take part in, with the reason."""
    parks: bool = False
    """Whether it has a `/parked` stream: one that waits without holding a thread."""
    websockets: bool = False
    """Whether it has WebSockets, at `/echo` and `/broadcast`."""
    keeps_alive: bool = True
    """Whether a connection may ask for `/` more than once."""

    def argv(self, port: int, threads: int = DEFAULT_THREADS) -> list[str]:
        """The command line that serves on `port` of the loopback address."""
        return [sys.executable, *self.command(port, threads)]

    def path(self, path: str) -> str:
        """Where this peer serves the work of `path`."""
        return self.paths.get(path, path)

    def skip_reason(self, scenario: str) -> str | None:
        """Why it does not take part in `scenario`; None if it does."""
        if self.only is not None and scenario not in self.only:
            return "not part of this scenario"
        if scenario in _WS and not self.websockets:
            return "measured without WebSockets"
        return self.skips.get(scenario)

    def versions(self) -> dict[str, str]:
        """The installed version of each of its packages; "source tree" for one that is not installed."""
        return {name: installed_version(name) for name in self.packages}


def installed_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "source tree"


def _catzilla(port: int, threads: int) -> list[str]:
    app = "tools.bench.apps.catzilla_app:app"
    return ["-m", "catzilla", "run", app, "--port", str(port), "--no-access-log"]


def _catzilla_linear(port: int, threads: int) -> list[str]:
    return [*_catzilla(port, threads), "--max-sockets", str(threads)]


def _module(name: str) -> Command:
    """A server of its own: a module of `apps/` that takes the port."""

    def command(port: int, threads: int) -> list[str]:
        return ["-m", f"tools.bench.apps.{name}", str(port)]

    return command


def _gunicorn(app: str) -> Command:
    def command(port: int, threads: int) -> list[str]:
        server = ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--log-level", "warning"]
        worker = ["--worker-class", "gthread", "--threads", str(threads), "--worker-connections", "20000"]
        patience = ["--timeout", "600", "--keep-alive", "75", "--no-control-socket"]
        return [*server, *worker, *patience, f"tools.bench.apps.{app}:app"]

    return command


def _granian(port: int, threads: int) -> list[str]:
    server = ["-m", "granian", "--interface", "wsgi", "--port", str(port), "--workers", "1", "--loop", "uvloop"]
    bounds = ["--blocking-threads", str(threads), "--backlog", "16384", "--no-access-log", "--log-level", "warning"]
    return [*server, *bounds, "tools.bench.apps.flask_app:app"]


def _uvicorn(app: str) -> Command:
    def command(port: int, threads: int) -> list[str]:
        server = ["-m", "uvicorn", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        quiet = ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75", "--lifespan", "off"]
        return [*server, *quiet, f"tools.bench.apps.starlette_app:{app}"]

    return command


_SLEEPERS = frozenset({"sleepers", "sleepers5000"})
_WS = frozenset({"ws_echo", "ws_echo_pipelined", "ws_large", "ws_broadcast", "ws_memory"})

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in [
        Peer(
            "catzilla",
            "default settings; synchronous handlers and generators; WebSockets as a class of synchronous callbacks",
            _catzilla,
            ("catzilla", "uvloop", "h11", "websockets"),
            parks=True,
            websockets=True,
        ),
        Peer(
            "catzilla-parked",
            "catzilla, the generator written with `yield sleep(s)` in place of `time.sleep(s)`",
            _catzilla,
            ("catzilla", "uvloop", "h11"),
            paths={"/ticks": "/ticks-parked"},
            only=_SLEEPERS,
        ),
        Peer(
            "catzilla-linear",
            "catzilla, the WebSocket handler one function with a loop, which holds a thread; up to N + 200 of them",
            _catzilla_linear,
            ("catzilla", "uvloop", "h11", "websockets"),
            paths={"/echo": "/echo-linear", "/broadcast": "/broadcast-linear"},
            only=_WS,
            websockets=True,
        ),
        Peer(
            "blocking-socket",
            "the physical limit: a thread a connection, `sendmsg` a chunk, lines joined to 64 KiB, no framework",
            _module("blocking_socket"),
            (),
        ),
        Peer(
            "gunicorn-flask",
            "gthread, 1 worker, 64 threads (N + 200 in sleepers), synchronous generators",
            _gunicorn("flask_app"),
            ("gunicorn", "Flask"),
        ),
        Peer(
            "granian-flask",
            "WSGI, 1 worker, 64 blocking threads (N + 200 in sleepers), synchronous generators",
            _granian,
            ("granian", "Flask"),
        ),
        Peer(
            "uvicorn-starlette",
            "httptools, uvloop, 1 worker; synchronous handlers and generators (40 threads, its default)",
            _uvicorn("app"),
            ("uvicorn", "starlette", "httptools", "uvloop"),
        ),
        Peer(
            "uvicorn-starlette-async",
            "httptools, uvloop, 1 worker; asynchronous handlers and generators",
            _uvicorn("async_app"),
            ("uvicorn", "starlette", "httptools", "uvloop"),
            parks=True,
        ),
        Peer(
            "aiohttp",
            "uvloop, 1 process; asynchronous handlers that write each item",
            _module("aiohttp_app"),
            ("aiohttp", "uvloop"),
            parks=True,
            websockets=True,
        ),
        Peer(
            "websockets-asyncio",
            "its asyncio server on uvloop, 1 process, no keepalive; `broadcast()` to the members",
            _module("websockets_asyncio_app"),
            ("websockets", "uvloop"),
            only=_WS,
            websockets=True,
            keeps_alive=False,
        ),
        Peer(
            "websockets-sync",
            "its threaded server, 1 process, no keepalive; a send to each member in turn",
            _module("websockets_sync_app"),
            ("websockets",),
            only=_WS,
            websockets=True,
            keeps_alive=False,
        ),
        Peer(
            "picows",
            "uvloop, 1 process; frames are echoed without being decoded",
            _module("picows_app"),
            ("picows", "uvloop"),
            only=_WS,
            websockets=True,
            keeps_alive=False,
        ),
        Peer(
            "socketify",
            "uWebSockets (C++), 1 process, handlers in Python; its own publish and subscribe",
            _module("socketify_app"),
            ("socketify",),
            only=_WS,
            websockets=True,
        ),
        Peer(
            "flask-sock",
            "gunicorn gthread, 1 worker, N + 200 threads, reads of 64 KiB; a send to each member in turn",
            _gunicorn("flask_sock_app"),
            ("flask-sock", "simple-websocket", "gunicorn", "Flask"),
            only=_WS,
            websockets=True,
        ),
    ]
}
