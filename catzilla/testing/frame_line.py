"""Frames over a connection that a test holds: websockets' sans-I/O client protocol on a `Wire` (RFC 6455).

The protocol decides what the bytes mean; this file decides when bytes move, and in which order if several threads have
a hand in it. They are read only while a call waits for something, and pings and close frames are answered by that same
reading. Does not know what a message is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import TypeVar

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

from catzilla.headers import Headers
from catzilla.testing.errors import Frozen, HandshakeRefused, ProtocolViolation, WebSocketClosed
from catzilla.testing.http_client import ClientResponse
from catzilla.testing.wire import Wire

LAST_WORDS_TIMEOUT = 1.0  # seconds to read what a server said before it went
CONTROL = (Opcode.CLOSE, Opcode.PING, Opcode.PONG)
_HEAD_END = b"\r\n\r\n"

T = TypeVar("T")


class FrameLine:
    """One WebSocket connection, in frames. One thread may read while others send.

    Everything raises `ConnectionAbortedError` once the test itself has ended the connection.
    """

    def __init__(self, wire: Wire, protocol: ClientProtocol) -> None:
        self.wire = wire
        self.protocol = protocol
        self.frames: deque[Frame] = deque()  # arrived, and not taken yet
        self._lock = Lock()  # for the protocol, the frames and what is outgoing; held for moments only
        self._outgoing = b""
        self._reading = Lock()  # for each single read, so that what is read is fed in order
        self._reads = 0
        self._sending = Lock()
        self._response: Response | None = None
        self._failure: str | None = None  # how the server broke the protocol
        self._reset: OSError | None = None

    @property
    def over(self) -> bool:
        """Whether the server has ended the connection, or broken the protocol."""
        return self.protocol.state is State.CLOSED

    # --- the handshakes ------------------------------------------------------------------------------------------

    def open(self, given: list[tuple[str, str]]) -> Headers:
        """The opening handshake, with the `given` header fields in place of those that have the same name.

        Gives the header fields of the response; what follows it stays in the kernel. Raises: `HandshakeRefused`,
        `ProtocolViolation`, `ConnectionResetError` for no response, `TimeoutError`.
        """
        request = self.protocol.connect()
        _replace_headers(request, [("Host", self.wire.origin.authority)])  # as the other clients name it
        _replace_headers(request, given)
        with self._lock:
            self.protocol.send_request(request)
            self._collect()
        self._flush(self.wire.timeout)
        self.wait_for(self._answered, self.wire.timeout, "response", until=_HEAD_END)
        self._check_handshake()
        assert self._response is not None, "the protocol took a response and gave none"
        return _headers(self._response)

    def close(self, code: int, reason: str, timeout: float, *, keep: bool) -> None:
        """The closing handshake; what arrives meanwhile is taken later if it is to `keep`.

        Raises: `TimeoutError`, `ProtocolViolation`, and websockets' `ProtocolError` for a code that is not allowed.
        """
        with self._lock:
            if self.protocol.state is State.OPEN:
                self.protocol.send_close(code, reason)
                self._collect()
        self._flush(timeout)

        def over() -> bool | None:
            if not keep:
                self.frames.clear()
            return self.over or None

        self.wait_for(over, timeout, "answer to the close frame")
        if self._failure is not None:
            self._check_open()

    def fail(self, code: CloseCode, why: str) -> ProtocolViolation:
        """End the connection, because the server broke a rule that only the receiver of whole messages can check."""
        with self._lock:
            if not self.over:
                self.protocol.fail(code)
                self._collect()
        self._give_up(why)
        return ProtocolViolation(f"{self.wire.purpose}: {why}")

    def _answered(self) -> bool | None:
        return True if self._response is not None or self.protocol.handshake_exc is not None else None

    def _check_handshake(self) -> None:
        problem = self.protocol.handshake_exc
        if problem is None:
            return
        if isinstance(problem, InvalidStatus):
            refusal = problem.response
            body = bytes(refusal.body)
            response = ClientResponse(refusal.status_code, _headers(refusal), body, refusal.reason_phrase)
            raise HandshakeRefused(self.wire.purpose, response) from None
        if isinstance(problem.__cause__, EOFError):
            raise ConnectionResetError(f"{self.wire.purpose}: the server closed the connection, no response")
        why = problem if problem.__cause__ is None else f"{problem}: {problem.__cause__}"
        raise ProtocolViolation(f"{self.wire.purpose} was not opened: {why}") from problem

    # --- sending -------------------------------------------------------------------------------------------------

    def send(self, write: Callable[[ClientProtocol], None]) -> None:
        """Send what `write` makes the protocol say. Raises: `WebSocketClosed`, `TimeoutError`."""
        with self._lock:
            if self.protocol.state is not State.OPEN:
                raise self._ended()
            write(self.protocol)
            self._collect()
        self._deliver()

    def send_raw(self, data: bytes) -> None:
        """Send these bytes behind the protocol's back. Raises as `send`."""
        with self._lock:
            self._outgoing += data
        self._deliver()

    def _deliver(self) -> None:
        """Send what is waiting to be sent. Raises `WebSocketClosed` with the server's code if the server has gone."""
        if self._flush(self.wire.timeout):
            return
        with suppress(TimeoutError, Frozen):  # its last words are in the kernel already
            self.wait_for(lambda: self.over or None, LAST_WORDS_TIMEOUT, "end of the connection")
        raise self._ended()

    def _collect(self) -> None:
        self._outgoing += b"".join(self.protocol.data_to_send())

    def _flush(self, timeout: float | None) -> bool:
        """Send what is waiting to be sent; False if the server has gone.

        Without a timeout, only what goes at once, and nothing while another thread sends: that one looks again.
        """
        while self._outgoing:
            if not self._sending.acquire(timeout=0 if timeout is None else timeout):
                if timeout is None:
                    return True
                raise TimeoutError(f"{self.wire.purpose}: another thread has been sending for {timeout:g} s")
            try:
                with self._lock:
                    data, self._outgoing = self._outgoing, b""
                if not self._write(data, timeout or 0.0):
                    return False
            except TimeoutError:
                if timeout is None:
                    return True
                raise
            finally:
                self._sending.release()
        return True

    def _write(self, data: bytes, timeout: float) -> bool:
        try:
            return self.wire.send(data, timeout=timeout)
        except TimeoutError:
            with self._lock:  # nothing may come between the two halves of a frame
                self._outgoing = self.wire.unsent + self._outgoing
            raise
        except ConnectionAbortedError:
            raise
        except OSError as error:
            self._reset = error
            return False

    # --- receiving -----------------------------------------------------------------------------------------------

    def check_readable(self, timeout: float) -> None:
        """Raise what a read would raise now: a frozen connection gives nothing, not even what has arrived."""
        if not self.over:
            self.wire.check(timeout)

    def wait_for(
        self,
        take: Callable[[], T | None],
        timeout: float,
        what: str,
        *,
        patient: bool = False,
        until: bytes | None = None,
    ) -> T:
        """What `take` gives, as soon as it is not None; reads until then. `what` is the name of that.

        Somebody who is `patient` lets every part of a message start the time anew. `until` is that of `Wire.receive`.
        Raises: `TimeoutError`, `WebSocketClosed`, `ProtocolViolation`, `Frozen`.
        """
        deadline = monotonic() + timeout
        while True:
            turn = self._reads  # before looking: what another thread reads after it is looked at again
            found = take()
            if found is not None:
                return found
            self._check_open()
            if self._read(turn, deadline, until, f"{self.wire.purpose}: no {what} within {timeout:g} s") and patient:
                deadline = monotonic() + timeout

    def take_frame(self) -> Frame | None:
        """The next frame, if one has arrived."""
        return self.frames.popleft() if self.frames else None

    def take_pong(self, data: bytes) -> Frame | None:
        """The pong with this payload, if it has arrived, whatever came before it."""
        with self._lock:
            for frame in self.frames:
                if frame.opcode is Opcode.PONG and bytes(frame.data) == data:
                    self.frames.remove(frame)
                    return frame
        return None

    def _check_open(self) -> None:
        """Raise what ended the connection, if something has; for when everything that arrived is taken."""
        if self._failure is not None:
            raise ProtocolViolation(f"{self.wire.purpose}: {self._failure}")
        if self.over:
            raise self._ended()

    def _ended(self) -> WebSocketClosed:
        close = self.protocol.close_rcvd or (None if self.over else self.protocol.close_sent)
        close = close or Close(CloseCode.ABNORMAL_CLOSURE, "")
        why = "" if self._reset is None else str(self._reset)
        return WebSocketClosed(self.wire.purpose, int(close.code), close.reason, why)

    def _read(self, turn: int, deadline: float, until: bytes | None, silence: str) -> bool:
        """Take in what one read of the socket brings; nothing if another thread has read since `turn`.

        False if that was nothing but whole control frames, which are no progress of a message.
        """
        if not self._reading.acquire(timeout=max(0.0, deadline - monotonic())):
            raise TimeoutError(silence)
        try:
            return self._reads == turn and self._take_in(self._receive(deadline, until))
        except TimeoutError:
            if self.protocol.close_rcvd is not None:
                silence = f"{silence}; the server sent its close frame and left the connection open"
            raise TimeoutError(silence) from None
        finally:
            self._reading.release()

    def _receive(self, deadline: float, until: bytes | None) -> bytes:
        try:
            return self.wire.receive(max(0.0, deadline - monotonic()), until=until)
        except (TimeoutError, ConnectionAbortedError):
            raise
        except OSError as error:  # reset, or TLS cut short: what came before still counts
            self._reset = error
            return b""

    def _take_in(self, data: bytes) -> bool:
        with self._lock:
            self._reads += 1
            if data:
                self.protocol.receive_data(data)
            else:
                self.protocol.receive_eof()
            events = self.protocol.events_received()
            for event in events:
                if isinstance(event, Response):
                    self._response = event
                elif isinstance(event, Frame):
                    self.frames.append(event)
            self._collect()
        self._flush(None)
        problem = self.protocol.parser_exc
        if problem is not None and not isinstance(problem, EOFError):
            self._give_up(str(problem))
        elif self.over:
            self.wire.close()
        return not events or any(isinstance(event, Frame) and event.opcode not in CONTROL for event in events)

    def _give_up(self, why: str) -> None:
        """Close a connection on which the server broke the protocol; the close frame that says so is on its way."""
        self._failure = why
        self._flush(None)
        with self._lock:
            self.protocol.receive_eof()
        self.wire.close()


def _headers(response: Response) -> Headers:
    pairs = response.headers.raw_items()
    return Headers([(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs])


def _replace_headers(request: Request, given: list[tuple[str, str]]) -> None:
    for name in {name.lower() for name, _ in given}:
        with suppress(KeyError):
            del request.headers[name]
    for name, value in given:
        request.headers[name] = value  # adds to those of the same name
