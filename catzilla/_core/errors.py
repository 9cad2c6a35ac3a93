"""The errors that the server itself raises.

CatzillaError
 ├─ Disconnected (also a ConnectionError)   the peer is gone, or the server is stopping
 ├─ ProtocolError                           what arrived, or what was to be sent, breaks the protocol
 │   ├─ RemoteProtocolError                 the peer did it; carries the status to answer with
 │   └─ LocalProtocolError                  our side did it
 ├─ BodyTooLarge                            a request body over `max_body_bytes`
 ├─ Overloaded                              a budget is full
 ├─ SlowConsumer (also a TimeoutError)      a WebSocket client did not take what it was sent in time
 └─ RateLimited                             a WebSocket client does more than it may
"""

from __future__ import annotations


class CatzillaError(Exception):
    """The root of what catzilla raises on purpose."""


class Disconnected(CatzillaError, ConnectionError):
    """The peer is gone, or the server is stopping: nothing more can be sent or received.

    `code` and `reason` are the WebSocket close code and text; an HTTP stream that ends has 1006, one that the
    stopping server ends 1001 (RFC 6455 section 7.4.1).
    """

    def __init__(self, code: int = 1006, reason: str = "the client is gone") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"


class ProtocolError(CatzillaError):
    """A breach of the protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something malformed; `status` is what it is answered with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LocalProtocolError(ProtocolError):
    """Our side tried to send something that the protocol does not allow in this state."""


class BodyTooLarge(CatzillaError):
    """A request body is larger than `max_body_bytes`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than {limit} bytes (max_body_bytes)")
        self.limit = limit


class Overloaded(CatzillaError):
    """A budget of the server is full: the client is answered 503."""


class SlowConsumer(CatzillaError, TimeoutError):
    """A WebSocket client did not take what it was sent within `send_timeout`; what `send` was given is dropped."""


class RateLimited(CatzillaError):
    """A WebSocket client does something more often than it may; `after` is when it may again, in seconds."""

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after
