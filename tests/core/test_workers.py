"""The scheduling: first one decision at a time with threads that stand still, then a model, then real threads."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from catzilla._core.current import current
from catzilla._core.limits import Limits
from catzilla._core.pace import BLOCKING, PROOF, PROOF_AGAIN, Pace
from catzilla._core.waits import Waits
from catzilla._core.worker import LOOK, Kind, Worker
from catzilla._core.workers import TICK, Workers
from tests.core.fakes import FakeLoop


class StillThread:
    """Stands for a started thread; a test runs it by hand."""

    def is_alive(self) -> bool:
        return True

    def join(self, timeout: float) -> None:
        pass


class StillWorkers(Workers):
    """`Workers` whose threads do not run: `wake` has one do what it would do next."""

    def __init__(self, limits: Limits, *, shares: bool = True) -> None:
        self.loop = FakeLoop()
        self.load = 1.0  # as if handlers computed all the time
        super().__init__(self.loop, limits, shares=shares, load=lambda: self.load)
        self.routes = {False: Pace(), True: Pace()}  # one that has not proven quick, and one that has
        self.routes[True].is_quick = True
        self.unstarted: list[Worker] = []
        self.doing: dict[Worker, object] = {}  # busy workers and their jobs

    def _start(self, workers):
        for worker in workers:
            if worker.thread is None:
                worker.thread = StillThread()
                self.unstarted.append(worker)
            else:
                worker.inbox.put(LOOK)

    def wake(self, worker: Worker) -> object:
        """Let a worker that is idle, new or at the end of a job find its next one; None when it waits or has ended."""
        if worker in self.unstarted:
            self.unstarted.remove(worker)
            job = self._look(worker, LOOK)
        elif worker in self.doing:
            del self.doing[worker]
            job = self._look(worker, LOOK)
        else:
            job = self._look(worker, worker.inbox.get_nowait())
        if job is None or job is LOOK:
            return None
        self.doing[worker] = job
        return job

    def awake(self) -> list[Worker]:
        """Who has been woken and is not at work yet."""
        idle = [w for w in self._threads if w not in self.doing and w not in self.unstarted and not w.inbox.empty()]
        return [*self.unstarted, *sorted(idle, key=_name)]

    def settle(self) -> None:
        """Let everybody who has been woken find their job."""
        for _ in range(1000):
            awake = self.awake()
            if not awake:
                return
            for worker in awake:
                self.wake(worker)
        raise AssertionError("workers wake each other for ever, and none takes the request")

    def tick(self) -> None:
        self.loop.advance(TICK)
        self.loop.turn()  # refusals come a turn later

    def home(self, worker: Worker, streams: int = 1) -> None:
        """Make the request that `worker` runs a stream, and `streams - 1` others at home there."""
        for _ in range(streams):
            assert self.adopt(worker)


def _name(worker: Worker) -> str:
    return worker.name


class Ask:
    """A new request."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.refused = 0
        self.ran = 0

    def refuse(self) -> None:
        self.refused += 1

    def run(self, worker: Worker) -> None:
        self.ran += 1


class Home:
    """A stream that comes home."""

    def run(self, worker: Worker) -> None:
        pass


def make(**limits) -> StillWorkers:
    return StillWorkers(Limits(**limits))


def submit(workers: StillWorkers, count: int = 1, *, quick: bool = False, pace: Pace | None = None) -> list[Ask]:
    asks = [Ask(pace or workers.routes[quick]) for _ in range(count)]
    for each in asks:
        workers.submit(each)
    workers.loop.turn()
    return asks


def busy(workers: StillWorkers, count: int) -> list[Worker]:
    """`count` workers, each stuck in a request."""
    submit(workers, count)
    for _ in range(100):
        workers.settle()
        if len(workers.doing) == count and not workers._new:
            return list(workers.doing)
        workers.tick()
    raise AssertionError(f"{len(workers.doing)} of {count} workers started")


def homes(workers: StillWorkers, *streams: int) -> list[Worker]:
    """Idle workers that are a home to so many streams each."""
    made = busy(workers, len(streams))
    for worker, count in zip(made, streams, strict=True):
        workers.home(worker, count)
        workers.wake(worker)
    assert set(workers._idle_homes) == set(made)
    return made


