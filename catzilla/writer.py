"""Writing to a response like to a file, live: what is written is on its way before `write` returns.

Decides when a response goes live and what a closed or broken writer does. How the bytes travel, and when `write`
blocks, is in `_core/written_stream.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from catzilla._core.current import current
from catzilla._core.written_stream import WrittenStream

if TYPE_CHECKING:
    from catzilla.streaming import StreamingResponse

logger = logging.getLogger("catzilla")


class StreamingWriter:
    """A file-like object over a `StreamingResponse`: `csv.writer(w)`, `json.dump(obj, w)`, `print(..., file=w)`.

    The first write sends the head; from then on the response cannot be changed. `write` blocks while the client is
    behind. Any thread may write, also after the handler has returned: the stream stays open until `close`.

    Outside of a request what is written is collected, and `response.body` gives it.
    """

    def __init__(self, response: StreamingResponse) -> None:
        if response._stream_content is not None:
            raise ValueError("this response has content already; leave it out to write to it")
        if response._writer is not None:
            raise ValueError("this response has a writer already")
        response._writer = self
        self._response: StreamingResponse | None = response
        self._go_live = current.go_live
        self._collected: list[bytes] | None = None if self._go_live is not None else []
        self._stream: WrittenStream | None = None
        self._closed = False
        self.aborted = False  # closed by `abort`, or by an exception inside `with`
        self._starting = threading.Lock()  # two threads may make the first write

    def __repr__(self) -> str:
        state = "closed" if self._closed else "live" if self._stream is not None else "not started"
        return f"<StreamingWriter {state}>"

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def collected(self) -> bytes:
        """What was written outside of a request."""
        return b"".join(self._collected or ())

    def writable(self) -> bool:
        """Part of the file interface."""
        return True

    def write(self, data: str | bytes | bytearray | memoryview) -> int:
        """Send `data`, `str` as UTF-8; returns its length. Blocks while the client is behind. [any thread]

        Raises: `ValueError` on a closed writer; `Disconnected` when the client is gone or the server is stopping;
        `TypeError` for anything but text and bytes.
        """
        if isinstance(data, str):
            raw = data.encode()
        elif isinstance(data, (bytes, bytearray, memoryview)):
            raw = bytes(data)
        else:
            raise TypeError(f"write() takes str or bytes, not {type(data).__name__}")
        if self._closed:
            raise ValueError("write to a closed StreamingWriter")
        if self._collected is not None:
            self._collected.append(raw)
        else:
            self._live().write(raw)
        return len(data)

    def writelines(self, lines: Iterable[str | bytes]) -> None:
        """Write one after the other, as they are."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send the head if nothing was written yet; what was written is on its way already. Raises as `write` does."""
        if self._closed:
            raise ValueError("flush of a closed StreamingWriter")
        if self._collected is None:
            self._live()

    def close(self) -> None:
        """End the response; twice is fine. The client gets the end of the body once it has read what was written."""
        if self._closed:
            return
        if self._collected is None:
            self._live()
        self._finish(failed=False)

    def abort(self) -> None:
        """End the response as a failure: its connection is cut, so that nobody takes it for whole. [any thread]"""
        self._finish(failed=True)

    def _finish(self, *, failed: bool) -> None:
        self.aborted = failed if not self._closed else self.aborted
        self._closed = True
        if self._stream is not None:
            self._stream.end(failed=failed)

    def _live(self) -> WrittenStream:
        """The stream behind this, begun if it is not yet."""
        stream = self._stream
        if stream is not None:
            return stream
        with self._starting:
            if self._stream is None:
                assert self._go_live is not None
                self._stream = self._go_live(self._response)
                # Both lead back here, and a writer that everybody forgets must end at once.
                self._response = self._go_live = None
            return self._stream

    def __enter__(self) -> StreamingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # before the first write the error is answered as an error; after it, the connection is cut
            self.abort()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is not None and not self._closed:
            if stream.waits.interrupted is None:  # else the client left first, and to give up was right
                logger.warning("stream=%s: a StreamingWriter was dropped without close(); cut", stream.name)
            self._finish(failed=True)
