"""The application: what users write their routes, middleware and hooks on.

Decides how registrations are checked and what `listen` does. How a request goes through it is in `pipeline.py`, how
it is served in `serve.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from catzilla._core.limits import Limits
from catzilla.auth import principal_id
from catzilla.brokers.base import Broker
from catzilla.brokers.memory import MemoryBroker
from catzilla.errors import RouteError
from catzilla.groups import Route, RouteDecorators, RouterGroup, SocketRoute
from catzilla.handlers import bind_arguments, handler_name
from catzilla.handshake import Accepted, Handshakes, SocketRules
from catzilla.middleware import route_middleware
from catzilla.origins import check_origins
from catzilla.patterns import parse_pattern
from catzilla.pipeline import Endpoint, ErrorHandler, Pipeline
from catzilla.request import Request
from catzilla.room_config import USER_PREFIX, check_name, room_options
from catzilla.rooms import Room, Rooms, User
from catzilla.settings import Settings
from catzilla.socket_binding import bind_socket_handler
from catzilla.tickets import Tickets

F = TypeVar("F", bound=Callable[..., Any])
Hook = Callable[[], object]

SECRET = "CATZILLA_SECRET"  # the variable that holds the secret of every process


class Catzilla(RouteDecorators):
    """A web application. `App` is an alias.

        app = Catzilla()

        @app.get("/items/{item_id:int}")
        def item(request, item_id):
            return {"id": item_id}

        app.listen(port=8000)

    With `production=True` no exception text reaches a client. `show_banner` says at the start where it listens.
    `log_requests` logs a line a response; None means in development only. `secret` signs tickets: give it, or set
    CATZILLA_SECRET, where several processes serve the app; else each makes up its own. `broker` carries what rooms
    publish; by default it stays within this process. Whoever made a broker closes it: `app.on_shutdown(broker.close)`.

    Register everything before it serves; what is registered later may be missed by requests that are under way.
    """

    def __init__(
        self,
        production: bool = False,
        show_banner: bool = True,
        log_requests: bool | None = None,
        secret: str | bytes | None = None,
        broker: Broker | None = None,
    ) -> None:
        self.production = production
        self.show_banner = show_banner
        self.log_requests = log_requests
        self.pipeline = Pipeline(production=production)
        self.rooms = Rooms(_checked_broker(broker))
        secret = os.environ.get(SECRET) or None if secret is None else secret
        self.tickets = Tickets(secret, self.rooms.broker.claim)
        self._handshakes = Handshakes(self.rooms)
        self.startup_hooks: list[Hook] = []
        self.shutdown_hooks: list[Hook] = []
        self.servers: list[Stoppable] = []  # that serve it now; kept by `serve.py`

    def __repr__(self) -> str:
        return f"<Catzilla routes={len(self.routes())} serving={bool(self.servers)}>"

    # Routes.

    def add_route(self, route: Route) -> None:
        """Register a route; the decorators `get`, `post`, `route` and so on end here.

        Raises: `RouteError` for a path or handler that cannot work, naming it and what to write instead.
        """
        names = parse_pattern(route.path).names
        call = bind_arguments(route.handler, names, route.path)
        for function in route.middleware:
            route_middleware(function)  # refuses here rather than at the first request
        endpoint = Endpoint(handler_name(route.handler), call, route.middleware)
        self.pipeline.router.add(route.method, route.path, endpoint, route.overwrite)

    def add_socket_route(self, route: SocketRoute) -> None:
        """Register a WebSocket route; the decorator `websocket` ends here. Raises: as `add_route` does."""
        names = parse_pattern(route.path).names
        make = bind_socket_handler(route.handler, names, route.path, production=self.production)
        for function in route.middleware:
            route_middleware(function)
        rules = SocketRules(route.auth, check_origins(route.origins), route.subprotocols, route.compression)

        def accept(request: Request, limits: Limits) -> Accepted:
            return self._handshakes.accept(request, rules, make, limits)

        endpoint = Endpoint(handler_name(route.handler), _not_called, route.middleware, accept=accept)
        self.pipeline.sockets.add("GET", route.path, endpoint, route.overwrite)

    def include_routes(self, group: RouterGroup) -> None:
        """Mount every route of a group. Raises: `RouteError` as registering each of them would."""
        for route in group.routes():
            if isinstance(route, SocketRoute):
                self.add_socket_route(route)
            else:
                self.add_route(route)

    def routes(self) -> list[tuple[str, str, str]]:
        """Every (method, path, handler name), in the order of registration; WebSockets last, as `WEBSOCKET`."""
        plain = [(method, path, endpoint.name) for method, path, endpoint in self.pipeline.router.routes()]
        return plain + [("WEBSOCKET", path, endpoint.name) for _, path, endpoint in self.pipeline.sockets.routes()]

    # Rooms.

    def room(
        self,
        name: str,
        history: int | None = None,
        history_ttl: float | None = None,
        public: bool | None = None,
        on_slow: str | None = None,
    ) -> Room:
        """The room of that name, set up by the options that are given. [any thread]

        `history` messages are kept for `history_ttl` seconds (none, 300) for whoever reconnects. Anybody may join a
        `public` room; any other needs an `authorize` hook. `on_slow` says what becomes of a member that does not take
        what is sent: `"disconnect"`, `"drop_oldest"`, `"conflate"` or `"gap"`.

        Raises: `ValueError` for a name or an option that makes no sense.
        """
        check_name(name)
        options = room_options(public, history, history_ttl, on_slow)
        if options:
            self.rooms.set_up(name, options)
        return Room(self.rooms, name)

    def user(self, principal: Any) -> User:
        """Every connection of a principal, given by its id or itself. [any thread]

        Ids are compared as text: 5 and "5" are one.

        Raises: `TypeError` for a principal without id.
        """
        identity = principal_id(principal)
        if identity is None:
            raise TypeError(f"user() takes a principal's id, not {principal!r:.60}")
        return User(self.rooms, f"{USER_PREFIX}{identity}")

    # Middleware and errors.

    def middleware(
        self,
        function: F | None = None,
        *,
        priority: int = 50,
        pre_route: bool = True,
        post_route: bool = False,
        name: str | None = None,
    ) -> Any:
        """Register a global middleware: `@app.middleware(priority=80)`, or `@app.middleware` alone.

        A pre-route function takes `request` and returns None to go on, or a response. A post-route one
        (`post_route=True`) takes `(request, response)` and may return another response; it runs once status and
        headers are known and before the first byte, also for streams. Higher `priority` runs first.
        """

        def register(target: F) -> F:
            self.pipeline.middleware.add(target, priority, pre_route, post_route, name)
            return target

        return register if function is None else register(function)

    def set_exception_handler(self, kind: type[Exception], handler: ErrorHandler) -> None:
        """Answer exceptions of `kind` with `handler(request, error)`; the nearest class of an exception's decides."""
        given: object = kind
        if not isinstance(given, type) or not issubclass(given, Exception):
            raise RouteError(f"set_exception_handler takes an exception class first, not {given!r}")
        self.pipeline.exception_handlers[kind] = handler

    def set_not_found_handler(self, handler: Callable[[Request], Any]) -> None:
        """Answer what no route matches with `handler(request)`; its status is 404 unless it says otherwise."""
        self.pipeline.not_found_handler = handler

    def set_internal_error_handler(self, handler: ErrorHandler) -> None:
        """Answer exceptions that nothing else handles with `handler(request, error)`; they are logged before."""
        self.pipeline.internal_error_handler = handler

    # Running.

    def on_startup(self, hook: F) -> F:
        """Call `hook()` before the app listens, in each process that serves it. A failure keeps it from starting."""
        self.startup_hooks.append(hook)
        return hook

    def on_shutdown(self, hook: F) -> F:
        """Call `hook()` after the last response; hooks run in the reverse order of their registration."""
        self.shutdown_hooks.append(hook)
        return hook

    def listen(self, port: int | None = None, host: str | None = None, **settings: Any) -> None:
        """Serve on `http://127.0.0.1:8000`, unless told otherwise, until Ctrl-C, SIGTERM or `stop`. Blocks.

        `settings` are those of `catzilla.settings.Settings`: `workers=4`, `uds="/run/app.sock"`, any limit.

        Raises: `OSError` when the address is taken, `SettingsError` for settings that make no sense.
        """
        assert runner is not None, "catzilla.serve has not been imported"
        runner(self, Settings.load({"port": port, "host": host, **settings}, {}))

    def stop(self) -> None:
        """Stop every server of this app, gracefully. Returns at once. [any thread]"""
        for server in list(self.servers):
            server.request_stop()


def _checked_broker(broker: object) -> Broker:
    """The broker of an app. Raises: `TypeError` for what is none; its text is not shown, a URL may hold a password."""
    if broker is None:
        return MemoryBroker()
    if isinstance(broker, Broker):
        return broker
    if isinstance(broker, type) and issubclass(broker, Broker):
        name = broker.__name__
        raise TypeError(f"broker is the class {name}: write an instance, Catzilla(broker={name}(...))")
    what = f"the class {broker.__name__}" if isinstance(broker, type) else f"of type {type(broker).__name__}"
    raise TypeError(
        f"broker is {what}, which is no Broker: write Catzilla(broker=...) with an instance of a subclass of "
        "catzilla.brokers.Broker, or leave it out to stay within this process"
    )


def _not_called(request: Any, params: Any) -> Any:
    raise AssertionError("a WebSocket route has no handler for requests")


class Stoppable(Protocol):
    """A server, as far as an app knows it."""

    def request_stop(self) -> None: ...


runner: Callable[[Catzilla, Settings], None] | None = None
"""What `listen` runs. `serve.py`, which is above this floor, puts itself here."""

App = Catzilla
