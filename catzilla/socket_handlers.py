"""How a WebSocket handler is called: a function that runs as long as the connection, or a class with callbacks.

Decides at registration which of them it is and which arguments each takes, and what an exception means for the
connection. Does not know how handlers get their threads (`_core/socket_handling.py`).
"""

from __future__ import annotations

import difflib
import inspect
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from catzilla._core import codes
from catzilla._core.fanout import Fanout
from catzilla._core.ws_connection import WebSocketConnection
from catzilla.errors import Disconnected, Forbidden, HTTPError, InvalidMessage, RateLimited, RouteError, SlowConsumer
from catzilla.handlers import (
    BoundHandler,
    bind_arguments,
    handler_name,
    is_annotated,
    is_request,
    refuse_unusable,
    with_article,
)
from catzilla.websocket import WebSocket

logger = logging.getLogger("catzilla")

FOREIGN_CALLBACKS = {"on_connect": "on_open", "on_disconnect": "on_close", "on_receive": "on_message"}
CALLBACKS = {"on_open": 0, "on_message": 1, "on_close": 2}  # and how many arguments follow the WebSocket
# What a name means when case and underscores do not count: onMessage, OnOpen, onDisconnect.
_SPELLED_OTHERWISE = {
    name.replace("_", ""): FOREIGN_CALLBACKS.get(name, name) for name in CALLBACKS | FOREIGN_CALLBACKS
}
_SOCKET_NAMES = ("ws", "websocket", "socket")  # what a parameter for the WebSocket may be called

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
    refuse_unusable(target, path, "WebSocket handler")
    name = handler_name(target)
    if inspect.isgeneratorfunction(target):
        raise RouteError(f"handler {name} (path {path!r}) yields: a WebSocket handler sends with ws.send(...)")
    call, warn = _bind_linear(target, names, path), _ReturnWarning(name)
    return lambda ws: LinearHandler(ws, name, production, warn, call)


