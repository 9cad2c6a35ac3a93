"""How a WebSocket handler is called: a function that runs as long as the connection, or a class with callbacks.

Decides at registration which of them it is and which arguments each takes, and what an exception means for the
connection. Does not know how handlers get their threads (`_core/socket_handling.py`).
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from catzilla._core import codes
from catzilla._core.fanout import Fanout
from catzilla._core.ws_connection import WebSocketConnection
from catzilla.errors import Disconnected, Forbidden, HTTPError, InvalidMessage, RateLimited, RouteError, SlowConsumer
from catzilla.handlers import bind_arguments, handler_name, refuse_unusable
from catzilla.websocket import WebSocket

logger = logging.getLogger("catzilla")

FOREIGN_CALLBACKS = {"on_connect": "on_open", "on_disconnect": "on_close", "on_receive": "on_message"}
CALLBACKS = {"on_open": 0, "on_message": 1, "on_close": 2}  # and how many arguments follow the WebSocket


MakeHandler = Callable[[WebSocket], "Handler"]
"""From a WebSocket to its handler."""


def bind_socket_handler(target: Any, names: Collection[str], path: str, *, production: bool) -> MakeHandler:
    """What makes the handler of each connection out of what was decorated.

    Raises: `RouteError` for what can be neither, saying what to write instead.
    """
    if isinstance(target, type):
        return _bind_class(target, names, path, production)
    if any(callable(getattr(type(target), callback, None)) for callback in CALLBACKS):
        name = type(target).__name__
        raise RouteError(
            f"path {path!r}: the handler is an instance of {name}: write the class, not an instance, {name} without "
            "(); each connection gets an instance of its own"
        )
    refuse_unusable(target, path)
    if inspect.isgeneratorfunction(target):
        raise RouteError(
            f"handler {handler_name(target)} (path {path!r}) yields: a WebSocket handler sends with ws.send(...)"
        )
    call = bind_arguments(target, names, path)
    return lambda ws: LinearHandler(ws, handler_name(target), production, call)


def _bind_class(target: type, names: Collection[str], path: str, production: bool) -> MakeHandler:
    name = handler_name(target)
    _refuse_unknown_callbacks(target, name, path)
    present = [callback for callback in CALLBACKS if callable(getattr(target, callback, None))]
    if not present:
        raise RouteError(f"class {name} (path {path!r}) has no on_open, on_message or on_close: write one of them")
    try:
        inspect.signature(target).bind()
    except TypeError as error:
        raise RouteError(
            f"class {name} (path {path!r}) is made anew for each connection, without arguments: {error}"
        ) from None
    except ValueError:  # a signature that cannot be told
        pass
    takes = {callback: _parameters(target, callback, name, names, path) for callback in present}
    return lambda ws: CallbackHandler(ws, name, production, target, takes)


def _refuse_unknown_callbacks(target: type, name: str, path: str) -> None:
    """Refuse a misspelled callback, and the name that another framework has for one: neither would ever be called.

    Any other `on_` is the user's own, to dispatch messages by, say.
    """
    for method in dir(target):
        if method.startswith("on_") and method not in CALLBACKS and callable(getattr(target, method, None)):
            close = difflib.get_close_matches(method, CALLBACKS, n=1, cutoff=0.8)
            meant = FOREIGN_CALLBACKS.get(method) or (close[0] if close else None)
            if meant is not None:
                raise RouteError(
                    f"class {name} (path {path!r}) has {method}, which is never called: the callbacks are "
                    f"{', '.join(CALLBACKS)}; did you mean {meant}?"
                )


def _parameters(target: type, callback: str, name: str, names: Collection[str], path: str) -> tuple[str, ...]:
    """The path parameters that a callback takes beside its own arguments."""
    method = getattr(target, callback)
    refuse_unusable(method, path, f"callback {callback}")
    if inspect.isgeneratorfunction(method):
        raise RouteError(f"{name}.{callback} (path {path!r}) yields: a WebSocket handler sends with ws.send(...)")
    parameters = list(inspect.signature(method).parameters.values())
    own = CALLBACKS[callback] + 1
    if not isinstance(inspect.getattr_static(target, callback), staticmethod | classmethod):
        own += 1  # `self`
    kinds = {parameter.kind for parameter in parameters}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return tuple(names)
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return ()
    if len(parameters) < own:
        expected = {"on_open": "self, ws", "on_message": "self, ws, message", "on_close": "self, ws, code, reason"}
        raise RouteError(f"{name}.{callback} (path {path!r}) takes too few arguments: write ({expected[callback]})")
    rest = parameters[own:]
    for parameter in rest:
        if parameter.name not in names and parameter.default is parameter.empty:
            raise RouteError(
                f"{name}.{callback} takes {parameter.name!r}, but path {path!r} does not have it: "
                f"write {{{parameter.name}}} in the path, or give it a default"
            )
    return tuple(parameter.name for parameter in rest if parameter.name in names)


class Handler:
    """What both kinds have in common. See `_core.upgrade.SocketHandler`."""

    __slots__ = ("_production", "entering", "name", "ws")

    is_linear = False

    def __init__(self, ws: WebSocket, name: str, production: bool) -> None:
        self.ws = ws
        self.name = name
        self.entering: Callable[[WebSocketConnection, Fanout], object] | None = None  # what the opening brings with it
        self._production = production

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
            logger.warning("handler=%s websocket=%s closed: %s", self.name, self.ws.id, error)
            return known
        outcome = "" if self.ws.closed else "; closed with 1011"
        logger.error("handler=%s websocket=%s failed%s", self.name, self.ws.id, outcome, exc_info=error)
        reason = "" if self._production else f"{type(error).__name__}: {error}"
        return codes.INTERNAL_ERROR, _cut(reason)


class LinearHandler(Handler):
    """A function that serves the connection from its opening to its end."""

    __slots__ = ("_call",)

    is_linear = True

    def __init__(self, ws: WebSocket, name: str, production: bool, call: Callable[[Any, Any], Any]) -> None:
        super().__init__(ws, name, production)
        self._call = call

    def opened(self) -> None:
        """Run it. [worker thread]"""
        self._call(self.ws, self.ws.path_params)

    def received(self, message: str | bytes) -> None:
        raise AssertionError("a linear handler receives by itself")

    def ended(self, code: int, reason: str) -> None:
        raise AssertionError("a linear handler sees the end by itself")


class CallbackHandler(Handler):
    """An instance of the user's class, made on a worker thread before `on_open`."""

    __slots__ = ("_instance", "_on_message", "_takes", "_target")

    def __init__(
        self, ws: WebSocket, name: str, production: bool, target: type, takes: dict[str, tuple[str, ...]]
    ) -> None:
        super().__init__(ws, name, production)
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
            self._bound("on_open")(self.ws)

    def received(self, message: str | bytes) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        if self._on_message is not None:
            self._on_message(self.ws, message)

    def ended(self, code: int, reason: str) -> None:
        """See `_core.upgrade.SocketHandler`. [worker thread]"""
        if "on_close" in self._takes and self._instance is not None:
            self._bound("on_close")(self.ws, code, reason)

    def release(self) -> None:
        """Let go of the instance too."""
        super().release()
        self._instance = self._on_message = None

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
    return None


def _cut(reason: str) -> str:
    """As much of a text as a close frame holds."""
    return reason.encode(errors="replace")[: codes.MAX_REASON_BYTES].decode(errors="ignore")