def shared(workers: StillWorkers, *streams: int) -> list[Worker]:
    """As `homes`, but of quick handlers, so that others of their kind may join them."""
    made = []
    for count in streams:
        submit(workers, quick=True)
        workers.settle()
        (worker,) = workers.doing
        workers.home(worker, count)
        workers.wake(worker)
        made.append(worker)
    assert set(workers._idle_homes) == set(workers._shared[workers.routes[True]]) == set(made)
    return made


# Waking.


def test_a_new_request_wakes_exactly_one_worker():
    workers = make()
    submit(workers)
    assert len(workers.unstarted) == 1
    assert isinstance(workers.wake(workers.unstarted[0]), Ask)


def test_a_burst_wakes_one_worker_that_drains_it():
    workers = make()
    asks = submit(workers, 10)
    (worker,) = workers.unstarted
    assert [workers.wake(worker) for _ in range(10)] == asks
    assert workers.wake(worker) is None
    assert workers.statistics() == (1, 1, 0, 0, 0)


def test_an_idle_worker_is_reused_the_last_one_first():
    workers = make()
    first, second = busy(workers, 2)
    workers.wake(second)
    workers.wake(first)
    submit(workers)
    assert workers.awake() == [first]


def test_a_request_that_comes_while_one_drains_wakes_nobody():
    workers = make()
    submit(workers)
    (worker,) = workers.unstarted
    workers.wake(worker)
    second = submit(workers)[0]
    assert workers.awake() == []
    assert workers.wake(worker) is second


def test_a_drainer_that_moves_on_is_left_alone():
    workers = make()
    submit(workers, 10)
    (worker,) = workers.unstarted
    for _ in range(8):
        workers.wake(worker)
        workers.tick()
    assert workers.awake() == []
    assert len(workers._threads) == 1


def test_a_stuck_drainer_gets_another_beside_it_within_two_ticks():
    workers = make()
    submit(workers, 2)
    workers.settle()
    workers.tick()  # it has taken a job since the last look
    workers.tick()  # it has not
    workers.settle()
    assert len(workers.doing) == 2
    assert not workers._new


def test_ticks_start_twice_as_many_each_time():
    workers = make()
    submit(workers, 40)
    workers.settle()
    started = []
    for _ in range(12):
        before = len(workers._threads)
        workers.tick()
        workers.settle()
        started.append(len(workers._threads) - before)
    assert [each for each in started if each] == [1, 2, 4, 8, 16, 8]


def test_a_process_that_is_idle_while_requests_wait_gets_more_workers():
    """The drainers move on, but what they wait for is no processor: handlers that each block for less than a tick."""
    workers = make()
    submit(workers, 30)
    counts = []
    for load in (0.1, 0.1, 0.2, 0.9, 0.1):
        for worker in [*workers.awake(), *workers.doing]:
            workers.wake(worker)
        workers.load = load
        workers.tick()
        counts.append(len(workers._threads))
    assert counts == [1, 2, 3, 3, 4], "one at each tick once it is seen to move, none while it computes"


def test_progress_resets_the_doubling():
    workers = make()
    submit(workers, 20)
    workers.settle()
    for _ in range(4):
        workers.tick()
        workers.settle()
    after = workers._reinforcement._next
    assert after > 1
    workers.tick()  # those that were called up last have just begun: neither stuck nor moving
    assert workers._reinforcement._next == after
    workers.wake(min(workers._drainers, key=_name))
    workers.tick()
    assert workers._reinforcement._next == 1


def test_a_full_budget_whose_workers_move_refuses_nobody_who_waits():
    """Handlers wait for something, so the process is idle; but they do move on, and will come to those that wait."""
    workers = make(max_requests=4)
    workers.load = 0.0
    asks = submit(workers, 40)
    for _ in range(20):
        for worker in [*workers.awake(), *workers.doing]:
            workers.wake(worker)
        workers.tick()
    while workers.doing:
        for worker in list(workers.doing):
            workers.wake(worker)
    assert [each.refused for each in asks] == [0] * 40
    assert not workers._new


