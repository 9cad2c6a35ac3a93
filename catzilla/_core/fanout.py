"""The members of rooms, and the way of one message to all of them.

Everything here is the loop's. Threads publish, join and leave by `LoopHandle.post`, so whatever one thread does takes
effect in the order in which it did it, and nothing here needs a lock. What is asked from another thread (`count`,
`members`) is asked by `LoopHandle.call`, behind everything that the thread has posted before.

A message is encoded once for each encoding among the members, and every member gets a reference to the same packet.
Writing is put off to the end of the turn: whatever a burst brings for one member, of any room and any handler, leaves
in one write (`ws_output.py` says what is written before). A publisher never waits for a member; it waits for the loop
alone, when `MAX_LAG` messages are on the way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Hashable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from catzilla._core.burst import Batch, Burst, followed
from catzilla._core.limits import KIB, MIB
from catzilla._core.outbox import OnSlow, Outbox, Packet
from catzilla._core.publication import Kind, Publication
from catzilla._core.timers import Timer, Timers
from catzilla._core.waits import Waits
from catzilla._core.ws import BINARY, TEXT, frame

logger = logging.getLogger("catzilla")

MAX_LAG = 1024  # messages that were published and that the loop has not seen
MAX_LAG_BYTES = 4 * MIB
MESSAGE_COST = 1 * KIB  # that a message on the way weighs beside its payload

# Of every member that is in no room: an empty set of its own would cost 200 bytes.
NO_ROOMS: AbstractSet[RoomMembers] = frozenset()


class Member(Protocol):
    """Whoever gets what a room publishes: a socket, or an event stream. [loop thread]"""

    id: str  # unique among connections; what `exclude` names
    identity: Hashable  # who it is: several connections of one principal have the same
    principal: Any
    rooms: AbstractSet[RoomMembers] | None  # None for one that is gone
    burst: Burst  # what this turn has brought

    def encode(self, publication: Publication, room: RoomMembers) -> Packet:
        """A message as this kind of member gets it. The packet serves all members with the same `encode`."""

    def flush(self) -> None:
        """The turn is over: write its burst."""


class RoomRules(Protocol):
    """What the application has settled about a room; read by the loop."""

    @property
    def on_slow(self) -> OnSlow: ...

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants to know who comes and goes."""

    def joined(self, identity: Hashable, principal: Any) -> None:
        """Somebody is there who was not."""

    def left(self, identity: Hashable, principal: Any) -> None:
        """Somebody is gone, and has not come back in time."""


class Presence:
    """One identity in a room, with however many connections; kept for a while after the last one has left."""

    __slots__ = ("connections", "leaving", "principal")

    def __init__(self, principal: Any) -> None:
        self.principal = principal
        self.connections = 0
        self.leaving: Timer | None = None


class RoomMembers:
    """The members of one room on one server."""

    __slots__ = ("batches", "by_encoding", "name", "presence", "rules")

    def __init__(self, name: str, rules: RoomRules) -> None:
        self.name = name
        self.rules = rules
        self.by_encoding: dict[Any, dict[Member, None]] = {}  # the class of a member is its encoding
        self.batches: dict[Any, Batch] = {}  # of this turn, the last of each encoding
        self.presence: dict[Hashable, Presence] = {}

    def __repr__(self) -> str:
        return f"<RoomMembers {self.name!r} members={sum(map(len, self.by_encoding.values()))}>"

    @property
    def on_slow(self) -> OnSlow:
        return self.rules.on_slow

    def close_batches(self) -> None:
        """Who is a member changes: what is published from now on is for others than before."""
        for batch in self.batches.values():
            batch.is_open = False

    @property
    def is_empty(self) -> bool:
        """Nobody is there, and nobody is about to have left."""
        return not self.by_encoding and not self.presence


