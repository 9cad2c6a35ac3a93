"""One client connection: bytes from the transport to requests, one after the other; `http_responses.py` answers them.

Decides when a request is handed to a worker, when the connection is reused, when it is cut, and which deadline holds.
Does not parse (`http1.py`), does not schedule (`workers.py`), does not know handlers. Everything here runs on the loop
thread; workers reach it through `LoopHandle.post` only, and read `gone` and `can_send_files`.

A request goes to a worker when its body is whole, or when `body_buffer_bytes` of it are there, so that a slow upload
does not hold a thread. While a response is under way, further requests wait as bytes.
"""

from __future__ import annotations

import asyncio

from catzilla._core.body import IncomingBody
from catzilla._core.clock import monotonic
from catzilla._core.dispatch import OVERLOADED, Exchange
from catzilla._core.errors import BodyTooLarge, Disconnected, LocalProtocolError, RemoteProtocolError
from catzilla._core.fed_stream import FedStream
from catzilla._core.http1 import (
    NEED_DATA,
    BodyData,
    Framing,
    RequestParser,
    RequestStart,
    response_head,
)
from catzilla._core.http_responses import HTTPResponses
from catzilla._core.limits import KIB
from catzilla._core.services import Services
from catzilla._core.upgrade import Upgrade
from catzilla._core.wire import LINGER
from catzilla._core.ws_connection import WebSocketConnection
from catzilla._core.ws_handshake import switching_protocols

EVENTS_A_TURN = 100  # of the parser, before other connections get their turn
PIPELINE_BYTES = 64 * KIB  # of requests that wait behind a response before the socket is no longer read