def test_who_was_called_up_and_has_not_run_yet_takes_a_place():
    workers = make(max_requests=4)
    submit(workers, 40)
    for _ in range(10):
        workers.tick()  # and none of the threads gets to run
    assert len(workers._threads) == 4


def test_half_of_the_budget_is_kept_for_those_that_get_stuck():
    workers = make(max_requests=8)
    workers.load = 0.0
    submit(workers, 40)
    for _ in range(8):
        for worker in [*workers.awake(), *workers.doing]:
            workers.wake(worker)
        workers.tick()
    assert len(workers._threads) == 4, "they move on, and nobody is refused"
    for _ in range(8):
        workers.settle()
        workers.tick()  # they do not any more
    assert len(workers._threads) == 8


def test_workers_that_are_not_shared_are_given_to_each_job_at_once():
    workers = StillWorkers(Limits(), shares=False)
    submit(workers, 3)
    assert len(workers.awake()) == 3
    workers.settle()
    submit(workers, 2)
    assert len(workers.awake()) == 2, "nobody waits for those that are at work"


def test_ticking_ends_with_the_queue():
    workers = make()
    submit(workers)
    workers.settle()
    workers.tick()
    assert workers.loop.armed() == []
    submit(workers)
    assert workers.loop.armed() == [pytest.approx(TICK)]


# Budgets.


def test_a_full_budget_refuses_at_once():
    workers = make(max_requests=2)
    busy(workers, 2)
    (ask,) = submit(workers)
    assert ask.refused == 1
    assert not workers._new


def test_a_budget_that_fills_up_while_requests_wait_refuses_them():
    workers = make(max_requests=3)
    asks = submit(workers, 5)
    for _ in range(10):
        workers.settle()
        workers.tick()
    assert len(workers.doing) == 3
    assert sum(ask.refused for ask in asks) == 2


def test_a_burst_never_runs_more_at_once_than_the_budget():
    workers = make(max_requests=10)
    asks = submit(workers, 60)
    most = 0
    for _ in range(20):
        workers.settle()
        most = max(most, workers.statistics().requests)
        workers.tick()
    assert most == 10
    assert sum(ask.refused for ask in asks) == 50


def test_a_place_in_the_budget_that_becomes_free_is_taken_by_who_waits():
    workers = make(max_requests=1)
    first, second = submit(workers, 2)
    workers.settle()
    (worker,) = workers.doing
    assert workers.doing[worker] is first
    assert workers.wake(worker) is second


def test_streams_have_a_budget_of_their_own():
    workers = make(max_requests=2, max_streams=1)
    first, second = busy(workers, 2)
    assert workers.adopt(first)
    assert not workers.adopt(second)
    assert workers.statistics()[3:] == (1, 1)
    assert (first.streams, second.streams) == (1, 0)
    (ask,) = submit(workers)  # the stream has left the budget of requests
    assert ask.refused == 0


def test_a_parked_stream_holds_no_place_in_the_budget():
    workers = make(max_streams=1)
    first, second = busy(workers, 2)
    assert workers.adopt(first)
    workers.wake(first)
    assert workers.statistics().streams == 0
    assert workers.adopt(second)


# Homes.


def test_a_stream_that_comes_home_wakes_its_worker_and_no_other():
    workers = make()
    first, _ = homes(workers, 1, 1)
    job = Home()
    workers.send_home(first, job)
    assert workers.awake() == [first]
    assert first not in workers._idle_homes
    assert workers.wake(first) is job
    assert first.kind is Kind.STREAM


def test_streams_come_home_in_order_and_before_new_requests():
    workers = make(home_threads=1)
    (worker,) = homes(workers, 1)
    jobs = [Home(), Home(), Home()]
    for job in jobs:
        workers.send_home(worker, job)
    submit(workers, quick=True)
    assert [workers.wake(worker) for _ in range(3)] == jobs


def test_a_new_request_does_not_run_where_a_stream_lives():
    workers = make()
    (home,) = homes(workers, 1)
    submit(workers)
    assert workers.awake() == workers.unstarted
    assert home not in workers.awake()


