"""From a request's head to the reply: routing, middleware, the handler, and what becomes of an exception.

The application as the server sees it. `plan` runs on the loop thread and only looks up; everything else runs on the
worker thread of the request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from catzilla._core.current import current
from catzilla._core.dispatch import Exchange
from catzilla._core.http1 import stream_framing
from catzilla._core.limits import Limits
from catzilla._core.messages import FileSpan, Reply, RequestHead, Source, redacted
from catzilla._core.pace import Pace
from catzilla._core.upgrade import Upgrade
from catzilla._core.written_stream import WrittenStream
from catzilla._core.ws_handshake import VERSION, wants_upgrade
from catzilla.error_pages import error_response, exception_response
from catzilla.errors import BodyTooLarge, Disconnected, HTTPError, Overloaded, RemoteProtocolError
from catzilla.handlers import BoundHandler
from catzilla.handshake import Accepted
from catzilla.middleware import Chain, MiddlewareStack
from catzilla.request import Request
from catzilla.response import Response, coerce_response
from catzilla.router import Found, NotFound, Router, WrongMethod
from catzilla.streaming import StreamingResponse, stream_of

logger = logging.getLogger("catzilla")

ErrorHandler = Callable[[Request, Any], Any]

_GONE = Reply(503, [(b"content-type", b"text/plain; charset=utf-8")], b"503 Service Unavailable\n")


def coerce(value: Any, name: str) -> Response:
    """The response that a return value stands for, generators included."""
    return coerce_response(value, name, stream_of)


@dataclass(slots=True)
class Endpoint:
    """What a route leads to: the handler bound to its arguments, and its own middleware."""

    name: str
    call: BoundHandler
    middleware: tuple[Callable[..., Any], ...] = ()
    pace: Pace = field(default_factory=Pace)
    accept: Callable[[Request, Limits], Accepted] | None = None  # of a WebSocket route, in place of `call`


class Plan:
    """A request's route. See `_core.dispatch.Plan`."""

    __slots__ = ("endpoint", "name", "pace", "params")

    def __init__(self, endpoint: Endpoint, params: dict[str, Any]) -> None:
        self.endpoint = endpoint
        self.params = params
        self.name = endpoint.name
        self.pace = endpoint.pace


class Pipeline:
    """Routes, middleware and error handlers of one app, and the way of a request through them.

    Filled while the app is put together, by one thread; then read by any.
    """

    def __init__(self, *, production: bool) -> None:
        self.production = production
        self.router: Router[Endpoint] = Router()
        self.sockets: Router[Endpoint] = Router()  # of WebSockets, all under the method GET
        self.middleware = MiddlewareStack(coerce)
        self.exception_handlers: dict[type[BaseException], ErrorHandler] = {}
        self.not_found_handler: Callable[[Request], Any] | None = None
        self.internal_error_handler: ErrorHandler | None = None
        self.limits = Limits()
        self._not_found = Endpoint("not found", self._answer_not_found)
        self._upgrade_required = Endpoint("upgrade required", _require_upgrade, pace=self._not_found.pace)

    # On the loop thread.

    def plan(self, head: RequestHead) -> Plan:
        """See `_core.dispatch.Application`."""
        if self.sockets.is_empty:
            return self._plan_http(head)
        if wants_upgrade(head):
            match = self.sockets.match("GET", head.path)
            if isinstance(match, Found):
                return Plan(match.endpoint, match.params)
        plan = self._plan_http(head)
        if plan.endpoint is self._not_found and isinstance(self.sockets.match("GET", head.path), Found):
            return Plan(self._upgrade_required, {})
        return plan

    def _plan_http(self, head: RequestHead) -> Plan:
        match = self.router.match(head.method, head.path)
        if isinstance(match, Found):
            return Plan(match.endpoint, match.params)
        if isinstance(match, NotFound):
            return Plan(self._not_found, {})
        allow = {"Allow": ", ".join(match.allowed)}
        if isinstance(match, WrongMethod):
            return Plan(Endpoint("method not allowed", _raise(405, allow), pace=self._not_found.pace), {})
        return Plan(Endpoint("options", lambda request, params: _options(allow), pace=self._not_found.pace), {})

    # On the worker thread.

    def handle(self, exchange: Exchange) -> Reply | Upgrade:
        """See `_core.dispatch.Application`."""
        plan, head = exchange.plan, exchange.head
        assert isinstance(plan, Plan)
        assert head is not None
        assert exchange.body is not None
        request = Request(head, exchange.body, plan.params, self.limits)
        reply = _Handling(self, exchange, plan, request).run()
        if isinstance(reply, Reply) and not isinstance(reply.body, Source):  # which may read from uploaded files
            request.close()
        return reply

    def answer_error(self, request: Request, error: Exception, name: str) -> Response:
        """The response to what a handler, a middleware or a stream's first item raised."""
        error = _as_http_error(error)
        for kind in type(error).__mro__:
            handler = self.exception_handlers.get(kind)
            if handler is not None:
                return coerce(handler(request, error), f"exception handler for {kind.__name__}")
        if isinstance(error, HTTPError):
            return error_response(request, error)
        target = redacted(request.head.target)
        logger.error("handler=%s method=%s target=%s failed", name, request.method, target, exc_info=error)
        if self.internal_error_handler is not None:
            return coerce(self.internal_error_handler(request, error), "internal error handler")
        return exception_response(request, error, production=self.production)

    def _answer_not_found(self, request: Request, params: object) -> Any:
        if self.not_found_handler is None:
            raise HTTPError(404, f"there is nothing at {request.path}")
        response = coerce(self.not_found_handler(request), "not-found handler")
        if response.status_code == 200:  # a handler that only says what to show
            response.status_code = 404
        return response


