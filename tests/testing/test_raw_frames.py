"""Frames made by hand, read back by websockets' own parser."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from catzilla.testing import raw_frame


def parsed(data: bytes) -> list[Frame]:
    server = Protocol(SERVER, max_size=None)
    server.receive_data(data)
    assert server.parser_exc is None
    return server.events_received()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_of_every_length_form(size):
    payload = bytes(range(256)) * 257
    (frame,) = parsed(raw_frame(2, payload[:size]))
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode.BINARY, payload[:size], True)


def test_fragments_and_several_at_once():
    data = raw_frame(1, b"a", fin=False) + raw_frame(9, b"?") + raw_frame(0, b"b")
    assert [(frame.opcode, frame.fin) for frame in parsed(data)] == [(1, False), (9, True), (0, True)]


def test_without_a_mask_the_payload_is_as_it_is():
    assert raw_frame(1, b"hi", masked=False) == b"\x81\x02hi"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (raw_frame(1, b"hi", masked=False), "incorrect masking"),
        (raw_frame(3, b"hi"), "invalid opcode"),
        (raw_frame(1, b"hi", reserved=4), "reserved bits must be 0"),
        (raw_frame(1, b"hi", reserved=1), "reserved bits must be 0"),
        (raw_frame(9, b"?", fin=False), "fragmented control frame"),
    ],
)
def test_a_wrong_frame_is_wrong_in_the_wanted_way(data, problem):
    server = Protocol(SERVER)
    server.receive_data(data)
    assert str(server.parser_exc) == problem


def test_a_length_that_is_not_that_of_the_payload():
    assert (
        raw_frame(2, b"hi", masked=False, announced_bytes=1 << 20) == b"\x82\x7f" + (1 << 20).to_bytes(8, "big") + b"hi"
    )
