"""`wrk`, where it is installed: asks for the same as `requests.py`, from C."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def available() -> bool:
    return shutil.which("wrk") is not None


def measure(port: int, path: str, seconds: int, connections: int) -> dict[str, Any]:
    """Runs `wrk -t1` for `seconds`; returns `requests_per_s`, `p50_ms` and `p99_ms`.

    Raises:
        ValueError: its output is not understood, or some answers were errors.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}{path}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True)
    return parse(run.stdout)


def parse(output: str) -> dict[str, Any]:
    """The figures in what `wrk --latency` prints.

    Raises:
        ValueError: see `measure`.
    """
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if rate is None or "Non-2xx" in output or "Socket errors" in output:
        raise ValueError(f"wrk saw errors or printed something new: {output.strip()}")
    return {
        "requests_per_s": float(rate[1]),
        "p50_ms": _latency(output, "50%"),
        "p99_ms": _latency(output, "99%"),
        "client": "wrk",
    }


def _latency(output: str, share: str) -> float:
    found = re.search(rf"^\s+{share}\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"wrk printed no {share} latency: {output.strip()}")
    return float(found[1]) * _MILLISECONDS[found[2]]
