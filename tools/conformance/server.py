"""Starts the server under test in a process of its own and ends it.

Knows how `echo.py` says that it is ready and what makes it leave; nothing about what is sent to it.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
ECHO = (sys.executable, "-m", "tools.conformance.echo")
START_TIMEOUT = 20.0
"""Seconds to listen."""
STOP_TIMEOUT = 20.0
"""Seconds to end by itself."""
LOG_TAIL_BYTES = 4000
"""How much of the server's log an error message quotes."""


class ServerFailed(Exception):
    """A server that did not start, ended too early or did not stop as it should; the message quotes its log."""


@contextlib.contextmanager
def running(command: Sequence[str] = ECHO) -> Iterator[str]:
    """The URL of a fresh echo server, which is gone at the end of the block.

    Raises:
        ServerFailed: it did not come up; or, at the end of the block, it had died or did not stop cleanly.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            yield f"ws://127.0.0.1:{_port(process, log)}/"
            _stop(process, log)
        finally:
            _end(process)


def _port(process: subprocess.Popen[bytes], log: IO[bytes]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
    line = process.stdout.readline() if ready else b""
    if not line.strip().isdigit():
        raise ServerFailed(f"the server did not listen within {START_TIMEOUT:g} s: {_tail(log)}")
    return int(line)


def _stop(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    if process.poll() is not None:
        raise ServerFailed(f"the server ended by itself, with status {process.returncode}: {_tail(log)}")
    assert process.stdin is not None
    process.stdin.close()
    try:
        status = process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"the server did not stop within {STOP_TIMEOUT:g} s: {_tail(log)}") from None
    if status:
        raise ServerFailed(f"the server stopped with status {status}: {_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=10)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(it logged nothing)"