def test_a_worker_that_became_a_home_leaves_the_requests_to_another():
    workers = make()
    _, second = submit(workers, 2)
    workers.settle()
    (worker,) = workers.doing
    workers.home(worker)
    assert workers.wake(worker) is None
    assert worker in workers._idle_homes
    workers.settle()
    assert list(workers.doing.values()) == [second]


def test_a_home_whose_streams_have_ended_takes_requests_again():
    workers = make()
    (worker,) = homes(workers, 1)
    workers.send_home(worker, Home())
    workers.wake(worker)
    workers.release(worker)
    workers.wake(worker)
    assert worker in workers._idle_free
    submit(workers)
    assert workers.awake() == [worker]


def test_quick_handlers_share_homes_once_there_are_enough():
    workers = make(home_threads=2)
    first, second = shared(workers, 3, 1)
    assert first is not second
    for _ in range(4):
        submit(workers, quick=True)
        (worker,) = workers.awake()
        assert worker.streams == min(first.streams, second.streams)
        workers.settle()
        workers.home(worker)
        workers.wake(worker)
    assert (first.streams, second.streams) in ((4, 4), (3, 5), (5, 3))


def test_a_shared_home_at_work_leaves_a_quick_request_to_another():
    workers = make(home_threads=2)
    first, second = shared(workers, 1, 5)
    workers.send_home(first, Home())
    workers.settle()
    submit(workers, quick=True)
    assert workers.awake() == [second]


def test_with_every_shared_home_at_work_a_quick_request_does_not_wait():
    workers = make(home_threads=1)
    (home,) = shared(workers, 1)
    workers.send_home(home, Home())
    workers.settle()
    (ask,) = submit(workers, quick=True)
    workers.settle()
    assert ask in workers.doing.values()


def test_a_handler_that_has_not_proven_quick_does_not_run_on_a_shared_home():
    workers = make(home_threads=1)
    (home,) = shared(workers, 1)
    submit(workers)
    assert workers.awake() == workers.unstarted
    assert home not in workers.awake()


def test_a_shared_home_that_drains_leaves_a_slow_request_to_another():
    """It was woken for a quick one; behind that waits one that may block."""
    workers = make(home_threads=1)
    (home,) = shared(workers, 1)
    (quick,) = submit(workers, quick=True)
    (slow,) = submit(workers)
    workers.settle()
    assert workers.doing[home] is quick
    assert workers.wake(home) is None
    workers.settle()
    (other,) = workers.doing
    assert other is not home
    assert workers.doing[other] is slow


def test_routes_do_not_share_homes_with_each_other():
    workers = make(home_threads=1)
    (home,) = shared(workers, 1)
    other = Pace()
    other.is_quick = True
    submit(workers, pace=other)
    assert workers.awake() == workers.unstarted
    assert home not in workers.awake()


def test_a_handler_that_writes_a_stream_leaves_the_budget_of_requests():
    workers = make(max_requests=2, max_streams=1)
    first, second = busy(workers, 2)
    assert workers.start_writing(first)
    assert not workers.start_writing(second)
    assert workers.statistics()[3:] == (1, 1)
    assert first.streams == 0, "it is nobody's home"
    workers.wake(first)
    assert workers.statistics().streams == 0


def test_at_the_most_threads_anybody_shares():
    workers = make(max_requests=2, max_streams=2, home_threads=2)
    made = busy(workers, 2)
    for worker in made:
        workers.home(worker) if workers.statistics().streams == 0 else None
        workers.wake(worker)
    while len(workers._threads) < 4:
        busy(workers, 2)
        for worker in list(workers.doing):
            workers.home(worker)
            workers.wake(worker)
    assert len(workers._threads) == 4
    submit(workers)
    assert len(workers.awake()) == 1
    assert not workers.unstarted
    workers.settle()
    assert len(workers.doing) == 1


def test_with_everybody_at_work_a_request_waits_for_the_first_who_finishes():
    workers = make(max_requests=3, max_streams=1)
    made = busy(workers, 3)
    workers.home(made[0])
    submit(workers)
    for _ in range(5):
        workers.settle()
        workers.tick()
    workers._running[Kind.REQUEST] -= 1  # as if one of them were a socket
    (ask,) = submit(workers)
    workers._running[Kind.REQUEST] += 1
    assert workers.awake() == []
    assert workers.wake(made[1]) is ask


