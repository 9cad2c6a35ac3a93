"""A file on its way through the kernel: piece by piece, at the client's pace, and every end of it."""

from __future__ import annotations

import os
import socket

import pytest

from catzilla._core import file_sender as module
from catzilla._core.file_sender import FileSender
from catzilla._core.messages import FileSpan


class WriterLoop:
    """An event loop as far as the sender knows one."""

    def __init__(self) -> None:
        self.watched: dict[int, object] = {}

    def add_writer(self, descriptor, callback) -> None:
        self.watched[descriptor] = callback

    def remove_writer(self, descriptor) -> None:
        del self.watched[descriptor]

    def writable(self) -> None:
        for callback in list(self.watched.values()):
            callback()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def loop():
    return WriterLoop()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 8)
    with path.open("rb") as opened:
        yield opened


def test_a_span_of_the_file_is_sent(pair, loop, file):
    ours, theirs = pair
    done = []
    sender = FileSender(loop, ours.fileno(), FileSpan(file, 256, 100), lambda: done.append(True))
    assert sender.left == 100
    loop.writable()
    assert theirs.recv(1000) == bytes(range(100))
    assert done == [True]
    assert sender.left == 0
    assert loop.watched == {}
    assert file.closed


def test_it_is_sent_in_pieces(pair, loop, file, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 1000)
    ours, theirs = pair
    done = []
    sender = FileSender(loop, ours.fileno(), FileSpan(file, 0, 2048), lambda: done.append(True))
    left = []
    while not done:
        loop.writable()
        left.append(sender.left)
    assert left == [1048, 48, 0]
    assert theirs.recv(4096) == bytes(range(256)) * 8


def test_a_client_that_takes_nothing_leaves_it_where_it_is(pair, loop, file):
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)
    done = []
    sender = FileSender(loop, ours.fileno(), FileSpan(file, 0, 2048), lambda: done.append(True))
    loop.writable()
    assert (sender.left, done) == (2048, [])
    theirs.setblocking(False)
    received = b""
    while not done:
        try:
            received += theirs.recv(1 << 20)
        except BlockingIOError:
            loop.writable()
    while len(received) - len(received.lstrip(b"x")) + 2048 > len(received):
        received += theirs.recv(1 << 20)
    assert received.lstrip(b"x") == bytes(range(256)) * 8
    assert done == [True]


def test_a_client_that_has_left(pair, loop, file):
    ours, theirs = pair
    theirs.close()
    done = []
    sender = FileSender(loop, ours.fileno(), FileSpan(file, 0, 2048), lambda: done.append(True))
    loop.writable()
    assert done == [True]
    assert sender.left == 2048
    assert file.closed
    assert loop.watched == {}


def test_a_file_that_has_become_shorter(pair, loop, file):
    done = []
    sender = FileSender(loop, pair[0].fileno(), FileSpan(file, 0, 4096), lambda: done.append(True))
    loop.writable()
    loop.writable()
    assert done == [True]
    assert sender.left == 2048
    assert file.closed


def test_stopping_lets_go_of_everything_and_calls_nobody(pair, loop, file):
    done = []
    before = len(os.listdir("/proc/self/fd"))
    sender = FileSender(loop, pair[0].fileno(), FileSpan(file, 0, 2048), lambda: done.append(True))
    sender.stop()
    sender.stop()
    assert done == []
    assert file.closed
    assert loop.watched == {}
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_the_connection_stays_open(pair, loop, file):
    ours, theirs = pair
    FileSender(loop, ours.fileno(), FileSpan(file, 0, 10), list)
    loop.writable()
    ours.send(b"next")
    assert theirs.recv(100) == bytes(range(10)) + b"next"