class HTTPConnection(HTTPResponses):
    """The protocol of one connection."""

    __slots__ = ("_body", "_body_due", "_half_closed", "_parser", "_wants_continue")

    def __init__(self, services: Services, *, secure: bool) -> None:
        super().__init__(services, secure=secure)
        self._parser: RequestParser | None = None  # while there are bytes of a request
        self._body: IncomingBody | None = None  # of that request, while it is arriving
        self._body_due = 0  # bytes of it that must be here when the deadline passes
        self._wants_continue = False  # the client waits for "100 Continue"
        self._half_closed = False  # the client sends no more

    def __repr__(self) -> str:
        state = "gone" if self.gone else "closing" if self._closing else "paused" if self.paused else "open"
        return f"<HTTPConnection {self._number} {state} {self._exchange or 'idle'}>"

    @property
    def is_idle(self) -> bool:
        """No request is being answered or has begun to arrive."""
        return self._exchange is None and not self._has_begun

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline.set(self._services.limits.head_timeout)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # lingering: read and thrown away
        parser = self._parser
        if parser is None:
            parser = self._parser = self._new_parser()
            if self._exchange is None:
                self._deadline.set(self._services.limits.head_timeout)
        parser.receive_data(data)
        if self._exchange is None or self._body is not None:
            self._advance(parser)
        elif len(parser.pending) > PIPELINE_BYTES:
            self._hold_pipeline()

    def eof_received(self) -> bool:
        """The client sends no more. It may still want the answer to a plain request; a stream it has left."""
        exchange = self._exchange
        if self._stream is not None:
            self.cut()  # closing would first wait for the client to read what it has left
            return False
        if exchange is None or not exchange.submitted or self._secure:
            return False  # nothing is asked that can still be answered
        self._half_closed = True
        if self._body is not None:
            self._body.fail(Disconnected(reason="the client closed the connection inside its request body"))
            self._body = None
        exchange.waits.interrupt(Disconnected())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        error = Disconnected()
        exchange, stream = self._exchange, self._stream
        if self._body is not None:
            self._body.fail(error)
        if exchange is not None:
            exchange.waits.interrupt(error)
            self._log(exchange, complete=False)
        if stream is not None:
            self._services.bridge.client_disconnects += 1
            stream.cut(error)
        self._exchange = self._stream = self._body = self._parser = None

    def _drained(self) -> None:
        # While it was behind, the client was watched for that alone. What else it owes is waited for again.
        if self._closing and self._exchange is None:
            self._deadline.set(LINGER)
        elif self._body is not None and not self._body.is_full:
            self._await_body()
        if self._stream is not None:
            self._stream.drained()

    # Requests.

    def _new_parser(self) -> RequestParser:
        peer = self._transport.get_extra_info("peername")
        host = self._transport.get_extra_info("sockname")
        return RequestParser(
            self._services.limits,
            scheme="https" if self._secure else "http",
            client=(peer[0], peer[1]) if isinstance(peer, tuple) else None,
            server=(host[0], host[1]) if isinstance(host, tuple) else None,
        )

    def _hold_pipeline(self) -> None:
        """Enough requests wait behind a response. Behind a stream, which may never end, the client is cut: while its
        socket is not read, nobody would notice that it leaves."""
        if self._stream is not None:
            self.cut()
        else:
            self._transport.pause_reading()

    def _advance(self, parser: RequestParser) -> None:
        """Act on what the parser has, as far as it can be acted on now, and not for long in one turn of the loop."""
        try:
            for _ in range(EVENTS_A_TURN):
                if self._exchange is not None and (self._body is None or self._body.is_full):
                    return
                event = parser.next_event()
                if event is NEED_DATA:
                    return
                if isinstance(event, RequestStart):
                    self._begin(event)
                elif isinstance(event, BodyData):
                    self._feed(event.data)
                else:
                    self._body_is_whole()
        except RemoteProtocolError as error:
            self._refuse(error)
        else:
            self._transport.pause_reading()
            self._services.loop.call_soon(self._advance_more, parser)

    def _advance_more(self, parser: RequestParser) -> None:
        if parser is not self._parser or self._closing:
            return
        self._advance(parser)
        held = self._body.is_full if self._body is not None else len(parser.pending) > PIPELINE_BYTES
        if not held or self._exchange is None:
            self._transport.resume_reading()

    def _begin(self, start: RequestStart) -> None:
        """A request's head is there."""
        services = self._services
        services.requests += 1
        self._deadline.clear()
        exchange = Exchange(services, self, start.head, keep_alive=start.keep_alive and not services.stopping)
        self._exchange = exchange
        if start.length == 0:
            self._submit_once(exchange)
            return
        limit = services.limits.body_buffer_bytes
        self._body = exchange.body = IncomingBody(
            exchange.waits, limit, lambda: services.handle.post(self._resume_body)
        )
        self._wants_continue = start.expects_continue
        self._await_body()
        if start.expects_continue:
            self._submit_once(exchange)  # the client waits until the handler wants the body

    def _feed(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None
        assert exchange is not None
        if not body.feed(data):
            self._transport.pause_reading()
            self._deadline.clear()  # it is the handler that takes its time now
            self._submit_once(exchange)

    def _await_body(self) -> None:
        """Give the client `body_timeout` to send its share of the body."""
        assert self._body is not None
        limits = self._services.limits
        self._body_due = self._body.received + int(limits.min_body_rate * limits.body_timeout)
        self._deadline.set(limits.body_timeout)

    def _body_is_whole(self) -> None:
        body, exchange = self._body, self._exchange
        assert body is not None
        assert exchange is not None
        self._deadline.clear()
        body.finish()
        self._body = None
        self._submit_once(exchange)

    def _submit_once(self, exchange: Exchange) -> None:
        if not exchange.submitted:
            exchange.submitted = True
            exchange.received = monotonic()
            self._services.workers.submit(exchange)

    def _resume_body(self) -> None:
        """The handler wants more of the body."""
        if self._wants_continue and not self.gone:
            self._wants_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._body is not None and self._parser is not None and not self._body.is_full:
            self._await_body()
            self._transport.resume_reading()
            self._advance(self._parser)

    def _refuse(self, error: RemoteProtocolError) -> None:
        """Answer something malformed and close. A handler that is reading the body gets the error instead."""
        exchange = self._exchange
        self._closing = True
        self._deadline.clear()
        if self._body is not None:
            assert exchange is not None
            too_large = error.status == 413
            self._body.fail(BodyTooLarge(self._services.limits.max_body_bytes) if too_large else error)
            self._body = None
            exchange.keep_alive = False
            if exchange.submitted:
                return
        if exchange is not None:
            exchange.submitted = True
            self._exchange = None
        self._write_refusal(error, exchange)

    def _write_refusal(self, error: RemoteProtocolError, exchange: Exchange | None) -> None:
        body = f"{error.status} {error}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        head = response_head(
            error.status,
            headers,
            framing=Framing.LENGTH,
            length=len(body),
            keep_alive=False,
            http_version="1.1",
            date=self._services.date.value(),
        )
        self.write([head + body])
        self._log_line(exchange, error.status, len(body), 0.0, complete=True)
        self._linger()

    def upgrade(self, exchange: Exchange, upgrade: Upgrade) -> None:
        """Hand the transport over to the WebSocket protocol: the handler has accepted. Posted by the worker."""
        if self._exchange is not exchange:
            return
        parser, transport, services = self._parser, self._transport, self._services
        if self._half_closed:  # it could not answer a close, nor a ping
            self.cut()
            return
        if services.stopping:
            self.send_reply(exchange, OVERLOADED)
            return
        socket = WebSocketConnection(services, upgrade, exchange.waits, secure=self._secure)
        head = switching_protocols(upgrade.handshake.headers, services.date.value())
        if not socket.take_over(transport, self._number, head, upgrade.expires_in):
            self.send_reply(exchange, OVERLOADED)
            return
        exchange.status = 101
        self._log(exchange, complete=True)
        self._deadline.end()
        self.gone = True
        self._exchange = self._parser = None
        services.forget(self)
        transport.resume_reading()  # first: what is pending may be more than the handler's inbox holds
        if parser is not None and parser.pending:
            socket.data_received(parser.pending)

    # Around a response.

    def _may_stream(self) -> bool:
        too_much = self._parser is not None and self._body is None and len(self._parser.pending) > PIPELINE_BYTES
        return not self._half_closed and not too_much  # see `eof_received` and `_hold_pipeline`

    def _leave_request(self) -> None:
        self._drop_unread_body()
        if self._body is None:
            self._deadline.close()  # a stream waits for its client only
            if self._parser is not None and not self._parser.pending:
                self._parser = None

    def _drop_unread_body(self) -> None:
        """A stream has begun, and nobody has read the request's body, which is too large to hold: read on and throw it
        away, else nobody would notice that the client leaves."""
        if self._body is not None and self._body.is_full and not self._body.started:
            self._body.fail(LocalProtocolError("the body was not read before the response began, and was thrown away"))
            self._body = self._parser = None
            self._closing = True
            self._transport.resume_reading()

    def _answers_early(self) -> bool:
        self._wants_continue = False  # it is too late to say that
        return self._body is not None

    def _done(self) -> None:
        """A response is out: log it, and go on with the next request or close."""
        exchange = self._exchange
        if exchange is None or self.gone:
            return
        self._log(exchange, complete=True)
        self._exchange = None
        if not exchange.keep_alive or self._closing or self._services.stopping:
            self._end()
            return
        parser = self._parser
        self._transport.resume_reading()
        if parser is not None and parser.pending:
            self._deadline.set(self._services.limits.head_timeout)
            self._advance(parser)
        else:
            self._parser = None  # an idle connection keeps no parser
            self._deadline.set(self._services.limits.keep_alive_timeout)
        if self._half_closed and self._exchange is None:
            self._finish()

    def _end(self) -> None:
        """The last response is out; what the client has sent beyond it is not read as a request any more."""
        unread = self._body is not None or self._closing or self._has_begun
        self._body = None
        if unread:
            self._linger()
        else:
            self._finish()

    @property
    def _has_begun(self) -> bool:
        """Part of a request has arrived."""
        return self._parser is not None and bool(self._parser.pending)

    # Stopping.

    def stop(self) -> None:
        """The server is stopping: end what has no end of its own, and let the rest finish.

        An idle connection is closed, and a room's event stream ended. A generator's is cut, whose next item nobody can
        tell. The clients of both come back by themselves; after a cut a browser complains.
        """
        if self.is_idle:
            self._finish()
        elif isinstance(self._stream, FedStream):
            self._stream.end()
        elif self._stream is not None and self._stream.heartbeat is not None:
            self.stop_now()

    def stop_now(self) -> None:
        """The server has no more time for this connection."""
        error = Disconnected(1001, "the server is stopping")
        if self._stream is not None:
            self._stream.cut(error)
        if self._exchange is not None:
            self._exchange.waits.interrupt(error)
        self.cut()

    # Deadlines.

    def _deadline_passed(self) -> None:
        if self._body is not None and self._body.received >= self._body_due:
            self._await_body()
        elif self._body is not None:
            self._refuse(RemoteProtocolError(408, "the request body did not arrive in time"))
        elif self._exchange is None and self._has_begun:
            self._refuse(RemoteProtocolError(408, "the request's head did not arrive in time"))
        elif self._exchange is None:
            self._finish()  # nothing was asked, so nothing is answered
