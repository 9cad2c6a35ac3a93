"""Middleware: which functions run before and after a handler, and in which order.

A function of `request` runs before routing's handler and may answer in its place; a function of `(request, response)`
runs once status and headers are known, before the first byte. The order is the same in both phases: global ones, higher
priority first and equal ones as registered, then those of groups from the outermost in, then the route's. Does not know
how a response is sent, and never touches a body.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from catzilla.errors import RouteError
from catzilla.handlers import handler_name, refuse_unusable
from catzilla.request import Request
from catzilla.response import Response, coerce_response

Function = Callable[..., Any]
Coerce = Callable[[Any, str], Response]


@dataclass(frozen=True)
class Middleware:
    """One registered function. `pre` and `post` say in which phases it runs."""

    function: Function
    name: str
    priority: int = 50
    pre: bool = True
    post: bool = False


class Chain:
    """What runs around the handler of one route. Immutable: any thread may use it."""

    __slots__ = ("_coerce", "post", "pre")

    def __init__(self, middleware: Sequence[Middleware], coerce: Coerce = coerce_response) -> None:
        self.pre = tuple((entry.function, entry.name) for entry in middleware if entry.pre)
        self.post = tuple((entry.function, entry.name) for entry in middleware if entry.post)
        self._coerce = coerce

    def before(self, request: Request) -> Response | None:
        """Run the pre-route functions; the first that returns anything but None answers, and the rest are skipped.

        Raises: whatever they raise, and `HandlerReturnError` for what is no response.
        """
        for function, name in self.pre:
            answer = function(request)
            if answer is not None:
                return self._coerce(answer, name)
        return None

    def after(self, request: Request, response: Response) -> Response:
        """Run the post-route functions; each sees what the one before it made of the response. Raises as `before`."""
        for function, name in self.post:
            answer = function(request, response)
            if answer is not None:
                response = self._coerce(answer, name)
        return response


class MiddlewareStack:
    """The middleware of an app, and the chain for each route's own. Registering is for one thread."""

    def __init__(self, coerce: Coerce = coerce_response) -> None:
        self._coerce = coerce
        self._global: list[Middleware] = []
        self._chains: dict[tuple[Function, ...], Chain] = {}

    def add(
        self,
        function: Function,
        priority: int = 50,
        pre_route: bool = True,
        post_route: bool = False,
        name: str | None = None,
    ) -> Middleware:
        """Register a global middleware; higher `priority` runs first.

        With `post_route=True` the function takes `(request, response)`; it then runs after the handler only, unless
        it is `def f(request, response=None)`: such a function runs in both phases, if `pre_route` is true.

        Raises: `RouteError` when the parameters do not fit the phases, and for an async function.
        """
        name = name or handler_name(function)
        takes = _takes(function)
        if not pre_route and not post_route:
            raise RouteError(f"middleware {name} runs never: write pre_route=True or post_route=True")
        if post_route and not takes.two:
            raise RouteError(f"middleware {name} is post-route: write def {_plain(function)}(request, response)")
        if not post_route and not takes.one:
            raise RouteError(f"middleware {name} takes a response: write post_route=True")
        # pre_route is True by default, so it says nothing about a function that needs, or was given, a response.
        pre = pre_route and (takes.either or not post_route)
        entry = Middleware(function, name, priority, pre, post_route)
        self._global.append(entry)
        self._global.sort(key=lambda entry: -entry.priority)
        self._chains.clear()
        return entry

    def chain(self, own: tuple[Function, ...] = ()) -> Chain:
        """The chain of a route whose groups and itself have the functions `own`, outermost first. Kept until `add`.

        Raises: `RouteError` as `route_middleware` does.
        """
        chain = self._chains.get(own)
        if chain is None:
            chain = Chain([*self._global, *map(route_middleware, own)], self._coerce)
            self._chains[own] = chain
        return chain

    def all(self) -> tuple[Middleware, ...]:
        """The global middleware, in the order in which it runs."""
        return tuple(self._global)


def route_middleware(function: Function) -> Middleware:
    """The middleware of a route or group, whose phases its parameters tell.

    `f(request)` runs before the handler, `f(request, response)` after it, `f(request, response=None)` both times.

    Raises: `RouteError` for any other signature, and for an async function.
    """
    takes = _takes(function)
    return Middleware(function, handler_name(function), pre=takes.one, post=takes.either or not takes.one)


class _Takes(NamedTuple):
    """How a function can be called: with `(request)`, with `(request, response)`; `either` means it is made for both.

    A second parameter with a default is made for a response only if it is called so: `def f(request, limit=10)` is not.
    """

    one: bool
    two: bool
    either: bool


def _takes(function: Function) -> _Takes:
    refuse_unusable(function, "*", "middleware")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin that does not tell
        return _Takes(True, False, False)
    one, two = _accepts(signature, 1), _accepts(signature, 2)
    if not one and not two:
        raise RouteError(
            f"middleware {handler_name(function)} takes {signature}: write def {_plain(function)}(request), "
            f"or def {_plain(function)}(request, response) to run after the handler"
        )
    return _Takes(one, two, one and two and list(signature.parameters)[1:2] == ["response"])


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*(None,) * count)
    except TypeError:
        return False
    return True


def _plain(function: Function) -> str:
    return getattr(function, "__name__", "f")
