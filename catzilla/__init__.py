"""Catzilla: streaming and real-time web applications in plain synchronous Python."""

from catzilla._core.publication import Position
from catzilla.app import App, Catzilla
from catzilla.auth import bearer_token
from catzilla.errors import (
    BodyTooLarge,
    CatzillaError,
    Disconnected,
    Forbidden,
    HandlerReturnError,
    HTTPError,
    InvalidMessage,
    RateLimited,
    RouteError,
    SettingsError,
    SlowConsumer,
)
from catzilla.events import CSVResponse, EventStream, JSONLinesResponse
from catzilla.files import FileResponse
from catzilla.groups import RouterGroup
from catzilla.request import Request
from catzilla.response import HTMLResponse, JSONResponse, RedirectResponse, Response
from catzilla.rooms import Message, Room
from catzilla.serve import Server
from catzilla.settings import Settings
from catzilla.sse import Event
from catzilla.stats import StreamingStats, streaming_stats
from catzilla.streaming import CurrentStream, StreamingResponse, StreamingWriter, current_stream, sleep
from catzilla.websocket import WebSocket

__version__ = "0.1.0"

__all__ = [
    "App",
    "BodyTooLarge",
    "CSVResponse",
    "Catzilla",
    "CatzillaError",
    "CurrentStream",
    "Disconnected",
    "Event",
    "EventStream",
    "FileResponse",
    "Forbidden",
    "HTMLResponse",
    "HTTPError",
    "HandlerReturnError",
    "InvalidMessage",
    "JSONLinesResponse",
    "JSONResponse",
    "Message",
    "Position",
    "RateLimited",
    "RedirectResponse",
    "Request",
    "Response",
    "Room",
    "RouteError",
    "RouterGroup",
    "Server",
    "Settings",
    "SettingsError",
    "SlowConsumer",
    "StreamingResponse",
    "StreamingStats",
    "StreamingWriter",
    "WebSocket",
    "bearer_token",
    "current_stream",
    "sleep",
    "streaming_stats",
]
