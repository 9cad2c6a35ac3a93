"""What a test client tells a test.

    ClientError
     ├─ Frozen            a read of a connection that the test froze
     ├─ IncompleteBody    the body was cut before its end
     ├─ NotAnEventStream  events were asked for and something else came
     ├─ HandshakeRefused  a WebSocket was asked for and an HTTP response came
     ├─ WebSocketClosed   the WebSocket has ended, so nothing more comes and nothing more can be sent
     ├─ ProtocolViolation the server broke the rules of WebSockets
     └─ LeakError         (an AssertionError) the stopped server left a thread or a generator behind

Silence past its limit is a plain `TimeoutError`, and a connection that the peer refuses or resets a plain
`ConnectionError`, both with a message that names the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catzilla.testing.http_client import ClientResponse

_SHOWN_CHARACTERS = 200  # of the body of a refusal, in its message


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


class HandshakeRefused(ClientError):
    """The server answered the upgrade with a response other than 101 (RFC 6455 section 4.1).

    `response` is all of it; `status_code`, `headers`, `body` and `text` are its parts.
    """

    def __init__(self, request: str, response: ClientResponse) -> None:
        shown = response.text.strip()[:_SHOWN_CHARACTERS]
        super().__init__(f"{request} was refused: {response.status_code} {response.reason}{shown and ': '}{shown}")
        self.response = response
        self.status_code = response.status_code
        self.headers = response.headers
        self.body = response.body
        self.text = response.text


class WebSocketClosed(ClientError):
    """The WebSocket has ended.

    `code` and `reason` are those of the server's close frame; 1005 if it named none, 1006 if the connection ended
    without a close frame (RFC 6455 section 7.4.1).
    """

    def __init__(self, request: str, code: int, reason: str, why: str = "") -> None:
        ended = "the connection ended without a close frame" if code == 1006 else f"closed with {code}"
        super().__init__(": ".join(filter(None, [f"{request} is over", ended, reason, why])))
        self.code = code
        self.reason = reason


class ProtocolViolation(ClientError):
    """The server sent what RFC 6455 forbids: a head, a frame or a text. The connection is closed."""


class LeakError(ClientError, AssertionError):
    """A server was stopped and something of it is still there: a worker thread, or a generator nobody closed."""
