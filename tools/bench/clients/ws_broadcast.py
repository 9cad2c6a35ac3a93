"""One member of a room publishes, all of them receive: deliveries a second.

At most `window` messages are published that some member has not received yet; as soon as the slowest has one more,
another follows. Every byte that arrives is compared with what must, and after the window every member must have
received every message, no more and no less.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from tools.bench import work
from tools.bench.clients import websocket, wire
from tools.bench.clients.busy import Busy
from tools.bench.clients.ws_echo import DRAIN_PATIENCE, EXTRA_PATIENCE, Expected

ROLL_CALLS = 20
"""Messages published, one after the other, to find out whether everybody has joined."""
ROLL_CALL_PATIENCE = 0.5
"""Seconds for each of them to reach everybody."""


class Member:
    """One connection. `received` counts the bytes of frames since the roll call."""

    __slots__ = ("connection", "heard", "received")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = 0
        self.heard = b""
        """What arrived during the roll call."""


class Room:
    """All members; the first of them publishes."""

    def __init__(self, connections: Sequence[socket.socket], size: int) -> None:
        payload = work.payload(size, text=True)
        self._message = websocket.frame(payload, websocket.MASK)
        self._expected = Expected(websocket.frame(payload))
        self._size = size
        self._members = [Member(connection) for connection in connections]
        self._by_descriptor = {each.connection.fileno(): each for each in self._members}
        self._poll = select.epoll()
        for each in self._members:
            each.connection.setblocking(False)
            self._poll.register(each.connection, select.EPOLLIN)
        self._publisher = self._members[0].connection
        self._published = 0
        self._slowest = 0
        """Messages that every member has."""

    def call_the_roll(self) -> None:
        """Returns once everybody has joined, with nothing on its way.

        A handshake may be over before its member has joined, and who joins later misses what was published before.
        Therefore messages that can be told apart, until one of them has reached everybody: it was the last for all.

        Raises:
            Unexpected: some member received none, or something that was not published.
        """
        calls = [work.roll_call(number, self._size) for number in range(ROLL_CALLS)]
        frames = [websocket.frame(call) for call in calls]
        for number, call in enumerate(calls):
            self._publisher.sendall(websocket.frame(call, websocket.MASK))
            if self._has_reached_all(frames[number], time.perf_counter() + ROLL_CALL_PATIENCE):
                # Whoever joined in time for this one has all that came before it, from its first to this.
                if all(each.heard == b"".join(frames[: number + 1])[-len(each.heard) :] for each in self._members):
                    return
                raise wire.Unexpected("a member received something else than what was published")
        silent = sum(not each.heard for each in self._members)
        raise wire.Unexpected(f"of {len(self._members)} members {silent} received nothing of what was published")

    def _has_reached_all(self, call: bytes, deadline: float) -> bool:
        missing = len(self._members)
        while missing and (left := deadline - time.perf_counter()) > 0:
            for descriptor, _ in self._poll.poll(left):
                member = self._by_descriptor[descriptor]
                data = member.connection.recv(65536)
                if not data:
                    raise wire.Unexpected("the server closed the connection of a member")
                member.heard += data
                missing -= member.heard.endswith(call)
        return not missing

    def publish_for(self, seconds: float, window: int) -> tuple[float, int]:
        """Keeps `window` messages on their way for `seconds`; how long it was in truth, and the deliveries in it."""
        began = now = time.perf_counter()
        while now < began + seconds:
            self._publish(window - (self._published - self._slowest))
            self._listen(began + seconds)
            now = time.perf_counter()
        return now - began, sum(each.received for each in self._members) // self._expected.frame_bytes

    def drain(self) -> None:
        """Waits until everybody has everything.

        Raises:
            Unexpected: something did not arrive, or something more did.
        """
        deadline = time.perf_counter() + DRAIN_PATIENCE
        while self._slowest < self._published:
            if time.perf_counter() > deadline:
                raise wire.Unexpected(f"a member received {self._slowest} of {self._published} messages")
            self._listen(deadline)
        due = self._published * self._expected.frame_bytes
        if self._poll.poll(EXTRA_PATIENCE) or any(each.received != due for each in self._members):
            raise wire.Unexpected("more arrived than was published")

    def close(self) -> None:
        self._poll.close()

    def _publish(self, count: int) -> None:
        if count > 0:
            self._published += count
            # Never more than a window, which the kernel takes whole.
            self._publisher.sendall(self._message * count)

    def _listen(self, deadline: float) -> None:
        """Reads until another message has reached everybody, or until `deadline`."""
        members, read = self._by_descriptor, self._expected.read
        goal = (self._slowest + 1) * self._expected.frame_bytes
        missing = sum(each.received < goal for each in self._members)
        while missing and time.perf_counter() < deadline:
            for descriptor, _ in self._poll.poll(0.1):
                member = members[descriptor]
                before = member.received
                member.received = after = before + read(member.connection, before)
                missing -= before < goal <= after
        self._slowest = min(each.received for each in self._members) // self._expected.frame_bytes


def measure(
    port: int, path: str, seconds: float, connections: int, size: int, window: int, pids: Sequence[int] = ()
) -> dict[str, Any]:
    """Publishes to `connections` members for `seconds`; returns `deliveries_per_s` and who was busy (see `Busy`)."""
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(websocket.connect(port, path, index)) for index in range(connections)]
        room = stack.enter_context(contextlib.closing(Room(members, size)))
        room.call_the_roll()
        busy = Busy(pids)
        took, deliveries = room.publish_for(seconds, window)
        figures = {"deliveries_per_s": deliveries / took, **busy.shares()}
        room.drain()
    return figures
