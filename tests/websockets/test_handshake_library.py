"""What `_core/ws.py` relies on in the `websockets` package, beyond what that documents.

The package's range in `pyproject.toml` may only be widened when these still hold.
"""

from __future__ import annotations

import zlib

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol

from catzilla._core.messages import RequestHead
from catzilla._core.ws import Frames
from catzilla._core.ws_handshake import Handshake, HandshakeRefused, accept
from catzilla.testing import raw_frame
from tests.websockets.helpers import ACCEPT, BINARY, CLOSE, CONTINUATION, KEY, PING, TEXT

HEADERS = [
    ("Host", "test"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
]


class Collecting(ServerProtocol):
    """An open connection that keeps the frames it is given."""

    def __init__(self, **options) -> None:
        super().__init__(state=OPEN, **options)
        self.seen: list[Frame] = []
        self.failing: Exception | None = None

    def recv_frame(self, frame: Frame) -> None:
        super().recv_frame(frame)
        self.seen.append(frame)
        if self.failing is not None:
            raise self.failing


def test_accept_takes_a_request_that_was_parsed_elsewhere():
    protocol = ServerProtocol()
    answer = protocol.accept(Request("/", Headers(HEADERS)))
    assert answer.status_code == 101
    assert answer.headers["Sec-WebSocket-Accept"] == ACCEPT
    assert (protocol.subprotocol, list(protocol.extensions)) == (None, [])
    assert protocol.data_to_send() == [], "the answer is given back and not sent"


@pytest.mark.parametrize(
    ("without", "status"),
    [("Upgrade", 426), ("Connection", 426), ("Sec-WebSocket-Key", 400), ("Sec-WebSocket-Version", 400)],
)
def test_accept_says_by_a_status_what_is_wrong(without, status):
    protocol = ServerProtocol()
    headers = Headers([(name, value) for name, value in HEADERS if name != without])
    assert protocol.accept(Request("/", headers)).status_code == status
    assert without.lower() in str(protocol.handshake_exc).lower()


def test_accept_negotiates():
    protocol = ServerProtocol(
        extensions=[ServerPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)],
        select_subprotocol=lambda protocol, offered: "b" if "b" in offered else None,
    )
    headers = Headers(
        [
            *HEADERS,
            ("Sec-WebSocket-Protocol", "a, b"),
            ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ]
    )
    answer = protocol.accept(Request("/", headers))
    assert answer.headers["Sec-WebSocket-Protocol"] == "b" == protocol.subprotocol
    assert "server_max_window_bits=12" in answer.headers["Sec-WebSocket-Extensions"]
    assert [type(extension) for extension in protocol.extensions] == [PerMessageDeflate]


def test_a_protocol_that_is_open_from_the_start_gives_every_frame_to_recv_frame():
    protocol = Collecting()
    protocol.receive_data(
        raw_frame(TEXT, b"a", fin=False)
        + raw_frame(PING, b"p")
        + raw_frame(CONTINUATION, b"b")
        + raw_frame(BINARY, b"c")
        + raw_frame(CLOSE, b"\x03\xe8bye")
    )
    assert [frame.opcode for frame in protocol.seen] == [
        Opcode.TEXT,
        Opcode.PING,
        Opcode.CONT,
        Opcode.BINARY,
        Opcode.CLOSE,
    ]
    assert protocol.seen[0].opcode is Opcode.TEXT, "compared with `is`"
    assert [frame.fin for frame in protocol.seen] == [False, True, True, True, True]
    assert [bytes(frame.data) for frame in protocol.seen[:4]] == [b"a", b"p", b"b", b"c"]
    assert b"".join(protocol.data_to_send()) == raw_frame(10, b"p", masked=False) + raw_frame(
        CLOSE, b"\x03\xe8bye", masked=False
    )
    assert protocol.eof_sent
    assert protocol.close_rcvd is not None
    assert (int(protocol.close_rcvd.code), protocol.close_rcvd.reason) == (1000, "bye")