class _Handling:
    """One request on its worker thread."""

    __slots__ = ("chain", "exchange", "live", "pipeline", "plan", "request")

    def __init__(self, pipeline: Pipeline, exchange: Exchange, plan: Plan, request: Request) -> None:
        self.pipeline = pipeline
        self.exchange = exchange
        self.plan = plan
        self.request = request
        self.chain: Chain = pipeline.middleware.chain(plan.endpoint.middleware)
        self.live: StreamingResponse | None = None  # the response that was written to, once it is on its way

    def run(self) -> Reply | Upgrade:
        current.go_live = self.go_live
        try:
            response = self._respond()
        except Exception as error:
            if isinstance(error, Disconnected) and self.exchange.waits.interrupted is not None:
                return self._broken()
            if self.live is None:
                return self._finish(self._error(error))
            logger.error("handler=%s failed while it was writing; cut", self.plan.name, exc_info=error)
            return self._broken()
        finally:
            current.go_live = None
        if isinstance(response, Accepted):
            return response.upgrade
        if self.live is None and isinstance(response, StreamingResponse) and response._writer is not None:
            try:
                self._begin_unwritten(response)
            except Exception as error:  # of post-route middleware, say
                return self._finish(self._error(error), failing=True)
        return self._finish(response) if self.live is None else self._returned_live(response)

    def _respond(self) -> Response:
        chain, request, endpoint = self.chain, self.request, self.plan.endpoint
        if chain.pre:
            response = chain.before(request)
            if response is not None:
                return response
        if endpoint.accept is not None:
            return endpoint.accept(request, self.pipeline.limits)
        return coerce(endpoint.call(request, self.plan.params), endpoint.name)

    def _finish(self, response: Response, *, failing: bool = False) -> Reply:
        """Post-route middleware, then the reply; an exception in either is answered, once."""
        try:
            if self.chain.post:
                response = self.chain.after(self.request, response)
            reply = self._reply(response)
        except Exception as error:
            if failing:
                logger.exception("handler=%s: the error response failed too", self.plan.name)
                return exception_response(self.request, error, production=True).reply(self.request.head)
            return self._finish(self._error(error), failing=True)
        if isinstance(reply.body, Source) and not failing:
            source = reply.body
            reply.body = Source(
                source.items, source.encode, source.event_stream, source.heartbeat, self._answer_early_failure
            )
        return reply

    def _reply(self, response: Response) -> Reply:
        """The response as plain data. Raises: `ValueError` for a stream whose Content-Length is no number."""
        head = self.request.head
        reply = response.reply(head)
        if isinstance(reply.body, Source):  # while an error can still be answered; the loop could only cut
            stream_framing(reply.status, reply.headers, head.method, head.http_version)
        return reply

    def _error(self, error: Exception) -> Response:
        try:
            return self.pipeline.answer_error(self.request, error, self.plan.name)
        except Exception as second:
            logger.exception("handler=%s: the error handler failed too", self.plan.name)
            return exception_response(self.request, second, production=self.pipeline.production)

    def _answer_early_failure(self, error: Exception) -> Reply:
        """A stream failed before its first item: the answer is an error response, as if the handler had raised."""
        reply = self._finish(self._error(error), failing=True)
        if not isinstance(reply.body, bytes):
            logger.error("handler=%s: the answer to a stream that fails must be a plain response", self.plan.name)
            if isinstance(reply.body, FileSpan):
                reply.body.file.close()
            return exception_response(self.request, error, production=True).reply(self.request.head)
        return reply

    # Responses that are written to.

    def go_live(self, response: StreamingResponse) -> WrittenStream:
        """The first write: send the head, after post-route middleware has seen it. Returns the stream to write to."""
        if self.live is not None:
            raise ValueError("another response of this request is being written already")
        final = self.chain.after(self.request, response) if self.chain.post else response
        if final is not response:
            raise TypeError(
                "a post-route middleware cannot replace a response that is being written; change it in place"
            )
        reply = self._reply(response)
        stream = self.exchange.start_live(reply)
        self.live = response
        return stream

    def _begin_unwritten(self, response: StreamingResponse) -> None:
        """A response with a writer was returned before anything was written: by another thread, perhaps."""
        writer = response._writer
        assert writer is not None
        try:
            stream = writer._live()
        except Disconnected:
            return
        if writer.closed:
            stream.end(failed=writer.aborted)

    def _returned_live(self, response: Response) -> Reply:
        if response is not self.live:
            logger.error("handler=%s returned %r, but has written to another response; cut", self.plan.name, response)
            return self._broken()
        return _GONE  # nothing is sent of it: the stream is on its way

    def _broken(self) -> Reply:
        """The client is gone, or must not take what it got for whole."""
        if self.exchange.live is not None:
            self.exchange.live.end(failed=True)
        return _GONE


def _as_http_error(error: Exception) -> Exception:
    """What the request's body did wrong, as the status it is answered with."""
    if isinstance(error, BodyTooLarge):
        return HTTPError(413, str(error))
    if isinstance(error, RemoteProtocolError):
        return HTTPError(error.status, str(error))
    if isinstance(error, Overloaded):
        return HTTPError(503, str(error), {"Retry-After": "1"})
    return error


def _raise(status: int, headers: dict[str, str]) -> BoundHandler:
    def call(request: Any, params: Any) -> Any:
        raise HTTPError(status, f"{request.method} is not allowed here", headers)

    return call


def _require_upgrade(request: Any, params: Any) -> Any:
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": VERSION.decode()}
    raise HTTPError(426, "this is a WebSocket: connect to it with ws:// or wss://", headers)


def _options(headers: dict[str, str]) -> Response:
    return Response(204, headers=headers)
