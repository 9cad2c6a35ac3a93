"""`catzilla ...` and scripts as processes, in a directory of the test's own; what is left is ended by its id."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from catzilla.testing.event_client import ClientEvents
from catzilla.testing.http_client import ClientResponse, ClientStream, HttpConnection
from catzilla.testing.wire import Origin
from tests.test_shutdown_process import ROOT, Process

LISTENS = rb"listening on http://127\.0\.0\.1:(\d+)"


class Command(Process):
    """`python ARGUMENTS` in `directory`, where the modules that it imports may be."""

    def __init__(self, directory: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CATZILLA_")}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C to all of it is no Ctrl-C to the tests
        )
        self.errors = self.output = b""
        self.sockets: list[socket.socket] = []
        self.port = 0
        self.selector = selectors.DefaultSelector()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            self.selector.register(stream, selectors.EVENT_READ)

    def listens(self) -> int:
        """Wait for the banner; the port that it names."""
        self.port = int(self.expect(LISTENS).group(1))
        return self.port

    def forget(self) -> None:
        """What it has said so far is not what `expect` is to find."""
        self.errors = self.output = b""

    def descendants(self) -> set[int]:
        """The ids of the processes that it has started and that still run."""
        children = {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        return set(filter(is_alive, children))

    def connect(self) -> HttpConnection:
        return HttpConnection(Origin("127.0.0.1", self.port))

    def get(self, path: str = "/") -> ClientResponse:
        """Ask on a connection of its own."""
        with self.connect() as connection:
            return connection.get(path)

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[ClientStream]:
        with self.connect() as connection, connection.open("GET", path) as stream:
            yield stream

    @contextlib.contextmanager
    def events(self, path: str) -> Iterator[ClientEvents]:
        with self.stream(path) as stream:
            yield ClientEvents(stream)

    def close(self) -> None:
        if self.process.poll() is None:
            # Stopped, it does not replace what is ended here.
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            for pid in self.descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        super().close()


@contextlib.contextmanager
def commands(directory: Path) -> Iterator[Callable[..., Command]]:
    """A factory `start(*arguments, environ=None)` of commands in `directory`; ends what is left of them."""
    started: list[Command] = []

    def start(*arguments: str, environ: dict[str, str] | None = None) -> Command:
        started.append(Command(directory, *arguments, environ=environ))
        return started[-1]

    try:
        yield start
    finally:
        for command in started:
            command.close()


def write_module(directory: Path, source: str, name: str = "web") -> Path:
    """A module `name` in `directory`; `source` follows its imports and its `app`."""
    path = directory / f"{name}.py"
    preamble = "import os, sys, threading, time\nfrom catzilla import *\n\napp = Catzilla(log_requests=False)\n\n"
    path.write_text(preamble + textwrap.dedent(source))
    return path


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
