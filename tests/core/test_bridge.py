"""The task that writes all streams: fair, breathing, and not ended by one stream's failure. On a real loop."""

from __future__ import annotations

import asyncio

import pytest

from catzilla._core import bridge as bridge_module
from catzilla._core.bridge import TURN_BYTES, Bridge
from catzilla._core.limits import Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.server import new_event_loop
from catzilla._core.timers import Timers
from tests.core.fakes import FakeSink, FakeWorkers


class ReadyStream:
    """A stream as far as the bridge's task knows one: it says how much it wrote."""

    def __init__(self, log: list, name: str, bytes_: int = 1, error: Exception | None = None) -> None:
        self.log, self.name, self.bytes, self.error = log, name, bytes_, error
        self.queued = False
        self.sink = FakeSink()
        self.bridge: Bridge | None = None
        self.again = 0

    def cut(self, error) -> None:
        self.log.append(f"{self.name} cut")

    def write_burst(self) -> int:
        assert not self.queued, "cleared before it writes: what comes meanwhile queues it again"
        self.log.append(self.name)
        if self.error is not None:
            raise self.error
        if self.again:
            self.again -= 1
            self.bridge.make_ready(self)
        return self.bytes


@pytest.fixture(params=[new_event_loop, asyncio.new_event_loop], ids=["ours", "asyncio"])
def run(request):
    """Run `scenario(bridge)`, a coroutine function, on a loop."""

    def run(scenario):
        loop = request.param()

        async def main():
            bridge = Bridge(loop, LoopHandle(loop), FakeWorkers(), Timers(loop), Limits())
            task = bridge._task
            try:
                return await scenario(bridge)
            finally:
                await bridge.close()
                assert bridge._task is None
                assert task.cancelled()

        try:
            return loop.run_until_complete(asyncio.wait_for(main(), 20))
        finally:
            loop.close()

    return run


def test_streams_are_written_in_the_order_they_became_ready_and_stand_in_line_once(run):
    async def scenario(bridge):
        log = []
        first, second = ReadyStream(log, "first"), ReadyStream(log, "second")
        for stream in (first, second, first, first):
            bridge.make_ready(stream)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == ["first", "second"]
        bridge.make_ready(first)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == ["first", "second", "first"]

    run(scenario)


def test_a_stream_that_is_always_ready_lets_others_have_their_turn(run):
    async def scenario(bridge):
        log = []
        greedy, modest = ReadyStream(log, "greedy"), ReadyStream(log, "modest")
        greedy.bridge, greedy.again = bridge, 3
        bridge.make_ready(greedy)
        bridge.make_ready(modest)
        while len(log) < 5:
            await asyncio.sleep(0)
        assert log == ["greedy", "modest", "greedy", "greedy", "greedy"]

    run(scenario)


def test_the_loop_breathes_between_large_bursts(run):
    async def scenario(bridge):
        log = []
        stream = ReadyStream(log, "write", TURN_BYTES // 2)
        stream.bridge, stream.again = bridge, 9

        def tick():
            log.append("other")
            if len(log) < 40:
                loop.call_soon(tick)

        loop = asyncio.get_running_loop()
        bridge.make_ready(stream)
        loop.call_soon(tick)
        while log.count("write") < 10:
            await asyncio.sleep(0)
        longest = max(map(len, "".join("w" if each == "write" else " " for each in log).split()))
        assert longest <= 2, log

    run(scenario)


def test_one_stream_that_fails_costs_the_others_nothing(run, caplog):
    async def scenario(bridge):
        log = []
        broken = ReadyStream(log, "broken", error=TypeError("not bytes"))
        broken.bridge = bridge
        bridge.make_ready(broken)
        bridge.make_ready(ReadyStream(log, "next"))
        while len(log) < 3:
            await asyncio.sleep(0)
        assert log == ["broken", "broken cut", "next"]
        assert broken.sink.outcome == ["failed"]

    run(scenario)
    assert "writing failed: stream=" in caplog.text


def test_waiting_for_a_stream_to_close(run):
    async def scenario(bridge):
        stream = ReadyStream([], "closing")
        bridge.opened(stream)
        asyncio.get_running_loop().call_soon(bridge.closed, stream)
        await bridge.wait_closed(10)
        assert bridge.streams == set()
        await bridge.wait_closed(0.001)  # nothing closes: the time passes

    run(scenario)


def test_totals(run):
    async def scenario(bridge):
        for name in ("one", "two"):
            bridge.opened(ReadyStream([], name))
        bridge.sent(10)
        bridge.sent(5)
        assert (bridge.total_streams, bridge.total_bytes) == (2, 15)

    run(scenario)


def test_throughput_looks_back_ten_seconds_and_forgets_the_rest(run, monkeypatch):
    now = 100.0
    monkeypatch.setattr(bridge_module, "monotonic", lambda: now)

    async def scenario(bridge):
        nonlocal now
        for second in range(30):
            now = 100.5 + second
            bridge.sent(1)
            bridge.sent(1)
        assert bridge.bytes_in_last_seconds(10) == 20
        assert len(bridge._seconds) <= 12
        now += 60
        assert bridge.bytes_in_last_seconds(10) == 0
        assert bridge.total_bytes == 60

    run(scenario)
