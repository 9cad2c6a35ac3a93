"""What a test client tells a test.

    ClientError
     ├─ Frozen            a read of a connection that the test froze
     ├─ IncompleteBody    the body was cut before its end
     ├─ NotAnEventStream  events were asked for and something else came
     └─ LeakError         (an AssertionError) the stopped server left a thread or a generator behind

Silence past its limit is a plain `TimeoutError`, and a connection that the peer refuses or resets a plain
`ConnectionError`, both with a message that names the request.
"""

from __future__ import annotations


class ClientError(Exception):
    """The root of the errors of `catzilla.testing`."""


class Frozen(ClientError):
    """The connection is frozen and this read could not end; `live.thaw(client)` lets it read again."""


class IncompleteBody(ClientError, EOFError):
    """The connection ended before the body did, so what arrived must not be taken for the whole.

    `received_bytes` is how much of the body had arrived. RFC 9112 section 8.
    """

    def __init__(self, request: str, received_bytes: int, why: str) -> None:
        super().__init__(f"the body of {request} was cut after {received_bytes} bytes: {why}")
        self.received_bytes = received_bytes


class NotAnEventStream(ClientError):
    """The answer to a request for events is not 200 with `text/event-stream`: an `EventSource` would give up."""


class LeakError(ClientError, AssertionError):
    """A server was stopped and something of it is still there: a worker thread, or a generator nobody closed."""
