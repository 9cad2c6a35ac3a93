"""One request on its way through a worker: an `Exchange` is the job that runs the handler and what it answers with.

Decides how each kind of reply goes on: bytes and files are handed to the connection, an iterable makes this worker its
home, a list is left to the loop. Knows the application only as `Application`.
"""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Protocol

from catzilla._core.body import IncomingBody, NoBody
from catzilla._core.clock import monotonic
from catzilla._core.current import current
from catzilla._core.errors import Overloaded
from catzilla._core.fed_stream import FedStream
from catzilla._core.http1 import has_no_body
from catzilla._core.messages import Feed, FileSpan, Reply, RequestHead, Source, redacted
from catzilla._core.pace import Pace
from catzilla._core.pulled_stream import PulledStream
from catzilla._core.services import Services
from catzilla._core.upgrade import Upgrade
from catzilla._core.waits import Waits
from catzilla._core.worker import Worker
from catzilla._core.written_stream import WrittenStream

if TYPE_CHECKING:
    from catzilla._core.http_connection import HTTPConnection

logger = logging.getLogger("catzilla")

OVERLOADED = Reply(
    503,
    [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")],
    b"503 Service Unavailable: the server is at its limit\n",
)

FAILED = Reply(500, [(b"content-type", b"text/plain; charset=utf-8")], b"500 Internal Server Error\n")


class Plan(Protocol):
    """What the application has decided about a request from its head alone: which route it takes."""

    @property
    def name(self) -> str:
        """What log lines and statistics call the handler."""

    @property
    def pace(self) -> Pace:
        """Whether it is known to block."""


class Application(Protocol):
    """What the server serves."""

    def plan(self, head: RequestHead) -> Plan:
        """Find the route. Pure and quick. [loop thread]"""

    def handle(self, exchange: Exchange) -> Reply | Upgrade:
        """Run middleware and handler; answers errors too and does not raise. [worker thread]"""


class Exchange:
    """A request and what becomes of it. Made by the loop, run by one worker, then the loop's again."""

    __slots__ = (
        "body",
        "connection",
        "context",
        "head",
        "http_version",
        "keep_alive",
        "live",
        "method",
        "name",
        "pace",
        "plan",
        "received",
        "sent",
        "services",
        "status",
        "submitted",
        "target",
        "waits",
        "worker",
    )

    def __init__(self, services: Services, connection: HTTPConnection, head: RequestHead, *, keep_alive: bool) -> None:
        self.services = services
        self.connection = connection
        self.head: RequestHead | None = head
        self.method = head.method
        self.target = head.target
        self.http_version = head.http_version
        self.keep_alive = keep_alive
        self.waits = Waits()
        self.body: IncomingBody | NoBody | None = NoBody(self.waits)
        self.plan: Plan | None = services.application.plan(head)
        self.name = self.plan.name
        self.pace = self.plan.pace
        self.received = monotonic()
        self.worker: Worker | None = None
        self.context: contextvars.Context | None = None
        self.live: WrittenStream | None = None  # once a writer has been flushed
        self.submitted = False
        self.status = 0
        self.sent = 0

    def __repr__(self) -> str:
        return f"<Exchange {self.method} {redacted(self.target)} status={self.status or '-'}>"

    def refuse(self) -> None:
        """See `workers.Request`. [loop thread]"""
        self.connection.send_reply(self, OVERLOADED)

    # On the worker.

    def run(self, worker: Worker) -> None:
        """Run the handler and set its answer on its way. [worker thread]"""
        current.waits = self.waits
        self.worker = worker
        self.context = contextvars.copy_context()
        began = monotonic()
        try:
            reply = self.context.run(self.services.application.handle, self)
        except BaseException:  # SystemExit, say: no reason to let the client wait for ever
            if self.live is None:
                self.services.handle.post(self.connection.send_reply, self, FAILED)
            else:
                self.live.end(failed=True)
            raise
        if isinstance(reply, Upgrade):
            reply.context = self.context
            self.services.handle.post(self.connection.upgrade, self, reply)
        elif self.live is None:
            self._answer(reply, monotonic() - began)

    def start_live(self, reply: Reply) -> WrittenStream:
        """Send the head of a response that is written to, now; `reply.body` is a Source without items. [worker thread]

        Raises `Disconnected` when the client has gone, and `Overloaded` when the budget of streams is full.
        """
        assert isinstance(reply.body, Source)
        assert self.live is None
        self.waits.check()
        on_own_thread = current.waits is self.waits and self.worker is not None
        if on_own_thread and self.worker is not None and not self.services.workers.start_writing(self.worker):
            raise Overloaded("the server runs as many streams as it may")
        stream = WrittenStream(
            self.services.bridge, self.connection, self.name, self._heartbeat(reply.body), self.waits
        )
        self.live = stream
        self.services.handle.post(self.connection.begin_stream, self, stream, reply)
        return stream

    def _answer(self, reply: Reply, spent: float) -> None:
        body = reply.body
        if not isinstance(body, Source):  # what a stream takes is known when its generator returns
            self.pace.record(spent)
        if isinstance(body, Feed):
            self._feed(reply, body)
            return
        if not isinstance(body, Source):
            if isinstance(body, FileSpan) and not self.connection.can_send_files:
                length = (b"content-length", b"%d" % body.length)
                body = Source(_FileReader(body))
                reply = Reply(reply.status, [*reply.headers, length], body)
            else:
                self.services.handle.post(self.connection.send_reply, self, reply)
                return
        self._stream(reply, body)

    def _stream(self, reply: Reply, source: Source) -> None:
        """Make this worker the home of `source`, and pull."""
        post = self.services.handle.post
        if self.method == "HEAD" or has_no_body(reply.status):
            self._discard(source)
            post(self.connection.send_head, self, reply)
            return
        # What needs no user code needs no thread: the loop pulls a list by itself.
        home = None if type(source.items) in (list, tuple) and source.encode is None else self.worker
        if home is not None and not self.services.workers.adopt(home):
            self._discard(source)
            post(self.connection.send_reply, self, OVERLOADED)
            return
        assert self.context is not None
        stream = PulledStream(
            self.services.bridge,
            self.connection,
            source,
            name=self.name,
            heartbeat=self._heartbeat(source),
            home=home,
            context=self.context,
            waits=self.waits,
            pace=self.pace,
        )
        # From here on this exchange is the loop's. The stream lets go of the iterator when it is through; nobody else
        # may hold it.
        post(self.connection.begin_stream, self, stream, reply)
        del reply, source
        # Also what the loop pulls begins here: a first item that is wrong is answered by the user's error handlers.
        stream.run(home)

    def _feed(self, reply: Reply, feed: Feed) -> None:
        """Leave the stream to the loop: it needs no thread."""
        post, services = self.services.handle.post, self.services
        if self.method == "HEAD" or has_no_body(reply.status):
            post(self.connection.send_head, self, reply)
            return
        heartbeat = services.limits.heartbeat_interval if feed.heartbeat is None else feed.heartbeat
        stream = FedStream(
            services.bridge,
            self.connection,
            feed,
            services.fanout,
            self.waits,
            name=self.name,
            heartbeat=heartbeat,
            member_id=f"{services.node}-{self.connection.number}",
        )
        post(self.connection.begin_stream, self, stream, reply)

    def _heartbeat(self, source: Source) -> float | None:
        """Seconds of silence before a comment, 0 for none; None for what is no event stream."""
        if not source.event_stream:
            return None
        return self.services.limits.heartbeat_interval if source.heartbeat is None else source.heartbeat

    def _discard(self, source: Source) -> None:
        """Close an iterator that will not be pulled. [worker thread]"""
        close = getattr(source.items, "close", None)
        if close is not None and self.context is not None:
            try:
                self.context.run(close)
            except Exception:
                logger.exception("stream=%s failed while it was being closed unstarted", self.name)

    def forget_request(self) -> None:
        """Let go of what a running stream has no use for; a parked one must be small. [loop thread]"""
        self.head = None
        self.plan = None
        self.worker = None
        self.context = None
        self.body = None


class _FileReader:
    """A file as a stream, for where the kernel cannot send it by itself.

    Not a generator: closing one that has not begun would leave the file open.
    """

    def __init__(self, span: FileSpan) -> None:
        self._file = span.file
        self._left = span.length
        span.file.seek(span.offset)

    def __iter__(self) -> _FileReader:
        return self

    def __next__(self) -> bytes:
        data = self._file.read(min(self._left, 256 * 1024)) if self._left > 0 else b""
        if not data:
            self.close()
            raise StopIteration
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()
        self._left = 0
