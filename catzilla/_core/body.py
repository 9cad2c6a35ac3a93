"""A request's body between the loop, which fills it, and the handler, which reads it.

Bounded by `body_buffer_bytes`: over that the socket is not read, until the handler has taken some. The pieces are
put in by the loop and taken by the handler, both under `_changed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from catzilla._core.waits import Waits


class IncomingBody:
    """The body of one request; read at most once."""

    __slots__ = ("_buffer", "_changed", "_complete", "_error", "_limit", "_resume", "_waits", "received", "started")

    def __init__(self, waits: Waits, limit: int, resume: Callable[[], None]) -> None:
        self._waits = waits
        self._limit = limit  # bytes held before the socket is paused
        self._resume = resume  # called by the reader when there is room again, and at the first read
        self._buffer = bytearray()  # one, however small the pieces are that arrive
        self._complete = False
        self._error: Exception | None = None
        self.started = False  # somebody has begun to read; set once, by the reader
        self.received = 0  # bytes so far; the loop's
        self._changed = threading.Condition()

    # On the loop.

    def feed(self, data: bytes) -> bool:
        """Add a piece; False when there is enough for now. [loop thread]"""
        with self._changed:
            self._buffer += data
            self._changed.notify_all()
        self.received += len(data)
        return not self.is_full

    def finish(self) -> None:
        """The body is whole. [loop thread]"""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """The body will not become whole; whoever reads it gets `error`. [loop thread]"""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    @property
    def is_full(self) -> bool:
        """Whether the socket should not be read. [any thread]"""
        return len(self._buffer) >= self._limit

    # On the handler's thread.

    def read(self) -> bytes:
        """See `RequestBody.read`. [worker thread]"""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """See `RequestBody.chunks`. [worker thread]"""
        if not self.started:
            self.started = True
            self._resume()
        while piece := self._next():
            yield piece

    def _next(self) -> bytes:
        """What is there, as one piece; b"" at the end."""
        self._waits.wait_for(self._changed, self._has_news)
        with self._changed:
            was_full = self.is_full
            data = bytes(self._buffer)
            self._buffer.clear()
            if not data and self._error is not None:
                raise self._error
        if was_full:
            self._resume()
        return data

    def _has_news(self) -> bool:
        return bool(self._buffer) or self._complete or self._error is not None

    @property
    def disconnected(self) -> bool:
        """See `RequestBody.disconnected`. [any thread]"""
        return self._waits.interrupted is not None


class NoBody:
    """The body of a request that has none; most have none."""

    __slots__ = ("_waits",)

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    def read(self) -> bytes:
        return b""

    def chunks(self) -> Iterator[bytes]:
        return iter(())

    @property
    def disconnected(self) -> bool:
        return self._waits.interrupted is not None
