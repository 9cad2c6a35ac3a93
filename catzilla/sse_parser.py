"""Reads Server-Sent Events: bytes in, events out (WHATWG HTML section 9.2.6).

Decides nothing that the specification does not, except for the most that one event may take. Does not know sockets;
clients and tests feed it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from catzilla.errors import ProtocolError

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
_LARGEST_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ReceivedEvent:
    """One event as a browser would dispatch it.

    `id` is the last id seen on the stream, which need not be this event's own, "" before the first. `retry` is the
    reconnection time in milliseconds that came with this event, None without one.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


class EventParser:
    """Turns the bytes of an event stream into events, however they are cut. One thread.

    What is not finished by an empty line when the stream ends is never an event.
    """

    def __init__(self, max_event_bytes: int = _LARGEST_EVENT_BYTES) -> None:
        self.last_event_id = ""
        self._max_event_bytes = max_event_bytes
        self._events: deque[ReceivedEvent] = deque()
        self._line = bytearray()  # the line that is not finished
        self._at_start = True  # of the stream, where a byte order mark may stand
        self._skip_lf = False  # the last byte was CR, so an LF belongs to it
        self._clear()

    def _clear(self) -> None:
        self._data: list[str] = []
        self._size = 0
        self._type = ""
        self._retry: int | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they arrive. Raises: `ProtocolError` for an event over `max_event_bytes`."""
        if self._skip_lf and data:
            data = data[1:] if data[:1] == b"\n" else data
            self._skip_lf = False
        start = 0
        for end in _LINE_END.finditer(data):
            self._line += data[start : end.start()]
            start = end.end()
            self._take_line()
        # A CR that ends the data ends the line too: waiting for its LF would hold a finished event back.
        self._skip_lf = self._skip_lf or data[-1:] == b"\r"
        self._line += data[start:]
        self._bound()

    def next_event(self) -> ReceivedEvent | None:
        """The next event, None when more data is needed."""
        return self._events.popleft() if self._events else None

    def _take_line(self) -> None:
        self._bound()
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch()
            return
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon and not name:
            return  # a comment
        self._take_field(name, value.removeprefix(" "))

    def _take_field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1  # in characters: bytes would cost a second encoding, and bound little better
        elif name == "event":
            self._type = value
        elif name == "id":
            if "\0" not in value:
                self.last_event_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value)

    def _dispatch(self) -> None:
        """An empty line: what was collected is an event, if it has data."""
        if self._data:
            event = ReceivedEvent("\n".join(self._data), self._type or "message", self.last_event_id, self._retry)
            self._events.append(event)
        self._clear()

    def _bound(self) -> None:
        if self._size + len(self._line) > self._max_event_bytes:
            raise ProtocolError(f"an event is larger than {self._max_event_bytes} bytes")

    def __repr__(self) -> str:
        return f"<EventParser events={len(self._events)} pending={self._size + len(self._line)} bytes>"
