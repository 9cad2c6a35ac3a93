"""The WebSocket protocol as bytes in, messages out: handshake, frames and messages, by websockets' sans-I/O core.

The upgrade request is parsed by h11 like any other and handed to `ServerProtocol.accept`, which checks it and
negotiates. Its connection then has a second `ServerProtocol` that is open from the start: it parses frames, answers
pings and closes, and fails what is malformed with the code that RFC 6455 section 7.4.1 names. `Frames` adds what it
leaves to the caller: messages put together from fragments, UTF-8 checked as it arrives, a bound on fragments. Frames
that go out uncompressed are made here, once for all receivers. No socket, loop, clock or thread.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from catzilla._core.codes import ABNORMAL
from catzilla._core.limits import KIB
from catzilla._core.messages import RequestHead

TEXT = int(Opcode.TEXT)
BINARY = int(Opcode.BINARY)
PONG = 0x80 | Opcode.PONG  # the first byte of a pong

COPY_BELOW = 8 * KIB  # bytes of a payload that cost less to copy than to hand over by themselves

FRAMES = 128  # parsed in one turn of the loop, before other connections get theirs
PACKED_FRAMES = 4  # the same where each may unpack to a whole message
VIEW_FROM = 4 * KIB  # bytes of a payload that a view is cheaper for than a copy

VERSION = b"13"  # RFC 6455 section 4.4

_WINDOW_BITS = 12  # of compression: 4 KiB of history a direction and connection
_MEMORY_LEVEL = 5

_logger = logging.getLogger("catzilla.frames")  # what websockets says of every connection, for who asks for it
_logger.setLevel(logging.WARNING)


class HandshakeRefused(Exception):
    """The request is no valid opening handshake; `status`, `message` and `headers` are what it is answered with."""

    def __init__(self, status: int, message: str, headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or []


@dataclass(frozen=True, slots=True)
class Handshake:
    """What an opening handshake has agreed on. `headers` are those that the 101 answer has to hold."""

    headers: list[tuple[bytes, bytes]]
    subprotocol: str | None
    extensions: Sequence[Extension]


def wants_upgrade(head: RequestHead) -> bool:
    """Whether a request asks for the WebSocket protocol (RFC 9110 section 7.8), well-formed or not."""
    return any(
        name == b"upgrade" and any(token.strip() == b"websocket" for token in value.lower().split(b","))
        for name, value in head.headers
    )


def accept(head: RequestHead, subprotocols: Sequence[str] = (), *, compression: bool = False) -> Handshake:
    """Check an opening handshake and negotiate (RFC 6455 section 4.2).

    `subprotocols` are those of the server, the preferred one first; without a common one the connection goes on without
    any. Raises: `HandshakeRefused`.
    """
    if head.method != "GET" or head.http_version != "1.1":
        raise HandshakeRefused(400, "a WebSocket handshake is a GET request of HTTP/1.1")
    if head.header(b"transfer-encoding") is not None or head.header(b"content-length") not in (None, b"0"):
        raise HandshakeRefused(400, "a WebSocket handshake has no body")  # it could be taken for frames
    version = head.header(b"sec-websocket-version")
    if version is not None and version.strip() != VERSION:
        raise HandshakeRefused(
            426,
            f"version {version.decode('latin-1')!r} of the WebSocket protocol is not served here, 13 is",
            [("Sec-WebSocket-Version", VERSION.decode()), ("Upgrade", "websocket")],
        )

    def select(protocol: ServerProtocol, offered: Sequence[str]) -> Any:
        return next((name for name in subprotocols if name in offered), None)

    protocol = ServerProtocol(
        extensions=[_deflate()] if compression else None, select_subprotocol=select, logger=_logger
    )
    headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers])
    answer = protocol.accept(Request(head.target, headers))
    if answer.status_code != 101:
        message = str(protocol.handshake_exc or answer.reason_phrase)
        extra = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION.decode())]
        raise HandshakeRefused(answer.status_code, message, extra if answer.status_code == 426 else None)
    kept = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.headers.raw_items()
        if name.lower().startswith("sec-websocket-")
    ]
    return Handshake(kept, protocol.subprotocol, protocol.extensions)


def _deflate() -> ServerPerMessageDeflateFactory:
    return ServerPerMessageDeflateFactory(
        server_max_window_bits=_WINDOW_BITS,
        client_max_window_bits=_WINDOW_BITS,
        compress_settings={"memLevel": _MEMORY_LEVEL},
    )


def switching_protocols(headers: Sequence[tuple[bytes, bytes]], date: bytes) -> bytes:
    """The head of the answer to an accepted handshake."""
    lines = [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"]
    lines += [b"%b: %b\r\n" % field for field in headers]
    return b"".join([*lines, b"date: ", date, b"\r\nserver: catzilla\r\n\r\n"])


def frame(opcode: int, payload: bytes) -> list[bytes]:
    """A whole message as one frame from the server, uncompressed and unmasked, large payloads uncopied.

    RFC 6455 section 5.2.
    """
    length = len(payload)
    if length < 126:
        return [bytes((0x80 | opcode, length)) + payload]
    if length < COPY_BELOW:
        return [bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload]
    if length < 65536:
        return [bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big"), payload]
    return [bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big"), payload]


class Received(StreamReader):
    """What has arrived and was not parsed; takes the place of websockets' reader.

    That one copies every byte into one buffer and out of it again. Here a frame that arrived whole is handed out as it
    lies there, and one that comes in several pieces is put together once. And it gives no more than `budget` frames
    before it says that it has no more, so that one client's flood of tiny frames does not keep the loop.
    """

    __slots__ = ("_data", "_position", "budget", "eof")

    def __init__(self) -> None:
        self.eof = False
        self.budget = 0  # frames that may still be begun
        self._data = b""
        self._position = 0  # how much of it was handed out

    @property
    def has_more(self) -> bool:
        """Whether the budget has kept something back."""
        return not self.budget and self._position < len(self._data)

    def read_exact(self, n: int) -> Generator[None, None, Any]:
        """See `StreamReader`. Large results are views."""
        if self._position + n > len(self._data):
            yield from self._gather(n)
        data, start = self._data, self._position
        end = start + n
        if end == len(data):
            self._data, self._position = b"", 0  # an idle connection keeps nothing of what it got
        else:
            self._position = end
        return data[start:end] if n < VIEW_FROM else memoryview(data)[start:end]

    def _gather(self, n: int) -> Generator[None, None, None]:
        """Wait until there are `n` bytes, and put them together."""
        pieces: list[bytes | memoryview] = [memoryview(self._data)[self._position :]]
        size = len(pieces[0])
        while size < n:
            self._data, self._position = b"", 0
            if self.eof:
                raise EOFError(f"stream ends after {size} bytes, expected {n} bytes")
            yield
            pieces.append(self._data)
            size += len(self._data)
        self._data, self._position = b"".join(pieces), 0

    def at_eof(self) -> Generator[None, None, bool]:
        """See `StreamReader`."""
        while self._position == len(self._data) or not self.budget:
            if self.eof:
                return True
            yield
        self.budget -= 1
        return False

    def feed_data(self, data: bytes | bytearray) -> None:
        """See `StreamReader`. Nothing is left from before, unless `has_more`."""
        if self.eof:
            raise EOFError("stream ended")
        left = self._data[self._position :]
        self._data = left + data if left else bytes(data)
        self._position = 0

    def discard(self) -> None:
        """See `StreamReader`."""
        self._data, self._position = b"", 0


class Frames(ServerProtocol):
    """The frames of one open connection.

    `receive` takes what has arrived; whole messages are then in `messages`, and what is to be written at once (pongs,
    the close frame) comes from `data_to_send`. What breaks the protocol has been answered with a close frame by then.
    While `has_more` it wants to be asked again, before it gets more.
    """

    # What is ours is not in the instance's dictionary: with it there would be more than the 30 attributes up to which
    # instances share their keys, and each would cost a kilobyte and a half more.
    __slots__ = ("_decoder", "_frames_a_turn", "_max_fragments", "_parts", "messages")

    def __init__(self, handshake: Handshake, max_message_bytes: int, max_fragments: int) -> None:
        super().__init__(state=OPEN, max_size=max_message_bytes, logger=_logger)
        self.extensions = list(handshake.extensions)
        self.reader: Received = Received()
        self.parser = self.parse()
        next(self.parser)
        self._frames_a_turn = PACKED_FRAMES if self.extensions else FRAMES
        self.messages: list[str | bytes] = []
        self._max_fragments = max_fragments
        self._parts: list[str | bytes] | None = None  # of a message whose end has not arrived
        self._decoder: codecs.IncrementalDecoder | None = None  # of such a message, if it is text

    def receive(self, data: bytes) -> None:
        """Parse what has arrived, and what was kept back, as far as one turn goes."""
        self.reader.budget = self._frames_a_turn
        self.receive_data(data)

    @property
    def has_more(self) -> bool:
        """Whether something was kept back for the next turn."""
        return self.reader.has_more

    def end(self) -> None:
        """The connection is gone: let go of what has arrived, and of the parser, which refers to all of this."""
        self.parser.close()
        self.messages = []
        self._parts = None

    def recv_frame(self, frame: Frame) -> None:
        """Take one frame. Called by the parser, which fails the connection for what is raised here."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # an unfinished message is given up, and is no reason to refuse a clean close
        super().recv_frame(frame)
        self.events.clear()
        opcode = frame.opcode
        if opcode >= Opcode.CLOSE:
            return
        if frame.fin and self._parts is None:
            data = bytes(frame.data)
            self.messages.append(data.decode() if opcode is Opcode.TEXT else data)
        else:
            self._add_fragment(frame)

    def _add_fragment(self, frame: Frame) -> None:
        if self._parts is None:
            self._parts = []
            self._decoder = _utf8() if frame.opcode is Opcode.TEXT else None
        parts, decoder, data = self._parts, self._decoder, bytes(frame.data)
        parts.append(data if decoder is None else decoder.decode(data, frame.fin))
        if frame.fin:
            self._parts = self._decoder = None
            self.messages.append(b"".join(parts) if decoder is None else "".join(parts))  # type: ignore[arg-type]
        elif len(parts) >= self._max_fragments:
            raise _TooManyFragments(self._max_fragments)

    def send_message(self, opcode: int, payload: bytes) -> None:
        """Have a whole message sent, compressed where that was agreed on: this is for connections that compress."""
        if opcode == TEXT:
            self.send_text(payload)
        else:
            self.send_binary(payload)

    @property
    def is_open(self) -> bool:
        """Whether messages may still be sent: no close frame has gone either way."""
        return self._state is OPEN

    @property
    def close_received(self) -> tuple[int, str] | None:
        """Code and reason of the peer's close frame, 1005 for one without; None before it."""
        return None if self.close_rcvd is None else (int(self.close_rcvd.code), self.close_rcvd.reason)

    @property
    def failure(self) -> tuple[int, str] | None:
        """Code and reason with which a peer was closed that broke the protocol; None if it did not."""
        if self.parser_exc is None:
            return None
        sent = self.close_sent
        return (ABNORMAL, "the client is gone") if sent is None else (int(sent.code), sent.reason)


class _TooManyFragments(PayloadTooBig):
    """Closes with 1009, like a message of too many bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(None, most)

    def __str__(self) -> str:
        return f"message in more than {self.max_size} fragments"


_utf8 = codecs.getincrementaldecoder("utf-8")
