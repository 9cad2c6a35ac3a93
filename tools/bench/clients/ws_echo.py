"""Messages that come back, on connections each kept full: messages a second.

On each connection at most `window` messages are without their echo. As soon as half of them are back, as many follow in
one write; with a window of one that is one message in flight. Every byte that arrives is compared with what must, and
after the window all that was sent must have come back, no more and no less.
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

BUFFER_BYTES = 256 * 1024
DRAIN_PATIENCE = 10.0
"""Seconds after the window for the last echoes to arrive."""
EXTRA_PATIENCE = 0.05
"""Seconds after the last echo in which nothing more may arrive."""


class Expected:
    """What arrives on every connection: one frame, over and over. One buffer serves them all."""

    def __init__(self, reply: bytes) -> None:
        self.frame_bytes = len(reply)
        self._replies = reply * (BUFFER_BYTES // len(reply) + 2)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)

    def read(self, connection: socket.socket, position: int) -> int:
        """Reads what is there, of which `position` bytes came before, and returns how much it was.

        Raises:
            Unexpected: it is not what must follow there, or the connection has ended.
        """
        size = connection.recv_into(self._buffer)
        if not size:
            raise wire.Unexpected(f"the server closed the connection after {position} bytes of frames")
        if not self._replies.startswith(self._view[:size], position % self.frame_bytes):
            start = position % self.frame_bytes
            wanted, got = self._replies[start : start + 60], bytes(self._view[: min(size, 60)])
            raise wire.Unexpected(f"expected the frames {wanted!r}, got {got!r}")
        return size


class Conversation:
    """One connection: how many messages went out and how many bytes came back."""

    def __init__(self, connection: socket.socket, message: bytes, expected: Expected, window: int) -> None:
        self.connection = connection
        self.unsent = memoryview(b"")
        self._expected = expected
        self._window = window
        self._batch = max(1, window // 2)
        self._messages = memoryview(message * self._batch)
        self._sent = 0
        self._received = 0

    @property
    def in_flight(self) -> int:
        """Messages whose echo is not there yet."""
        return self._sent - self.returned

    @property
    def returned(self) -> int:
        """Messages whose echo is there."""
        return self._received // self._expected.frame_bytes

    @property
    def surplus(self) -> int:
        """Bytes after the last whole echo."""
        return self._received % self._expected.frame_bytes

    def fill(self) -> None:
        """Sends as many messages as the window has room for, or as the kernel takes now."""
        while not self.unsent and self.in_flight + self._batch <= self._window:
            self._sent += self._batch
            self.unsent = self._messages
            self.push()

    def push(self) -> None:
        """Sends what an earlier `fill` could not."""
        try:
            self.unsent = self.unsent[self.connection.send(self.unsent) :]
        except BlockingIOError:
            return

    def advance(self) -> None:
        """Reads what is there; see `Expected.read`."""
        self._received += self._expected.read(self.connection, self._received)


class Conversations:
    """All of them, looked after by one poll."""

    def __init__(self, all_of_them: Sequence[Conversation]) -> None:
        self._all = {each.connection.fileno(): each for each in all_of_them}
        self._poll = select.epoll()
        for descriptor in self._all:
            self._poll.register(descriptor, select.EPOLLIN)

    @property
    def returned(self) -> int:
        return sum(each.returned for each in self._all.values())

    def talk(self, seconds: float) -> float:
        """Keeps every connection full for `seconds` and returns how long it was in truth."""
        began = now = time.perf_counter()
        for descriptor, each in self._all.items():
            each.fill()
            self._watch(descriptor, each)
        while now < began + seconds:
            for descriptor, events in self._poll.poll(1.0):
                each = self._all[descriptor]
                if events & select.EPOLLOUT:
                    each.push()
                    self._watch(descriptor, each)
                if events != select.EPOLLOUT:
                    each.advance()
                    each.fill()
                    if each.unsent:
                        self._watch(descriptor, each)
            now = time.perf_counter()
        return now - began

    def _watch(self, descriptor: int, each: Conversation) -> None:
        """Asks for room to send only while something waits for it."""
        self._poll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if each.unsent else 0))

    def drain(self) -> None:
        """Waits for every echo that is still due.

        Raises:
            Unexpected: one did not arrive, or something more did.
        """
        deadline = time.perf_counter() + DRAIN_PATIENCE
        while any(each.in_flight for each in self._all.values()):
            if time.perf_counter() > deadline:
                raise wire.Unexpected(f"{sum(each.in_flight for each in self._all.values())} echoes did not arrive")
            for descriptor, events in self._poll.poll(0.1):
                each = self._all[descriptor]
                if events & select.EPOLLOUT:
                    each.push()
                    self._watch(descriptor, each)
                if events != select.EPOLLOUT:
                    each.advance()
        if self._poll.poll(EXTRA_PATIENCE) or any(each.surplus for each in self._all.values()):
            raise wire.Unexpected("more arrived than was sent")

    def close(self) -> None:
        self._poll.close()


def measure(
    port: int,
    path: str,
    seconds: float,
    connections: int,
    size: int,
    text: bool = True,
    window: int = 1,
    pids: Sequence[int] = (),
) -> dict[str, Any]:
    """Echoes messages of `size` bytes for `seconds`; returns `messages_per_s` and who was busy (see `Busy`)."""
    payload = work.payload(size, text)
    message, reply = websocket.frame(payload, websocket.MASK), websocket.frame(payload)
    expected = Expected(reply)
    with contextlib.ExitStack() as stack:
        conversations = []
        for index in range(connections):
            connection = stack.enter_context(websocket.connect(port, path, index))
            websocket.exchange(connection, message, reply)
            connection.setblocking(False)
            conversations.append(Conversation(connection, message, expected, window))
        everyone = stack.enter_context(contextlib.closing(Conversations(conversations)))
        busy = Busy(pids)
        took = everyone.talk(seconds)
        figures = {"messages_per_s": everyone.returned / took, **busy.shares()}
        everyone.drain()
    return figures
