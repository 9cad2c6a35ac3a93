"""What the tests of the examples share."""

from __future__ import annotations

import time
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture
def hurry(monkeypatch):
    """`hurry(module, share)`: its `time.sleep` takes only that share of the time from now on; none, if left out."""

    def patch(module: ModuleType, share: float = 0.0) -> None:
        clock = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * share), time=time.time)
        monkeypatch.setattr(module, "time", clock)

    return patch
