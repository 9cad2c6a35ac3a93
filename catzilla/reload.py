"""`--reload`: a process that serves, and this one that watches the files and starts it again.

The listening socket is bound here and inherited by the serving process, so the address never goes away in between.
Real file events through watchfiles (extra `reload`), no polling.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from catzilla.errors import SettingsError
from catzilla.settings import Settings

INHERITED = "CATZILLA_INHERITED_SOCKET"
RELOAD_GRACE = 0.5  # seconds that open responses have when the code has changed


def inherited_socket() -> socket.socket | None:
    """The listening socket that this process was started with, if it was."""
    number = os.environ.get(INHERITED)
    return None if number is None else socket.socket(fileno=int(number))


def reloaded_settings(settings: Settings) -> Settings:
    """The settings of the process that is started again and again: its open responses have less time to finish."""
    grace = min(settings.limits.shutdown_grace, RELOAD_GRACE)
    return dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, shutdown_grace=grace))


def run_with_reload(sockets: Sequence[socket.socket], settings: Settings) -> int:
    """Run this very command in a child process, again whenever a source file changes; returns its exit code.

    Raises: `SettingsError` where watchfiles is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise SettingsError("--reload needs the package watchfiles: pip install 'catzilla[reload]'") from None
    stop = threading.Event()
    child = _Child(sockets[0])

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        child.signal(number)

    def start() -> None:
        child.start()
        if stop.is_set():  # the signal came while there was no process to pass it on to
            child.signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    start()
    for changes in watch(os.getcwd(), watch_filter=PythonFilter(), stop_event=stop, raise_interrupt=False):
        names = sorted({os.path.relpath(path) for _, path in changes})
        print(f"catzilla: {', '.join(names[:3])} changed; starting again", file=sys.stderr, flush=True)
        child.stop()
        start()
    return child.wait()


class _Child:
    """The serving process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        number = self._listener.fileno()
        environment = {**os.environ, INHERITED: str(number)}
        command = [sys.executable, "-m", "catzilla", *sys.argv[1:]]
        # A session of its own: Ctrl-C reaches this process, which passes it on once.
        self._process = subprocess.Popen(command, env=environment, pass_fds=[number], start_new_session=True)

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        self._end()

    def wait(self) -> int:
        """Its exit code, in the way of a shell: 128 and the number of the signal that it died of."""
        code = self._end()
        return 128 - code if code < 0 else code

    def _end(self) -> int:
        assert self._process is not None
        try:
            return self._process.wait(RELOAD_GRACE + 2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