def test_homes_above_the_average_do_not_pass_a_request_to_and_fro():
    """The homes below the average are all at work; the idle ones may not each refuse and wake the other."""
    workers = make(home_threads=4)
    made = shared(workers, 1, 1, 10, 10)
    for worker in made[:2]:
        workers.send_home(worker, Home())
    workers.settle()
    assert set(workers.doing) == set(made[:2])
    (ask,) = submit(workers, quick=True)
    workers.settle()
    assert ask in workers.doing.values()


def test_one_drainer_does_not_become_everybodys_home():
    workers = make(home_threads=4)
    shared(workers, 1, 1, 1, 1)
    submit(workers, 20, quick=True)
    for _ in range(200):
        for worker in workers.awake():
            workers.wake(worker)
        for worker in list(workers.doing):
            workers.home(worker)
            workers.wake(worker)
        if not workers._new and not workers.doing and not workers.awake():
            break
        workers.tick()
    assert len(workers._threads) == 4
    assert sorted(worker.streams for worker in workers._threads) == [6, 6, 6, 6]


def test_a_stream_that_comes_home_to_a_drainer_does_not_hold_up_the_requests():
    workers = make()
    submit(workers, 2)
    (worker,) = workers.unstarted
    workers.wake(worker)
    workers.home(worker)
    workers.send_home(worker, Home())
    assert isinstance(workers.wake(worker), Home)
    for _ in range(3):
        workers.tick()
    workers.settle()
    assert len(workers.doing) == 2


# Threads that end.


def test_an_idle_thread_retires():
    workers = make()
    (worker,) = busy(workers, 1)
    workers.wake(worker)
    assert workers._retire(worker)
    assert workers.statistics() == (0, 0, 0, 0, 0)
    submit(workers)
    assert workers.unstarted[0] is not worker


def test_a_home_does_not_retire():
    workers = make()
    (worker,) = homes(workers, 1)
    assert not workers._retire(worker)
    assert worker in workers._threads


def test_a_worker_that_was_just_woken_does_not_retire():
    workers = make()
    (worker,) = busy(workers, 1)
    workers.wake(worker)
    submit(workers)  # its `get` has timed out at this very moment
    assert not workers._retire(worker)
    workers.settle()
    assert worker in workers.doing


def test_a_worker_with_a_stream_on_its_way_does_not_retire():
    workers = make()
    (worker,) = busy(workers, 1)
    workers.wake(worker)
    workers.send_home(worker, Home())
    assert not workers._retire(worker)


def test_stopping_refuses_what_waits_and_what_comes_and_ends_every_worker():
    workers = make()
    made = busy(workers, 2)
    waiting = submit(workers, 3)
    workers.stop()
    workers.loop.turn()
    assert [ask.refused for ask in waiting] == [1, 1, 1]
    (late,) = submit(workers)
    assert late.refused == 1
    for worker in made:
        assert workers.wake(worker) is None
    assert workers.statistics() == (0, 0, 0, 0, 0)
    workers.tick()
    assert workers.loop.armed() == []


def test_what_was_sent_home_before_the_stop_runs_first():
    workers = make()
    (worker,) = homes(workers, 1)
    job = Home()
    workers.send_home(worker, job)
    workers.stop()
    assert workers.wake(worker) is job
    assert workers.wake(worker) is None
    assert worker not in workers._threads


# Pace.


def test_a_handler_proves_quick():
    pace = Pace()
    for _ in range(PROOF - 1):
        pace.record(0.001)
    assert not pace.is_quick
    pace.record(BLOCKING)
    assert pace.is_quick


def test_one_blocking_call_is_remembered_for_long():
    pace = Pace()
    for _ in range(PROOF):
        pace.record(0.001)
    pace.record(BLOCKING * 1.01)
    assert not pace.is_quick
    for _ in range(PROOF_AGAIN - 1):
        pace.record(0.001)
    assert not pace.is_quick
    pace.record(0.001)
    assert pace.is_quick


