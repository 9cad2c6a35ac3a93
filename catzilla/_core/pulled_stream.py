"""A stream whose producer is an iterable: pulled on its home thread until the window is full, then parked.

A suspended generator is a coroutine: it needs no thread until somebody calls `next`. So whenever there is nothing to
do for a generator, because the client is behind or because it yielded a pause, the thread goes away and the loop keeps
the stream. It goes on by sending the stream to its home again.

The baton. Between `send_home` and the producer's next post (`_parked`, `_asleep`, `_over`, `closed`) the home thread
holds the stream: it alone touches the iterator and `state`. All other time the loop does. The loop may always write
`cut_by`; the home thread looks at it when it takes the baton and after every item, and the loop looks at it when the
baton comes back. So whenever a client leaves, exactly one of them finds out while it holds the baton, and closes.

Whoever started the iterator closes it: always the home thread, always in the request's context, exactly once.
"""

from __future__ import annotations

import contextvars
import enum
import logging
from collections.abc import Iterable
from typing import Any

from catzilla._core.bridge import Bridge
from catzilla._core.clock import monotonic
from catzilla._core.current import current
from catzilla._core.errors import Disconnected
from catzilla._core.messages import Reply, Source
from catzilla._core.pace import Pace
from catzilla._core.stream import ITEM_COST, Sink, State, Stream
from catzilla._core.timers import Timer
from catzilla._core.waits import Waits
from catzilla._core.worker import Worker

logger = logging.getLogger("catzilla")

SLICE = 0.005  # seconds on the home thread before others who live there get a turn


