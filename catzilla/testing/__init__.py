"""What a test of a catzilla application needs: a live server and the clients that belong to it.

In pytest the fixture `live_server` makes one; `with LiveServer(app) as live:` does anywhere else.
"""

from __future__ import annotations

from catzilla.testing.errors import ClientError, Frozen, IncompleteBody, LeakError, NotAnEventStream
from catzilla.testing.event_client import ClientEvents
from catzilla.testing.http_client import ClientResponse, ClientStream, HttpConnection
from catzilla.testing.live import LiveServer

__all__ = [
    "ClientError",
    "ClientEvents",
    "ClientResponse",
    "ClientStream",
    "Frozen",
    "HttpConnection",
    "IncompleteBody",
    "LeakError",
    "LiveServer",
    "NotAnEventStream",
]
