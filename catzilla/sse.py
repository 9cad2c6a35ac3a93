"""Server-Sent Events as bytes (WHATWG HTML section 9.2, "Server-sent events").

Decides how an event is written and which ids and names are refused. Does not send anything, and does not know
heartbeats; reading events is `sse_parser.py`.
"""

from __future__ import annotations

from typing import Any

from catzilla.json_text import to_json


class Event:
    """One event. `data` is `str`, sent as it is, or anything that is JSON; several lines become one text again.

    `id` is what the client sends back as `Last-Event-ID` after a reconnect, `event` the type that it listens for
    ("message" if left out), `retry` the time in milliseconds before it reconnects.

    Raises: `ValueError` for CR, LF or NUL in `id` or `event` (they would end the field or void it) and a `retry` below
    0, `TypeError` for other types; `to_json`'s errors for `data`.
    """

    __slots__ = ("data", "event", "id", "retry", "text")

    def __init__(
        self,
        data: Any,
        id: str | int | None = None,  # noqa: A002  the name of the field in the specification
        event: str | None = None,
        retry: int | None = None,
    ) -> None:
        if retry is not None:
            if type(retry) is not int:
                raise TypeError(f"retry must be whole milliseconds, not {retry!r}")
            if retry < 0:
                raise ValueError(f"retry must be 0 milliseconds or more, not {retry}")
        self.data = data
        self.id = _field("id", str(id) if type(id) is int else id)
        self.event = _field("event", event)
        self.retry = retry
        # Here and not in encode(), so that what is no JSON is refused where it was written.
        self.text = data if isinstance(data, str) else to_json(data)

    def encode(self) -> bytes:
        """The event as it goes over the wire, with the empty line that dispatches it."""
        lines = []
        if self.id is not None:
            lines.append(f"id: {self.id}\n")
        if self.event is not None:
            lines.append(f"event: {self.event}\n")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}\n")
        lines.append(_data(self.text))
        return "".join(lines).encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str | None, str | None, int | None]:
        return (self.text, self.id, self.event, self.retry)

    def __repr__(self) -> str:
        return f"Event({self.data!r}, id={self.id!r}, event={self.event!r}, retry={self.retry!r})"


def encode_event(item: object) -> bytes:
    """An item of an event stream as bytes: an `Event`, a dict (sent as JSON) or a `str` (sent as it is).

    Raises: `TypeError` for anything else, naming its type; `to_json`'s errors for a dict.
    """
    if isinstance(item, Event):
        return item.encode()
    if isinstance(item, str):
        return _data(item).encode()
    if isinstance(item, dict):
        return _data(to_json(item)).encode()
    raise TypeError(f"an event stream yields Event, dict or str, not {type(item).__name__}: write Event(data)")


def comment(text: str = "") -> bytes:
    """A comment, which clients ignore and which keeps proxies from closing a silent connection.

    One line without an empty one behind it, so that it may stand between two lines of an event.
    """
    return "".join(f": {line}\n" if line else ":\n" for line in _lines(text)).encode()


def _data(text: str) -> str:
    """The data field and the empty line. A line break of any kind would end the field, so each line gets its own."""
    if "\n" not in text and "\r" not in text:
        return f"data: {text}\n\n"
    return "".join(f"data: {line}\n" for line in _lines(text)) + "\n"


def _lines(text: str) -> list[str]:
    """The lines of a text by the format's three line ends; `str.splitlines` knows more of them, and drops the last."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _field(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    for mark, called in (("\r", "CR"), ("\n", "LF"), ("\0", "NUL")):
        if mark in value:
            raise ValueError(f"{name} {value!r} has {called}, which an event's {name} may not hold")
    return value
