"""The frames of an open WebSocket as bytes in, messages out, by websockets' sans-I/O core.

Its `ServerProtocol` parses frames, answers pings and closes, and fails what is malformed with the code that RFC 6455
section 7.4.1 names. `Frames` adds what it leaves to the caller: messages put together from fragments, UTF-8 checked as
it arrives, a bound on fragments; and takes out by itself what needs none of that, a message that lies there as one
whole frame. Frames that go out uncompressed are made here, once for all receivers. The opening handshake is
`ws_handshake.py`'s. No socket, loop, clock or thread.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Generator
from struct import Struct
from typing import Any

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from catzilla._core.codes import ABNORMAL
from catzilla._core.limits import KIB
from catzilla._core.ws_handshake import Handshake

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets was built without its C extension
    from websockets.utils import apply_mask

TEXT = int(Opcode.TEXT)
BINARY = int(Opcode.BINARY)
PONG = 0x80 | Opcode.PONG  # the first byte of a pong

COPY_BELOW = 8 * KIB  # bytes of a payload that cost less to copy than to hand over by themselves

FRAMES = 128  # parsed in one turn of the loop, before other connections get theirs
PACKED_FRAMES = 4  # the same where each may unpack to a whole message
VIEW_FROM = 4 * KIB  # bytes of a payload that a view is cheaper for than a copy

_WHOLE_TEXT = 0x80 | TEXT  # the first byte of a message in one frame: final, no reserved bit (RFC 6455 section 5.2)
_WHOLE_BINARY = 0x80 | BINARY
_MEDIUM, _LONG = 0x80 | 126, 0x80 | 127  # the second byte: masked, and 2 or 8 bytes of length follow

_head = Struct(">BBH").unpack_from  # whether or not the last two bytes are a length
_short_head, _medium_head, _long_head = Struct(">BB").pack, Struct(">BBH").pack, Struct(">BBQ").pack

_logger = logging.getLogger("catzilla.frames")


def frame(opcode: int, payload: bytes) -> list[bytes]:
    """A whole message as one frame from the server, uncompressed and unmasked, large payloads uncopied.

    RFC 6455 section 5.2.
    """
    length = len(payload)
    if length < 126:
        return [_short_head(0x80 | opcode, length) + payload]
    if length < COPY_BELOW:
        return [_medium_head(0x80 | opcode, 126, length) + payload]
    if length < 65536:
        return [_medium_head(0x80 | opcode, 126, length), payload]
    return [_long_head(0x80 | opcode, 127, length), payload]


class Received(StreamReader):
    """What has arrived and was not parsed; takes the place of websockets' reader.

    That one copies every byte into one buffer and out of it again. Here a frame that arrived whole is handed out as it
    lies there, and one that comes in several pieces is put together once. And it gives no more than `budget` frames
    before it says that it has no more, so that one client's flood of tiny frames does not keep the loop.
    """

    __slots__ = ("_data", "_position", "between_frames", "budget", "eof")

    def __init__(self) -> None:
        self.eof = False
        self.between_frames = False  # the parser waits for a frame to begin
        self.budget = 0  # frames that may still be begun
        self._data: bytes | bytearray = b""
        self._position = 0  # how much of it was handed out

    @property
    def has_more(self) -> bool:
        """Whether the budget has kept something back."""
        return not self.budget and self._position < len(self._data)

    def feed_data(self, data: bytes | bytearray) -> None:
        """See `StreamReader`. What comes behind something that is left is put together with it, in one buffer."""
        if self.eof:
            raise EOFError("stream ended")
        if self._position == len(self._data):
            self._data, self._position = bytes(data), 0
        elif data:
            if self._position or isinstance(self._data, bytes):
                self._data = bytearray(memoryview(self._data)[self._position :])
                self._position = 0
            self._data += data

    def read_exact(self, n: int) -> Generator[None, None, Any]:
        """See `StreamReader`. Large results are views."""
        while (left := len(self._data) - self._position) < n:
            if self.eof:
                raise EOFError(f"stream ends after {left} bytes, expected {n} bytes")
            yield
        data, start = self._data, self._position
        self._advance(start + n)
        return data[start : start + n] if n < VIEW_FROM else memoryview(data)[start : start + n]

    def _advance(self, position: int) -> None:
        """Everything before `position` was handed out."""
        if position == len(self._data):
            self._data, self._position = b"", 0  # an idle connection keeps nothing of what it got
        else:
            self._position = position

    def at_eof(self) -> Generator[None, None, bool]:
        """See `StreamReader`."""
        while self._position == len(self._data) or not self.budget:
            if self.eof:
                return True
            self.between_frames = True
            yield
        self.between_frames = False
        self.budget -= 1
        return False

    def take_messages(self, data: bytes | bytearray, max_bytes: int, messages: list[str | bytes]) -> bool:
        """Feed `data`, and move the messages that then lie there as one whole frame each to `messages`.

        True if the parser is not needed now. To be called only `between_frames`, where neither an extension nor an
        unfinished message has a say. Stops at whatever is not so plain: control frames, fragments, what is too large
        and all that is malformed is the parser's, which finds it untouched. One that has begun to arrive is left until
        it is whole.
        """
        start = 0
        if self._position < len(self._data):
            self.feed_data(data)
            data, start = self._data, self._position
        size, budget = len(data), self.budget
        while budget and size - start > 6:  # a head with its mask, and one byte more: an empty message is rare
            opcode, code, length = _head(data, start)
            if opcode != _WHOLE_TEXT and opcode != _WHOLE_BINARY:
                break
            if 0x80 <= code < _MEDIUM:
                length = code - 0x80
                body = start + 6
            elif code == _MEDIUM:
                body = start + 8
            elif code == _LONG:
                length = int.from_bytes(data[start + 2 : start + 10], "big")  # or of fewer bytes, and then not whole
                body = start + 14
            else:
                break  # not masked
            end = body + length
            if length > max_bytes:
                break
            if end > size:
                self._keep(data, start)
                return True
            masked = data[body:end] if length < VIEW_FROM else memoryview(data)[body:end]
            message = apply_mask(masked, data[body - 4 : body])
            try:
                messages.append(message.decode() if opcode == _WHOLE_TEXT else message)
            except UnicodeDecodeError:
                break
            start = end
            budget -= 1
        self.budget = budget
        if start < size:
            self._keep(data, start)
            return False
        self._data, self._position = b"", 0
        return True

    def _keep(self, data: bytes | bytearray, position: int) -> None:
        """Keep what was not handed out of what was fed."""
        if data is not self._data:
            self._data = bytes(data)
        self._position = position

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
    __slots__ = ("_decoder", "_frames_a_turn", "_max_fragments", "_max_message_bytes", "_parts", "messages")

    def __init__(self, handshake: Handshake, max_message_bytes: int, max_fragments: int) -> None:
        super().__init__(state=OPEN, max_size=max_message_bytes, logger=_logger)
        self.extensions = list(handshake.extensions)
        self.reader: Received = Received()
        self.parser = self.parse()
        next(self.parser)
        self._frames_a_turn = PACKED_FRAMES if self.extensions else FRAMES
        self.messages: list[str | bytes] = []
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._parts: list[str | bytes] | None = None  # of a message whose end has not arrived
        self._decoder: codecs.IncrementalDecoder | None = None  # of such a message, if it is text

    def receive(self, data: bytes) -> bool:
        """Parse what has arrived, and what was kept back, as far as one turn goes.

        True if it was messages and nothing else: there is nothing to be written, and nothing was kept back.
        """
        reader = self.reader
        reader.budget = self._frames_a_turn
        # On a connection that compresses or is closing, or in the middle of a message, no frame is a message by itself.
        if not (reader.between_frames and self._parts is None and not self.extensions and self._state is OPEN):
            reader.feed_data(data)
        elif reader.take_messages(data, self._max_message_bytes, self.messages):
            return True
        next(self.parser)
        return False

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