def test_opcodes_are_ordered_so_that_control_frames_come_from_close_on():
    assert max(Opcode.CONT, Opcode.TEXT, Opcode.BINARY) < Opcode.CLOSE < Opcode.PING < Opcode.PONG


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProtocolError("bad"), 1002),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1007),
        (PayloadTooBig(None, 10), 1009),
    ],
)
def test_what_recv_frame_raises_closes_with_a_code(error, code):
    protocol = Collecting()
    protocol.failing = error
    protocol.receive_data(raw_frame(TEXT, b"a") + raw_frame(TEXT, b"never looked at"))
    assert len(protocol.seen) == 1
    assert protocol.state is CLOSING
    assert protocol.parser_exc is error
    assert protocol.close_sent is not None
    assert protocol.close_sent.code == code
    data, end = protocol.data_to_send()
    assert data[:1] == bytes([0x80 | CLOSE])
    assert data[2:4] == code.to_bytes(2, "big")
    assert end == b"", "the end of the connection is an empty write"
    assert protocol.eof_sent


def test_events_are_kept_unless_they_are_cleared():
    """`Frames` clears them in `recv_frame`: else every message would be held for the life of its connection."""
    protocol = Collecting()
    protocol.receive_data(raw_frame(TEXT, b"a"))
    assert protocol.events == protocol.seen
    frames = Frames(Handshake([], None, []), 100, 10)
    frames.receive(raw_frame(TEXT, b"a"))
    assert frames.events == []
    assert frames.messages == ["a"]


def test_the_limit_is_of_the_message_and_of_what_a_head_announces():
    protocol = Collecting(max_size=10)
    protocol.receive_data(raw_frame(BINARY, b"x" * 6, fin=False))
    protocol.receive_data(raw_frame(CONTINUATION, b"", announced_bytes=5))
    assert isinstance(protocol.parser_exc, PayloadTooBig)
    assert protocol.close_sent is not None
    assert protocol.close_sent.code == 1009


def test_extensions_that_are_assigned_are_used():
    agreed = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate")
    agreed.accept(Request("/", Headers([*HEADERS, offer])))
    protocol = Collecting(max_size=1000)
    protocol.extensions = list(agreed.extensions)
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(b"hello") + packer.flush(zlib.Z_SYNC_FLUSH)
    protocol.receive_data(raw_frame(TEXT, packed[:-4], reserved=4))
    assert bytes(protocol.seen[0].data) == b"hello"
    protocol.send_text(b"hello")
    (sent,) = protocol.data_to_send()
    assert sent[0] == 0xC0 | TEXT, "compressed: the first reserved bit"
    bomb = packer.compress(bytes(100_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    protocol.receive_data(raw_frame(BINARY, bomb[:-4], reserved=4))
    assert isinstance(protocol.parser_exc, PayloadTooBig)


def test_a_close_that_we_begin():
    protocol = Collecting()
    protocol.send_close(4000, "bye")
    assert protocol.data_to_send() == [raw_frame(CLOSE, b"\x0f\xa0bye", masked=False)]
    assert not protocol.eof_sent, "a message may still be on its way"
    protocol.receive_data(raw_frame(TEXT, b"late") + raw_frame(CLOSE, b"\x0f\xa0"))
    assert protocol.data_to_send() == [b""]
    assert protocol.eof_sent
    assert [frame.opcode for frame in protocol.seen] == [Opcode.TEXT, Opcode.CLOSE]


def test_a_head_is_refused_and_accepted_by_our_hand_over():
    def head(*extra: tuple[bytes, bytes]) -> RequestHead:
        fields = [(name.lower().encode(), value.encode()) for name, value in HEADERS]
        return RequestHead("GET", "/", "/", "", [*fields, *extra], "1.1", "http", None, None)

    agreed = accept(head((b"sec-websocket-protocol", b"a, b")), ["b", "a"])
    assert agreed.subprotocol == "b"
    assert (b"sec-websocket-accept", ACCEPT.encode()) in agreed.headers
    with pytest.raises(HandshakeRefused) as refused:
        accept(head((b"content-length", b"1")))
    assert refused.value.status == 400