def _bind_linear(target: Callable[..., Any], names: Collection[str], path: str) -> BoundHandler:
    """As `bind_arguments` does, but the WebSocket comes first, and the request is no argument."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        parameters = None
    # A wrapper that hides its signature, def wrapper(*args, **kwargs), gets all there is.
    if parameters is not None and not (parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL):
        _check_linear(target, parameters, names, path)
    return bind_arguments(target, names, path)


def _check_linear(
    target: Callable[..., Any], parameters: list[inspect.Parameter], names: Collection[str], path: str
) -> None:
    """Refuse parameters that nothing provides, and those that would get something else than they are meant for."""
    first = parameters[0] if parameters else None
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    others = [each for each in parameters if each.kind not in variadic and each.name not in names]
    rest = [each for each in others if each is not first]
    missing = [each for each in rest if each.default is each.empty]
    if not _may_be_socket(first, others) or any(map(is_request, rest)) or any(map(_is_socket, missing)):
        taken = [each.name for each in parameters if each.name in names]
        hint = "; the request is ws.request" if any(map(is_request, others)) else ""
        raise RouteError(
            f"handler {handler_name(target)} (path {path!r}): a WebSocket handler takes the WebSocket first, then "
            f"parameters of the path: write {_definition(target, others, taken)}{hint}"
        )
    if missing:
        name, calls = missing[0].name, "parameters" if len(names) > 1 else "parameter"
        has = f"calls its {calls} {', '.join(names)}" if names else "has no parameters"
        fix = f"write {_definition(target, others, names)}, or" if names else "write"
        raise RouteError(
            f"handler {handler_name(target)} takes {name!r}, but path {path!r} {has}: {fix} {{{name}}} in the path, or "
            f"give {name!r} a default"
        )


def _may_be_socket(first: inspect.Parameter | None, others: list[inspect.Parameter]) -> bool:
    """Whether the first parameter gets the WebSocket: whatever it is called, but no parameter of the path."""
    if first is None or first not in others or first.default is not first.empty:
        return False
    return first.kind is not first.KEYWORD_ONLY and not is_annotated(first, "Request")


def _is_socket(parameter: inspect.Parameter) -> bool:
    return parameter.name in _SOCKET_NAMES or is_annotated(parameter, "WebSocket")


def _definition(target: object, others: list[inspect.Parameter], taken: Iterable[str]) -> str:
    """How to write a handler. `others` are its parameters that are none of the path."""
    name = getattr(target, "__name__", "")
    sockets = [each for each in others if _is_socket(each)] or [each for each in others[:1] if not is_request(each)]
    socket = sockets[0].name if sockets else next(each for each in _SOCKET_NAMES if each not in taken)
    return f"def {name if name.isidentifier() else 'handler'}({', '.join([socket, *taken])})"


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
    warn = _ReturnWarning(name)
    return lambda ws: CallbackHandler(ws, name, production, warn, target, takes)


def _refuse_unknown_callbacks(target: type, name: str, path: str) -> None:
    """Refuse a misspelled callback, and the name that another framework has for one: neither would ever be called.

    Any other `on_` is the user's own, to dispatch messages by, say.
    """
    for method in dir(target):
        meant = _meant_callback(method)
        if meant is not None and callable(getattr(target, method, None)):
            raise RouteError(
                f"class {name} (path {path!r}) has {method}, which is never called: the callbacks are "
                f"{', '.join(CALLBACKS)}; did you mean {meant}?"
            )


def _meant_callback(method: str) -> str | None:
    """The callback that was meant by the name of a method that is none; None if it is none, or the user's own."""
    if method in CALLBACKS or not method.lower().startswith("on"):
        return None
    spelled = _SPELLED_OTHERWISE.get(method.replace("_", "").lower())
    close = difflib.get_close_matches(method, CALLBACKS, n=1, cutoff=0.8) if method.startswith("on_") else []
    return spelled or (close[0] if close else None)


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
            takes = f"{name}.{callback} takes {parameter.name!r}"
            if is_request(parameter):
                raise RouteError(f"{takes} (path {path!r}): leave it out, the request is ws.request")
            raise RouteError(
                f"{takes}, but path {path!r} does not have it: write {{{parameter.name}}} in the path, or give it a "
                "default"
            )
    return tuple(parameter.name for parameter in rest if parameter.name in names)


class _ReturnWarning:
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


class Handler:
    """What both kinds have in common. See `_core.upgrade.SocketHandler`."""

    __slots__ = ("_production", "_warn", "entering", "name", "ws")

    is_linear = False

    def __init__(self, ws: WebSocket, name: str, production: bool, warn: _ReturnWarning) -> None:
        self.ws = ws
        self.name = name
        self.entering: Callable[[WebSocketConnection, Fanout], object] | None = None  # what the opening brings with it
        self._production = production
        self._warn = warn

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

    def __init__(self, ws: WebSocket, name: str, production: bool, warn: _ReturnWarning, call: BoundHandler) -> None:
        super().__init__(ws, name, production, warn)
        self._call = call

    def opened(self) -> None:
        """Run it. [worker thread]"""
        returned = self._call(self.ws, self.ws.path_params)
        if returned is not None:
            self._warn(returned)

    def received(self, message: str | bytes) -> None:
        raise AssertionError("a linear handler receives by itself")

    def ended(self, code: int, reason: str) -> None:
        raise AssertionError("a linear handler sees the end by itself")


class CallbackHandler(Handler):
    """An instance of the user's class, made on a worker thread before `on_open`."""

    __slots__ = ("_instance", "_on_message", "_takes", "_target")

    def __init__(
        self,
        ws: WebSocket,
        name: str,
        production: bool,
        warn: _ReturnWarning,
        target: type,
        takes: dict[str, tuple[str, ...]],
    ) -> None:
        super().__init__(ws, name, production, warn)
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
                self._warn(returned, "on_message")

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
            self._warn(returned, callback)

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
