"""One streamed response between its producer, on some thread, and its client, on the loop.

Decides framing, accounts, the head's grace and the heartbeat; `bridge.py` says how the whole plays together. What the
producer is, subclasses say.

Who owns what. The producer appends to `ring` and counts `produced`. The loop takes from `ring`, counts `consumed`, and
owns everything else unless it says otherwise. Both counters are written by one side and read by the other.
`list.append`, slicing and `del ring[:n]` are each one step under the interpreter lock, and the producer never removes,
so what the loop deletes is exactly what it has copied.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from catzilla._core.clock import monotonic
from catzilla._core.errors import Disconnected
from catzilla._core.http1 import LAST_CHUNK, Framing, frame_chunk
from catzilla._core.limits import KIB, MIB
from catzilla._core.messages import Reply
from catzilla._core.timers import Timer
from catzilla._core.watermark import Window

if TYPE_CHECKING:
    from catzilla._core.bridge import Bridge

logger = logging.getLogger("catzilla")

ITEM_COST = 64  # bytes that an item weighs beside its contents, so that a window bounds the count of items too
JOIN_BELOW = 4 * KIB  # items smaller than this on average are joined; larger ones go to the transport as they are


class State(enum.Enum):
    """Where a stream is. While it is QUEUED or RUNNING its producer's thread may change it, else only the loop."""

    QUEUED = "waiting for a thread"
    RUNNING = "in its producer"
    PARKED = "waiting for the client"
    SLEEPING = "asleep"
    ENDING = "sending its end"
    CLOSED = "closed"


class Sink(Protocol):
    """Where a stream's bytes go: a connection. [loop thread]"""

    paused: bool

    def write(self, buffers: Sequence[bytes]) -> bool:
        """Hand bytes to the transport; True if the kernel took them all at once, else `paused` is set."""

    def stream_ended(self, stream: Stream) -> None:
        """The body went out whole, its end too."""

    def stream_failed(self, stream: Stream) -> None:
        """What could be sent is sent; the connection is to be cut so that nobody takes the body for whole."""

    def replace_stream(self, stream: Stream, reply: Reply) -> None:
        """The body failed before a byte of it or of its head was sent: `reply` goes instead."""


class StreamStatistics(NamedTuple):
    """One live stream: seconds since its start, bytes sent, state, and where its time went (shares of 1)."""

    route: str
    age: float
    bytes_sent: int
    state: str
    in_producer: float
    waiting_for_client: float
    waiting_for_thread: float


