"""One WebSocket connection on the loop: frames from the transport to messages, packets to frames, and its end.

Takes the transport over from the HTTP connection that parsed the handshake. Decides when the client is read, keepalive
and closing; `ws_output.py` sends. Does not parse (`ws.py`), does not run handlers (`socket_handling.py`), does not know
rooms (`fanout.py`).

Everything runs on the loop thread but what says otherwise. The end has these steps: `ended` is set once, whoever began
it, and from then on nothing is sent or received but what closes; `_ending` says that the deadline is that of the close;
`_closing` (of `Wire`) that not even the answer is waited for; `gone` that there is no transport any more.
"""

from __future__ import annotations

import asyncio
import itertools

from catzilla._core.clock import monotonic
from catzilla._core.codes import ABNORMAL, GOING_AWAY, RATE_LIMITED, UNAUTHENTICATED, check_close
from catzilla._core.errors import Disconnected
from catzilla._core.rate import Bucket, burst_of
from catzilla._core.services import Services
from catzilla._core.socket_handling import SocketHandling
from catzilla._core.timers import Timer
from catzilla._core.upgrade import Upgrade
from catzilla._core.waits import Waits
from catzilla._core.ws import PONG
from catzilla._core.ws_output import WebSocketOutput

CLOCK_STEP = 0.005  # seconds that a deadline may be met early
LOOK_EVERY = 1.0  # seconds, while a client is not read: whether it has left


