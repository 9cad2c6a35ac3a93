"""What one turn of the loop brings for one member, to leave in one write: its burst.

Most often that is one thing: a packet of its own, or the batch that a room has for all its members. Only a member that
gets several has a list of them, so a room of thousands costs one reference each. Pure: no socket, loop, clock or
thread.
"""

from __future__ import annotations

from catzilla._core.limits import KIB
from catzilla._core.outbox import Packet

JOINED_BYTES = 256 * KIB  # of a batch that is written in one piece; a larger one goes out packet by packet


class Batch:
    """What a turn brings for the members of one room, in one encoding: put together once for all of them.

    Every member has the batch in its burst, and what is published later in the turn is added to it without touching
    any of them; until one of them gets something else, which must come between. Then the batch is closed, and the next
    message begins another.
    """

    __slots__ = ("_excluded", "_joined", "is_open", "packets", "size", "whole")

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.size = 0
        self.is_open = True
        self._joined: bytes | None = None  # all of it as it goes over an uncompressed wire, if that is not too much
        self.whole: bytes | None = None  # the same, if it is for everybody, as most often; else ask `whole_for`
        self._excluded: dict[str, set[Packet]] | None = None  # by connection: what it does not get

    def add(self, packet: Packet, exclude: str | None) -> None:
        """Add a message, which one connection may not get."""
        self.packets.append(packet)
        self.size += packet.size
        if exclude is not None:
            if self._excluded is None:
                self._excluded = {}
            self._excluded.setdefault(exclude, set()).add(packet)

    def whole_for(self, member_id: str) -> bytes | None:
        """All of it in one piece, once it is finished; None if it is too much, or not all of it is for this member."""
        return self._joined if self._excluded is None or member_id not in self._excluded else None

    def packets_for(self, member_id: str) -> list[Packet]:
        """The messages that a member gets."""
        excluded = self._excluded.get(member_id) if self._excluded is not None else None
        return self.packets if excluded is None else [each for each in self.packets if each not in excluded]

    def finish(self) -> None:
        """The turn is over: nothing more is added."""
        self.is_open = False
        if self.size <= JOINED_BYTES:
            self._joined = b"".join([piece for packet in self.packets for piece in packet.frame])
            self.whole = self._joined if self._excluded is None else None


Burst = Packet | Batch | list[Packet | Batch] | None


def followed(burst: Burst, item: Packet | Batch) -> Burst:
    """The burst with one more thing at its end. To a batch that is followed nothing is added any more."""
    if burst is None:
        return item
    several = burst if isinstance(burst, list) else [burst]
    last = several[-1]
    if isinstance(last, Batch):
        last.is_open = False
    several.append(item)
    return several


def unpacked(burst: Burst, member_id: str) -> list[Packet]:
    """The packets of a burst, one by one, without those that this member does not get."""
    if isinstance(burst, Packet):
        return [burst]
    if isinstance(burst, Batch):
        return burst.packets_for(member_id)
    return [packet for item in burst or () for packet in unpacked(item, member_id)]
