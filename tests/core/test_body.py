"""A request's body between the loop that fills it and the handler that reads it, at each hand-over."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.body import IncomingBody, NoBody
from catzilla._core.errors import BodyTooLarge, Disconnected, RemoteProtocolError
from catzilla._core.waits import Waits


class Reader(threading.Thread):
    """Reads on a thread of its own, as a handler does."""

    def __init__(self, body) -> None:
        super().__init__(daemon=True)
        self.body = body
        self.pieces: list[bytes] = []
        self.error: Exception | None = None
        self.got_one = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        try:
            for piece in self.body.chunks():
                self.pieces.append(piece)
                self.got_one.release()
        except Exception as error:
            self.error = error

    def until_waiting(self) -> None:
        while True:
            assert self.is_alive()
            with self.body._changed:
                if self.body._changed._waiters:
                    return
            self.join(0.0001)

    def finish(self) -> bytes:
        self.join(10)
        assert not self.is_alive(), "the reader was not woken"
        return b"".join(self.pieces)


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture
def resumed():
    return []


@pytest.fixture
def body(waits, resumed):
    return IncomingBody(waits, 10, lambda: resumed.append("resume"))


def test_a_body_that_is_whole_is_read_at_once(body, resumed):
    assert body.feed(b"abc")
    assert body.feed(b"def")
    body.finish()
    assert resumed == []
    assert body.read() == b"abcdef"
    assert resumed == ["resume"], "the first read says that the body is wanted"
    assert body.read() == b""


def test_an_empty_body(body):
    body.finish()
    assert body.read() == b""
    assert list(body.chunks()) == []


def test_pieces_that_are_there_come_as_one(body):
    body.feed(b"ab")
    body.feed(b"cd")
    chunks = body.chunks()
    assert next(chunks) == b"abcd"
    body.feed(b"ef")
    body.finish()
    assert next(chunks) == b"ef"
    assert list(chunks) == []


def test_the_reader_waits_for_each_piece(body):
    reader = Reader(body)
    for piece in (b"one", b"two"):
        reader.until_waiting()
        body.feed(piece)
        assert reader.got_one.acquire(timeout=10)
    reader.until_waiting()
    body.finish()
    assert reader.finish() == b"onetwo"
    assert reader.pieces == [b"one", b"two"]


def test_over_its_bound_it_asks_for_a_pause_and_resumes_when_it_was_read(body, resumed):
    assert body.feed(b"x" * 9)
    assert not body.is_full
    assert not body.feed(b"x")
    assert body.is_full
    chunks = body.chunks()
    assert next(chunks) == b"x" * 10
    assert resumed == ["resume", "resume"]  # the first read, and the room
    assert not body.is_full
    body.feed(b"y")
    body.finish()
    assert list(chunks) == [b"y"]
    assert resumed == ["resume", "resume"], "it was not full: nobody had paused"


# What may go wrong, while the reader waits and before it reads.


@pytest.mark.parametrize("error", [BodyTooLarge(5), RemoteProtocolError(400, "bad chunk"), Disconnected()])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_body_that_fails_is_told_to_its_reader(body, error, waiting):
    if waiting:
        reader = Reader(body)
        reader.until_waiting()
        body.fail(error)
    else:
        body.fail(error)
        reader = Reader(body)
    reader.finish()
    assert reader.error is error


def test_what_arrived_before_the_failure_is_read_before_it(body):
    body.feed(b"abc")
    body.fail(BodyTooLarge(5))
    chunks = body.chunks()
    assert next(chunks) == b"abc"
    with pytest.raises(BodyTooLarge, match="larger than 5 bytes"):
        next(chunks)


def test_a_client_that_leaves_interrupts_the_reader(body, waits):
    reader = Reader(body)
    reader.until_waiting()
    waits.interrupt(Disconnected(1001, "the server is stopping"))
    reader.finish()
    assert isinstance(reader.error, Disconnected)
    assert reader.error.code == 1001
    assert body.disconnected


def test_a_body_that_had_arrived_can_be_read_after_the_client_has_left(body, waits):
    body.feed(b"whole")
    body.finish()
    waits.interrupt(Disconnected())
    assert body.read() == b"whole"


def test_a_part_that_had_arrived_is_no_whole(body, waits):
    body.feed(b"part")
    waits.interrupt(Disconnected())
    with pytest.raises(Disconnected):
        body.read()


def test_no_body(waits):
    body = NoBody(waits)
    assert body.read() == b""
    assert list(body.chunks()) == []
    assert not body.disconnected
    waits.interrupt(Disconnected())
    assert body.disconnected
    assert body.read() == b""


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=40), st.lists(st.booleans(), max_size=80))
def test_every_byte_is_read_in_order_whoever_comes_first(pieces, turns):
    """The loop's and the handler's steps in any order; the loop stops when it is asked to, and goes on when told."""
    told = []
    body = IncomingBody(Waits(), 20, lambda: told.append("resume"))
    chunks = body.chunks()
    left, seen, paused, finished = list(pieces), [], False, False
    for fill in [*turns, *[True, False] * (len(pieces) + 2)]:
        if told and not body.is_full:
            paused = False
            told.clear()
        if fill:
            if left and not paused:
                paused = not body.feed(left.pop(0))
            elif not left and not finished:
                finished = True
                body.finish()
        elif body._has_news():
            piece = next(chunks, None)
            if piece is not None:
                seen.append(piece)
        assert sum(map(len, pieces)) - sum(map(len, left)) - sum(map(len, seen)) < 20 + 30
    assert b"".join(seen) == b"".join(pieces)
    assert all(seen)
    assert next(chunks, None) is None
