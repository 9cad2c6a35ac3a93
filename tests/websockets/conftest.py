"""What the tests of WebSockets share: an application to put handlers on, notes, and a gate to hold handlers at."""

from __future__ import annotations

import pytest

from catzilla import Catzilla
from tests.promises.helpers import RawClient
from tests.websockets.helpers import Gate, Notes


@pytest.fixture
def app():
    """In production, so that a text which must not reach a client is not there by permission."""
    return Catzilla(production=True, show_banner=False)


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def gate(live_server):
    """Asks for `live_server` so that the handlers are let go before the server is stopped."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def quiet(caplog):
    """Nothing that a client does may look like a failure of the server in its log."""
    yield
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


@pytest.fixture(autouse=True)
def close_raw_clients(live_server):
    """Close what a test left open, before its servers stop: they then need not wait for the grace to pass."""
    yield
    while RawClient.opened:
        RawClient.opened.pop().close()
