"""Runs `drive.py` and turns its lines into results, whatever becomes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
DRIVER = (sys.executable, "-m", "tools.conformance.drive")
SILENCE_TIMEOUT = 520.0
"""Seconds without a line after which the driver is given up; it gives a case 500."""
LAST_WORDS = 2000
"""How many bytes of the driver's errors are quoted."""
BAD_CLOSE = ("FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT")


class DriverFailed(Exception):
    """No case was run: there is none of that name, or the process that runs them did not begin."""


@dataclass(frozen=True)
class Result:
    """How one case went. `behavior` and `close` are the suite's words for the exchange and for its end."""

    id: str
    behavior: str
    close: str = ""
    description: str = ""
    expectation: str = ""
    result: str = ""
    result_close: str = ""
    expected: str = ""
    received: str = ""
    expected_close_codes: tuple[int, ...] = ()
    close_code: int | None = None
    close_reason: str | None = None
    milliseconds: int = 0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Result:
        """From a line of the driver; keys that this class has no use for are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in document.items() if name in known and value is not None}
        return cls(**{**given, "expected_close_codes": tuple(given.get("expected_close_codes", ()))})

    @property
    def group(self) -> int:
        return int(self.id.split(".")[0])

    @property
    def verdict(self) -> str:
        """The word that it is counted under: a connection that ends badly is as FAILED as a wrong answer."""
        if self.behavior in ("FAILED", "ERROR") or self.close in BAD_CLOSE:
            return "FAILED"
        return self.behavior


def run(
    url: str, prefixes: Sequence[str], paths: Sequence[str], watch: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Every selected case against the server at `url`; `paths` is where kosoku is, `watch` sees each result at once.

    What the driver leaves undone is in the list as an ERROR that quotes it.

    Raises:
        DriverFailed: no case begins with any of `prefixes`, or the driver never began.
    """
    command = [*DRIVER, url, *prefixes]
    inherited = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *inherited])} if paths else None
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=errors)
        try:
            return _collect(process, errors, watch)
        finally:
            process.kill()
            process.communicate(timeout=10)


def _collect(process: subprocess.Popen[bytes], errors: IO[bytes], watch: Callable[[Result], None]) -> list[Result]:
    documents = map(json.loads, lines(process))
    first = next(documents, None)
    if first is None:
        raise DriverFailed(f"the driver of the suite did not start: {_last_words(process, errors)}")
    if not first["selected"]:
        raise DriverFailed("there are no such cases")
    results: list[Result] = []
    for document in documents:
        results.append(Result.from_json(document))
        watch(results[-1])
    done = {result.id for result in results}
    missing = [case for case in first["selected"] if case not in done]
    if missing:
        results += [Result(case, "ERROR", result=f"not run: {_last_words(process, errors)}") for case in missing[:1]]
        results += [Result(case, "ERROR", result="not run either") for case in missing[1:]]
    return results


def lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a process prints, line by line, until it ends or has printed nothing for `SILENCE_TIMEOUT`."""
    assert process.stdout is not None
    pending = b""
    while select.select([process.stdout], [], [], SILENCE_TIMEOUT)[0]:
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return
        *whole, pending = (pending + chunk).split(b"\n")
        yield from whole


def _last_words(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """Ends the driver, if it has not, and gives the end of its errors."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
    errors.seek(0)
    said = errors.read()[-LAST_WORDS:].decode(errors="replace").strip()
    return f"it ended with status {process.wait(timeout=10)}: {said or '(it said nothing)'}"