def test_they_show_themselves():
    assert repr(Worker("catzilla-worker-1")) == "<Worker catzilla-worker-1 nothing streams=0>"
    with pytest.raises(AssertionError, match="a wake-up is not a job"):
        LOOK.run(Worker("w"))


# The model: any order of what the loop and the workers do.


class Scheduling(RuleBasedStateMachine):
    """Every request is run or refused exactly once, whatever the order; the counts always agree with the facts."""

    @initialize(
        max_requests=st.integers(1, 4),
        max_streams=st.integers(1, 4),
        home_threads=st.integers(1, 3),
    )
    def begin(self, max_requests, max_streams, home_threads):
        self.workers = make(max_requests=max_requests, max_streams=max_streams, home_threads=home_threads)
        self.asks: list[Ask] = []
        self.streams: list[tuple[Worker, Home]] = []  # parked, with their homes
        self.on_its_way: list[tuple[Worker, Home]] = []
        self.stopped = False

    def some(self, data, workers):
        return data.draw(st.sampled_from(sorted(workers, key=_name)))

    @rule(count=st.integers(1, 6), quick=st.booleans())
    def submit(self, count, quick):
        self.asks += submit(self.workers, count, quick=quick)

    @rule()
    def tick(self):
        self.workers.tick()

    @precondition(lambda self: self.workers.awake())
    @rule(data=st.data())
    def wake(self, data):
        self.take_up(self.some(data, self.workers.awake()))

    def take_up(self, worker):
        job = self.workers.wake(worker)
        if isinstance(job, Ask):
            job.run(worker)
        elif isinstance(job, Home):
            assert (worker, job) in self.on_its_way, "a stream ran where it is not at home, or twice"
            self.on_its_way.remove((worker, job))

    @precondition(lambda self: self.workers.doing)
    @rule(data=st.data(), end=st.sampled_from(["answer", "stream", "stream", "over"]))
    def finish(self, data, end):
        """A worker ends its job: a request is answered or becomes a stream; a stream is parked or over."""
        workers = self.workers
        worker = self.some(data, list(workers.doing))
        job = workers.doing[worker]
        if isinstance(job, Ask):
            if end == "stream":
                before = workers.statistics().streams
                if workers.adopt(worker):
                    self.streams.append((worker, Home()))
                else:
                    assert before >= workers._limits.max_streams
        elif end == "over":
            workers.release(worker)
        else:
            self.streams.append((worker, job))
        self.take_up(worker)

    @precondition(
        lambda self: self.streams and not self.stopped
    )  # a server stops its workers when its streams are over
    @rule(data=st.data())
    def send_home(self, data):
        index = data.draw(st.integers(0, len(self.streams) - 1))
        worker, job = self.streams.pop(index)
        if worker in self.workers._threads:
            self.on_its_way.append((worker, job))
            self.workers.send_home(worker, job)

    @precondition(lambda self: self.workers._idle_free)
    @rule(data=st.data())
    def time_out(self, data):
        """A worker's wait for its inbox has timed out."""
        self.workers._retire(self.some(data, list(self.workers._idle_free)))

    @precondition(lambda self: not self.stopped and len(self.asks) > 10)
    @rule()
    def stop(self):
        self.stopped = True
        self.workers.stop()
        self.workers.loop.turn()

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "workers"):
            return
        workers = self.workers
        threads = workers._threads
        facts = Counter(worker.kind for worker in threads)
        assert [workers._running[kind] for kind in Kind] == [facts[kind] for kind in Kind]
        assert workers.statistics().requests <= workers._limits.max_requests
        assert len(threads) <= workers._limits.max_threads
        assert all(worker.streams >= 0 for worker in threads)
        for pace in workers.routes.values():
            shared = set(workers._shared.get(pace, ()))
            assert shared == {worker for worker in threads if worker.shared_by is pace}
            assert len(shared) <= workers._limits.home_threads
        assert workers.routes[False] not in workers._shared
        idle = set(workers._idle_free) | set(workers._idle_homes)
        assert len(idle) == len(workers._idle_free) + len(workers._idle_homes)
        assert idle <= threads
        assert not idle & set(workers.doing)
        assert all(worker.streams > 0 for worker in workers._idle_homes)
        assert all(worker.streams == 0 for worker in workers._idle_free)
        waiting = list(workers._new)
        for ask in self.asks:
            assert ask.ran + ask.refused + waiting.count(ask) == 1

    @invariant()
    def nothing_is_forgotten(self):
        """If requests wait, somebody is at it: a drainer, a tick, or nobody could do it."""
        if not hasattr(self, "workers"):
            return
        if self.workers._new:
            assert self.workers._ticking
            assert self.workers.loop.armed()
        for worker, job in self.on_its_way:
            assert not worker.inbox.empty(), f"{job} waits at home, and {worker} does not know"

    def teardown(self):
        """Everything is let through: each request must have had its answer."""
        if not hasattr(self, "workers"):
            return
        for _ in range(300):
            for worker in self.workers.awake():
                self.take_up(worker)
            for worker in list(self.workers.doing):
                if isinstance(self.workers.doing[worker], Home):
                    self.workers.release(worker)
                self.take_up(worker)
            self.workers.tick()
            if not self.workers._new and not self.workers.doing and not self.workers.awake():
                break
        assert all(ask.ran + ask.refused == 1 for ask in self.asks)
        assert self.on_its_way == []
        assert not self.workers._new


