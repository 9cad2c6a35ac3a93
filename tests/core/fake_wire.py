"""A transport that a test holds in its hands, and a connection on it with everything around standing still."""

from __future__ import annotations

from typing import Any

from catzilla._core.access_log import AccessRecord
from catzilla._core.fanout import Fanout
from catzilla._core.http_connection import HTTPConnection
from catzilla._core.limits import Limits
from catzilla._core.messages import Reply, RequestHead
from catzilla._core.pace import Pace
from catzilla._core.services import Services
from catzilla._core.turns import Turns
from tests.core.fakes import Bench, FakeLoop


class FakeTransport:
    """The kernel takes everything, unless it is `blocked`; then bytes wait until `unblock`."""

    def __init__(self, loop: FakeLoop, extra: dict[str, Any]) -> None:
        self.loop = loop
        self.extra = extra
        self.protocol: Any = None
        self.sent = b""
        self.waiting = b""
        self.blocked = False
        self.closing = False
        self.eof = False
        self.aborted = False
        self.reading = True
        self.can_eof = True
        self.marks: dict[str, int] = {}
        self.writes = 0

    def write(self, data: bytes) -> None:
        assert not self.closing, "written to a closing transport"
        assert not self.eof, "written after the end"
        self.writes += 1
        if not self.blocked:
            self.sent += data
            return
        was_empty = not self.waiting
        self.waiting += data
        if was_empty and data:
            self.protocol.pause_writing()

    def writelines(self, buffers) -> None:
        self.write(b"".join(buffers))

    def unblock(self, count: int | None = None) -> None:
        """The kernel takes `count` bytes of what waits, or all."""
        self.sent += self.waiting[:count]
        self.waiting = self.waiting[len(self.waiting) if count is None else count :]
        if not self.waiting:
            self.blocked = False
            self.protocol.resume_writing()
            if self.closing:
                self._lose()

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def set_write_buffer_limits(self, **marks: int) -> None:
        self.marks = marks

    def get_extra_info(self, name: str) -> Any:
        return self.extra.get(name)

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return self.can_eof

    def write_eof(self) -> None:
        assert not self.eof
        self.eof = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.waiting:
                self._lose()

    def abort(self) -> None:
        if not self.aborted:
            self.closing = self.aborted = True
            self._lose()

    def _lose(self) -> None:
        self.loop.soon.append((self.protocol.connection_lost, (None,)))


class OnePlan:
    """Every request has the same route."""

    name = "handler"
    pace = Pace()


class FakeApplication:
    def __init__(self) -> None:
        self.plans: list[RequestHead] = []
        self.answer: Any = None

    def plan(self, head: RequestHead) -> OnePlan:
        self.plans.append(head)
        return OnePlan()

    def handle(self, exchange: Any) -> Reply:
        reply = self.answer(exchange) if callable(self.answer) else self.answer
        assert isinstance(reply, Reply)
        return reply


class Today:
    """The one date there is."""

    def value(self) -> bytes:
        return b"today"


class LineLog:
    """An access log that keeps its records."""

    def __init__(self) -> None:
        self.records: list[AccessRecord] = []

    def write(self, record: AccessRecord) -> None:
        self.records.append(record)


class Line:
    """One connection with its transport; requests wait in `bench.workers.submitted` until a test answers them."""

    def __init__(self, bench: Bench, *, secure: bool = False, unix: bool = False, limits: Limits | None = None) -> None:
        self.bench = bench
        self.log = LineLog()
        self.application = FakeApplication()
        self.services = Services(
            loop=bench.loop,
            limits=limits or bench.limits,
            application=self.application,
            handle=bench.handle,
            timers=bench.timers,
            workers=bench.workers,
            turns=Turns(bench.loop, bench.handle, bench.workers, limits or bench.limits),
            fanout=Fanout(bench.loop, bench.timers, presence_delay=3.0),
            bridge=bench.bridge,
            access_log=self.log,
        )
        self.services.date = Today()
        self.connect(secure=secure, unix=unix)

    def connect(self, *, secure: bool = False, unix: bool = False) -> None:
        names = {} if unix else {"peername": ("192.0.2.9", 4711), "sockname": ("192.0.2.1", 80)}
        self.connection = HTTPConnection(self.services, secure=secure)
        self.transport = FakeTransport(self.bench.loop, names)
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)

    def request(self) -> Any:
        """The exchange that was submitted last, and no other."""
        (exchange,) = self.bench.workers.submitted
        self.bench.workers.submitted.clear()
        return exchange

    def run(self, answer: Any) -> None:
        """Have the home thread run the submitted request, and the loop send what it answers."""
        self.application.answer = answer
        exchange = self.request()
        exchange.run(self.bench.worker)
        self.bench.settle()

    def turn(self) -> None:
        self.bench.loop.turn()

    @property
    def sent(self) -> bytes:
        """What was sent since the last look."""
        sent, self.transport.sent = self.transport.sent, b""
        return sent

    @property
    def armed(self) -> list[float]:
        """The deadline of the connection, as seconds from now."""
        when = self.connection._deadline._when
        return [] if when is None else [when - self.bench.loop.now]
