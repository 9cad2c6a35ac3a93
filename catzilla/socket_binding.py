"""What was decorated as a WebSocket handler, checked: a function for the whole connection, or a class with callbacks.

Decides at registration which of the two it is and which arguments each takes, and refuses whatever would only fail, or
never be called, once somebody connects. Does not call anything (`socket_handlers.py`).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

from catzilla.errors import RouteError
from catzilla.handlers import (
    BoundHandler,
    bind_arguments,
    handler_name,
    is_annotated,
    is_request,
    refuse_unusable,
)
from catzilla.socket_handlers import CallbackHandler, LinearHandler, MakeHandler, SocketPlan

FOREIGN_CALLBACKS = {"on_connect": "on_open", "on_disconnect": "on_close", "on_receive": "on_message"}
CALLBACKS = {"on_open": 0, "on_message": 1, "on_close": 2}  # and how many arguments follow the WebSocket
# What a name means when case and underscores do not count: onMessage, OnOpen, onDisconnect.
_SPELLED_OTHERWISE = {
    name.replace("_", ""): FOREIGN_CALLBACKS.get(name, name) for name in CALLBACKS | FOREIGN_CALLBACKS
}
_SOCKET_NAMES = ("ws", "websocket", "socket")  # what a parameter for the WebSocket may be called


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
    call, plan = _bind_linear(target, names, path), SocketPlan(name, production)
    return lambda ws: LinearHandler(ws, plan, call)


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
    plan = SocketPlan(name, production)
    return lambda ws: CallbackHandler(ws, plan, target, takes)


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
