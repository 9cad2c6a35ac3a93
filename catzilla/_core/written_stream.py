"""A stream whose producer is whoever calls `write`: the handler, or any other thread, during it or long after it.

Here the producer does block: `write` returns once the item is in the ring, and waits while the window is full. Several
threads may write at once; `_room` is the lock that orders them and the condition that the loop notifies.
"""

from __future__ import annotations

import threading

from catzilla._core.bridge import Bridge
from catzilla._core.clock import monotonic
from catzilla._core.errors import Disconnected
from catzilla._core.stream import ITEM_COST, Sink, State, Stream
from catzilla._core.waits import Waits


class WrittenStream(Stream):
    """A streamed response that is written to from outside."""

    __slots__ = ("_closed", "_room", "waits")

    def __init__(self, bridge: Bridge, sink: Sink, name: str, heartbeat: float | None, waits: Waits) -> None:
        super().__init__(bridge, sink, name, heartbeat)
        self.waits = waits
        self._room = threading.Condition()
        self._closed = False  # guarded by `_room`, like `produced`

    def write(self, data: bytes) -> None:
        """Put `data` into the ring; blocks while the client is behind. [any thread but the loop]

        Raises `ValueError` after `end`, and `Disconnected` when the client is gone or the server is stopping.
        """
        self.waits.check()
        size = len(data) + ITEM_COST
        with self._room:
            if self._closed:
                raise ValueError("write to a closed stream")
            if len(data):
                self.ring.append(data)
                self.produced += size
                self._wake_loop()
        if self.pending >= self.window.size:
            self.bridge.post(self._full)
            self.waits.wait_for(self._room, self._is_roomy)

    def end(self, *, failed: bool = False) -> None:
        """Nothing more will be written; `failed` cuts the connection after what there is. [any thread]"""
        with self._room:
            if self._closed:
                return
            self._closed = True
            self._room.notify_all()  # a writer that waits has its item in the ring, and nothing to wait for
        self.bridge.post(self._over, failed)

    def _is_roomy(self) -> bool:
        # Room at all is enough: the loop tells when the ring is empty. A lower mark would lose wake-ups: a writer that
        # comes before the woken one, and leaves less than a full window, has nobody told when that has gone.
        return self.pending < self.window.size or self._closed

    def _wake_loop(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.bridge.post(self.wake)

    # On the loop.

    def _full(self) -> None:
        """A writer waits for room."""
        if self.state is State.RUNNING:
            self.state = State.PARKED
            self.since = monotonic()
        self.bridge.make_ready(self)

    def _has_room(self) -> None:
        if self.state is State.PARKED:
            waited = monotonic() - self.since
            self.waiting_for_client += waited
            self.window.emptied(waited, self.bridge.limits, self.bridge.allowance)
            self.state = State.RUNNING
            with self._room:
                self._room.notify_all()

    def _interrupt(self, error: Disconnected) -> None:
        """Every writer gets `Disconnected`, now and from now on; nothing else holds the stream."""
        self.waits.interrupt(error)
        self.closed()
