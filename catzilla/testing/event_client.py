"""Server-Sent Events as a test reads them: an iterator of events over a stream, parsed as an `EventSource` would.

Comments, heartbeats among them, are not events; who wants to see them reads the bytes with `stream()`.
"""

from __future__ import annotations

from collections.abc import Iterator

from catzilla.headers import Headers
from catzilla.sse_parser import EventParser, ReceivedEvent
from catzilla.testing.errors import NotAnEventStream
from catzilla.testing.http_client import ClientStream
from catzilla.testing.wire import Wire


class ClientEvents:
    """An iterator of events with `.id .event .data .retry`, and a context manager that closes the connection.

    `arrivals` has, for each event so far, the seconds from the request to the read that completed it.
    """

    def __init__(self, stream: ClientStream) -> None:
        self.status_code: int = stream.status_code
        self.headers: Headers = stream.headers
        self.arrivals: list[float] = []
        self._stream = stream
        self._parser = EventParser()

    @property
    def wire(self) -> Wire:
        """The connection underneath, for the faults."""
        return self._stream.wire

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return self

    def __next__(self) -> ReceivedEvent:
        """The next event; blocks until it is complete.

        Raises: `NotAnEventStream` if the answer is none, and what `ClientStream` raises.
        """
        self._check_answer()
        while (event := self._parser.next_event()) is None:
            self._parser.receive_data(next(self._stream))
        self.arrivals.append(self._stream.arrivals[-1])
        return event

    def close(self) -> None:
        """Close the connection, as an `EventSource` that is not wanted any more."""
        self._stream.close()

    def __enter__(self) -> ClientEvents:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_answer(self) -> None:
        content_type = self.headers.get("content-type", "nothing")
        if self.status_code != 200 or content_type.split(";")[0].strip() != "text/event-stream":
            answer = f"{self.status_code} with {content_type}"
            raise NotAnEventStream(f"{self.wire.purpose} was answered {answer}, not 200 with text/event-stream")