class Stream:
    """One streamed response: the ring, its framing and its accounts. Subclasses add the producer."""

    __slots__ = (
        "__weakref__",
        "bridge",
        "consumed",
        "cut_by",
        "ended",
        "failed",
        "framing",
        "head",
        "heartbeat",
        "in_flight",
        "in_producer",
        "name",
        "produced",
        "queued",
        "remaining",
        "ring",
        "scheduled",
        "sent",
        "since",
        "sink",
        "started",
        "state",
        "tail",
        "timer",
        "waiting_for_client",
        "waiting_for_thread",
        "window",
        "written",
    )

    def __init__(self, bridge: Bridge, sink: Sink, name: str, heartbeat: float | None) -> None:
        self.bridge = bridge
        self.sink = sink
        self.name = name
        self.state = State.RUNNING
        self.ring: list[bytes] = []
        self.window = Window(bridge.limits)
        self.produced = 0  # bytes and item costs ever put into the ring; the producer's
        self.consumed = 0  # of those, how many the kernel has taken; the loop's
        self.in_flight = 0  # of those, how many the transport holds
        self.scheduled = False  # a wake-up is under way; set by the producer, cleared by the loop
        self.queued = False  # stands in the queue of ready streams
        self.ended = False  # the producer is through
        self.failed = False  # the connection must be cut after what is in the ring
        self.cut_by: Disconnected | None = None  # why nobody reads any more; set once by the loop, read by anyone
        self.head: bytes | None = b""  # what goes before the first item; None once it has left
        self.framing = Framing.CHUNKED
        self.remaining: int | None = None  # bytes until the declared Content-Length is reached
        self.sent = 0  # bytes of the body, without framing
        self.heartbeat = heartbeat  # seconds of silence on an event stream, 0 for none; None for other streams
        self.tail = b"\n\n"  # the last two bytes of an event stream: where a comment may stand
        self.timer: Timer | None = None
        self.started = self.since = self.written = monotonic()
        self.in_producer = self.waiting_for_client = self.waiting_for_thread = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state.name.lower()} sent={self.sent} ring={len(self.ring)}>"

    @property
    def is_cut(self) -> bool:
        """Whether nobody reads this any more. [any thread]"""
        return self.cut_by is not None

    @property
    def pending(self) -> int:
        """What is held for this stream, in bytes and item costs. [any thread]"""
        return self.produced - self.consumed

    # The loop's side.

    def begin(self, head: bytes, framing: Framing, remaining: int | None) -> None:
        """What is to go before the first item; it leaves alone if the item takes long. [loop thread]"""
        self.head = head
        self.framing = framing
        self.remaining = remaining
        self.bridge.opened(self)
        self.timer = self.bridge.timers.call_later(self.bridge.limits.head_grace, self._send_head)

    def wake(self) -> None:
        """There is something in the ring. [loop thread, posted by the producer]"""
        self.scheduled = False  # before anything is taken: see LoopHandle
        self.bridge.make_ready(self)

    def write_burst(self) -> int:
        """Write everything the ring holds, unless the client is behind; returns the bytes written. [loop thread]"""
        if self.sink.paused or self.state is State.CLOSED or self.is_cut:
            return 0
        pieces, size = self._take()
        if not self._fits(size):
            return 0
        if not size and not self.ended:
            self.drained()
            return 0
        buffers = [] if self.head is None else [self.head]
        if size:
            buffers += self._frame(pieces, size)
        if self.ended:
            self.state = State.ENDING
            if self.framing is Framing.CHUNKED and not self.failed:
                buffers.append(LAST_CHUNK)
        self._note_written(pieces[-1] if size else b"", size)
        if not buffers or self.sink.write(buffers):
            self.drained()
        else:
            self.bridge.backpressure_pauses += 1
        return size

    def _take(self) -> tuple[list[bytes], int]:
        """Everything the ring holds at this moment, and its size."""
        count = len(self.ring)
        if not count:
            return [], 0
        pieces = self.ring[:count]
        del self.ring[:count]
        pieces, size = _join(pieces)
        self.in_flight += size + ITEM_COST * count
        return pieces, size

    def _note_written(self, last: bytes, size: int) -> None:
        """Keep the accounts of what is about to leave."""
        if self.head is not None:
            self.head = None
            self._start_heartbeat()
        self.sent += size
        self.bridge.sent(size)
        if self.heartbeat is not None and last:
            self.tail = (self.tail + last[-2:])[-2:]
            self.written = monotonic()

    def drained(self) -> None:
        """The kernel has taken everything that was written. [loop thread]"""
        taken, self.in_flight = self.in_flight, 0
        self.consumed += taken
        self.window.passed(taken)
        if self.is_cut or self.state is State.CLOSED:
            return
        if self.ring or (self.ended and self.state is not State.ENDING):
            self.bridge.make_ready(self)
        elif self.ended:
            self._finish()
        else:
            self._has_room()

    def cut(self, error: Disconnected) -> None:
        """Nobody reads this any more: the producer is to end, at once where it can be reached. [loop thread]"""
        if self.is_cut or self.state is State.CLOSED:
            return
        self.cut_by = error
        self.ring.clear()
        self._stop_timer()
        if self.ended:
            self.closed()
        else:
            self._interrupt(error)

    def closed(self) -> None:
        """The producer has ended and let go of everything. [loop thread]"""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._stop_timer()
        self.window.shrink(self.bridge.limits, self.bridge.allowance)
        self.bridge.closed(self)

    def statistics(self) -> StreamStatistics:
        """[any thread]"""
        now = monotonic()
        age = now - self.started
        current = {State.RUNNING: "in_producer", State.PARKED: "client", State.QUEUED: "thread"}.get(self.state)
        running = now - self.since
        share = 1 / age if age > 0 else 0.0
        return StreamStatistics(
            route=self.name,
            age=age,
            bytes_sent=self.sent,
            state=self.state.value,
            in_producer=(self.in_producer + (running if current == "in_producer" else 0)) * share,
            waiting_for_client=(self.waiting_for_client + (running if current == "client" else 0)) * share,
            waiting_for_thread=(self.waiting_for_thread + (running if current == "thread" else 0)) * share,
        )

    def _finish(self) -> None:
        complete = not self.failed and self._is_whole()
        if not self.failed and not complete:
            logger.error("stream=%s ended %d bytes short of its Content-Length; cut", self.name, self.remaining)
        sink = self.sink
        self.closed()
        (sink.stream_ended if complete else sink.stream_failed)(self)

    def _frame(self, pieces: list[bytes], size: int) -> list[bytes]:
        if self.framing is Framing.CHUNKED:
            return frame_chunk(pieces, size)
        return [] if self.framing is Framing.NONE else pieces  # a writer may write to HEAD; nobody gets it

    def _fits(self, size: int) -> bool:
        """Hold the burst against the declared length; a body that is longer is cut."""
        if self.remaining is None or self.framing is Framing.NONE:
            return True
        self.remaining -= size
        if self.remaining >= 0:
            return True
        logger.error("stream=%s yielded %d bytes more than its Content-Length; cut", self.name, -self.remaining)
        self.failed = True
        self.sink.stream_failed(self)
        return False

    def _is_whole(self) -> bool:
        return not self.remaining

    # The head's grace and the heartbeat share one timer: the second begins when the first is over.

    def _send_head(self) -> None:
        """The first item takes long: let the head go, so that a client sees that it is connected."""
        self.timer = None
        if self.head is not None and not self.sink.paused:
            head = self.head
            self._note_written(b"", 0)
            self.sink.write([head])

    def _start_heartbeat(self) -> None:
        self._stop_timer()
        if self.heartbeat:
            self.timer = self.bridge.timers.call_later(self.heartbeat, self._beat)

    def _beat(self) -> None:
        """Send a comment after a time of silence, where one may stand (WHATWG HTML section 9.2.5)."""
        assert self.heartbeat
        silence = monotonic() - self.written
        comment = b":\n\n" if self.tail == b"\n\n" else b":\n" if self.tail[-1:] == b"\n" else b""
        can_grow = self.framing in (Framing.CHUNKED, Framing.CLOSE)
        if silence >= self.heartbeat and comment and not self.sink.paused and can_grow:
            self.written = monotonic()
            framed = self.framing is Framing.CHUNKED
            self.sink.write(frame_chunk([comment], len(comment)) if framed else [comment])
            silence = 0.0
        # In the middle of a line, or with a client that is behind, look again a little later.
        delay = max(self.heartbeat - silence, self.heartbeat / 10)
        self.timer = self.bridge.timers.call_later(delay, self._beat)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _over(self, failed: bool) -> None:
        """The producer is through, and has let go of everything. Posted by it."""
        self.ended = True
        self.failed = failed
        if self.is_cut:
            self.closed()
        else:
            self.bridge.make_ready(self)

    # The producer's side; each subclass has its own way.

    def _has_room(self) -> None:
        """The window is empty again."""
        raise NotImplementedError

    def _interrupt(self, error: Disconnected) -> None:
        """Reach the producer wherever it is."""
        raise NotImplementedError


def _join(pieces: list[bytes]) -> tuple[list[bytes], int]:
    """Small pieces become one, large ones stay as they are; and their size."""
    count = len(pieces)
    if count * JOIN_BELOW <= MIB:
        size = sum(map(len, pieces))
        if count == 1 or size >= count * JOIN_BELOW:
            return pieces, size
    joined = b"".join(pieces)
    return [joined], len(joined)