Scheduling.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_scheduling = Scheduling.TestCase


# Real threads.


class Call:
    """A request that calls `function(worker)` on its worker."""

    def __init__(self, function) -> None:
        self.pace = Pace()
        self.function = function
        self.refused = threading.Event()

    def run(self, worker: Worker) -> None:
        self.function(worker)

    def refuse(self) -> None:
        self.refused.set()


class PromptLoop(FakeLoop):
    """A loop whose turns are over at once."""

    def call_soon(self, callback, *args):
        callback(*args)


@pytest.fixture
def real():
    """`real(**limits)` gives `Workers` with real threads and a fake loop; all are joined at the end."""
    made: list[Workers] = []

    def start(**limits) -> Workers:
        made.append(Workers(PromptLoop(), Limits(**limits)))
        return made[-1]

    yield start
    for workers in made:
        workers.stop()
        assert workers.join(10) == []
        assert workers.statistics().threads == 0


def wait(event: threading.Event) -> None:
    assert event.wait(10), "it did not happen"


def test_a_request_runs_on_a_named_daemon_thread(real):
    done, seen = threading.Event(), []

    def run(worker):
        seen.append((threading.current_thread(), worker.thread))
        done.set()

    real().submit(Call(run))
    wait(done)
    assert seen[0][0] is seen[0][1]
    assert seen[0][0].name == "catzilla-worker-1"
    assert seen[0][0].daemon


def test_what_a_request_left_on_its_thread_is_gone_for_the_next(real):
    done, seen = threading.Event(), []
    workers = real()

    def first(worker):
        current.waits = Waits()
        current.go_live = print

    def second(worker):
        seen.append((current.waits, current.go_live))
        done.set()

    workers.submit(Call(first))
    workers.submit(Call(second))
    wait(done)
    assert seen == [(None, None)]


def test_a_job_that_raises_does_not_cost_the_thread(real, caplog):
    done, threads = threading.Event(), []
    workers = real()

    def fail(worker):
        threads.append(worker)
        raise SystemExit("a fault of ours")

    def after(worker):
        threads.append(worker)
        done.set()

    workers.submit(Call(fail))
    workers.submit(Call(after))
    wait(done)
    assert threads[0] is threads[1]
    assert "a job failed: worker=catzilla-worker-1" in caplog.text


def test_a_finished_request_is_not_kept_alive_by_an_idle_thread(real):
    import gc
    import weakref

    done, idle = threading.Event(), threading.Event()
    workers = real()
    call = Call(lambda worker: done.set())
    watched = weakref.ref(call)
    original = workers._turn_idle

    def turn_idle(worker):
        try:
            return original(worker)
        finally:
            idle.set()

    workers._turn_idle = turn_idle
    workers.submit(call)
    del call
    wait(done)
    wait(idle)
    gc.collect()
    assert watched() is None