class Fanout:
    """All rooms with members on one server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timers: Timers, presence_delay: float) -> None:
        self._loop = loop
        self._timers = timers
        self._presence_delay = presence_delay
        self.rooms: dict[str, RoomMembers] = {}
        self.losses = dict.fromkeys(OnSlow, 0)  # packets given up and members disconnected, by policy
        self._dirty: list[Member] = []  # with something in their bursts
        self._batches: list[tuple[RoomMembers, Batch]] = []  # of this turn
        self._flushing = False
        # On the way from publishers to the loop; guarded by `_lag_lock`.
        self._lag_lock = threading.Lock()
        self._lag = 0
        self._lag_bytes = 0
        self._lagging = 0  # publishers that wait
        self._lag_room = threading.Condition(self._lag_lock)  # that they wait on

    # Membership.

    def join(self, member: Member, name: str, rules: RoomRules) -> None:
        """Make `member` one of a room's; being one already is fine. [loop thread]"""
        if member.rooms is None:
            return
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = RoomMembers(name, rules)
        if room in member.rooms:
            return
        member.rooms = member.rooms | {room}
        room.close_batches()
        room.by_encoding.setdefault(type(member), {})[member] = None
        self._arrive(room, member)

    def leave(self, member: Member, name: str) -> None:
        """End a membership; not being a member is fine. [loop thread]"""
        room = self.rooms.get(name)
        if room is not None and member.rooms is not None and room in member.rooms:
            member.rooms = (member.rooms - {room}) or NO_ROOMS
            self._remove(room, member)

    def gone(self, member: Member) -> None:
        """End all memberships of a connection that has ended; it can never join again. [loop thread]"""
        rooms, member.rooms = member.rooms, None
        for room in rooms or ():
            self._remove(room, member)

    def _remove(self, room: RoomMembers, member: Member) -> None:
        room.close_batches()
        members = room.by_encoding[type(member)]
        del members[member]
        if not members:
            del room.by_encoding[type(member)]
        self._depart(room, member)
        self._forget_if_empty(room)

    def _forget_if_empty(self, room: RoomMembers) -> None:
        if room.is_empty and self.rooms.get(room.name) is room:
            del self.rooms[room.name]

    def principals(self, name: str) -> list[Any]:
        """Who is in a room, each identity once. [loop thread]"""
        room = self.rooms.get(name)
        return [] if room is None else [each.principal for each in room.presence.values() if each.connections]

    # Presence: one arrival however many connections, and a departure only once it has lasted.

    def _arrive(self, room: RoomMembers, member: Member) -> None:
        presence = room.presence.get(member.identity)
        if presence is None:
            presence = room.presence[member.identity] = Presence(member.principal)
            room.rules.joined(member.identity, member.principal)
        presence.connections += 1
        if presence.leaving is not None:
            presence.leaving.cancel()
            presence.leaving = None

    def _depart(self, room: RoomMembers, member: Member) -> None:
        presence = room.presence[member.identity]
        presence.connections -= 1
        if presence.connections:
            return

        identity = member.identity  # and not the member, whom a timer would keep

        def left() -> None:
            del room.presence[identity]
            room.rules.left(identity, presence.principal)
            self._forget_if_empty(room)

        if self._presence_delay > 0 and room.rules.is_watched:
            presence.leaving = self._timers.call_later(self._presence_delay, left)
        else:
            left()

    def depart_now(self) -> None:
        """The server is stopping: whoever has left has left. [loop thread]"""
        for room in list(self.rooms.values()):
            for presence in list(room.presence.values()):
                if presence.leaving is not None and presence.leaving.callback is not None:
                    callback = presence.leaving.callback
                    presence.leaving.cancel()
                    callback()

    def hold(self, outbox: Outbox, packets: Iterable[Packet]) -> bool:
        """Let packets wait for a slow member, and add up what that costs; False if it is to be disconnected.

        [loop thread]
        """
        fits = all(outbox.add(packet) for packet in packets)  # up to the one that is too much for its room
        for policy, count in outbox.losses.items():
            self.losses[policy] += count
        outbox.losses.clear()
        return fits

    # Publishing.

    def wait_for_loop(self, timeout: float) -> bool:
        """Block while the loop is behind with what is published; False after `timeout` s. [any thread but the loop]"""
        if self._lag < MAX_LAG and self._lag_bytes < MAX_LAG_BYTES:
            return True
        with self._lag_lock:
            self._lagging += 1
        try:
            return Waits().wait_for(self._lag_room, self._has_caught_up, timeout)
        finally:
            with self._lag_lock:
                self._lagging -= 1

    def _has_caught_up(self) -> bool:
        return self._lag <= MAX_LAG // 2 and self._lag_bytes <= MAX_LAG_BYTES // 2

    def posting(self, publication: Publication) -> None:
        """A message is about to be posted to `deliver`. [any thread]"""
        with self._lag_lock:
            self._lag += 1
            self._lag_bytes += len(publication.payload) + MESSAGE_COST

    def deliver(self, publication: Publication) -> None:
        """Give a message to the members of its room. [loop thread]"""
        with self._lag_lock:
            self._lag -= 1
            self._lag_bytes -= len(publication.payload) + MESSAGE_COST
            if self._lagging and self._has_caught_up():
                self._lag_room.notify_all()
        room = self.rooms.get(publication.stream)
        if room is None:
            return
        for kind, members in room.by_encoding.items():
            packet = next(iter(members)).encode(publication, room)
            batch = room.batches.get(kind)
            if batch is None or not batch.is_open:
                batch = room.batches[kind] = self._open_batch(members)
                self._batches.append((room, batch))
            batch.add(packet, publication.exclude)
        if not self._flushing:
            self._flush_soon()

    def _open_batch(self, members: Iterable[Member]) -> Batch:
        """A batch in the burst of each of these."""
        batch = Batch()
        dirty = self._dirty
        for member in members:
            if member.burst is None:
                member.burst = batch
                dirty.append(member)
            else:
                member.burst = followed(member.burst, batch)
        return batch

    def send(self, member: Member, packet: Packet) -> None:
        """Give a packet to one member, behind what it got before. [loop thread]"""
        if member.burst is None:
            member.burst = packet
            self._dirty.append(member)
        else:
            member.burst = followed(member.burst, packet)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._flushing = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """The turn is over: each member writes once."""
        self._flushing = False
        for room, batch in self._batches:
            batch.finish()
            room.batches.clear()  # an idle room keeps nothing of what it said
        self._batches.clear()
        dirty, self._dirty = self._dirty, []
        for member in dirty:
            try:
                member.flush()
            except Exception:
                logger.exception("writing failed: member=%r", member)


def encode_frame(publication: Publication, room: RoomMembers) -> Packet:
    """A message as a raw socket gets it: text as text, JSON as text, bytes as binary."""
    opcode = BINARY if publication.kind is Kind.BINARY else TEXT
    return Packet(opcode, publication.payload, frame(opcode, publication.payload), room)
