"""Responses for rows and events: Server-Sent Events, JSON lines, CSV.

Each says how one item becomes bytes; the encoding runs while the stream is pulled, item by item.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from catzilla.headers import content_disposition
from catzilla.json_text import to_json
from catzilla.response import HeaderFields
from catzilla.sse import encode_event
from catzilla.streaming import Content, StreamingResponse


class EventStream(StreamingResponse):
    """Server-Sent Events (WHATWG HTML section 9.2). `events` gives `Event`, dict (sent as JSON) or str.

    After `heartbeat` seconds of silence the server sends a comment, so that proxies keep the connection open and a
    client that has left is noticed; 0 sends none.
    """

    def __init__(
        self,
        events: Content | None = None,
        heartbeat: float = 15.0,
        status_code: int = 200,
        headers: HeaderFields | None = None,
    ) -> None:
        if not heartbeat >= 0:
            raise ValueError(f"heartbeat is {heartbeat!r}; write seconds, or 0 for none")
        super().__init__(events, "text/event-stream", status_code, headers)
        self._heartbeat_seconds = float(heartbeat)

    def _encoder(self) -> Callable[[Any], bytes]:
        return encode_event

    def _heartbeat(self) -> float:
        return self._heartbeat_seconds


class JSONLinesResponse(StreamingResponse):
    """`rows` as JSON, one a line (application/x-ndjson). Any JSON value is a row."""

    def __init__(
        self, rows: Content | None = None, status_code: int = 200, headers: HeaderFields | None = None
    ) -> None:
        super().__init__(rows, "application/x-ndjson", status_code, headers)

    def _encoder(self) -> Callable[[Any], bytes]:
        return _json_line


class CSVResponse(StreamingResponse):
    """`rows` as CSV (RFC 4180), each a sequence of values; `header` is the first line.

    With `filename` a browser saves it.
    """

    def __init__(
        self,
        rows: Content,
        header: Sequence[Any] | None = None,
        filename: str | None = None,
        status_code: int = 200,
        headers: HeaderFields | None = None,
    ) -> None:
        super().__init__(rows, "text/csv", status_code, headers)
        if filename is not None:
            self.set_header("Content-Disposition", content_disposition(filename))
        if header is not None:
            first = list(header)
            self.wrap_stream(lambda rows: _with_first(first, rows))

    def _encoder(self) -> Callable[[Any], bytes]:
        # `writerow` returns what the file's `write` returns: with an echo for a file, the line itself.
        writerow = csv.writer(_Echo()).writerow

        def encode(row: Iterable[Any]) -> bytes:
            if isinstance(row, (str, bytes, Mapping)):
                hint = "; write row.values()" if isinstance(row, Mapping) else ""
                raise TypeError(f"a CSV row is a list or tuple of values, not {type(row).__name__} ({row!r:.40}){hint}")
            line: Any = writerow(row)
            return bytes(line)

        return encode


class _Echo:
    """A file whose `write` returns what it was given."""

    def write(self, line: str) -> bytes:
        return line.encode()


def _with_first(first: Any, rows: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from rows


def _json_line(row: object) -> bytes:
    return to_json(row).encode() + b"\n"
