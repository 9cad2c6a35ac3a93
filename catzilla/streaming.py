"""Streamed responses, and what a handler or generator can ask of the stream it feeds.

Decides what may be streamed and how items become bytes. Does not know how they reach the client: a response hands a
`Source` to the server, which pulls it (`_core/pulled_stream.py`).
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from catzilla._core.clock import monotonic
from catzilla._core.current import current
from catzilla._core.messages import Source
from catzilla._core.pulled_stream import Pause
from catzilla._core.waits import Waits
from catzilla.response import HeaderFields, Response
from catzilla.writer import StreamingWriter

__all__ = ["CurrentStream", "StreamingResponse", "StreamingWriter", "current_stream", "sleep"]

T = TypeVar("T")

Content = Iterable[Any] | Callable[[], Iterable[Any]]


class StreamingResponse(Response):
    """A response that leaves piece by piece, at the client's pace.

    `content` is a generator, any iterable, a list, or a function that returns one of these; its items are `str`
    (sent as UTF-8), bytes-like, or `sleep(seconds)`. Nothing of it is collected. Without `content`, write to it:
    `response.writer()`.

    The first item is pulled before the head is sent, so an exception until then is a normal error response. After
    that, it cuts the connection. The generator runs on its handler's thread and is always closed there.

    Raises: `TypeError` for content that is no iterable; and as `Response` does.
    """

    def __init__(
        self,
        content: Content | None = None,
        content_type: str = "text/plain",
        status_code: int = 200,
        headers: HeaderFields | None = None,
    ) -> None:
        super().__init__(status_code, content_type, b"", headers)
        self._stream_content = _check_content(content)
        self._wrappers: list[Callable[[Iterable[Any]], Iterable[Any]]] = []
        self._writer: StreamingWriter | None = None

    def writer(self) -> StreamingWriter:
        """A file-like object whose writes are sent at once: `with response.writer() as w: w.write("row\\n")`.

        Raises: `ValueError` if the response has content already, and if it has a writer already.
        """
        return StreamingWriter(self)

    def wrap_stream(self, wrapper: Callable[[Iterable[Any]], Iterable[Any]]) -> None:
        """Put a generator function around the stream: it gets the items and yields what is to be sent instead.

        For middleware: nothing is collected. Raises: `ValueError` for a response that is written to.
        """
        if self._writer is not None:
            raise ValueError("this response is written to, not pulled: there are no items to wrap")
        self._wrappers.append(wrapper)

    @property
    def body(self) -> bytes:
        """What was written outside of a request, as in a unit test; b"" otherwise."""
        return b"" if self._writer is None else self._writer.collected

    @body.setter
    def body(self, value: object) -> None:
        raise ValueError("a StreamingResponse has no body to set; pass content, or write to response.writer()")

    def _encoder(self) -> Callable[[Any], bytes] | None:
        """How items become bytes, where they are not bytes or str already."""
        return None

    def _content(self) -> Source:
        """The source to pull. Calls the function that content may be, so this runs on the handler's thread."""
        content = self._stream_content
        items = content() if callable(content) else content
        if items is None:
            items = ()
        elif callable(content):
            what = f"the function {_name(content)} returned"
            items = _check_content(items, what)
            if callable(items):
                raise TypeError(f"{what} a function, {_name(items)}: call it, or pass it itself")
        for wrapper in self._wrappers:
            items = wrapper(items)
        event_stream = self.content_type.startswith("text/event-stream")
        if event_stream:
            self._open_for_events()
        return Source(items, self._encoder(), event_stream, self._heartbeat())

    def _heartbeat(self) -> float | None:
        return None

    def _open_for_events(self) -> None:
        """What keeps caches and proxies from holding an event stream back."""
        headers = self.headers
        headers.setdefault("Cache-Control", "no-cache")
        headers.setdefault("X-Accel-Buffering", "no")


