"""A streamed response that the loop feeds: a room as Server-Sent Events. It holds no thread, however long it lasts.

It is a member of its room like a socket (`fanout.py`), and a stream like any other towards its connection
(`stream.py`): what a turn brings goes into the ring and leaves as one chunk. While its client is behind, events wait in
an `Outbox`, under the room's policy for slow members. All of it is the loop's.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Any

from catzilla._core.bridge import Bridge
from catzilla._core.burst import Burst, unpacked
from catzilla._core.errors import Disconnected
from catzilla._core.fanout import NO_ROOMS, Fanout, RoomMembers
from catzilla._core.http1 import Framing
from catzilla._core.limits import KIB
from catzilla._core.messages import Feed
from catzilla._core.outbox import Outbox, Packet
from catzilla._core.publication import Position, Publication
from catzilla._core.stream import ITEM_COST, Sink, State, Stream
from catzilla._core.timers import Timer
from catzilla._core.waits import Waits

TAKEN_BYTES = 256 * KIB  # of what waited, handed to the transport at once


class FedStream(Stream):
    """One event stream of a room. Is a `fanout.Member`."""

    __slots__ = (
        "_expiry",
        "_feed",
        "_outbox",
        "_waits",
        "burst",
        "fanout",
        "id",
        "identity",
        "principal",
        "replayed",
        "rooms",
    )

    def __init__(
        self,
        bridge: Bridge,
        sink: Sink,
        feed: Feed,
        fanout: Fanout,
        waits: Waits,
        *,
        name: str,
        heartbeat: float,
        member_id: str,
    ) -> None:
        super().__init__(bridge, sink, name, heartbeat)
        self.state = State.PARKED
        self.id = member_id
        self.identity: Hashable = member_id if feed.identity is None else feed.identity
        self.principal: Any = feed.principal
        self.rooms: AbstractSet[RoomMembers] | None = NO_ROOMS
        self.burst: Burst = None
        self.replayed: Position | None = None  # up to which `start` has given everything: the client has what is before
        self._feed = feed
        self.fanout = fanout
        self._waits = waits
        self._outbox: Outbox | None = None
        self._expiry: Timer | None = None

    def begin(self, head: bytes, framing: Framing, remaining: int | None) -> None:
        """See `Stream`. Membership begins with the response: nothing is published in between."""
        super().begin(head, framing, remaining)
        opening = self._feed.start(self)
        if opening:
            self._put([opening])
        if self._feed.expires_in is not None:
            self._expiry = self.bridge.timers.call_later(self._feed.expires_in, self.end)

    def end(self) -> None:
        """Leave the room. What it has published so far still leaves, and then the response ends as a whole one: an
        `EventSource` comes back, and is asked anew who it is. [loop thread]"""
        if self.rooms is not None:
            self.flush()
        if self.rooms is None:  # it ends already; or the last message was the one too many
            return
        self.fanout.gone(self)
        if self._outbox is None:
            self._over(False)

    def closed(self) -> None:
        """See `Stream`."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        super().closed()

    def encode(self, publication: Publication, room: RoomMembers) -> Packet:
        """See `fanout.Member`."""
        return Packet(0, b"", [self._feed.encode(publication)], room, publication.position)

    def flush(self) -> None:
        """See `fanout.Member`."""
        burst, self.burst = self.burst, None
        if self.is_cut or self.state is State.CLOSED:
            return
        packets = unpacked(burst, self.id)
        if self.replayed is not None:
            packets = [packet for packet in packets if not self._is_known(packet.position)]
        if self._outbox is None and not self.ring and not self.sink.paused:
            self._put([packet.frame[0] for packet in packets])
        elif packets:
            self._hold(packets)

    def _is_known(self, position: Position | None) -> bool:
        """Whether a message was on its way when `start` gave it. Of another epoch it is none of those."""
        known = self.replayed
        return (
            known is not None
            and position is not None
            and position.epoch == known.epoch
            and position.offset <= known.offset
        )

    def _put(self, items: list[bytes]) -> None:
        self.ring += items
        self.produced += sum(map(len, items)) + ITEM_COST * len(items)
        self.bridge.make_ready(self)

    def _hold(self, packets: list[Packet]) -> None:
        """The client is behind."""
        if self._outbox is None:
            limits = self.bridge.limits
            self._outbox = Outbox(limits.socket_outbox_messages, limits.socket_outbox_bytes)
        if not self.fanout.hold(self._outbox, packets):
            self.sink.stream_failed(self)  # an `EventSource` comes back, and says how far it got

    def _has_room(self) -> None:
        outbox = self._outbox
        if outbox is None:
            return
        items = [packet.frame[0] for packet in outbox.take(TAKEN_BYTES)]
        if not len(outbox):
            self._outbox = None
            items += [self._feed.gap] * len(outbox.gapped)
        self._put(items)
        if self._outbox is None and self.rooms is None:  # see `end`: nothing follows any more
            self._over(False)

    def _interrupt(self, error: Disconnected) -> None:
        self.fanout.gone(self)
        self._outbox = None
        self._waits.interrupt(error)
        self.closed()
