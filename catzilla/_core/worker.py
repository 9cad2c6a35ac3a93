"""One worker thread and what may be queued for it: the words that the scheduling (`workers.py`) is written in."""

from __future__ import annotations

import enum
import threading
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from catzilla._core.pace import Pace


class Job(Protocol):
    """Something for a worker to run to its end; it must not raise."""

    def run(self, worker: Worker) -> None: ...


class Request(Job, Protocol):
    """A job that is new: it may run on any worker, or be refused."""

    pace: Pace

    def refuse(self) -> None:
        """Answer that the budget is full. [loop thread]"""


class Kind(enum.IntEnum):
    """What a worker is running, for the budgets; an index, because an enum's hash would be paid for every job."""

    NOTHING = 0
    REQUEST = 1
    STREAM = 2


class Worker:
    """One thread and what is queued for it alone. All but `inbox` and `thread` is guarded by the lock of `Workers`."""

    __slots__ = ("inbox", "jobs", "jobs_at_tick", "kind", "name", "shared_by", "streams", "thread")

    def __init__(self, name: str) -> None:
        self.name = name
        self.inbox: SimpleQueue[Job | None] = SimpleQueue()
        self.streams = 0  # whose home this is
        self.shared_by: Pace | None = None  # the route whose streams share this home
        self.kind = Kind.NOTHING
        self.jobs = 0  # new requests taken so far; moves on when a drainer makes progress
        self.jobs_at_tick = -1
        self.thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.kind.name.lower()} streams={self.streams}>"


class WorkerStatistics(NamedTuple):
    """A moment's figures: threads alive and idle, requests queued, and what runs on threads."""

    threads: int
    idle: int
    queued: int
    requests: int
    streams: int


class _Look:
    """Put into an inbox to wake an idle worker: there is something in the shared queue."""

    def run(self, worker: Worker) -> None:
        raise AssertionError("a wake-up is not a job")


LOOK: Job = _Look()