def sleep(seconds: float) -> Pause:
    """A pause that holds no thread: `yield sleep(0.5)` in a streamed generator.

    It must be yielded; calling it does nothing. Raises: `ValueError` for a negative number.
    """
    return Pause(seconds)


class CurrentStream:
    """The stream that a handler or generator serves; from `current_stream()`.

    Every wait ends early with `Disconnected` when the client leaves or the server stops. It may be handed to another
    thread.
    """

    __slots__ = ("_waits",)

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    def __repr__(self) -> str:
        return f"<CurrentStream {'connected' if self.is_connected else 'disconnected'}>"

    @property
    def is_connected(self) -> bool:
        """Whether the client is still there, as far as is known. [any thread]"""
        return self._waits.interrupted is None

    def sleep(self, seconds: float) -> None:
        """Block for `seconds`. Raises: `Disconnected`. [any thread]"""
        if not seconds >= 0:
            raise ValueError(f"cannot sleep for {seconds!r} seconds; write a number that is not negative")
        self._waits.wait_for(threading.Condition(), _never, seconds)

    def wait(self, event: threading.Event, timeout: float | None = None) -> bool:
        """Block until `event` is set (True) or `timeout` seconds have passed (False). [any thread]

        Raises: `Disconnected`, and `TypeError` for what is no `threading.Event`.
        """
        condition = getattr(event, "_cond", None)  # the only handle there is for a second reason to wake
        if not isinstance(condition, threading.Condition):
            raise TypeError(f"wait() takes a threading.Event, not {type(event).__name__}")
        return self._waits.wait_for(condition, event.is_set, timeout)

    def get(self, source: queue.Queue[T], timeout: float | None = None) -> T:
        """Block until there is an item in a `queue.Queue`, and take it. [any thread]

        Raises: `Disconnected`; `queue.Empty` after `timeout` seconds; `TypeError` for another kind of queue.
        """
        if not isinstance(source, queue.Queue):
            raise TypeError(f"get() takes a queue.Queue, not {type(source).__name__}")
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            try:
                return source.get_nowait()
            except queue.Empty:
                left = None if deadline is None else deadline - monotonic()
                if not self._waits.wait_for(source.not_empty, lambda: _has_news(source), left):
                    raise


def current_stream() -> CurrentStream:
    """The stream of the handler or generator that is running on this thread.

    Outside of a request, as in a unit test, it is one whose client never leaves.
    """
    return CurrentStream(current.waits or Waits())


def _never() -> bool:
    return False


def _has_news(source: queue.Queue[Any]) -> bool:
    """Whether `get_nowait` would not say "empty": also for a queue that was shut down (Python 3.13)."""
    return bool(source._qsize()) or getattr(source, "is_shutdown", False)


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _check_content(content: Any, what: str = "content is") -> Any:
    """Refuse what cannot be streamed, and what can but is surely a mistake."""
    if isinstance(content, (str, bytes, bytearray, memoryview)):
        return [content]
    if isinstance(content, AsyncIterable) or inspect.iscoroutine(content) or inspect.iscoroutinefunction(content):
        raise TypeError(f"{what} asynchronous ({content!r:.60}): write a plain generator, def with yield")
    if inspect.isasyncgenfunction(content):
        raise TypeError(f"{what} an async generator function: write plain def with yield")
    if isinstance(content, Mapping):
        raise TypeError(
            f"{what} a {type(content).__name__}: return it from the handler as it is, or JSONResponse(data)"
        )
    if content is None or callable(content) or isinstance(content, Iterable) or hasattr(content, "__getitem__"):
        return content
    raise TypeError(
        f"{what} {content!r:.60} of type {type(content).__name__}; it may be a generator, an iterable of str or bytes, "
        "or a function that returns one"
    )


def stream_of(value: object) -> StreamingResponse | None:
    """The response that a generator or iterator returned by a handler stands for; None for anything else."""
    return StreamingResponse(value) if isinstance(value, Iterator) else None
