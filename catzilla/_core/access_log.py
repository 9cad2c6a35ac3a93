"""The access log: one line a response, written when its last byte has left.

The loop only puts a record into a bounded queue; a thread of its own formats and writes it, because writing to a
terminal or a full pipe may block. Records that do not fit are counted, and the count is logged.
"""

from __future__ import annotations

import logging
import threading
from queue import SimpleQueue
from typing import NamedTuple

MAX_QUEUED = 10_000  # records; a second's worth at full speed

logger = logging.getLogger("catzilla.access")


class AccessRecord(NamedTuple):
    """One finished response. `sent_bytes` counts its body, `duration` is in seconds from the request's last byte."""

    connection: int
    client: str
    method: str
    target: str
    http_version: str
    status: int
    sent_bytes: int
    duration: float
    complete: bool  # False when the connection was cut before the end

    def __str__(self) -> str:
        cut = "" if self.complete else " cut=yes"
        return (
            f'connection={self.connection} client={self.client} "{self.method} {self.target} HTTP/{self.http_version}" '
            f"status={self.status} bytes={self.sent_bytes} duration={self.duration:.4f}{cut}"
        )


class AccessLog:
    """The queue and its thread. `write` is the loop's, the rest is the thread's."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[AccessRecord | None] = SimpleQueue()
        self._dropped = 0  # counted by the loop, reported by the thread
        self._thread = threading.Thread(target=self._run, name="catzilla-access-log", daemon=True)
        self._thread.start()

    def write(self, record: AccessRecord) -> None:
        """Queue a record. Never blocks. [loop thread]"""
        if self._queue.qsize() < MAX_QUEUED:
            self._queue.put(record)
        else:
            self._dropped += 1

    def close(self, timeout: float) -> None:
        """Write what is queued and end, within `timeout` seconds. [any thread]"""
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        reported = 0
        while (record := self._queue.get()) is not None:
            logger.info("%s", record)
            if self._dropped > reported:
                logger.warning(
                    "access_log_dropped=%d: the log is written more slowly than requests come", self._dropped
                )
                reported = self._dropped
