"""The application: what users write their routes, middleware and hooks on.

Decides how registrations are checked and what `listen` does. How a request goes through it is in `pipeline.py`, how
it is served in `serve.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from catzilla.errors import RouteError
from catzilla.groups import Route, RouteDecorators, RouterGroup
from catzilla.handlers import bind_arguments, handler_name
from catzilla.middleware import route_middleware
from catzilla.patterns import parse_pattern
from catzilla.pipeline import Endpoint, ErrorHandler, Pipeline
from catzilla.request import Request
from catzilla.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
Hook = Callable[[], object]


class Catzilla(RouteDecorators):
    """A web application. `App` is an alias.

        app = Catzilla()

        @app.get("/items/{item_id:int}")
        def item(request, item_id):
            return {"id": item_id}

        app.listen(port=8000)

    With `production=True` no exception text reaches a client. `show_banner` says at the start where it listens.
    `log_requests` logs a line a response; None means in development only.

    Register everything before it serves; what is registered later may be missed by requests that are under way.
    """

    def __init__(self, production: bool = False, show_banner: bool = True, log_requests: bool | None = None) -> None:
        self.production = production
        self.show_banner = show_banner
        self.log_requests = log_requests
        self.pipeline = Pipeline(production=production)
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

    def include_routes(self, group: RouterGroup) -> None:
        """Mount every route of a group. Raises: `RouteError` as registering each of them would."""
        for route in group.routes():
            self.add_route(route)

    def routes(self) -> list[tuple[str, str, str]]:
        """Every (method, path, handler name), in the order of registration."""
        return [(method, path, endpoint.name) for method, path, endpoint in self.pipeline.router.routes()]

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


class Stoppable(Protocol):
    """A server, as far as an app knows it."""

    def request_stop(self) -> None: ...


runner: Callable[[Catzilla, Settings], None] | None = None
"""What `listen` runs. `serve.py`, which is above this floor, puts itself here."""

App = Catzilla
