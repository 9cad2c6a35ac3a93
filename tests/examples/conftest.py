"""What the tests of the examples share."""

from __future__ import annotations

import time
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture
def without_pauses(monkeypatch):
    """`without_pauses(module)`: its `time.sleep` takes no time from now on, so that its whole stream can be read."""

    def patch(module: ModuleType) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))

    return patch
