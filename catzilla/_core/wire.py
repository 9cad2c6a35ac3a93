"""The write side of a connection, whatever it speaks: bytes out, pressure back, deadlines, and the ways to end.

Knows transports and clocks, no protocol; `http_connection.py` builds on it. Everything runs on the loop thread, but
`gone` may be read by any.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import cast

from catzilla._core.clock import monotonic
from catzilla._core.file_sender import FileSender
from catzilla._core.messages import FileSpan
from catzilla._core.services import Services
from catzilla._core.timers import Deadline

logger = logging.getLogger("catzilla")

_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing throws away what is unsent, and says so
# The standard loop's `writelines` forgets about flow control in these versions (python/cpython issue 127655).
_WRITELINES_PAUSES = not ((3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2))
# Half closed by the client; where the system cannot tell that, it tells the rest.
_HANG_UP: int = getattr(select, "POLLRDHUP", 0)
LINGER = 2.0  # seconds to let the client read an answer before its unread request is thrown away


class Wire(asyncio.Protocol):
    """One connection's transport.

    A subclass says what a passed deadline means (`_deadline_passed`) and what to do once the kernel has taken
    everything (`_drained`).
    """

    __slots__ = (
        "_closing",
        "_deadline",
        "_file",
        "_next_file",
        "_number",
        "_secure",
        "_services",
        "_stalled_since",
        "_stalled_size",
        "_then",
        "_transport",
        "gone",
        "paused",
    )

    def __init__(self, services: Services, *, secure: bool) -> None:
        self._services = services
        self._secure = secure
        self._number = 0  # of this connection, for log lines
        self._closing = False  # nothing more that arrives is looked at
        self._deadline = Deadline(services.timers, self._expired)
        self._file: FileSender | None = None
        self._next_file: FileSpan | None = None  # waits for what is written before it; ours to close
        self._then: Callable[[], None] | None = None  # what follows once the kernel has everything
        self._stalled_since = 0.0
        self._stalled_size = -1
        self.paused = False  # the kernel has not taken everything
        self.gone = False

    @property
    def number(self) -> int:
        """The number of this connection on its server. [any thread]"""
        return self._number

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Pause at the first byte that the kernel does not take: what is not paused is delivered. Plain transports pause
        # above the mark, TLS ones at it.
        self._transport.set_write_buffer_limits(high=1 if self._secure else 0, low=0)
        self._number = self._services.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self._secure:
            self._transport.close()  # the client has done it; but a TLS transport of 3.10 warns unless it is told
        self._then = None
        self._deadline.end()
        if self._file is not None:
            self._file.stop()
        if self._next_file is not None:
            self._next_file.file.close()
        self._services.forget(self)

    def pause_writing(self) -> None:
        self.paused = True
        self._watch_stall()

    def resume_writing(self) -> None:
        self.paused = False
        self._deadline.clear()
        if self._then is not None:
            self._go_on()
        else:
            self._drained()

    # Writing.

    def write(self, buffers: Sequence[bytes]) -> bool:
        """Hand bytes to the transport, uncopied; True if the kernel took them all at once, else `paused` is set."""
        if self.gone or self._transport.is_closing():
            return False
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        elif _WRITELINES_PAUSES or type(self._transport).__module__.startswith("uvloop"):
            self._transport.writelines(buffers)
        else:
            self._transport.write(b"".join(buffers))
        return not self.paused

    def _when_written(self, then: Callable[[], None]) -> None:
        """Call `then` once the kernel has everything; never, if the connection ends first."""
        self._then = then
        if not self.paused:
            self._go_on()

    def _go_on(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def _send_file(self, span: FileSpan, then: Callable[[int], None]) -> None:
        """Have the kernel send a file after what is written; `then` gets the bytes that are missing in the end."""
        self._next_file = span
        self._when_written(lambda: self._start_file(span, then))

    def _start_file(self, span: FileSpan, then: Callable[[int], None]) -> None:
        def done() -> None:
            file, self._file = self._file, None
            self._deadline.clear()
            assert file is not None
            then(file.left)

        self._next_file = None
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            self._file = FileSender(self._services.loop, descriptor, span, done)
        except OSError as error:  # no descriptor is left to watch the socket with
            logger.error("connection=%d cannot send a file: %s; cut", self._number, error)
            span.file.close()
            self.cut()
        else:
            self._watch_stall()

    def _peer_has_closed(self) -> bool:
        """Whether the client has closed or reset the connection, also while it is not read."""
        watched = select.poll()
        watched.register(self._transport.get_extra_info("socket").fileno(), _HANG_UP)
        return any(events & (_HANG_UP | select.POLLHUP | select.POLLERR) for _, events in watched.poll(0))

    # Deadlines.

    def _watch_stall(self) -> None:
        self._stalled_since, self._stalled_size = monotonic(), -1
        self._deadline.set(self._services.limits.write_stall_timeout / 4)

    def _expired(self) -> None:
        if self.gone:
            return
        if self.paused or self._file is not None:
            self._check_stall()
        elif self._closing:
            self._transport.abort()
        else:
            self._deadline_passed()

    def _check_stall(self) -> None:
        """Cut a client that takes nothing at all; one that takes little is served."""
        limit = self._services.limits.write_stall_timeout
        size = self._transport.get_write_buffer_size() if self._file is None else self._file.left
        now = monotonic()
        if size != self._stalled_size:
            self._stalled_size, self._stalled_since = size, now
        if now - self._stalled_since >= limit:
            self.cut()
        else:
            self._deadline.set(limit / 4)

    # Ending.

    def cut(self) -> None:
        """End the connection at once, by a reset: where its end is the end of the body, a clean one would be a lie.

        A Unix socket knows no reset; there only the framing tells.
        """
        if not self.gone:
            self._closing = True
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _finish(self) -> None:
        """End the connection once everything is written."""
        if not self.gone:
            self._closing = True
            self._transport.close()

    def _linger(self) -> None:
        """End the connection, but not so that unread bytes reset it before the client has read the answer.

        RFC 9112 section 9.6: close our side first, and read on for a while.
        """
        if self.gone or self._secure or not self._transport.can_write_eof():
            self._finish()
            return
        self._closing = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._deadline.set(LINGER)

    # For subclasses.

    def _drained(self) -> None:
        """The kernel has taken everything, and nothing was waiting for that by `_when_written`."""
        raise NotImplementedError

    def _deadline_passed(self) -> None:
        """What was waited for has not come in time."""
        raise NotImplementedError

    def stop(self) -> None:
        """The server is stopping: end what has no end of its own, and let the rest finish."""
        raise NotImplementedError

    def stop_now(self) -> None:
        """The server has no more time for this connection."""
        raise NotImplementedError
