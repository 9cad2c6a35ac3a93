"""The response side of an HTTP connection: heads, bodies, files and streams, one response at a time.

Decides how each kind of reply is framed and written, and what a stream's end or failure means for the connection.
`http_connection.py` adds the request side. Everything runs on the loop thread; workers post to it.
"""

from __future__ import annotations

import os

from catzilla._core.access_log import AccessRecord
from catzilla._core.clock import monotonic
from catzilla._core.dispatch import Exchange
from catzilla._core.errors import Disconnected
from catzilla._core.http1 import Framing, has_no_body, response_head, stream_framing
from catzilla._core.limits import KIB
from catzilla._core.messages import Feed, FileSpan, Reply, Source, redacted
from catzilla._core.services import Services
from catzilla._core.stream import Stream
from catzilla._core.wire import Wire

JOIN_BELOW = 64 * KIB  # a body smaller than this is joined to its head; a larger one is not copied


class HTTPResponses(Wire):
    """What a connection sends. A subclass says where requests come from and what follows a response (`_done`)."""

    __slots__ = ("_exchange", "_stream")

    def __init__(self, services: Services, *, secure: bool) -> None:
        super().__init__(services, secure=secure)
        self._exchange: Exchange | None = None  # the request that is being answered
        self._stream: Stream | None = None  # of that response

    @property
    def can_send_files(self) -> bool:
        """Whether the kernel can send a file by itself: not through TLS. [any thread]"""
        return not self._secure and hasattr(os, "sendfile")

    # Replies.

    def send_reply(self, exchange: Exchange, reply: Reply) -> None:
        """Send a response whose body is bytes or a file. Posted by the worker."""
        body = reply.body
        if self._exchange is not exchange:  # the client has gone meanwhile
            if isinstance(body, FileSpan):
                body.file.close()
            return
        exchange.status = reply.status
        if isinstance(body, FileSpan):
            self._send_file_reply(exchange, reply, body)
            return
        assert isinstance(body, bytes)
        length = None if has_no_body(reply.status) else len(body)
        if length is None or exchange.method == "HEAD":
            body = b""
        exchange.sent = len(body)
        framing = Framing.LENGTH if body else Framing.NONE
        self._write_exchange_head(exchange, reply, framing, length, body)
        self._when_written(self._done)

    def send_head(self, exchange: Exchange, reply: Reply) -> None:
        """Send a stream's head where no body may follow."""
        if self._exchange is exchange:
            exchange.status = reply.status
            framing, length = self._framing(exchange, reply)
            self._write_exchange_head(exchange, reply, framing, length)
            self._when_written(self._done)

    def begin_stream(self, exchange: Exchange, stream: Stream, reply: Reply) -> None:
        """Make `stream` the response; its head leaves with its first item. Posted by the worker."""
        assert isinstance(reply.body, (Source, Feed))
        if self._exchange is not exchange:
            stream.cut(Disconnected())
            return
        if exchange.status or not self._may_stream():  # answered otherwise already; or the client is as good as gone
            stream.cut(Disconnected())
            self.cut()
            return
        exchange.status = reply.status
        framing, length = self._framing(exchange, reply)
        if framing is Framing.CLOSE:
            exchange.keep_alive = False
        head = self._make_head(exchange, reply, framing, length)
        self._stream = stream
        self._leave_request()
        exchange.forget_request()
        stream.begin(head, framing, length if framing is Framing.LENGTH else None)
        if self._services.stopping:
            self.stop()

    def _framing(self, exchange: Exchange, reply: Reply) -> tuple[Framing, int | None]:
        return stream_framing(reply.status, reply.headers, exchange.method, exchange.http_version)

    def _send_file_reply(self, exchange: Exchange, reply: Reply, span: FileSpan) -> None:
        bare = exchange.method == "HEAD" or has_no_body(reply.status) or span.length == 0
        framing = Framing.NONE if bare else Framing.LENGTH
        self._write_exchange_head(exchange, reply, framing, None if has_no_body(reply.status) else span.length)
        if bare:
            span.file.close()
            self._when_written(self._done)
        else:
            exchange.sent = span.length
            self._send_file(span, self._file_sent)

    def _file_sent(self, missing: int) -> None:
        if self._exchange is not None and missing:
            self._exchange.sent -= missing
            self.cut()
        else:
            self._done()

    def _write_exchange_head(
        self, exchange: Exchange, reply: Reply, framing: Framing, length: int | None, body: bytes = b""
    ) -> None:
        head = self._make_head(exchange, reply, framing, length)
        self.write([head + body] if len(body) < JOIN_BELOW else [head, body])

    def _make_head(self, exchange: Exchange, reply: Reply, framing: Framing, length: int | None) -> bytes:
        if self._answers_early() or self._services.stopping:
            exchange.keep_alive = False  # what is left of the request is not worth reading
        return response_head(
            reply.status,
            reply.headers,
            framing=framing,
            length=length,
            keep_alive=exchange.keep_alive,
            http_version=exchange.http_version,
            date=self._services.date.value(),
        )

    # `Sink`: what a stream calls, beside `write`.

    def stream_ended(self, stream: Stream) -> None:
        """See `Sink`."""
        self._leave_stream(stream)
        self._done()

    def stream_failed(self, stream: Stream) -> None:
        """See `Sink`. Where the end of the connection is the end of the body, only a reset tells a cut from an end."""
        self._leave_stream(stream)
        self._services.bridge.errors += 1
        if stream.framing is Framing.CLOSE:
            self.cut()
        else:
            self._finish()
        stream.cut(Disconnected())

    def replace_stream(self, stream: Stream, reply: Reply) -> None:
        """See `Sink`."""
        exchange = self._exchange
        self._stream = None
        if exchange is not None:
            self.send_reply(exchange, reply)

    def _leave_stream(self, stream: Stream) -> None:
        if self._exchange is not None:
            self._exchange.sent = stream.sent
        self._stream = None

    # The access log.

    def _log(self, exchange: Exchange, *, complete: bool) -> None:
        if self._stream is not None:
            exchange.sent = self._stream.sent
        duration = monotonic() - exchange.received
        self._log_line(exchange, exchange.status, exchange.sent, duration, complete=complete)

    def _log_line(self, exchange: Exchange | None, status: int, sent: int, duration: float, *, complete: bool) -> None:
        """Log a response; `exchange` is None when its request could not be read."""
        log = self._services.access_log
        if log is not None:
            method, target, version = "-", "-", "1.1"
            if exchange is not None:
                method, target, version = exchange.method[:32], redacted(exchange.target)[:2048], exchange.http_version
            peer = self._transport.get_extra_info("peername")
            client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
            log.write(AccessRecord(self._number, client, method, target, version, status, sent, duration, complete))

    # For the request side.

    def _done(self) -> None:
        """A response is out whole."""
        raise NotImplementedError

    def _may_stream(self) -> bool:
        """Whether a stream may begin: its client must be there, and its leaving must be noticed."""
        raise NotImplementedError

    def _leave_request(self) -> None:
        """A stream begins: drop what was kept for its request; a parked stream must be small."""
        raise NotImplementedError

    def _answers_early(self) -> bool:
        """A head is made: whether part of the request has not been read."""
        raise NotImplementedError
