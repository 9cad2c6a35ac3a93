"""How a handler is called: which of its parameters is the request and which come from the path.

Decides it once, at registration, by inspecting the signature; a call inspects nothing. Does not know routes, requests
or responses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from catzilla.errors import RouteError

BoundHandler = Callable[[Any, Mapping[str, Any]], Any]
"""Called with the request and the path parameters by name; returns what the handler returns."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def handler_name(handler: object) -> str:
    """What messages and log lines call a handler: `module.function`."""
    inner = getattr(handler, "func", handler)  # functools.partial
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    module = getattr(inner, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def refuse_unusable(function: object, path: str, what: str = "handler") -> None:
    """Refuse what cannot be called synchronously. Raises: `RouteError` saying what to write instead."""
    if not callable(function):
        article = "an" if what[0] in "aeiou" else "a"
        raise RouteError(f"path {path!r}: {article} {what} is a function, not {type(function).__name__}")
    name = handler_name(function)
    for candidate in (function, type(function).__call__):  # an object's __call__ may be async, too
        if inspect.isasyncgenfunction(candidate):
            raise RouteError(
                f"{what} {name} (path {path!r}) is an async generator: write plain def with yield; it is streamed at "
                "the client's pace"
            )
        if inspect.iscoroutinefunction(candidate):
            raise RouteError(
                f"{what} {name} (path {path!r}) is async def: write plain def, without await; it runs on a thread of "
                "its own, so it may block, and yield streams"
            )


def runs_later(function: object) -> bool:
    """Whether a call only makes a coroutine or a generator. An object's `__call__` counts too."""
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return any(is_kind(each) for each in (function, type(function).__call__) for is_kind in kinds)


def call_error(function: Callable[..., Any], count: int) -> str | None:
    """Why `function` cannot be called with `count` arguments; None if it can, and if its signature cannot be told."""
    try:
        # What is called is the wrapper: one made with functools.wraps may give the function inside more arguments.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*(None,) * count)
    except TypeError as error:
        return str(error)
    return None


def check_hook(function: object, what: str, room: str, parameters: Sequence[str]) -> None:
    """Refuse what a room cannot call, where it is registered and not when somebody joins. Raises: `TypeError`."""
    if not callable(function):
        raise TypeError(f"{what} takes a function, not {type(function).__name__}")
    name = f"{what} function {handler_name(function)} (room {room!r})"
    if runs_later(function):
        raise TypeError(f"{name} is no plain function: write def, without async and yield")
    error = call_error(function, len(parameters))
    if error is not None:
        takes, fix = " and ".join(parameters), f"def {what}({', '.join(parameters)})"
        raise TypeError(f"{name} takes {takes}: write {fix}: {error}")


def bind_arguments(handler: Callable[..., Any], names: Collection[str], path: str = "") -> BoundHandler:
    """A function of (request, path parameters) that calls the handler with those that it takes.

    Path parameters are passed by name. The request is the first positional parameter without default that is no path
    parameter, whatever it is called, or the one called `request` or annotated `Request`, wherever it stands. A path
    parameter that the handler does not take is left out.

    Raises: `RouteError` for an async handler, and for a parameter that neither the path nor a default provides.
    """
    refuse_unusable(handler, path)
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell: it gets the request and nothing else
        return lambda request, params: handler(request)
    plain = [parameter for parameter in parameters if parameter.kind not in _VARIADIC]
    request = _request_parameter(plain, names)
    for parameter in plain:
        if parameter is not request and parameter.name not in names and parameter.default is parameter.empty:
            _refuse_parameter(handler, parameter.name, names, path)
    if any(parameter.kind is parameter.POSITIONAL_ONLY and parameter is not request for parameter in plain):
        raise RouteError(
            f"handler {handler_name(handler)} takes positional-only parameters, but path {path!r} gives its own by "
            "name: remove the / from its parameters"
        )
    kinds = {parameter.kind for parameter in parameters}
    taken = names if inspect.Parameter.VAR_KEYWORD in kinds else [p.name for p in plain if p.name in names]
    taken = tuple(name for name in taken if request is None or name != request.name)
    if request is None:
        # A wrapper that hides its signature, def wrapper(*args, **kwargs), gets all there is.
        return _bind(handler, inspect.Parameter.VAR_POSITIONAL in kinds, taken, len(taken) == len(names))
    if request is plain[0] and request.kind in _POSITIONAL:
        return _bind(handler, True, taken, len(taken) == len(names))
    by_name = request.name
    return lambda request, params: handler(**{by_name: request}, **{name: params[name] for name in taken})


def _request_parameter(parameters: list[inspect.Parameter], names: Collection[str]) -> inspect.Parameter | None:
    candidates = [parameter for parameter in parameters if parameter.name not in names]
    for parameter in candidates:
        if parameter.name == "request" or _is_request(parameter.annotation):
            return parameter
    if candidates and candidates[0] is parameters[0] and candidates[0].kind in _POSITIONAL:
        first = candidates[0]
        return first if first.default is first.empty else None
    return None


def _is_request(annotation: object) -> bool:
    """By name, because an annotation may be a string and this module does not import Request."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] == "Request"


def _refuse_parameter(handler: Callable[..., Any], name: str, names: Collection[str], path: str) -> None:
    has = ", ".join(names) if names else "no parameters"
    raise RouteError(
        f"handler {handler_name(handler)} takes {name!r}, but path {path!r} has {has}: "
        f"write {{{name}}} in the path, or give {name!r} a default"
    )


def _bind(handler: Callable[..., Any], with_request: bool, taken: tuple[str, ...], takes_all: bool) -> BoundHandler:
    """The shortest call for each shape: this runs once a request."""
    if with_request:
        if not taken:
            return lambda request, params: handler(request)
        if takes_all:
            return lambda request, params: handler(request, **params)
        return lambda request, params: handler(request, **{name: params[name] for name in taken})
    if not taken:
        return lambda request, params: handler()
    if takes_all:
        return lambda request, params: handler(**params)
    return lambda request, params: handler(**{name: params[name] for name in taken})
