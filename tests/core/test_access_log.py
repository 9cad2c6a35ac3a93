"""The access log: one line a response, on a thread of its own, and what does not fit is counted aloud."""

from __future__ import annotations

import logging
import threading

import pytest

from catzilla._core import access_log
from catzilla._core.access_log import AccessLog, AccessRecord

RECORD = AccessRecord(7, "127.0.0.1:5000", "GET", "/a?b=c", "1.1", 200, 123, 0.25, True)


class Gate(logging.Handler):
    """A log that is written as slowly as a test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.thread: threading.Thread | None = None
        self.reached = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.open.wait(10)
        self.thread = threading.current_thread()
        self.lines.append(record.getMessage())


@pytest.fixture
def gate():
    gate = Gate()
    logger = logging.getLogger("catzilla.access")
    level = logger.level
    logger.addHandler(gate)
    logger.setLevel(logging.INFO)
    yield gate
    logger.removeHandler(gate)
    logger.setLevel(level)


def test_a_record_is_one_line_with_the_connection_first():
    assert str(RECORD) == (
        'connection=7 client=127.0.0.1:5000 "GET /a?b=c HTTP/1.1" status=200 bytes=123 duration=0.2500'
    )
    assert str(RECORD._replace(complete=False)).endswith(" duration=0.2500 cut=yes")


def test_records_are_written_in_order_by_a_thread_of_their_own(gate):
    log = AccessLog()
    for number in range(5):
        log.write(RECORD._replace(connection=number))
    log.close(10)
    assert [line.partition(" ")[0] for line in gate.lines] == [f"connection={n}" for n in range(5)]
    assert gate.thread is not threading.current_thread()
    assert gate.thread.name == "catzilla-access-log"
    assert not gate.thread.is_alive()


def test_a_log_that_is_written_slowly_drops_and_says_how_much(gate, monkeypatch):
    monkeypatch.setattr(access_log, "MAX_QUEUED", 2)
    gate.open.clear()
    log = AccessLog()
    log.write(RECORD)
    assert gate.reached.wait(10)  # one is being written, and two fit
    for _ in range(6):
        log.write(RECORD)
    gate.open.set()
    log.close(10)
    assert sum(line.startswith("connection=7") for line in gate.lines) == 3
    assert [line for line in gate.lines if line.startswith("access_log_dropped")] == [
        "access_log_dropped=4: the log is written more slowly than requests come"
    ]


def test_closing_waits_no_longer_than_it_may(gate):
    gate.open.clear()
    log = AccessLog()
    log.write(RECORD)
    assert gate.reached.wait(10)
    log.close(0.01)
    assert log._thread.is_alive()
    gate.open.set()
    log._thread.join(10)
    assert not log._thread.is_alive()
