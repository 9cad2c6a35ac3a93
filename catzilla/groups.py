"""Route decorators, and groups of routes that share a prefix and middleware.

Decides how prefixes, nesting and middleware add up. Does not match anything; an app mounts what a group lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from catzilla.errors import RouteError
from catzilla.handlers import call_error, handler_name, refuse_unusable, runs_later
from catzilla.headers import is_token

Handler = Callable[..., Any]
MiddlewareFunction = Callable[..., Any]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Route:
    """One route as it was declared. `middleware` is in the order in which it runs."""

    method: str
    path: str
    handler: Handler
    middleware: tuple[MiddlewareFunction, ...] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class SocketRoute:
    """One WebSocket route as it was declared."""

    path: str
    handler: Handler
    auth: Callable[..., Any] | None = None
    origins: Any = None
    subprotocols: tuple[str, ...] = ()
    compression: bool = False
    middleware: tuple[MiddlewareFunction, ...] = ()
    overwrite: bool = False


class RouteDecorators:
    """The decorators that an app and a group have in common; a subclass says in `add_route` what becomes of a route.

    Each gives the function back as it was. `middleware` runs for this route only, after the app's and the groups'.
    `overwrite` lets the route take the place of one with the same method and path.
    """

    def add_route(self, route: Route) -> None:
        """Take a declared route. Raises: `RouteError` when it is refused."""
        raise NotImplementedError

    def add_socket_route(self, route: SocketRoute) -> None:
        """Take a declared WebSocket route. Raises: `RouteError` when it is refused."""
        raise NotImplementedError

    def websocket(
        self,
        path: str,
        auth: Callable[..., Any] | None = None,
        origins: Sequence[str] | str | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: bool = False,
        middleware: Sequence[MiddlewareFunction] = (),
        overwrite: bool = False,
    ) -> Callable[[H], H]:
        """Register a WebSocket handler: a function, which runs as long as the connection and holds a thread, or a class
        with `on_open(self, ws)`, `on_message(self, ws, message)` and `on_close(self, ws, code, reason)`, any of them,
        which holds none while nothing happens.

        `auth(request)` returns the principal or raises `HTTPError(401)`; it runs before the connection is accepted.
        Pages of other origins are refused unless `origins` lists them (`"*"` is any). `subprotocols` are those that
        the handler speaks, the preferred one first. `compression` is permessage-deflate, for clients that offer it.
        """
        _check_path(path, "@app.websocket('/path')")
        spoken = _check_subprotocols(subprotocols, path)
        if callable(middleware):
            raise RouteError(f"path {path!r}: middleware is a list: write middleware=[function]")
        if auth is not None:
            _check_auth(auth, path)
        if not isinstance(compression, bool):
            raise RouteError(f"path {path!r}: compression={compression!r:.60}: write True or False")

        def register(handler: H) -> H:
            self.add_socket_route(
                SocketRoute(path, handler, auth, origins, spoken, compression, tuple(middleware), overwrite)
            )
            return handler

        return register

    def route(
        self,
        path: str,
        methods: Iterable[str] = ("GET",),
        middleware: Sequence[MiddlewareFunction] = (),
        overwrite: bool = False,
    ) -> Callable[[H], H]:
        """Register a handler for several methods: `@app.route("/items", methods=["GET", "POST"])`."""
        _check_path(path, "@app.get('/path')")
        if isinstance(methods, str):
            raise RouteError(f"path {path!r}: methods is a list: write methods=[{methods!r}]")
        names = list(methods)
        if not names:
            raise RouteError(f"path {path!r} has no methods: write methods=['GET']")
        if callable(middleware):
            raise RouteError(f"path {path!r}: middleware is a list: write middleware=[function]")

        def register(handler: H) -> H:
            refuse_unusable(handler, path)
            for name in names:
                self.add_route(Route(name, path, handler, tuple(middleware), overwrite))
            return handler

        return register

    def get(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for GET, which answers HEAD too."""
        return self.route(path, ("GET",), middleware, overwrite)

    def post(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for POST."""
        return self.route(path, ("POST",), middleware, overwrite)

    def put(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for PUT."""
        return self.route(path, ("PUT",), middleware, overwrite)

    def patch(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for PATCH."""
        return self.route(path, ("PATCH",), middleware, overwrite)

    def delete(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for DELETE."""
        return self.route(path, ("DELETE",), middleware, overwrite)

    def head(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for HEAD, in place of the one that follows GET."""
        return self.route(path, ("HEAD",), middleware, overwrite)

    def options(
        self, path: str, middleware: Sequence[MiddlewareFunction] = (), overwrite: bool = False
    ) -> Callable[[H], H]:
        """Register a handler for OPTIONS, in place of the automatic answer."""
        return self.route(path, ("OPTIONS",), middleware, overwrite)


class RouterGroup(RouteDecorators):
    """Routes under a prefix: `api = RouterGroup(prefix="/api", middleware=[check])`, then `app.include_routes(api)`.

    Paths are put behind the prefix as they stand: `@api.get("/items")` is `/api/items`, `@api.get("")` is `/api`. A
    prefix may have parameters. Middleware runs from the outermost group to the route.
    """

    def __init__(self, prefix: str = "", middleware: Sequence[MiddlewareFunction] = ()) -> None:
        if prefix and not prefix.startswith("/"):
            raise RouteError(f"prefix {prefix!r} does not begin with a slash: write {'/' + prefix!r}")
        if callable(middleware):
            raise RouteError(f"group {prefix!r}: middleware is a list: write middleware=[function]")
        self.prefix = prefix.rstrip("/")
        self.middleware = tuple(middleware)
        self._members: list[Route | SocketRoute | RouterGroup] = []

    def add_route(self, route: Route) -> None:
        """Take a route; its path and parameters are checked when the group is mounted."""
        self._add(route)

    def add_socket_route(self, route: SocketRoute) -> None:
        """Take a WebSocket route, in the same way."""
        self._add(route)

    def _add(self, route: Route | SocketRoute) -> None:
        if route.path and not route.path.startswith("/"):
            raise RouteError(f"path {route.path!r} does not begin with a slash: write {'/' + route.path!r}")
        self._members.append(route)

    def include_group(self, group: RouterGroup) -> None:
        """Nest another group; what is added to it later counts too. Raises: `RouteError` for a group inside itself."""
        if group is self or self in group._nested():
            raise RouteError(f"group {group.prefix!r} would be inside itself")
        self._members.append(group)

    def routes(self) -> list[Route | SocketRoute]:
        """Every route of the group and of those nested in it, with prefixes and middleware applied, in order."""
        found: list[Route | SocketRoute] = []
        for member in self._members:
            inner: list[Route | SocketRoute] = member.routes() if isinstance(member, RouterGroup) else [member]
            found += [
                replace(route, path=self.prefix + route.path or "/", middleware=self.middleware + route.middleware)
                for route in inner
            ]
        return found

    def _nested(self) -> Iterator[RouterGroup]:
        for member in self._members:
            if isinstance(member, RouterGroup):
                yield member
                yield from member._nested()

    def __repr__(self) -> str:
        return f"<RouterGroup prefix={self.prefix!r} routes={len(self.routes())}>"


def _check_path(path: object, example: str) -> None:
    if not isinstance(path, str):
        raise RouteError(f"a route begins with its path, not with {path!r:.60}: write {example}")


def _check_auth(auth: Callable[..., Any], path: str) -> None:
    """Refuse what cannot be called with a request and return a principal."""
    refuse_unusable(auth, path, "auth function")
    name = handler_name(auth)
    if runs_later(auth):
        raise RouteError(f"auth function {name} (path {path!r}) yields: write return with the principal")
    error = call_error(auth, 1)
    if error is not None:
        fix = f"an instance, auth={auth.__name__}()" if isinstance(auth, type) else "def auth(request)"
        raise RouteError(f"auth function {name} (path {path!r}) takes the request: write {fix}: {error}")


def _check_subprotocols(given: object, path: str) -> tuple[str, ...]:
    """The subprotocols of a route (RFC 6455 section 4.1: tokens)."""
    if given is None:
        return ()
    if isinstance(given, str):
        raise RouteError(f"path {path!r}: subprotocols is a list: write subprotocols=[{given!r}]")
    if not isinstance(given, Iterable):
        raise RouteError(f"path {path!r}: subprotocols is a list, not {type(given).__name__}: write ['chat.v1']")
    found = tuple(given)
    for name in found:
        if not isinstance(name, str):
            raise RouteError(f"path {path!r}: a subprotocol is a str such as 'chat.v1', not {type(name).__name__}")
        if not is_token(name):
            raise RouteError(
                f"path {path!r}: {name!r} is no subprotocol: write one or more of letters, digits and !#$%&'*+-.^_`|~"
            )
        if name.lower().startswith("bearer."):
            raise RouteError(
                f"path {path!r}: the subprotocol {name!r} would carry a token and is never chosen: leave it out; "
                "bearer_token(request) in auth reads what the client offers"
            )
    return found
