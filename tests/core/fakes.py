"""A loop, a bridge, a sink and workers that stand still until a test moves them.

Nothing here runs by itself: posts wait in a queue, timers wait for `advance`, streams sent home wait to be run. So a
test chooses every interleaving of the loop and the home thread, and each choice is the same in every run.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from catzilla._core.bridge import Bridge
from catzilla._core.http1 import Framing
from catzilla._core.limits import Limits
from catzilla._core.messages import Reply, Source
from catzilla._core.pace import Pace
from catzilla._core.pulled_stream import PulledStream
from catzilla._core.stream import Stream
from catzilla._core.timers import Timers
from catzilla._core.waits import Waits
from catzilla._core.worker import Worker, WorkerStatistics
from catzilla._core.written_stream import WrittenStream


class FakeTimerHandle:
    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.call: tuple[Callable[..., object], tuple[Any, ...]] | None = (callback, args)

    def cancel(self) -> None:
        self.call = None


class FakeLoop:
    """The parts of an event loop that the core uses, with a clock that only `advance` moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.closed = False
        self.wakeups = 0
        self.soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.timed: list[tuple[float, int, FakeTimerHandle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.wakeups += 1
        self.soon.append((callback, args))

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self.soon.append((callback, args))

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimerHandle:
        handle = FakeTimerHandle(callback, args)
        heapq.heappush(self.timed, (when, next(self._order), handle))
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> FakeTimerHandle:
        return self.call_at(self.now + delay, callback, *args)

    def create_task(self, coroutine: Any) -> None:
        coroutine.close()  # the task of the bridge; `Bench.drain` does its work

    def turn(self) -> int:
        """Run what was called soon, but not what that calls soon in its turn."""
        count = len(self.soon)
        for _ in range(count):
            callback, args = self.soon.popleft()
            callback(*args)
        return count

    def advance(self, seconds: float) -> None:
        """Let time pass, and run the timers that become due, each at its moment."""
        end = self.now + seconds
        while self.timed and self.timed[0][0] <= end:
            when, _, handle = heapq.heappop(self.timed)
            self.now = max(self.now, when)
            if handle.call is not None:
                callback, args = handle.call
                callback(*args)
        self.now = end

    def armed(self) -> list[float]:
        """When the timers that are not cancelled are due, as seconds from now."""
        return sorted(when - self.now for when, _, handle in self.timed if handle.call is not None)


class FakeHandle:
    """A `LoopHandle` whose posts wait for the test."""

    def __init__(self) -> None:
        self.posts: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        self.posts.append((callback, args))

    def names(self) -> list[str]:
        return [callback.__name__ for callback, _ in self.posts]

    def run_one(self) -> None:
        callback, args = self.posts.popleft()
        callback(*args)

    def run_all(self) -> None:
        while self.posts:
            self.run_one()


class FakeWorkers:
    """Streams that were sent home wait in `homeward` until `Bench.go_home` runs them."""

    def __init__(self) -> None:
        self.homeward: deque[tuple[Worker, PulledStream]] = deque()
        self.released: list[Worker] = []
        self.submitted: list[Any] = []
        self.adopts = True

    def send_home(self, worker: Worker, job: PulledStream) -> None:
        self.homeward.append((worker, job))

    def release(self, worker: Worker) -> None:
        self.released.append(worker)

    def adopt(self, worker: Worker) -> bool:
        return self.adopts

    def start_writing(self, worker: Worker) -> bool:
        return self.adopts

    def submit(self, request: Any) -> None:
        self.submitted.append(request)

    def statistics(self) -> WorkerStatistics:
        return WorkerStatistics(0, 0, len(self.submitted), 0, 0)

    def stop(self) -> None:
        for request in self.submitted:
            request.refuse()
        self.submitted.clear()


class FakeSink:
    """A connection: the kernel takes everything until `full` is set; then `paused`, until `Bench.resume`."""

    def __init__(self) -> None:
        self.paused = False
        self.full = False
        self.writes: list[bytes] = []
        self.outcome: list[str] = []
        self.replies: list[Reply] = []

    def write(self, buffers: Sequence[bytes]) -> bool:
        assert not self.paused, "written to a client that is behind"
        assert all(isinstance(each, (bytes, bytearray, memoryview)) for each in buffers)
        self.writes.append(b"".join(buffers))
        self.paused = self.full
        return not self.paused

    def stream_ended(self, stream: Stream) -> None:
        self.outcome.append("ended")

    def stream_failed(self, stream: Stream) -> None:
        from catzilla._core.errors import Disconnected

        self.outcome.append("failed")
        stream.bridge.errors += 1
        stream.cut(Disconnected())  # as a connection does

    def replace_stream(self, stream: Stream, reply: Reply) -> None:
        self.outcome.append("replaced")
        self.replies.append(reply)

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)

    @property
    def body(self) -> bytes:
        """The chunked body that was written so far, without the head; must be well-formed."""
        return dechunk(self.data.partition(b"\r\n\r\n")[2])[0]


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """The contents of a chunked body, and whether it has its end."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert data == b"\r\n", f"after the last chunk came {data!r}"
            return body, True
        assert data[length : length + 2] == b"\r\n", "a chunk has another size than it says"
        body += data[:length]
        data = data[length + 2 :]
    return body, False


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Bench:
    """One stream's surroundings, standing still."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.loop = FakeLoop()
        self.handle = FakeHandle()
        self.workers = FakeWorkers()
        self.timers = Timers(self.loop)
        self.bridge = Bridge(self.loop, self.handle, self.workers, self.timers, self.limits)
        self.sink = FakeSink()
        self.worker = Worker("home")
        self.worker.streams = 1
        self.waits = Waits()
        self.context = contextvars.copy_context()

    def pulled(self, items: Any, *, home: bool = True, heartbeat: float | None = None, **source: Any) -> PulledStream:
        return PulledStream(
            self.bridge,
            self.sink,
            Source(items, **source),
            name="handler",
            heartbeat=heartbeat,
            home=self.worker if home else None,
            context=self.context,
            waits=self.waits,
            pace=Pace(),
        )

    def written(self, *, heartbeat: float | None = None) -> WrittenStream:
        return WrittenStream(self.bridge, self.sink, "handler", heartbeat, self.waits)

    def begin(self, stream: Stream, framing: Framing = Framing.CHUNKED, remaining: int | None = None) -> None:
        stream.begin(HEAD, framing, remaining)

    def drain(self) -> None:
        """What the bridge's task does: write every ready stream."""
        ready = self.bridge._ready
        while not ready.empty():
            stream = ready.get_nowait()
            stream.queued = False
            stream.write_burst()

    def turn(self) -> None:
        """One turn of the loop: what was posted, then the ready streams."""
        self.handle.run_all()
        self.drain()

    def settle(self) -> None:
        """Turn the loop until it has nothing to do; the home thread stands still."""
        while self.handle.posts or not self.bridge._ready.empty():
            self.turn()

    def go_home(self) -> bool:
        """Have the home thread run the next stream that was sent to it; False if there is none."""
        if not self.workers.homeward:
            return False
        worker, stream = self.workers.homeward.popleft()
        stream.run(worker)
        return True

    def finish(self) -> None:
        """Alternate loop and home thread until neither has anything to do."""
        self.settle()
        while self.go_home():
            self.settle()

    def stall(self) -> None:
        """The kernel takes no more after the next write."""
        self.sink.full = True

    def resume(self, stream: Stream) -> None:
        """The kernel has taken everything; what a connection does in `resume_writing`."""
        assert self.sink.paused
        self.sink.paused = self.sink.full = False
        stream.drained()


class Tracked:
    """A generator function's fate: which thread started and closed it, and how often `finally` ran."""

    def __init__(self) -> None:
        self.started = 0
        self.closed = 0
        self.seen: list[str] = []

    def items(self, *items: Any) -> Any:
        self.started += 1
        try:
            for item in items:
                if isinstance(item, BaseException):
                    raise item
                if callable(item):
                    item = item()
                yield item
        except GeneratorExit:
            self.seen.append("GeneratorExit")
            raise
        finally:
            self.closed += 1