class Pause:
    """What a generator yields to pause without holding a thread: `yield sleep(seconds)`."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"cannot sleep for {seconds!r} seconds; write a number that is not negative")
        self.seconds = float(seconds)

    def __repr__(self) -> str:
        return f"sleep({self.seconds!r})"


class _Outcome(enum.Enum):
    """Why a pull stopped."""

    FULL = enum.auto()  # the window is full, or another stream waits for this thread
    ASLEEP = enum.auto()
    EXHAUSTED = enum.auto()
    CUT = enum.auto()


_LEFT = (_Outcome.CUT, 0.0)


class PulledStream(Stream):
    """One iterable on its way to one client. `home` is None for what needs no user code: the loop pulls it itself."""

    __slots__ = ("_context", "_encode", "_fail_early", "_iterator", "_pace", "_sleep", "home", "waits")

    def __init__(
        self,
        bridge: Bridge,
        sink: Sink,
        source: Source,
        *,
        name: str,
        heartbeat: float | None,
        home: Worker | None,
        context: contextvars.Context,
        waits: Waits,
        pace: Pace,
    ) -> None:
        super().__init__(bridge, sink, name, heartbeat)
        self._iterator: Iterable[Any] | None = source.items  # until it is pulled first; `iter` is user code too
        self._encode = source.encode
        self._context = context
        self._pace = pace
        self._fail_early = source.fail_early
        self._sleep: Timer | None = None
        self.home = home
        self.waits = waits

    # On the home thread.

    def run(self, worker: Worker | None) -> None:
        """Pull until there is a reason to stop, then hand the stream back to the loop. [home thread]"""
        began = monotonic()
        if self.state is State.QUEUED:
            self.waiting_for_thread += began - self.since
        self.since = began
        self.state = State.RUNNING
        if worker is not None:
            current.waits = self.waits
        try:
            outcome, seconds = _LEFT if self.cut_by is not None else self._context.run(self._pull, worker)
        except BaseException as error:
            self._fail(error)
            return
        finally:
            spent = monotonic() - began
            self.in_producer += spent
            self._pace.record(spent)
        self.since = monotonic()
        if outcome is _Outcome.FULL:
            self.bridge.post(self._parked)
        elif outcome is _Outcome.ASLEEP:
            self.bridge.post(self._asleep, seconds)
        elif outcome is _Outcome.EXHAUSTED:
            self._close_quietly()  # a file that was iterated to its end is still open
            self._let_go()
            self.bridge.post(self._over, False)
        else:
            self.close_iterator()

    def _pull(self, worker: Worker | None) -> tuple[_Outcome, float]:
        """Move items from the iterator to the ring. The loop that every streamed byte goes through."""
        assert self._iterator is not None
        append = self.ring.append
        encode = self._encode
        others = worker.inbox.empty if worker is not None else _nobody
        room = self.window.size - self.pending
        began = monotonic()
        self._iterator = iter(self._iterator)  # that of an iterator is itself
        for item in self._iterator:
            if self.cut_by is not None:
                return _LEFT
            if type(item) is Pause:
                return _Outcome.ASLEEP, item.seconds
            if encode is not None:
                item = encode(item)
            elif type(item) is str:
                item = item.encode()
            elif type(item) is not bytes:
                item = self._as_bytes(item)
            size = len(item)
            if not size:
                continue
            append(item)
            size += ITEM_COST
            self.produced += size
            if not self.scheduled:
                self.scheduled = True  # after the append: see LoopHandle
                self.bridge.post(self.wake)
                self._fail_early = None
                now = monotonic()
                if now - began > SLICE:  # looked at once a burst; a generator that blocks makes each item a burst
                    self._pace.record(now - began)
                    began = now
                    if not others():
                        return _Outcome.FULL, 0.0
            room -= size
            if room <= 0:
                room = self.window.size - self.pending
                if room <= 0:
                    return _Outcome.FULL, 0.0
        return _Outcome.EXHAUSTED, 0.0

    def _as_bytes(self, item: object) -> bytes:
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)  # copied: the generator may fill its buffer again
        raise TypeError(
            f"{self.name} yielded {item!r:.80} of type {type(item).__name__}; "
            "a stream may yield str, bytes, bytearray, memoryview or sleep(seconds)"
        )

    def _fail(self, error: BaseException) -> None:
        """The producer raised: an error response if nothing was sent yet, else the end of the connection."""
        fail_early = self._fail_early
        self._close_quietly()
        if self.waits.interrupted is not None and isinstance(error, Disconnected):
            pass  # what a wait raises when the client has left; another `Disconnected` is an error like any
        elif self.cut_by is not None:
            logger.error("stream=%s failed once its client had left", self.name, exc_info=error)
        elif fail_early is not None and self.head is not None and isinstance(error, Exception):
            try:
                reply = self._context.run(fail_early, error)
            except BaseException as second:
                error = second
            else:
                self._let_go()
                self.bridge.post(self._replace, reply)
                return
            self._report(error)
        else:
            self._report(error)
        self._let_go()
        self.bridge.post(self._over, True)

    def _report(self, error: BaseException) -> None:
        logger.error("stream=%s failed after %d bytes; cut", self.name, self.sent, exc_info=error)

    def close_iterator(self) -> None:
        """Close what is left of the iterator and tell the loop. [home thread]"""
        self._close_quietly()
        self._let_go()
        self.bridge.post(self.closed)

    def _close_quietly(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is None:
            return
        try:
            self._context.run(close)
        except Disconnected:
            pass
        except BaseException:
            logger.exception("stream=%s failed while it was being closed", self.name)

    def _let_go(self) -> None:
        """Drop what belongs to the user, on the thread and in the context it belongs to: `map(f, rows())` has no
        `close`, and its generator is closed by being dropped."""
        self._context.run(self._drop)
        self._fail_early = None
        if self.home is not None:
            self.bridge.workers.release(self.home)

    def _drop(self) -> None:
        self._iterator = None

    # On the loop.

    def _parked(self) -> None:
        """The baton is back: the window is full."""
        self._baton_back(State.PARKED)

    def _asleep(self, seconds: float) -> None:
        """The baton is back: the generator wants to go on in `seconds`."""
        if self._baton_back(State.SLEEPING):
            self._sleep = self.bridge.timers.call_later(seconds, self._go_on)

    def _baton_back(self, state: State) -> bool:
        if self.cut_by is not None:
            self._send_closing()
            return False
        self.state = state
        self.bridge.make_ready(self)
        return True

    def _replace(self, reply: Reply) -> None:
        """The first item failed: `reply` goes instead, unless the head has left already."""
        if self.head is None or self.cut_by is not None:
            if self.cut_by is None:  # it left between the failure and now
                logger.error("stream=%s failed as its head left; cut", self.name)
            self._over(True)
            return
        sink = self.sink
        self.head = None
        self.closed()
        sink.replace_stream(self, reply)

    def _has_room(self) -> None:
        if self.state is State.PARKED:
            waited = monotonic() - self.since
            self.waiting_for_client += waited
            self.window.emptied(waited, self.bridge.limits, self.bridge.allowance)
            self._go_on()

    def _go_on(self) -> None:
        """Pass the baton to the home thread."""
        self._sleep = None
        self.since = monotonic()
        self.state = State.QUEUED
        if self.home is not None:
            self.bridge.workers.send_home(self.home, self)
        else:
            self.bridge.post(self.run, None)

    def _interrupt(self, error: Disconnected) -> None:
        self.waits.interrupt(error)
        if self.state in (State.PARKED, State.SLEEPING):
            self._send_closing()

    def _send_closing(self) -> None:
        """Have the iterator closed at home: `run` finds `cut_by` set and does nothing else."""
        if self._sleep is not None:
            self._sleep.cancel()
        self._go_on()


def _nobody() -> bool:
    return True
