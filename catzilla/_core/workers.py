"""Which thread runs what: the scheduling of handlers and generators on worker threads.

A request's handler runs on some worker; if it answers with a generator, that worker becomes the stream's *home*, and
everything the generator ever does happens there. A stream that waits is *parked*: it holds no thread, only a claim on
its home. So a worker has two sources of work, its own inbox (streams that come home) and the shared queue of new
requests, and the art is to decide who may take new requests:

- One worker that drains the shared queue beats eight that fight for the interpreter lock. A new request wakes a
  worker only when none is draining already.
- A drainer may be stuck in user code. Every `TICK` seconds in which requests wait, the loop looks whether the
  drainers have moved on to another job; if none has, or if the process was idle meanwhile, it starts more beside them
  (`reinforcement.py`).
- A new request may block for long, so it must not run where a parked stream lives: it gets an idle thread without
  streams, or a new one. Only handlers that have proven quick (`Pace`) share threads, `home_threads` for each route, so
  that ten thousand parked streams need a few, and so that waking many streams wakes few threads. A route that turns
  slow can so delay no streams but its own.

Ownership: everything in `Workers` with a leading underscore is guarded by `_lock`, which is never held while user
code, a wait or a system call runs. `submit`, `send_home` and the tick run on the loop thread; `adopt`, `release` and
`_next` on workers. An inbox is filled by the loop only and emptied by its worker only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty

from catzilla._core.clock import monotonic
from catzilla._core.current import current
from catzilla._core.limits import Limits
from catzilla._core.pace import Pace
from catzilla._core.reinforcement import TICK, Reinforcement
from catzilla._core.worker import LOOK, Job, Kind, Request, Worker, WorkerStatistics

logger = logging.getLogger("catzilla")


class Workers:
    """The worker threads of one server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        name: str = "catzilla-worker",
        shares: bool = True,
        load: Callable[[], float] | None = None,
    ) -> None:
        """With `shares=False` no job waits for another: each is given a thread of its own at once."""
        self._loop = loop
        self._shares = shares
        self._reinforcement = Reinforcement(load)
        self._limits = limits
        self._name = name  # of each thread, before its number
        self._lock = threading.Lock()
        self._arrived: list[Request] = []  # in this turn of the loop, whose it is
        self._new: deque[Request] = deque()
        self._threads: set[Worker] = set()
        # Idle workers in the order they became idle; the last one in is the first one out, its caches still warm.
        self._idle_free: dict[Worker, None] = {}
        self._idle_homes: dict[Worker, None] = {}
        self._drainers: set[Worker] = set()
        self._shared: dict[Pace, dict[Worker, None]] = {}  # the homes that a route's streams share, in order of age
        self._running = [0] * len(Kind)
        self._started = 0
        self._lacks_threads = False  # the last one could not be started
        self._ticking = False
        self._stopping = False

    # What the loop calls.

    def submit(self, request: Request) -> None:
        """Queue a new request, or refuse it when the budget is full. [loop thread]

        It is shown to the workers at the end of the loop's turn, with all others that the turn brings. A worker that is
        woken earlier takes the interpreter lock whenever the loop lets go of it, between any two sockets, and both
        spend their time on changing over.
        """
        self._arrived.append(request)
        if len(self._arrived) == 1:
            self._loop.call_soon(self._admit)

    def _admit(self) -> None:
        """Show the workers what the turn has brought. [loop thread]"""
        arrived, self._arrived = self._arrived, []
        with self._lock:
            full = self._running[Kind.REQUEST] >= self._limits.max_requests or self._stopping
            if not full:
                self._new.extend(arrived)
            wanted = 0 if full else len(arrived) if not self._shares else 0 if self._drainers else 1
            starters = self._call_up(wanted)
        if full:
            for request in arrived:
                request.refuse()
            return
        if not self._ticking:
            self._ticking = True
            self._reinforcement.begin()
            self._loop.call_later(TICK, self._tick)
        self._start(starters)

    def send_home(self, worker: Worker, job: Job) -> None:
        """Queue a job for one worker: a stream goes on at home. [loop thread]"""
        with self._lock:
            # Under the lock, so that the worker either is idle and woken, or finds the job before it turns idle.
            worker.inbox.put(job)
            self._idle_free.pop(worker, None)
            self._idle_homes.pop(worker, None)

    def stop(self) -> None:
        """Let every worker end after what is queued for it; refuse what has not begun. [loop thread]"""
        with self._lock:
            self._stopping = True
            refused = list(self._new)
            self._new.clear()
            workers = list(self._threads)
        for request in refused:
            request.refuse()
        for worker in workers:
            worker.inbox.put(None)

    def join(self, timeout: float) -> list[str]:
        """Wait until every worker has ended; the names of those that have not. [main thread]"""
        deadline = monotonic() + timeout
        with self._lock:
            threads = [worker.thread for worker in self._threads if worker.thread is not None]
        started = [thread for thread in threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, deadline - monotonic()))
        return [thread.name for thread in started if thread.is_alive()]

    def statistics(self) -> WorkerStatistics:
        """[any thread]"""
        with self._lock:
            return WorkerStatistics(
                threads=len(self._threads),
                idle=len(self._idle_free) + len(self._idle_homes),
                queued=len(self._new),
                requests=self._running[Kind.REQUEST],
                streams=self._running[Kind.STREAM],
            )

    def _tick(self) -> None:
        """See that waiting requests are moving; start more workers where the drainers are stuck. [loop thread]"""
        refused: list[Request] = []
        starters: list[Worker] = []
        reinforcement = self._reinforcement
        reinforcement.look()
        with self._lock:
            if not self._new:
                self._ticking = False
                return
            has_moved = self._look_at_drainers()
            is_stuck = not self._drainers
            places = self._limits.max_requests - self._running[Kind.REQUEST] - self._called_up
            if is_stuck and places <= 0:
                refused.extend(self._new)
                self._new.clear()
            elif is_stuck:
                starters = self._call_up(reinforcement.count(min(places, len(self._new))))
            elif has_moved:
                reinforcement.reset()
                # Half of the budget is kept for when they are stuck: who moves on serves a burst, a full budget not.
                if reinforcement.is_idle and places > self._limits.max_requests // 2:
                    starters = self._call_up(1)
        self._loop.call_later(TICK, self._tick)
        for request in refused:
            self._loop.call_soon(request.refuse)
        self._start(starters)

    # Choosing a worker; the lock is held.

    def _look_at_drainers(self) -> bool:
        """Forget those that are stuck; whether another has moved on since the last tick."""
        has_moved = False
        for worker in list(self._drainers):
            if worker.jobs == worker.jobs_at_tick:
                self._drainers.discard(worker)
            elif worker.jobs_at_tick >= 0:  # one that was called up since the last tick may be stuck as well
                has_moved = True
            worker.jobs_at_tick = worker.jobs
        return has_moved

    @property
    def _called_up(self) -> int:
        """Workers that were called up and have not run yet."""
        return self._running[Kind.NOTHING] - len(self._idle_free) - len(self._idle_homes)

    def _call_up(self, count: int) -> list[Worker]:
        """Make up to `count` workers drainers and return them; `_start` must follow without the lock."""
        chosen = []
        for _ in range(count):
            worker = self._choose()
            if worker is None:
                break
            worker.jobs_at_tick = -1
            self._drainers.add(worker)
            chosen.append(worker)
        return chosen

    def _choose(self) -> Worker | None:
        """The worker to take new requests: a shared home if it may be one, else idle and free, else a new thread."""
        pace = self._new[0].pace if self._new else None
        sharing = pace if pace is not None and pace.is_quick else None
        shared = self._shared.get(sharing, ()) if sharing is not None else ()
        opening = sharing is not None and len(shared) < self._limits.home_threads
        if not opening and (homes := self._idle_among(shared)):
            worker = min(homes, key=_stream_count)
            self._idle_homes.pop(worker, None)
            self._idle_free.pop(worker, None)
            return worker
        if self._idle_free:
            worker = self._idle_free.popitem()[0]
        elif len(self._threads) < self._limits.max_threads:
            worker = self._new_worker()
        elif self._idle_homes:
            worker = min(self._idle_homes, key=_stream_count)
            del self._idle_homes[worker]
            return worker
        else:
            return None  # all at work; the next one that finishes finds the request in the queue
        self._share(worker, sharing if opening else None)
        return worker

    def _idle_among(self, homes: Iterable[Worker]) -> list[Worker]:
        return [worker for worker in homes if worker in self._idle_homes or worker in self._idle_free]

    def _share(self, worker: Worker, pace: Pace | None) -> None:
        """Let the streams of one route share `worker`, or nobody's."""
        if worker.shared_by is not None:
            homes = self._shared[worker.shared_by]
            del homes[worker]
            if not homes:
                del self._shared[worker.shared_by]
        worker.shared_by = pace
        if pace is not None:
            self._shared.setdefault(pace, {})[worker] = None

    def _new_worker(self) -> Worker:
        self._started += 1
        worker = Worker(f"{self._name}-{self._started}")
        self._threads.add(worker)
        self._running[worker.kind] += 1
        return worker

    def _may_take(self, worker: Worker) -> bool:
        """Whether the next new request may run on `worker`, which may have parked streams to look after."""
        if self._running[Kind.REQUEST] - (worker.kind is Kind.REQUEST) >= self._limits.max_requests:
            return False
        if worker.streams == 0 or len(self._threads) >= self._limits.max_threads:
            return True
        pace = self._new[0].pace
        if worker.shared_by is not pace or not pace.is_quick:
            return False
        # Evenly: a drainer that goes on taking would otherwise become everybody's home. But the least loaded one that
        # is idle takes what it was called up for, however loaded: else two of them would call up each other for ever.
        shared = self._shared[pace]
        average = sum(other.streams for other in shared) // len(shared)
        idle = self._idle_among(shared)
        return worker.streams <= average or all(worker.streams <= other.streams for other in idle)

    def _start(self, workers: list[Worker]) -> None:
        """Set called-up workers going; the lock is not held. Threads that cannot be had are tried again by the tick."""
        lacks_threads = False
        for worker in workers:
            if worker.thread is not None:
                worker.inbox.put(LOOK)
            elif lacks_threads or not self._start_thread(worker):
                lacks_threads = True  # nor will the others be had now
                with self._lock:
                    self._forget(worker)

    def _start_thread(self, worker: Worker) -> bool:
        thread = threading.Thread(target=self._work, args=(worker,), name=worker.name, daemon=True)
        worker.thread = thread
        try:
            thread.start()
        except RuntimeError as error:
            worker.thread = None
            if not self._lacks_threads:
                logger.warning("worker=%s cannot start, others silently until one can: %s", worker.name, error)
            self._lacks_threads = True
            self._reinforcement.reset()
            return False
        self._lacks_threads = False
        return True

    # What workers call.

    def adopt(self, worker: Worker) -> bool:
        """Make `worker` the home of the stream that its request turned into; False when the budget is full. [worker]"""
        with self._lock:
            if self._running[Kind.STREAM] >= self._limits.max_streams:
                return False
            self._set_kind(worker, Kind.STREAM)
            worker.streams += 1
            return True

    def start_writing(self, worker: Worker) -> bool:
        """The handler on `worker` has begun to write a stream: another budget; False when it is full. [worker]"""
        with self._lock:
            if self._running[Kind.STREAM] >= self._limits.max_streams:
                return False
            self._set_kind(worker, Kind.STREAM)
            return True

    def release(self, worker: Worker) -> None:
        """A stream at home here has ended. [its worker]"""
        with self._lock:
            worker.streams -= 1

    def _set_kind(self, worker: Worker, kind: Kind) -> None:
        self._running[worker.kind] -= 1
        self._running[kind] += 1
        worker.kind = kind

    def _work(self, worker: Worker) -> None:
        while (job := self._next(worker)) is not None:
            try:
                job.run(worker)
            except BaseException:
                # Jobs answer for their own failures; this is a fault of ours, and must not cost a home its thread.
                logger.exception("a job failed: worker=%s job=%r", worker.name, job)
            current.waits = current.go_live = None
            del job  # do not keep a finished request alive while waiting for the next one

    def _next(self, worker: Worker) -> Job | None:
        """The next job, streams at home before new requests; blocks while there is neither. None ends the thread."""
        job = self._look(worker, LOOK)
        while job is LOOK:
            try:
                job = worker.inbox.get(timeout=self._limits.idle_thread_timeout)
            except Empty:
                if self._retire(worker):
                    return None
            else:
                job = self._look(worker, job)
        return job

    def _look(self, worker: Worker, job: Job | None) -> Job | None:
        """Count what `worker` does next and return it: `job`, or what else there is, or `LOOK` if it is idle now."""
        successors: list[Worker] = []
        with self._lock:
            if job is LOOK and not worker.inbox.empty():
                job = worker.inbox.get_nowait()
            if job is None:
                self._forget(worker)
            elif job is not LOOK:
                self._set_kind(worker, Kind.STREAM)
            elif self._new and self._may_take(worker):
                request = self._new.popleft()
                if worker.shared_by is not request.pace:
                    self._share(worker, None)
                job = request
                worker.jobs += 1
                self._drainers.add(worker)
                self._set_kind(worker, Kind.REQUEST)
            else:
                self._set_kind(worker, Kind.NOTHING)
                successors = self._turn_idle(worker)
        self._start(successors)
        return job

    def _turn_idle(self, worker: Worker) -> list[Worker]:
        """Put `worker` among the idle; name others if it leaves requests that it may not take. The lock is held."""
        self._drainers.discard(worker)
        is_full = self._running[Kind.REQUEST] >= self._limits.max_requests
        successors = self._call_up(1) if self._new and not self._drainers and not is_full else []
        if worker.streams:
            self._idle_homes[worker] = None
        else:
            self._idle_free[worker] = None
        return successors

    def _retire(self, worker: Worker) -> bool:
        """End a thread that was idle for long, unless something is on its way to it."""
        with self._lock:
            if worker.streams or worker not in self._idle_free or not worker.inbox.empty():
                return False
            self._forget(worker)
            return True

    def _forget(self, worker: Worker) -> None:
        self._running[worker.kind] -= 1
        self._threads.discard(worker)
        self._drainers.discard(worker)
        self._share(worker, None)
        self._idle_free.pop(worker, None)
        self._idle_homes.pop(worker, None)


def _stream_count(worker: Worker) -> int:
    return worker.streams
