"""What is to be sent to a peer that does not take it yet, and what happens when that is too much.

A packet is one message in the encoding of its receivers, shared by all of them: five hundred members of a room hold
five hundred references. An `Outbox` exists only while its peer is behind. Each packet of a room brings the room's
policy for slow members; what a handler sent to this one peer has none, because its sender waits instead. Pure: no
socket, loop, clock or thread.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from catzilla._core.publication import Position

PACKET_COST = 256  # bytes that a packet weighs beside its contents, objects and all


class OnSlow(enum.Enum):
    """What becomes of a member that does not take what its room sends (the values are what `app.room` is given)."""

    DISCONNECT = "disconnect"  # the connection is closed with 4008
    DROP_OLDEST = "drop_oldest"  # the room's oldest messages that wait for it are dropped
    CONFLATE = "conflate"  # only the room's newest message is kept for it
    GAP = "gap"  # it gets nothing of the room until it has caught up, and is told so where its protocol can say it


class Origin(Protocol):
    """Where a packet comes from: a room, as far as slow members are concerned."""

    @property
    def on_slow(self) -> OnSlow: ...


class Packet:
    """One encoded message.

    `frame` is what goes over an uncompressed wire, in one or two buffers. `payload` is what a connection compresses by
    itself; b"" where no receiver does.
    """

    __slots__ = ("frame", "opcode", "origin", "payload", "position", "size")

    def __init__(
        self,
        opcode: int,
        payload: bytes,
        frame: Sequence[bytes],
        origin: Origin | None = None,
        position: Position | None = None,
    ) -> None:
        self.opcode = opcode
        self.payload = payload
        self.frame = frame
        self.origin = origin
        self.position = position  # in the stream of its origin, where that matters
        self.size = len(frame[-1] if frame else payload) + PACKET_COST  # the first of two is a few bytes


class Outbox:
    """The packets that wait for one slow peer, oldest first.

    The bounds are for what rooms have sent. What a handler sent to this one peer is bounded where it is sent; if it
    counted here, a download of small messages would have its client disconnected for a room's first message.
    """

    __slots__ = ("_from_rooms", "_max_bytes", "_max_packets", "_packets", "gapped", "losses", "size")

    def __init__(self, max_packets: int, max_bytes: int) -> None:
        self._packets: deque[Packet] = deque()
        self._max_packets = max_packets
        self._max_bytes = max_bytes
        self._from_rooms = 0  # packets
        self.size = 0  # bytes of those, with the packets' costs
        self.gapped: set[Origin] = set()  # rooms of which something was left out, until the peer has caught up
        self.losses: dict[OnSlow, int] = {}  # packets that were given up, since they were last collected

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, packet: Packet) -> bool:
        """Let `packet` wait, or apply its room's policy; False means that the peer is to be disconnected."""
        origin = packet.origin
        if origin is not None and (self.gapped and origin in self.gapped):
            self._lose(OnSlow.GAP)
            return True
        if origin is None or not self._is_over(packet):
            self._append(packet)
            return True
        policy = origin.on_slow
        if policy is OnSlow.DISCONNECT:
            self._lose(policy)
            return False
        if policy is OnSlow.GAP:
            self.gapped.add(origin)
            self._lose(policy)
        elif policy is OnSlow.CONFLATE:
            self._remove_all(origin)
            self._append(packet)
        else:
            self._make_room(origin, packet)
        return True

    def take(self, most_bytes: int) -> list[Packet]:
        """The oldest packets, about `most_bytes` of them, at least one."""
        taken = []
        size = 0
        while self._packets and size < most_bytes:
            packet = self._packets.popleft()
            size += packet.size
            taken.append(packet)
            self._uncount(packet)
        return taken

    def clear(self) -> None:
        """Give everything up: the peer is gone, or is being disconnected."""
        self._packets.clear()
        self.gapped.clear()
        self._from_rooms = self.size = 0

    def _is_over(self, packet: Packet) -> bool:
        return self._from_rooms >= self._max_packets or self.size + packet.size > self._max_bytes

    def _append(self, packet: Packet) -> None:
        self._packets.append(packet)
        if packet.origin is not None:
            self._from_rooms += 1
            self.size += packet.size

    def _make_room(self, origin: Origin, packet: Packet) -> None:
        """Drop the room's oldest packets until the new one fits; what others sent is not its to drop."""
        packets = self._packets
        index = 0
        while self._is_over(packet) and index < len(packets):
            if packets[index].origin is origin:
                self._uncount(packets[index])
                del packets[index]
                self._lose(OnSlow.DROP_OLDEST)
            else:
                index += 1
        if self._is_over(packet):
            self._lose(OnSlow.DROP_OLDEST)
        else:
            self._append(packet)

    def _remove_all(self, origin: Origin) -> None:
        packets, self._packets = self._packets, deque()
        for packet in packets:
            if packet.origin is origin:
                self._uncount(packet)
                self._lose(OnSlow.CONFLATE)
            else:
                self._packets.append(packet)

    def _uncount(self, packet: Packet) -> None:
        """A packet does not wait any more."""
        if packet.origin is not None:
            self._from_rooms -= 1
            self.size -= packet.size

    def _lose(self, policy: OnSlow, count: int = 1) -> None:
        self.losses[policy] = self.losses.get(policy, 0) + count
