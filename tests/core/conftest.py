"""Fixtures of the core's tests: a clock that stands still, and a bench of fakes around one stream."""

from __future__ import annotations

import sys

import pytest

from tests.core.fakes import Bench, FakeLoop


@pytest.fixture
def bench(monkeypatch):
    """A `Bench` whose loop's clock is also that of every module of the core."""
    bench = Bench()
    use_clock(monkeypatch, bench.loop)
    return bench


@pytest.fixture
def make_bench(monkeypatch):
    """A factory: `make_bench(limits)` gives a `Bench` with its own limits; the last one made has the clock."""

    def make(limits=None) -> Bench:
        bench = Bench(limits)
        use_clock(monkeypatch, bench.loop)
        return bench

    return make


def use_clock(monkeypatch, loop: FakeLoop) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("catzilla._core.") and hasattr(module, "monotonic"):
            monkeypatch.setattr(module, "monotonic", loop.time)
