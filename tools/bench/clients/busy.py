"""Who worked during a window: the share of it that this client and the server spent on a processor.

A figure is the server's when the server was busy; where the client was, it is a lower bound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil


class Busy:
    """Begins a window now. `pids` are the processes of the server."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._server = [psutil.Process(pid) for pid in pids]
        self._server_before, self._client_before = self._server_seconds(), time.process_time()
        self._began = time.perf_counter()

    def shares(self) -> dict[str, float]:
        """`server_busy` and `client_busy` so far, in percent of one processor."""
        window = time.perf_counter() - self._began
        client, server = time.process_time() - self._client_before, self._server_seconds() - self._server_before
        return {"server_busy": 100 * server / window, "client_busy": 100 * client / window}

    def _server_seconds(self) -> float:
        times = [process.cpu_times() for process in self._server]
        return float(sum(each.user + each.system for each in times))
