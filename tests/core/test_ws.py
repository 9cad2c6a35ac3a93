"""Frames in, messages out: whole, byte by byte and cut anywhere, always the same as websockets' own parser finds.

Nearly every message is one whole frame, and those are taken past that parser; so what counts here is that nobody can
tell by which way a message came.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from catzilla._core.ws import FRAMES, VIEW_FROM, Frames
from catzilla._core.ws_handshake import Handshake
from catzilla.testing import raw_frame
from tests.websockets.helpers import BINARY, CLOSE, CONTINUATION, PING, TEXT

LIMIT = 100_000


class Outcome(NamedTuple):
    """All that a connection shows of what it got."""

    messages: list[str | bytes]
    written: bytes
    failure_code: int | None


class Reference(ServerProtocol):
    """What websockets makes of the same bytes, with messages put together the plain way."""

    def __init__(self) -> None:
        super().__init__(state=OPEN, max_size=LIMIT)
        self.messages: list[str | bytes] = []
        self._text = codecs.getincrementaldecoder("utf-8")()
        self._parts: list[str] | list[bytes] | None = None

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # the one difference that is meant: a message may be given up by a clean close
        super().recv_frame(frame)
        if frame.opcode >= Opcode.CLOSE:
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text, self._parts = frame.opcode is Opcode.TEXT, []
        data = bytes(frame.data)
        # A character that is broken is told as soon as it is there (RFC 6455 section 8.1 leaves it open).
        self._parts.append(self._text.decode(data, frame.fin) if self._is_text else data)
        if frame.fin:
            self.messages.append(("" if self._is_text else b"").join(self._parts))

    def outcome(self, data: bytes) -> Outcome:
        self.receive_data(data)
        return Outcome(self.messages, b"".join(self.data_to_send()), self.failure_code())

    def failure_code(self) -> int | None:
        return None if self.parser_exc is None or self.close_sent is None else int(self.close_sent.code)


def new_frames(max_bytes: int = LIMIT) -> Frames:
    return Frames(Handshake([], None, []), max_bytes, 1000)


def outcome(pieces: list[bytes]) -> Outcome:
    """What `Frames` makes of bytes that arrive in these pieces."""
    frames = new_frames()
    for piece in pieces:
        frames.receive(piece)
        while frames.has_more:
            frames.receive(b"")
    failure = frames.failure
    return Outcome(frames.messages, b"".join(frames.data_to_send()), None if failure is None else failure[0])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    # Around the sizes at which a head grows, a copy turns into a view, and a message is too large.
    st.sampled_from([0, 1, 125, 126, 127, VIEW_FROM - 1, VIEW_FROM, 65535, 65536, LIMIT, LIMIT + 1]).map(bytes),
)
anything = st.builds(
    raw_frame,
    st.sampled_from([TEXT, TEXT, TEXT, BINARY, BINARY, PING, CONTINUATION, CLOSE, 3, 11]),
    payloads,
    fin=st.sampled_from([True, True, True, False]),
    masked=st.sampled_from([True, True, True, True, True, False]),
    reserved=st.sampled_from([0, 0, 0, 0, 0, 4]),
)


@given(st.lists(anything, max_size=8), st.lists(st.integers(0, 300_000), max_size=6))
@example([raw_frame(TEXT, b"a")] * 3, [])
@example([raw_frame(TEXT, b"\xff"), raw_frame(TEXT, b"never handled")], [])
@example([raw_frame(TEXT, b"a"), raw_frame(BINARY, bytes(LIMIT), announced_bytes=LIMIT + 1)], [])
@example([raw_frame(BINARY, bytes(70_000)), raw_frame(TEXT, b"behind it")], [3, 20, 40_000])
@example([raw_frame(TEXT, b"a", fin=False), raw_frame(TEXT, b"b")], [])
@example([raw_frame(CLOSE, b"\x03\xe8"), raw_frame(TEXT, b"after the end")], [])
def test_however_it_is_cut_it_is_what_websockets_finds(frames, places):
    data = b"".join(frames)
    assert outcome(cut(data, places)) == Reference().outcome(data)


@given(st.lists(anything, max_size=8))
@example([raw_frame(TEXT, b"a", fin=False), raw_frame(TEXT, b"in the middle of a message")])
@example([raw_frame(CLOSE, b"\x03\xe8"), raw_frame(TEXT, b"after the end")])
@example([raw_frame(TEXT, b"a", fin=False), raw_frame(CLOSE, b"\x03\xe8")])
def test_frame_by_frame(frames):
    assert outcome(frames) == Reference().outcome(b"".join(frames))


@given(st.lists(anything, max_size=4).filter(lambda frames: sum(map(len, frames)) < 1000))
@example([raw_frame(TEXT, "ä€".encode()), raw_frame(BINARY, b"x" * 126), raw_frame(PING, b"p")])
def test_byte_by_byte(frames):
    data = b"".join(frames)
    assert outcome([data[index : index + 1] for index in range(len(data))]) == Reference().outcome(data)


def test_messages_are_bytes_whatever_they_were_cut_from():
    frames = new_frames()
    data = raw_frame(BINARY, b"x" * 10_000) * 2
    frames.receive(data[:9_000])
    frames.receive(data[9_000:])
    assert [type(message) for message in frames.messages] == [bytes, bytes]


def test_one_turn_takes_so_many_frames_and_no_more():
    frames = new_frames()
    frames.receive(raw_frame(TEXT, b"a") * (2 * FRAMES + 1))
    assert len(frames.messages) == FRAMES
    assert frames.has_more
    frames.receive(b"")
    assert len(frames.messages) == 2 * FRAMES
    frames.receive(b"")
    assert len(frames.messages) == 2 * FRAMES + 1
    assert not frames.has_more


def test_a_frame_that_has_only_begun_is_nothing_more_to_parse():
    frames = new_frames()
    frames.receive(raw_frame(TEXT, b"a") * FRAMES + raw_frame(TEXT, b"b" * 300)[:200])
    assert frames.has_more, "nobody has looked at it"
    frames.receive(b"")
    assert not frames.has_more, "else the connection would ask again for ever, and read no more"
    frames.receive(raw_frame(TEXT, b"b" * 300)[200:])
    assert frames.messages[-1] == "b" * 300


def test_what_is_too_large_is_refused_by_its_head():
    frames = new_frames(max_bytes=10)
    frames.receive(raw_frame(BINARY, b"", announced_bytes=11))
    failure = frames.failure
    assert failure is not None
    assert failure[0] == 1009


def test_an_idle_connection_keeps_nothing_of_what_it_got():
    frames = new_frames()
    frames.receive(raw_frame(TEXT, b"a" * 500) * 3)
    assert frames.reader._data == b""
    frames.receive(raw_frame(TEXT, b"a" * 500)[:100])
    frames.receive(raw_frame(TEXT, b"a" * 500)[100:])
    assert frames.reader._data == b""


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70_000])
def test_messages_of_one_whole_frame_do_not_step_the_parser(size):
    """The way past it is what makes a message cheap; a change that closes it would go unseen."""
    frames = new_frames()
    frames.parser.close()
    frames.receive(raw_frame(BINARY, bytes(size)) + raw_frame(TEXT, b"behind it"))
    assert frames.messages == [bytes(size), "behind it"]
