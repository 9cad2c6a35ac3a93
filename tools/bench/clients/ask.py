"""The caller's side: runs a client in its own process and returns what it measured."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class ClientFailed(Exception):
    """A client that could not measure; the message is the last line it printed."""


def ask(client: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
    """Runs `client` to its end and returns its result.

    Raises:
        ClientFailed: it ended with an error, or took longer than `timeout` seconds.
    """
    with _process(client, arguments) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ClientFailed(f"client {client} did not finish within {timeout:g} s") from None
    return _result(client, output, errors)


@contextlib.contextmanager
def holding(client: str = "hold", *, timeout: float, **arguments: Any) -> Iterator[dict[str, Any]]:
    """Connections held open by `client` for the length of the block; the value is what it reported.

    Raises:
        ClientFailed: they could not be opened.
    """
    with _process(client, {**arguments, "timeout": timeout}) as process:
        assert process.stdout is not None, "a pipe was asked for"
        line = process.stdout.readline()
        yield _result(client, line, b"" if line else process.communicate()[1])


@contextlib.contextmanager
def _process(client: str, arguments: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.bench.clients", client, json.dumps(arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _result(client: str, output: bytes, errors: bytes) -> dict[str, Any]:
    if not output.strip():
        lines = errors.decode(errors="replace").strip().splitlines()
        raise ClientFailed(f"client {client}: {lines[-1] if lines else 'ended without a result'}")
    result: dict[str, Any] = json.loads(output)
    return result
