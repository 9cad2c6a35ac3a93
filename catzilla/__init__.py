"""Catzilla: streaming and real-time web applications in plain synchronous Python."""

from catzilla.app import App, Catzilla
from catzilla.errors import (
    BodyTooLarge,
    CatzillaError,
    Disconnected,
    HandlerReturnError,
    HTTPError,
    RouteError,
    SettingsError,
)
from catzilla.events import CSVResponse, EventStream, JSONLinesResponse
from catzilla.files import FileResponse
from catzilla.groups import RouterGroup
from catzilla.request import Request
from catzilla.response import HTMLResponse, JSONResponse, RedirectResponse, Response
from catzilla.serve import Server
from catzilla.settings import Settings
from catzilla.sse import Event
from catzilla.stats import StreamingStats, streaming_stats
from catzilla.streaming import CurrentStream, StreamingResponse, StreamingWriter, current_stream, sleep

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
    "HTMLResponse",
    "HTTPError",
    "HandlerReturnError",
    "JSONLinesResponse",
    "JSONResponse",
    "RedirectResponse",
    "Request",
    "Response",
    "RouteError",
    "RouterGroup",
    "Server",
    "Settings",
    "SettingsError",
    "StreamingResponse",
    "StreamingStats",
    "StreamingWriter",
    "current_stream",
    "sleep",
    "streaming_stats",
]
