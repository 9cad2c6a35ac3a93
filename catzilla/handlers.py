"""How a handler is called: which of its parameters is the request and which come from the path.

Decides it once, at registration, by inspecting the signature; a call inspects nothing. Does not know routes or
requests, and of responses only that a check must not return one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from catzilla.errors import RouteError
from catzilla.response import Response

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


def with_article(noun: str) -> str:
    """A noun behind its article, for messages."""
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def refuse_unusable(function: object, path: str, what: str = "handler") -> None:
    """Refuse what cannot be called synchronously. Raises: `RouteError` saying what to write instead."""
    if not callable(function):
        raise RouteError(f"path {path!r}: {with_article(what)} is a function, not {type(function).__name__}")
    name = f"{what} {handler_name(function)} (path {path!r})"
    streams = what == "handler"  # of nothing else are yielded values sent
    for candidate in (function, type(function).__call__):  # an object's __call__ may be async, too
        if inspect.isasyncgenfunction(candidate):
            fix = "with yield; it is streamed at the client's pace" if streams else "without async and yield"
            raise RouteError(f"{name} is an async generator: write plain def {fix}")
        if inspect.iscoroutinefunction(candidate):
            raise RouteError(
                f"{name} is async def: write plain def, without await; it runs on a thread of its own, so it may block"
                + (", and yield streams" if streams else "")
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
    error = call_error(function, len(parameters)) or _order_error(function, parameters)
    if error is not None:
        takes, fix = " and ".join(parameters), f"def {what}({', '.join(parameters)})"
        raise TypeError(f"{name} takes {takes}: write {fix}: {error}")


def _order_error(function: Callable[..., Any], expected: Sequence[str]) -> str | None:
    """Which of the expected parameters stands in the place of another: it would get what is not its own."""
    try:
        found = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return None
    names = [parameter.name for parameter in found if parameter.kind in _POSITIONAL]
    for name, own in zip(names, expected, strict=False):
        if name != own and name in expected:
            return f"it has {name} where {own} is passed"
    return None


def refuse_answer(check: object, value: object, what: str, remedy: str) -> None:
    """Refuse a refusal that a check returned and did not raise: taken for a principal, or for true, it would let in.

    A named tuple is no (body, status): it may well be a principal. Raises: `TypeError` naming the check.
    """
    if isinstance(value, (Response, BaseException)):
        found = type(value).__name__
    elif isinstance(value, type) and issubclass(value, BaseException):
        found = value.__name__
    elif type(value) is tuple and len(value) in (2, 3) and type(value[1]) is not bool and isinstance(value[1], int):
        found = f"({', '.join(type(item).__name__ for item in value)})"
    elif inspect.iscoroutine(value):
        value.close()  # else it warns that nobody has awaited it
        found = "a coroutine"
    else:
        return
    raise TypeError(f"{what} {handler_name(check)} returned {found}, which would let everybody in: {remedy}")


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
        if is_request(parameter):
            return parameter
    if candidates and candidates[0] is parameters[0] and candidates[0].kind in _POSITIONAL:
        first = candidates[0]
        return first if first.default is first.empty else None
    return None


def is_request(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is meant for the request, wherever it stands."""
    return parameter.name == "request" or is_annotated(parameter, "Request")


def is_annotated(parameter: inspect.Parameter, class_name: str) -> bool:
    """By name, because an annotation may be a string and this module does not import the classes."""
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] == class_name


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
