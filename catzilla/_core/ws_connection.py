"""One WebSocket connection on the loop: frames from the transport to messages, packets to frames, and its end.

Takes the transport over from the HTTP connection that parsed the handshake. Decides keepalive, backpressure both ways
and closing. Does not parse (`ws.py`), does not run handlers (`socket_handling.py`), does not know rooms (`fanout.py`).

Everything runs on the loop thread but what says otherwise. What handlers send is posted, so it leaves in the order in
which it was sent, among what rooms deliver; `_posted` counts its bytes on the way in, under `_accounts`, and `_taken`,
the loop's, those that the kernel has taken. The difference is what a slow client holds up, and what `send` waits for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from catzilla._core.clock import monotonic
from catzilla._core.codes import ABNORMAL, GOING_AWAY, RATE_LIMITED, SLOW, UNAUTHENTICATED, check_close
from catzilla._core.errors import Disconnected, SlowConsumer
from catzilla._core.fanout import NO_ROOMS, Batch, RoomMembers, encode_frame, unpacked
from catzilla._core.limits import KIB
from catzilla._core.outbox import Outbox, Packet
from catzilla._core.publication import Publication
from catzilla._core.rate import Bucket, burst_of
from catzilla._core.services import Services
from catzilla._core.socket_handling import SocketHandling
from catzilla._core.timers import Timer
from catzilla._core.upgrade import Upgrade
from catzilla._core.waits import Waits
from catzilla._core.wire import Wire
from catzilla._core.ws import PONG, Frames, frame

WRITE_BYTES = 256 * KIB  # of packets, handed to the transport at once: what is there cannot be dropped any more
CLOCK_STEP = 0.005  # seconds that a deadline may be met early
LOOK_EVERY = 1.0  # seconds, while a client is not read: whether it has left
JOIN_BYTES = 64 * KIB  # a burst up to this is joined, a larger one goes out piece by piece, uncopied

_accounts = threading.Lock()  # guards every connection's `_posted` and `_room`; held for a few instructions


class WebSocketConnection(Wire):
    """The protocol of one connection after its handshake. Is a `fanout.Member`."""

    __slots__ = (
        "_asked_at",
        "_bucket",
        "_close_frame",
        "_ending",
        "_expiry",
        "_frames",
        "_handling",
        "_has_left",
        "_heard",
        "_in_flight",
        "_outbox",
        "_pong",
        "_posted",
        "_reading",
        "_room",
        "_taken",
        "close_asked",
        "compresses",
        "ended",
        "id",
        "identity",
        "burst",
        "principal",
        "rooms",
        "waits",
    )

    def __init__(self, services: Services, upgrade: Upgrade, waits: Waits, *, secure: bool) -> None:
        super().__init__(services, secure=secure)
        limits = services.limits
        self.waits = waits  # of the handshake's request too, so that it knows when its client has gone
        self.principal: Any = upgrade.principal
        self.identity: Hashable = upgrade.identity
        self.id = ""
        self.rooms: AbstractSet[RoomMembers] | None = NO_ROOMS
        self.burst: list[Packet | Batch] = []
        self.compresses = bool(upgrade.handshake.extensions)
        self.ended: tuple[int, str] | None = None  # code and reason; set once by the loop, read by any
        self.close_asked: tuple[int, str] | None = None  # by the handler; set by any thread, read by any
        self._frames = Frames(upgrade.handshake, limits.max_message_bytes, limits.max_message_fragments)
        self._handling = SocketHandling(self, upgrade.handler, upgrade.context, services.turns)
        rate = limits.message_rate
        self._bucket = Bucket(rate, burst_of(rate)) if rate else None
        self._outbox: Outbox | None = None  # only while the client is behind
        self._expiry: Timer | None = None
        self._posted = 0
        self._taken = 0
        self._in_flight = 0  # of what was posted, how much the transport holds
        self._room: threading.Condition | None = None  # that threads wait on; made by the first one that has to
        self._reading = True
        self._has_left = False  # nothing more will come than what the kernel holds, so that is read in any case
        self._heard = True  # something has arrived since the last ping
        self._asked_at = 0.0  # when the first ping went out that nothing has come after; 0 if there is none
        self._pong = b""  # that waits for a client that is behind
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
        frames.receive(data)
        if frames.messages:
            messages, frames.messages = frames.messages, []
            self._take_messages(messages)
        if frames.writes:
            self._write_control()
        if not frames.is_open and not self._closing:
            self._peer_closes()
        if frames.has_more:
            self._parse_later()

    def _parse_later(self) -> None:
        """So much has come in small frames that others get their turn first; or the handler does."""
        self._transport.pause_reading()
        if self._reading:
            self._services.loop.call_soon(self._parse_more)

    def _parse_more(self) -> None:
        if self._may_read():
            self.data_received(b"")
        if self._may_read() and not self._frames.has_more:
            self._transport.resume_reading()

    def _may_read(self) -> bool:
        return self._reading and not self._closing and not self.gone

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
        if self._room is not None:
            with self._room:
                self._room.notify_all()

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
        self._took(self._in_flight)
        self._in_flight = 0
        if self._pong:
            pong, self._pong = self._pong, b""
            self.write([pong])
        outbox = self._outbox
        while outbox is not None and len(outbox) and not self.paused:
            self._write_packets(outbox.take(WRITE_BYTES))
        if outbox is not None and not len(outbox):
            self._outbox = None  # with the rooms that have left something out: a raw socket cannot be told
        if self._close_frame is not None and self._outbox is None and not self._closing:
            self._send_close(*self._close_frame)

    @property
    def services(self) -> Services:
        """What this connection shares with the others of its server. [any thread, as `Services` says]"""
        return self._services

    # Messages in.

    @property
    def is_reading(self) -> bool:
        """Whether the client is read: its handler keeps up. [any thread]"""
        return self._reading

    def _take_messages(self, messages: list[str | bytes]) -> None:
        if self.ended is not None:
            return  # closing: what was on its way is not handled any more
        self._services.messages_received += len(messages)
        if self._bucket is not None and not all(self._bucket.take(monotonic()) <= 0 for _ in messages):
            self.begin_close(RATE_LIMITED, "more messages than this server takes")
            return
        if not self._handling.arrived(messages) and self._reading and not self._has_left:
            self._reading = False
            self._transport.pause_reading()
            self._deadline.set(LOOK_EVERY)
            # A linear handler may have caught up meanwhile: it looks at `_reading` after it has taken a message, we at
            # its inbox after that was set, so one of us sees the other.
            self._handling.caught_up()

    def receive(self, timeout: float | None) -> str | bytes:
        """See `SocketHandling.receive`. [the linear handler's thread]"""
        return self._handling.receive(timeout)

    def resume_reading(self) -> None:
        """The handler has caught up."""
        if not self._reading and not self.gone and not self._closing:
            self._reading = self._heard = True
            self._await_ping()
            if self._frames.has_more:
                self._services.loop.call_soon(self._parse_more)
            else:
                self._transport.resume_reading()

    # Messages out.

    def send(self, opcode: int, payload: bytes) -> None:
        """Send a message; blocks while the client is behind. [any thread but the loop]

        Raises `Disconnected` when the connection has ended, `SlowConsumer` when the client does not catch up within
        `send_timeout`.
        """
        if self.close_asked is not None or self.waits.interrupted is not None:
            self.check_open()
        packet = Packet(opcode, payload, ()) if self.compresses else Packet(opcode, b"", frame(opcode, payload))
        services, size = self._services, packet.size
        with _accounts:  # as `_admit` does, without a call for each message
            ahead = self._posted - self._taken
            fits = not ahead or ahead + size <= services.limits.socket_outbox_bytes
            if fits:
                self._posted += size
        if not fits:
            self._wait_for_room(size)
        services.handle.post(services.fanout.send, self, packet)

    def check_open(self) -> None:
        """Raise `Disconnected` if nothing can be sent or received any more. [any thread]"""
        if self.close_asked is not None:
            raise Disconnected(*self.close_asked)
        self.waits.check()

    def _admit(self, size: int) -> bool:
        """Count a packet that is about to be posted, if there is room for it. [any thread]"""
        with _accounts:
            ahead = self._posted - self._taken
            if ahead and ahead + size > self._services.limits.socket_outbox_bytes:
                return False
            self._posted += size
            return True

    def _wait_for_room(self, size: int) -> None:
        timeout = self._services.limits.send_timeout
        if not self.waits.wait_for(self._waiting_room(), lambda: self._admit(size), timeout):
            raise SlowConsumer(f"the client has not taken what it was sent for {timeout:g} s")

    def _waiting_room(self) -> threading.Condition:
        with _accounts:
            if self._room is None:
                self._room = threading.Condition()
            return self._room

    def wait_gone(self, timeout: float | None) -> bool:
        """Block until the transport is gone; False when `timeout` seconds pass first. [any thread but the loop]"""
        return Waits().wait_for(self._waiting_room(), lambda: self.gone, timeout)

    def _took(self, size: int) -> None:
        """The kernel has taken packets that a handler sent."""
        self._taken += size
        if self._room is not None and size:
            with self._room:
                self._room.notify_all()

    def encode(self, publication: Publication, room: RoomMembers) -> Packet:
        """See `fanout.Member`."""
        return encode_frame(publication, room)

    def flush(self) -> None:
        """Write what this turn has brought, or let it wait for a client that is behind. See `fanout.Member`."""
        burst, self.burst = self.burst, []
        if self.ended is not None or not burst:
            return
        if self._outbox is not None or self.paused:
            self._hold(unpacked(burst, self.id))
        elif len(burst) > 1 or self.compresses:
            self._write_burst(burst)
        else:  # the common case, and the one that counts
            item = burst[0]
            if item.__class__ is Batch and item.joined is not None and item.excluded is None:
                self._services.messages_sent += len(item.packets)
                if not self._transport.is_closing():
                    self._transport.write(item.joined)
            else:
                self._write_burst(burst)

    def _write_burst(self, burst: list[Packet | Batch]) -> None:
        packets = unpacked(burst, self.id)
        if len(packets) > 1:
            packets = self._write_bounded(packets)
        elif packets:
            self._write_packets(packets)
            return
        if packets:
            self._hold(packets)

    def _write_bounded(self, packets: list[Packet]) -> list[Packet]:
        """Write in portions until the client is behind; what is left is returned."""
        start = size = 0
        for index, packet in enumerate(packets):
            size += packet.size
            if size >= WRITE_BYTES:
                self._write_packets(packets[start : index + 1])
                start, size = index + 1, 0
                if self.paused:
                    return packets[start:]
        if start < len(packets):
            self._write_packets(packets[start:] if start else packets)
        return []

    def _write_packets(self, packets: list[Packet]) -> None:
        buffers: Sequence[bytes]
        if self.compresses:
            buffers = self._compress(packets)
        elif len(packets) == 1:
            buffers = packets[0].frame
        else:
            buffers = [piece for packet in packets for piece in packet.frame]
            if sum(map(len, buffers)) <= JOIN_BYTES:
                buffers = [b"".join(buffers)]
        sent = sum([packet.size for packet in packets if packet.origin is None])
        self._services.messages_sent += len(packets)
        if self.write(buffers):
            self._took(sent)
        else:
            self._in_flight += sent

    def _compress(self, packets: list[Packet]) -> list[bytes]:
        """In the order of sending: what was sent before is what the peer's decompressor knows."""
        frames = self._frames
        for packet in packets:
            frames.send_message(packet.opcode, packet.payload)
        return frames.data_to_send()

    def _hold(self, packets: list[Packet]) -> None:
        """The client is behind: let packets wait, and apply the policies of the rooms that are too much."""
        outbox = self._outbox
        if outbox is None:
            limits = self._services.limits
            outbox = self._outbox = Outbox(limits.socket_outbox_messages, limits.socket_outbox_bytes)
        fits = all(outbox.add(packet) for packet in packets)  # up to the one that is too much for its room
        if outbox.losses:
            self._services.fanout.count_losses(outbox)
        if not fits:
            self._drop_output()
            self.begin_close(SLOW, "too slow")

    def _drop_output(self) -> None:
        self._outbox = None
        self.burst = []
        self._pong = b""

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
            self._deadline.set(self._services.limits.ping_interval if self._reading else LOOK_EVERY)

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
        if not self._reading:
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