def test_a_stuck_handler_does_not_hold_up_another(real):
    """The promise behind the tick, with a loop whose time is moved by hand."""
    workers = real()
    free, done = threading.Event(), threading.Event()
    workers.submit(Call(lambda worker: free.wait(10)))
    workers.submit(Call(lambda worker: done.set()))
    while not done.is_set():
        workers._loop.advance(TICK)
        done.wait(0.001)
    free.set()


def test_a_thread_that_cannot_be_had_costs_no_request(real, caplog, monkeypatch):
    """The machine is out of threads for a moment; the tick tries again."""
    workers, ran = real(), threading.Event()

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        workers.submit(Call(lambda worker: ran.set()))
        for _ in range(5):
            workers._loop.advance(TICK)
    (record,) = caplog.records
    assert record.getMessage().startswith("worker=catzilla-worker-1 cannot start")
    assert record.getMessage().endswith("can't start new thread"), "once, and not at each tick"
    assert workers.statistics() == (0, 0, 1, 0, 0)
    workers._loop.advance(TICK)
    wait(ran)


def test_a_stream_comes_home_to_its_own_thread(real):
    workers = real()
    seen, parked, done = [], threading.Event(), threading.Event()

    class Stream:
        def run(self, worker):
            seen.append(threading.current_thread())
            workers.release(worker)
            done.set()

    def become_a_stream(worker):
        seen.append(threading.current_thread())
        assert workers.adopt(worker)
        home.append(worker)
        parked.set()

    home: list[Worker] = []
    workers.submit(Call(become_a_stream))
    wait(parked)
    workers.submit(Call(lambda worker: seen.append(None)))
    workers.send_home(home[0], Stream())
    wait(done)
    streams = [thread for thread in seen if thread is not None]
    assert streams[0] is streams[1]


def test_idle_threads_end_by_themselves(real):
    workers = real(idle_thread_timeout=0.01)
    done = threading.Event()
    seen = []
    workers.submit(Call(lambda worker: (seen.append(worker), done.set())))
    wait(done)
    seen[0].thread.join(10)
    assert not seen[0].thread.is_alive()
    assert workers.statistics().threads == 0


def test_join_names_who_is_left(real):
    workers = real()
    free, began = threading.Event(), threading.Event()
    workers.submit(Call(lambda worker: (began.set(), free.wait(10))))
    wait(began)
    workers.stop()
    assert workers.join(0.01) == ["catzilla-worker-1"]
    free.set()


def test_join_passes_over_a_thread_that_has_not_begun():
    workers = make()
    workers._threads.add(Worker("not started"))
    assert workers.join(0.01) == []


@pytest.mark.parametrize("seed", range(3))
def test_many_requests_and_streams_on_real_threads(real, seed):
    """Requests that turn into streams, park, come home and end, from many threads at once: every one does, at home."""
    workers = real(max_requests=8, max_streams=50, home_threads=3, idle_thread_timeout=0.005)
    loop = workers._loop
    posted: list = []
    total, rounds = 300, 3
    wrong: list = []
    finished = threading.Semaphore(0)

    class Stream:
        def __init__(self, worker):
            self.worker, self.left = worker, rounds

        def run(self, worker):
            if worker is not self.worker or threading.current_thread() is not worker.thread:
                wrong.append(worker)
            self.left -= 1
            if self.left:
                posted.append(self)
            else:
                workers.release(worker)
                finished.release()

    def run(number):
        def call(worker):
            if (number + seed) % 3 and workers.adopt(worker):
                Stream(worker).run(worker)
            else:
                finished.release()

        return call

    calls = [Call(run(number)) for number in range(total)]
    for number, call in enumerate(calls):
        call.pace.is_quick = number % 2 == 0
        workers.submit(call)
        while posted:
            stream = posted.pop()
            workers.send_home(stream.worker, stream)
    ended = 0
    while ended + sum(call.refused.is_set() for call in calls) < total:
        loop.advance(TICK)
        loop.turn()
        while posted:
            stream = posted.pop()
            workers.send_home(stream.worker, stream)
        ended += finished.acquire(timeout=0.001)
    assert wrong == []
    assert all(worker.streams == 0 for worker in workers._threads)
    assert workers.statistics().queued == 0
