"""What a WebSocket connection sends: packets to frames, a turn to one write, and what waits for a slow client.

`ws_connection.py` adds what it receives, and how it ends; the two are one class to everybody else. What handlers send
is posted to the loop, so it leaves in the order in which it was sent, among what rooms deliver. Only what an instant
callback sends first is written at once: if the client is not behind, nothing waits for the end of the turn, and nothing
was posted, there is nothing that it could overtake.

`_posted` counts the bytes of what was not written at once, under `_accounts`, and `_taken`, the loop's, those of them
that the kernel has taken. The difference is what a slow client holds up, and what `send` waits for.

Everything runs on the loop thread but what says otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from catzilla._core.burst import Batch, Burst, unpacked
from catzilla._core.codes import SLOW
from catzilla._core.current import current
from catzilla._core.errors import Disconnected, SlowConsumer
from catzilla._core.fanout import NO_ROOMS, RoomMembers, encode_frame
from catzilla._core.leader import Lead
from catzilla._core.limits import KIB
from catzilla._core.outbox import Outbox, Packet
from catzilla._core.publication import Publication
from catzilla._core.services import Services
from catzilla._core.upgrade import Upgrade
from catzilla._core.waits import Waits
from catzilla._core.wire import Wire
from catzilla._core.ws import Frames, frame

WRITE_BYTES = 256 * KIB  # of packets, handed to the transport at once: what is there cannot be dropped any more
JOIN_BYTES = 64 * KIB  # a burst up to this is joined, a larger one goes out piece by piece, uncopied

_accounts = threading.Lock()  # guards every connection's `_posted` and `_space`; held for a few instructions


class WebSocketOutput(Wire):
    """The sending side. Is a `fanout.Member`; a subclass says how the connection is closed (`begin_close`)."""

    __slots__ = (
        "_frames",
        "_in_flight",
        "_outbox",
        "_pong",
        "_posted",
        "_space",
        "_taken",
        "burst",
        "close_asked",
        "compresses",
        "ended",
        "id",
        "identity",
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
        self.burst: Burst = None
        self.compresses = bool(upgrade.handshake.extensions)
        self.ended: tuple[int, str] | None = None  # code and reason; set once by the loop, read by any
        self.close_asked: tuple[int, str] | None = None  # by the handler; set by any thread, read by any
        self._frames = Frames(upgrade.handshake, limits.max_message_bytes, limits.max_message_fragments)
        self._outbox: Outbox | None = None  # only while the client is behind
        self._pong = b""  # that waits for a client that is behind
        self._posted = 0
        self._taken = 0
        self._in_flight = 0  # of what was posted, how much the transport holds
        self._space: threading.Condition | None = None  # that threads wait on; made by the first one that has to

    def send(self, opcode: int, payload: bytes) -> None:
        """Send a message; blocks while the client is behind. [any thread but the loop]

        Raises `Disconnected` when the connection has ended, `SlowConsumer` when the client does not catch up within
        `send_timeout`.
        """
        if self.close_asked is not None or self.waits.interrupted is not None:
            self.check_open()
        if self.compresses:
            packet = Packet(opcode, payload, ())
        else:
            pieces = frame(opcode, payload)
            lead = current.lead
            if lead is not None and self._send_at_once(lead, pieces):
                return
            packet = Packet(opcode, b"", pieces)
        if not self._admit(packet.size):
            self._wait_for_space(packet.size)
        services = self._services
        services.handle.post(services.fanout.send, self, packet)

    def _send_at_once(self, lead: Lead, pieces: list[bytes]) -> bool:
        """Hand a frame to the transport now, if nothing is to be written before it.

        [the thread that leads, while it is lent]
        """
        handle = self._services.handle
        if not lead.take_back(handle):
            return False
        try:
            if self.paused or self.burst is not None or handle.posted:
                return False
            self._services.messages_sent += 1
            if not self.write(pieces):
                size = Packet(0, b"", pieces).size
                with _accounts:
                    self._posted += size
                self._in_flight += size
            return True
        finally:
            lead.lend_again()

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

    def _wait_for_space(self, size: int) -> None:
        timeout = self._services.limits.send_timeout
        if not self.waits.wait_for(self._space_condition(), lambda: self._admit(size), timeout):
            raise SlowConsumer(f"the client has not taken what it was sent for {timeout:g} s")

    def _space_condition(self) -> threading.Condition:
        with _accounts:
            if self._space is None:
                self._space = threading.Condition()
            return self._space

    def wait_gone(self, timeout: float | None) -> bool:
        """Block until the transport is gone; False when `timeout` seconds pass first. [any thread but the loop]"""
        return Waits().wait_for(self._space_condition(), lambda: self.gone, timeout)

    def _took(self, size: int) -> None:
        """The kernel has taken packets that a handler sent."""
        self._taken += size
        if self._space is not None and size:
            with self._space:
                self._space.notify_all()

    def encode(self, publication: Publication, room: RoomMembers) -> Packet:
        """See `fanout.Member`."""
        return encode_frame(publication, room)

    def flush(self) -> None:
        """Write what this turn has brought, or let it wait for a client that is behind. See `fanout.Member`."""
        burst, self.burst = self.burst, None
        if self.ended is not None or burst is None:
            return
        if self._outbox is not None or self.paused:
            self._hold(unpacked(burst, self.id))
        elif (
            isinstance(burst, Batch)
            and not self.compresses
            and (whole := burst.whole or burst.whole_for(self.id)) is not None
        ):
            # What every member of a room gets: the case that counts most, and the bytes are there already.
            self._services.messages_sent += len(burst.packets)
            if not self._closing:
                self._transport.write(whole)
        elif isinstance(burst, Packet):
            self._write_packets([burst])
        elif left := self._write_bounded(unpacked(burst, self.id)):
            self._hold(left)

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
        if self._outbox is None:
            limits = self._services.limits
            self._outbox = Outbox(limits.socket_outbox_messages, limits.socket_outbox_bytes)
        if not self._services.fanout.hold(self._outbox, packets):
            self._drop_output()
            self.begin_close(SLOW, "too slow")

    def _write_waiting(self) -> None:
        """The kernel has taken everything: write what has waited for that."""
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

    def _drop_output(self) -> None:
        self._outbox = None
        self.burst = None
        self._pong = b""

    def begin_close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything else, and wait for the answer."""
        raise NotImplementedError
