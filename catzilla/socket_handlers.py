"""How a WebSocket handler is called: a function that runs as long as the connection, or a class with callbacks.

Decides what an exception and a returned value mean for the connection. Does not know what was decorated
(`socket_binding.py`), nor how handlers get their threads (`_core/socket_handling.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from catzilla._core import codes
from catzilla._core.fanout import Fanout
from catzilla._core.pace import CallbackPace
from catzilla._core.ws_connection import WebSocketConnection
from catzilla.errors import Disconnected, Forbidden, HTTPError, InvalidMessage, RateLimited, SlowConsumer
from catzilla.handlers import BoundHandler, with_article
from catzilla.websocket import WebSocket

logger = logging.getLogger("catzilla")

_NO_STATUS = "; an open WebSocket has no status to answer with: write ws.close(4000, reason), or raise it in auth"

MakeHandler = Callable[[WebSocket], "Handler"]
"""From a WebSocket to its handler."""


class ReturnWarning:
    """Says that what a handler returns goes nowhere, once for all its connections and messages. [worker threads]"""

    __slots__ = ("_name", "_said")

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = threading.Lock()  # taken, for good, by whoever says it

    def __call__(self, value: object, callback: str = "") -> None:
        if self._said.acquire(blocking=False):
            logger.warning(
                "handler=%s%s returned %s, which goes nowhere: a WebSocket handler sends with ws.send(...)",
                self._name,
                callback and f".{callback}",
                with_article(type(value).__name__),
            )


class SocketPlan:
    """What all connections of one route share. Read by any thread, but for what says so itself."""

    __slots__ = ("name", "pace", "production", "warn")

    def __init__(self, name: str, production: bool) -> None:
        self.name = name  # of its handler
        self.production = production
        self.warn = ReturnWarning(name)
        self.pace = CallbackPace()


class Handler:
    """What both kinds have in common. See `_core.upgrade.SocketHandler`."""

    __slots__ = ("_plan", "entering", "ws")

    is_linear = False

    def __init__(self, ws: WebSocket, plan: SocketPlan) -> None:
        self.ws = ws
        self.entering: Callable[[WebSocketConnection, Fanout], object] | None = None  # what the opening brings with it
        self._plan = plan

    @property
    def name(self) -> str:
        """See `_core.upgrade.SocketHandler`. [any thread]"""
        return self._plan.name

    @property
    def pace(self) -> CallbackPace:
        """See `_core.upgrade.SocketHandler`. [any thread]"""
        return self._plan.pace

    def bind(self, connection: WebSocketConnection) -> None:
        """The connection is open. [loop thread]"""
        self.ws.bind(connection)
        if self.entering is not None:
            self.entering(connection, connection.services.fanout)

    def release(self) -> None:
        """Let go of what the user's side holds; it need not wait for a garbage collection."""
        self.entering = None

    def opened(self) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        raise NotImplementedError

    def received(self, message: str | bytes) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        raise NotImplementedError

    def ended(self, code: int, reason: str) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        raise NotImplementedError

    def failed(self, error: BaseException) -> tuple[int, str]:
        """Log what the handler raised, as far as it is worth it; the code and reason to close with. [worker thread]"""
        if isinstance(error, Disconnected) and self.ws.closed:
            return codes.NORMAL, ""  # it is closed already: a handler that does not catch this has nothing to add
        known = _known_failure(error)
        if known is not None:
            hint = _NO_STATUS if known[0] == codes.INTERNAL_ERROR else ""
            logger.warning("handler=%s websocket=%s closed: %s%s", self.name, self.ws.id, error, hint)
            return known
        outcome = "" if self.ws.closed else "; closed with 1011"
        logger.error("handler=%s websocket=%s failed%s", self.name, self.ws.id, outcome, exc_info=error)
        return codes.INTERNAL_ERROR, "" if self._plan.production else _cut(_described(error))


class LinearHandler(Handler):
    """A function that serves the connection from its opening to its end."""

    __slots__ = ("_call",)

    is_linear = True

    def __init__(self, ws: WebSocket, plan: SocketPlan, call: BoundHandler) -> None:
        super().__init__(ws, plan)
        self._call = call

    def opened(self) -> None:
        """Run it. [worker thread]"""
        returned = self._call(self.ws, self.ws.path_params)
        if returned is not None:
            self._plan.warn(returned)

    def received(self, message: str | bytes) -> None:
        raise AssertionError("a linear handler receives by itself")

    def ended(self, code: int, reason: str) -> None:
        raise AssertionError("a linear handler sees the end by itself")


class CallbackHandler(Handler):
    """An instance of the user's class, made on a worker thread before `on_open`."""

    __slots__ = ("_instance", "_on_message", "_takes", "_target")

    def __init__(self, ws: WebSocket, plan: SocketPlan, target: type, takes: dict[str, tuple[str, ...]]) -> None:
        super().__init__(ws, plan)
        self._target = target
        self._takes = takes
        self._instance: Any = None
        self._on_message: Callable[..., Any] | None = None

    def opened(self) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        self._instance = self._target()
        if "on_message" in self._takes:
            self._on_message = self._bound("on_message")
        if "on_open" in self._takes:
            self._call("on_open", self.ws)

    def received(self, message: str | bytes) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        if self._on_message is not None:
            returned = self._on_message(self.ws, message)
            if returned is not None:
                self._plan.warn(returned, "on_message")

    def ended(self, code: int, reason: str) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        if "on_close" in self._takes and self._instance is not None:
            self._call("on_close", self.ws, code, reason)

    def release(self) -> None:
        """Let go of the instance too."""
        super().release()
        self._instance = self._on_message = None

    def _call(self, callback: str, *arguments: Any) -> None:
        returned = self._bound(callback)(*arguments)
        if returned is not None:
            self._plan.warn(returned, callback)

    def _bound(self, callback: str) -> Callable[..., Any]:
        method = getattr(self._instance, callback)
        names = self._takes[callback]
        return partial(method, **{name: self.ws.path_params[name] for name in names}) if names else method


def _known_failure(error: BaseException) -> tuple[int, str] | None:
    """The exceptions that say by themselves why the connection ends."""
    if isinstance(error, SlowConsumer):
        return codes.SLOW, "too slow"
    if isinstance(error, RateLimited):
        return codes.RATE_LIMITED, "too often"
    if isinstance(error, InvalidMessage):
        return codes.INVALID_DATA, _cut(str(error))
    if isinstance(error, Forbidden) or (isinstance(error, HTTPError) and error.status_code == 403):
        return codes.FORBIDDEN, "forbidden"
    if isinstance(error, HTTPError) and error.status_code == 401:
        return codes.UNAUTHENTICATED, "unauthenticated"
    if isinstance(error, HTTPError):
        return codes.INTERNAL_ERROR, ""
    return None


def _described(error: BaseException) -> str:
    """The type and the text of what the user's code raised, which may be a class whose text fails as well."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:
        return name


def _cut(reason: str) -> str:
    """As much of a text as a close frame holds."""
    return reason.encode(errors="replace")[: codes.MAX_REASON_BYTES].decode(errors="ignore")
