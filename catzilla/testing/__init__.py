"""What a test of a catzilla application needs: a live server and the clients that belong to it.

In pytest the fixture `live_server` makes one; `with LiveServer(app) as live:` does anywhere else.
"""

from __future__ import annotations

from catzilla.testing.broker_contract import BrokerContract
from catzilla.testing.errors import (
    ClientError,
    Frozen,
    HandshakeRefused,
    IncompleteBody,
    LeakError,
    NotAnEventStream,
    ProtocolViolation,
    WebSocketClosed,
)
from catzilla.testing.event_client import ClientEvents
from catzilla.testing.http_client import ClientResponse, ClientStream, HttpConnection
from catzilla.testing.live import LiveServer
from catzilla.testing.raw_frames import ReceivedFrame, raw_frame
from catzilla.testing.websocket_client import ClientWebSocket

__all__ = [
    "BrokerContract",
    "ClientError",
    "ClientEvents",
    "ClientResponse",
    "ClientStream",
    "ClientWebSocket",
    "Frozen",
    "HandshakeRefused",
    "HttpConnection",
    "IncompleteBody",
    "LeakError",
    "LiveServer",
    "NotAnEventStream",
    "ProtocolViolation",
    "ReceivedFrame",
    "WebSocketClosed",
    "raw_frame",
]
