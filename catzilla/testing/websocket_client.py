"""A synchronous WebSocket for tests, on a connection that can be frozen, throttled and dropped (RFC 6455).

Decides what a message is and what a test is told. Nothing is read behind the test's back: a WebSocket on which no call
waits for something is a client that has stalled, and answers no ping either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.typing import Origin, Subprotocol
from websockets.uri import WebSocketURI

from catzilla.testing.errors import WebSocketClosed
from catzilla.testing.frame_line import CONTROL, FrameLine
from catzilla.testing.http_client import RequestHeaders, header_pairs, request_target
from catzilla.testing.raw_frames import ReceivedFrame
from catzilla.testing.wire import Wire

LEAVE_TIMEOUT = 1.0  # seconds that the end of a `with` block gives the server to answer the close frame
_MEANT_WELL = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)


class ClientWebSocket:
    """An open WebSocket: `send` and `receive`, an iterator of messages, and a context manager that closes it.

    Made by `LiveServer.websocket`. One thread may receive while others send. A `timeout` is in seconds, by default
    the one of the connection. Every method raises `ConnectionAbortedError` once the test itself has dropped the
    connection or stopped the live server.
    """

    def __init__(
        self,
        wire: Wire,
        path: str,
        *,
        headers: RequestHeaders | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        compression: bool = False,
    ) -> None:
        if isinstance(subprotocols, str):
            wire.close()
            raise TypeError(f"subprotocols= takes a list of names: write [{subprotocols!r}]")
        self.wire = wire  # the connection underneath, for the faults
        wire.purpose = f"the WebSocket {path}"
        self._protocol = ClientProtocol(
            WebSocketURI(wire.origin.tls, wire.origin.host, wire.origin.port, request_target(path), ""),
            origin=None if origin is None else Origin(origin),
            extensions=[ClientPerMessageDeflateFactory()] if compression else None,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=None,  # how much a server may send is for the test to judge
        )
        self._line = FrameLine(wire, self._protocol)
        self._message: list[Frame] = []  # the fragments so far
        try:
            self.headers = self._line.open(header_pairs(headers))  # of the server's response
        except BaseException:
            wire.close()
            raise
        self.subprotocol: str | None = self._protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """The server's close code, 1005 and 1006 as in `WebSocketClosed`; None as long as it has not ended."""
        code = self._protocol.close_code
        return None if code is None else int(code)

    @property
    def close_reason(self) -> str | None:
        """The reason in the server's close frame; None as long as the connection has not ended."""
        return self._protocol.close_reason

    # --- messages ------------------------------------------------------------------------------------------------

    def send(self, message: str | bytes) -> None:
        """Send a text message for `str`, a binary one for `bytes`; blocks while the server takes nothing.

        Raises: `WebSocketClosed`, and `TimeoutError` when the server has taken nothing for the connection's timeout.
        What it did not take is not lost: it goes out before anything else that is sent later.
        """
        if isinstance(message, str):
            payload = message.encode()
            self._line.send(lambda protocol: protocol.send_text(payload))
        elif isinstance(message, bytes | bytearray | memoryview):
            self._line.send(lambda protocol: protocol.send_binary(message))
        else:
            raise TypeError(f"send() takes str or bytes, not {type(message).__name__}; see send_json()")

    def send_json(self, value: Any) -> None:
        """Send `value` as the JSON of a text message. Raises as `send`, and `TypeError` for what is no JSON."""
        self.send(json.dumps(value))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message; blocks until it is complete.

        Raises: `TimeoutError` after `timeout` seconds in which no part of a message came, `WebSocketClosed` when the
        server has closed or gone, `ProtocolViolation`, `Frozen`.
        """
        timeout = self._ready_to_read(timeout)
        return self._assemble(self._line.wait_for(self._take_message, timeout, "message", patient=True))

    def receive_json(self, timeout: float | None = None) -> Any:
        """The next message as JSON. Raises as `receive`, and `ValueError` if it is none."""
        return json.loads(self.receive(timeout))

    def __iter__(self) -> ClientWebSocket:
        return self

    def __next__(self) -> str | bytes:
        """The next message, as `receive`; the iteration ends when the server closes with 1000, 1001 or no code."""
        try:
            return self.receive()
        except WebSocketClosed as end:
            if end.code in _MEANT_WELL:
                raise StopIteration from None
            raise

    def ping(self, data: bytes = b"", timeout: float | None = None) -> float:
        """Send a ping and wait for its pong; gives the seconds it took. Messages that come first are kept.

        Raises: as `receive`, and `ValueError` for more than 125 bytes.
        """
        if len(data) > 125:
            raise ValueError(f"a ping carries at most 125 bytes (RFC 6455 section 5.5), not {len(data)}")
        timeout = self._ready_to_read(timeout)
        began = monotonic()
        self._line.send(lambda protocol: protocol.send_ping(data))
        self._line.wait_for(lambda: self._line.take_pong(data), timeout, "pong")
        return monotonic() - began

    # --- single frames and bytes ---------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        """Send these bytes, whatever they are; `catzilla.testing.raw_frame` makes frames. Raises as `send`."""
        self._line.send_raw(data)

    def receive_frame(self, timeout: float | None = None) -> ReceivedFrame:
        """The next frame of any kind; pings and close frames among them are answered already. Raises as `receive`."""
        timeout = self._ready_to_read(timeout)
        frame = self._line.wait_for(self._line.take_frame, timeout, "frame")
        return ReceivedFrame(int(frame.opcode), bytes(frame.data), frame.fin)

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self, code: int = 1000, reason: str = "", timeout: float | None = None) -> None:
        """Perform the closing handshake and close the connection; nothing more if the server has gone already.

        Messages that come before the server's close frame can still be received afterwards. A frozen connection is
        only closed. Raises: `TimeoutError` when the handshake takes longer than `timeout` (the connection is closed
        all the same), `ProtocolViolation`, and `ValueError` for a code or reason that RFC 6455 does not allow.
        """
        if self.wire.frozen or self.wire.closed:
            self.wire.close()
            return
        try:
            self._line.close(code, reason, self.wire.timeout if timeout is None else timeout, keep=True)
        except ProtocolError as error:
            raise ValueError(f"close({code}, {reason!r}): {error}; send_raw() sends anything") from error
        finally:
            self.wire.close()

    def __enter__(self) -> ClientWebSocket:
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        """Leave: a server that does not answer the close frame within a second is no error here."""
        try:
            if exc_type is None and not (self.wire.frozen or self.wire.closed):
                with suppress(TimeoutError):
                    self._line.close(1000, "", min(LEAVE_TIMEOUT, self.wire.timeout), keep=False)
        finally:
            self.wire.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _ready_to_read(self, timeout: float | None) -> float:
        timeout = self.wire.timeout if timeout is None else timeout
        self._line.check_readable(timeout)
        return timeout

    def _take_message(self) -> list[Frame] | None:
        """The frames of the next message, if all of it has arrived."""
        while (frame := self._line.take_frame()) is not None:
            if frame.opcode in CONTROL:
                continue
            if frame.opcode is not Opcode.CONT:
                self._message = []
            elif not self._message:
                continue  # `receive_frame` took the frames before it
            self._message.append(frame)
            if frame.fin:
                frames, self._message = self._message, []
                return frames
        return None

    def _assemble(self, frames: list[Frame]) -> str | bytes:
        payload = b"".join(bytes(frame.data) for frame in frames)
        if frames[0].opcode is Opcode.BINARY:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError as error:
            raise self._line.fail(CloseCode.INVALID_DATA, f"a text that is not UTF-8: {error}") from error

    def __repr__(self) -> str:
        state = "open" if self.close_code is None else f"closed with {self.close_code}"
        return f"<ClientWebSocket {self.wire.purpose}: {state}, frames to be received: {len(self._line.frames)}>"
