"""A file as a response's body, sent by the kernel: `os.sendfile` whenever the socket takes more. [loop thread]

The transport must have nothing left to write when it begins. The socket is watched through a duplicate of its
descriptor, because event loops refuse to watch one that a transport owns.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from catzilla._core.limits import KIB
from catzilla._core.messages import FileSpan

PIECE = 512 * KIB  # bytes a call: reading from a disk may block, so the loop comes up for air


class FileSender:
    """One file on its way. Calls `done` once, unless `stop` comes first; `left` then says what is missing."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, span: FileSpan, done: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._socket = os.dup(descriptor)
        self._span = span
        self._offset = span.offset
        self._left = span.length
        self._done = done
        self._stopped = False
        loop.add_writer(self._socket, self._send)

    @property
    def left(self) -> int:
        """Bytes not yet taken by the kernel."""
        return self._left

    def stop(self) -> None:
        """Close the file and let go of the socket; calling twice is fine."""
        if not self._stopped:
            self._stopped = True
            self._loop.remove_writer(self._socket)
            os.close(self._socket)
            self._span.file.close()

    def _send(self) -> None:
        try:
            sent = os.sendfile(self._socket, self._span.file.fileno(), self._offset, min(self._left, PIECE))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = 0
        self._offset += sent
        self._left -= sent
        if self._left == 0 or sent == 0:  # at the end; or the client has gone, or the file has become shorter
            self.stop()
            self._done()
