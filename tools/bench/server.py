"""One running server: started in a process group of its own, ready when it answers, ended by its id whatever happens.

Knows how to run a `Peer` and how to look at its processes from outside; nothing about what is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tools.bench.peers import DEFAULT_THREADS, Peer
from tools.bench.work import COUNTER_VARIABLE, HELLO, Counter

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 20.0
"""Seconds for a server to answer its first request."""
LOG_TAIL_BYTES = 2000
"""How much of a server's own output an error message quotes."""


class ServerFailed(Exception):
    """A server that ended or never answered; the message quotes the end of its output."""


class RunningServer:
    """A peer that answers on `port`. Its processes are looked at from outside and never asked."""

    def __init__(self, peer: Peer, port: int, process: subprocess.Popen[bytes], log: Path, counter: Counter) -> None:
        self.peer = peer
        self.port = port
        self._process = process
        self._log = log
        self._counter = counter

    @property
    def produced(self) -> int:
        """Chunks that the generators of `/fresh` have produced so far."""
        return self._counter.value

    def resident_bytes(self) -> int:
        """Resident memory of all its processes."""
        return sum(process.memory_info().rss for process in self._tree())

    def cpu_seconds(self) -> float:
        """User and system time of all its processes since they started."""
        times = [process.cpu_times() for process in self._tree()]
        return float(sum(each.user + each.system for each in times))

    def pids(self) -> list[int]:
        """Its processes."""
        return [process.pid for process in self._tree()]

    def threads(self) -> int:
        """Threads of all its processes."""
        return sum(process.num_threads() for process in self._tree())

    def descriptors(self) -> int:
        """Open descriptors of all its processes."""
        return sum(process.num_fds() for process in self._tree())

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def wait_ready(self) -> None:
        """Returns once `GET /` is answered. Connecting alone proves little: gunicorn listens before it can serve.

        Raises:
            ServerFailed: it ended, or did not answer within `START_TIMEOUT`.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailed(f"{self.peer.name} ended with status {self._process.returncode}: {self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
                continue
            return self._first_request(deadline - time.monotonic())
        raise ServerFailed(f"{self.peer.name} did not listen within {START_TIMEOUT:g} s: {self.log_tail()}")

    def _first_request(self, timeout: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=max(timeout, 1.0))
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"{self.peer.name} did not answer GET / ({error!r}): {self.log_tail()}") from error
        finally:
            connection.close()
        if response.status != 200 or body != HELLO:
            raise ServerFailed(f"{self.peer.name} answered GET / with {response.status} {body[:80]!r}")

    def _tree(self) -> list[psutil.Process]:
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(peer: Peer, threads: int = DEFAULT_THREADS) -> Iterator[RunningServer]:
    """A fresh server, ready to answer; it and its children are gone at the end of the block.

    Raises:
        ServerFailed: it did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        log, counter_file = Path(directory, "log"), Path(directory, "counter")
        counter = Counter.create(counter_file)
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                peer.argv(port, threads),
                cwd=ROOT,
                env={**os.environ, COUNTER_VARIABLE: str(counter_file), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server = RunningServer(peer, port, process, log, counter)
            server.wait_ready()
            yield server
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kills the process group that `process` leads.

    Not politely: a server with open streams may take half a minute to stop, and there is nothing to save.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