class WebSocketConnection(WebSocketOutput):
    """The protocol of one connection after its handshake."""

    __slots__ = (
        "_asked_at",
        "_bucket",
        "_close_frame",
        "_ending",
        "_expiry",
        "_handling",
        "_has_left",
        "_heard",
        "is_reading",
    )

    def __init__(self, services: Services, upgrade: Upgrade, waits: Waits, *, secure: bool) -> None:
        super().__init__(services, upgrade, waits, secure=secure)
        self._handling = SocketHandling(self, upgrade.handler, upgrade.context, services.turns)
        rate = services.limits.message_rate
        self._bucket = Bucket(rate, burst_of(rate)) if rate else None
        self._expiry: Timer | None = None
        self.is_reading = True  # the client is read: its handler keeps up; read by any thread
        self._has_left = False  # nothing more will come than what the kernel holds, so that is read in any case
        self._heard = True  # something has arrived since the last ping
        self._asked_at = 0.0  # when the first ping went out that nothing has come after; 0 if there is none
        self._ending = False  # a close is due or under way, and the deadline is its
        self._close_frame: tuple[int, str] | None = None  # that waits for what is to be sent before

    def __repr__(self) -> str:
        state = "gone" if self.gone else "ended" if self.ended else "paused" if self.paused else "open"
        return f"<WebSocketConnection {self.id} {state} {self._handling.name}>"

    def take_over(self, transport: asyncio.Transport, number: int, head: bytes, expires_in: float | None) -> bool:
        """Begin to serve on the transport of an HTTP connection, with the answer to its handshake.

        False if the handler cannot be had: the budget is full, and nothing was done.
        """
        self.id = f"{self._services.node}-{number}"
        if self.identity is None:
            self.identity = self.id
        self._transport = transport
        self._number = number
        if not self._handling.start():
            return False
        transport.set_protocol(self)  # before anything is written: it is told when the kernel does not take it
        self._services.connections.add(self)
        self._services.websockets += 1
        self._deadline.set(self._services.limits.ping_interval)
        if expires_in is not None:
            self._expiry = self._services.timers.call_later(max(0.0, expires_in), self._expire)
        self.write([head])
        return True

    # From the transport.

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._closing:
            return  # lingering: read and thrown away
        self._heard = True
        frames = self._frames
        is_all = frames.receive(data)
        if messages := frames.messages:
            frames.messages = []
            self._take_messages(messages)
        if is_all:
            return
        if frames.writes:
            self._write_control()
        if not frames.is_open and not self._closing:
            self._peer_closes()
        if frames.has_more:
            self._parse_later()

    def _parse_later(self) -> None:
        """So much has come in small frames that others get their turn first; or the handler does."""
        self._transport.pause_reading()
        if self.is_reading:
            self._services.loop.call_soon(self._parse_more)

    def _parse_more(self) -> None:
        if self._may_read():
            self.data_received(b"")
        if self._may_read() and not self._frames.has_more:
            self._transport.resume_reading()

    def _may_read(self) -> bool:
        return self.is_reading and not self._closing and not self.gone

    def eof_received(self) -> bool:
        """The client sends no more, so it will not answer either; what it has not read is not worth waiting for."""
        if not self._closing:
            self.cut()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.ended is None:
            self._services.bridge.client_disconnects += 1
        self._end(ABNORMAL, "the client is gone")
        self._drop_output()
        self._frames.end()
        if self._space is not None:
            with self._space:
                self._space.notify_all()

    def pause_writing(self) -> None:
        self.paused = True
        if not self._ending:  # which has a deadline already
            self._watch_stall()

    def resume_writing(self) -> None:
        self.paused = False
        self._drained()

    def _drained(self) -> None:
        """The kernel has taken everything."""
        self._await_ping()
        self._write_waiting()
        if self._close_frame is not None and self._outbox is None and not self._closing:
            self._send_close(*self._close_frame)

    @property
    def services(self) -> Services:
        """What this connection shares with the others of its server. [any thread, as `Services` says]"""
        return self._services

    # Messages in.

    def _take_messages(self, messages: list[str | bytes]) -> None:
        if self.ended is not None:
            return  # closing: what was on its way is not handled any more
        self._services.messages_received += len(messages)
        if self._bucket is not None:
            allowed = self._allowed(self._bucket, messages)
            if len(allowed) < len(messages):
                if allowed:
                    self._handling.arrived(allowed)
                self._services.rate_limited += 1
                self.begin_close(RATE_LIMITED, "more messages than this server takes")
                return
        if not self._handling.arrived(messages) and self.is_reading and not self._has_left:
            self.is_reading = False
            self._transport.pause_reading()
            self._deadline.set(LOOK_EVERY)
            # A linear handler may have caught up meanwhile: it looks at `is_reading` after it has taken a message, we
            # at its inbox after that was set, so one of us sees the other.
            self._handling.caught_up()

    def _allowed(self, bucket: Bucket, messages: list[str | bytes]) -> list[str | bytes]:
        """As many of the messages, from the first, as the rate allows."""
        now = monotonic()
        return list(itertools.takewhile(lambda _: bucket.take(now) <= 0, messages))

    def receive(self, timeout: float | None) -> str | bytes:
        """See `SocketHandling.receive`. [the linear handler's thread]"""
        return self._handling.receive(timeout)

    def resume_reading(self) -> None:
        """The handler has caught up."""
        if not self.is_reading and not self.gone and not self._closing:
            self.is_reading = self._heard = True
            self._await_ping()
            if self._frames.has_more:
                self._services.loop.call_soon(self._parse_more)
            else:
                self._transport.resume_reading()

    # Control frames.

    def _write_control(self) -> None:
        """Write pongs and close frames; of the pongs to a client that does not read, the last is enough.

        RFC 6455 section 5.5.3.
        """
        writes = [data for data in self._frames.data_to_send() if data]
        if self.paused:
            pongs = [data for data in writes if data[0] == PONG]
            writes = [data for data in writes if data[0] != PONG]
            if pongs and self._frames.is_open:
                self._pong = pongs[-1]
        if writes:
            self.write([b"".join(writes)])

    def request_ping(self) -> None:
        """Have a ping sent. [any thread]"""
        self._services.handle.post(self.ping)

    def ping(self) -> None:
        """Send a ping now."""
        if self._frames.is_open and not self.paused and not self.gone:
            self._frames.send_ping(b"")
            self._write_control()

    # Ending.

    def close(self, code: int, reason: str) -> None:
        """Begin to close; what was sent before still leaves. Returns at once. [any thread]

        Raises `ValueError` for a code or reason that no close frame may hold.
        """
        check_close(code, reason)
        if self.close_asked is None:
            self.close_asked = (code, reason)
        self._services.handle.post(self.begin_close, code, reason)

    def begin_close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything else, and wait for the answer."""
        if self.ended is None and not self.gone:
            self.flush()
        if self.ended is not None or self.gone:  # the last message may have been the one too many
            return
        self._end(code, reason)
        self._ending = True
        self._deadline.set(self._services.limits.close_timeout)
        if self._outbox is None:
            self._send_close(code, reason)
        else:
            self._close_frame = (code, reason)
        self.resume_reading()  # for the answer

    def _send_close(self, code: int, reason: str) -> None:
        self._close_frame = None
        self._frames.send_close(code, reason)
        self._write_control()

    def _peer_closes(self) -> None:
        """A close frame has come, or something malformed; the answer has been written."""
        frames = self._frames
        if not frames.eof_sent:
            return  # ours is on its way, theirs has not come
        failure = frames.failure
        code, reason = failure or frames.close_received or (ABNORMAL, "")
        self._end(code, reason)
        self._ending = True
        self._drop_output()
        if failure is None:
            self._finish()
        else:
            self._linger()  # it may be in the middle of sending

    def _end(self, code: int, reason: str) -> None:
        """Nothing more is sent or received: tell everybody, once."""
        if self.ended is not None:
            return
        self.ended = (code, reason)
        services = self._services
        services.websockets -= 1
        services.fanout.gone(self)
        if self._expiry is not None:
            self._expiry.cancel()
        self.waits.interrupt(Disconnected(code, reason))
        self._handling.ended()

    def _expire(self) -> None:
        self._expiry = None
        self.begin_close(UNAUTHENTICATED, "the credentials have expired")

    def stop(self) -> None:
        """The server is stopping."""
        self.begin_close(GOING_AWAY, "the server is stopping")

    def stop_now(self) -> None:
        """The server has no more time for this connection."""
        self._end(GOING_AWAY, "the server is stopping")
        self.cut()

    # Deadlines.

    def _await_ping(self) -> None:
        """Something else was waited for; from now on it is the next ping again."""
        if not self._ending and not self.paused:
            self._asked_at = 0.0
            self._deadline.set(self._services.limits.ping_interval if self.is_reading else LOOK_EVERY)

    def _look(self) -> None:
        """The client is not read, because its handler does not keep up: see whether it has left.

        Then what the kernel has of it is read in any case: it is no more than that, and its end comes last.
        """
        if self._peer_has_closed():
            self._has_left = True
            self.resume_reading()
            return
        now, interval = monotonic(), self._services.limits.ping_interval
        if now - self._asked_at >= interval - CLOCK_STEP:  # for the sake of what lies between; an answer is not read
            self._asked_at = now
            self.ping()
        self._deadline.set(min(LOOK_EVERY, interval))

    def _expired(self) -> None:
        if self._ending and not self.gone:
            self.cut()
        else:
            super()._expired()

    def _deadline_passed(self) -> None:
        """Ping, and see that something comes back."""
        if not self.is_reading:
            self._look()
            return
        limits, now = self._services.limits, monotonic()
        if self._asked_at and self._heard:
            rest = self._asked_at + limits.ping_interval - now
            self._asked_at = 0.0
            if rest > CLOCK_STEP:
                self._deadline.set(rest)
                return
        elif self._asked_at and now - self._asked_at > limits.pong_timeout - CLOCK_STEP:
            self._end(ABNORMAL, "the client does not answer pings")
            self.cut()
            return
        if not self._asked_at:
            self._asked_at, self._heard = now, False
        self._deadline.set(min(limits.ping_interval, limits.pong_timeout))
        self.ping()
