"""The bridge: all streams of one server, and the one task that writes them.

Producers on threads and clients on the loop meet in a `Stream` (`stream.py`): a bounded ring that the producer fills
and the loop empties. Three rules make it fast and bounded:

- *One wake-up a burst.* The producer wakes the loop only when the loop does not know yet that there is something
  (`scheduled`). Whatever else it appends until the loop comes rides along, and leaves as one HTTP chunk in one write.
  Nothing is ever delayed to be joined: a lone item leaves in the loop's next turn.
- *The client sets the pace.* `window` bounds what is held, in the ring and in the transport together. The transport
  pauses as soon as the kernel refuses a byte, so "not paused" means "the kernel has it all".
- *Each waits for the other in its own way.* The loop never waits: a stream whose client is behind is simply not in the
  queue of ready streams, and `resume_writing` puts it back. The producer's way is its own: a generator is parked
  (`pulled_stream.py`), a thread in `write` blocks (`written_stream.py`).

The queue of ready streams is one `asyncio.Queue` for the whole server, drained by one task, and a stream stands in it
at most once. So a parked or idle stream costs neither a queue nor a task, the order of service is fair, and the loop
gets to breathe between bursts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from catzilla._core.clock import monotonic
from catzilla._core.limits import MIB, Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.stream import Stream
from catzilla._core.timers import Timers
from catzilla._core.watermark import Allowance
from catzilla._core.workers import Workers

logger = logging.getLogger("catzilla")

TURN_BYTES = 4 * MIB  # written in one turn before other events of the loop are looked at


class Bridge:
    """All streams of one server, and the task that writes them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, handle: LoopHandle, workers: Workers, timers: Timers, limits: Limits
    ) -> None:
        self.post = handle.post
        self.workers = workers
        self.timers = timers
        self.limits = limits
        self.allowance = Allowance(limits)
        self.streams: set[Stream] = set()
        self.total_streams = 0
        self.total_bytes = 0
        self.backpressure_pauses = 0
        self.client_disconnects = 0
        self.errors = 0
        self._seconds: dict[int, int] = {}  # bytes sent in each of the last seconds
        self._ready: asyncio.Queue[Stream] = asyncio.Queue()
        self._closed_one = asyncio.Event()
        self._task: asyncio.Task[None] | None = loop.create_task(self._drain())

    def make_ready(self, stream: Stream) -> None:
        """Queue a stream that has something to write; in the queue already is fine. [loop thread]"""
        if not stream.queued:
            stream.queued = True
            self._ready.put_nowait(stream)

    async def _drain(self) -> None:
        written = 0
        while True:
            stream = await self._ready.get()
            stream.queued = False
            try:
                written += stream.write_burst()
            except Exception:
                logger.exception("writing failed: stream=%r", stream)
                stream.sink.stream_failed(stream)
            del stream  # not to be kept while the next one is waited for
            if written >= TURN_BYTES:
                written = 0
                await asyncio.sleep(0)

    async def close(self) -> None:
        """End the task. [loop thread]"""
        task, self._task = self._task, None  # which keeps the stack that it was cancelled on, and so all of the server
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def opened(self, stream: Stream) -> None:
        self.streams.add(stream)
        self.total_streams += 1

    def closed(self, stream: Stream) -> None:
        self.streams.discard(stream)
        self._closed_one.set()

    async def wait_closed(self, timeout: float) -> None:
        """Wait until some stream has closed, at most `timeout` seconds. [loop thread]"""
        self._closed_one.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closed_one.wait(), timeout)

    def sent(self, size: int) -> None:
        """Account for bytes handed to the transport. [loop thread]"""
        self.total_bytes += size
        second = int(monotonic())
        seconds = self._seconds
        if second in seconds:
            seconds[second] += size
            return
        seconds[second] = size
        for old in [old for old in seconds if old < second - 10]:
            del seconds[old]

    def bytes_in_last_seconds(self, seconds: int = 10) -> int:
        """Bytes of stream bodies sent in the last `seconds`. [any thread]"""
        since = monotonic() - seconds
        return sum(size for second, size in list(self._seconds.items()) if second >= since)
