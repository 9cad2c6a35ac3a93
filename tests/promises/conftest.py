"""What the tests of the promises share: an application to put handlers on."""

from __future__ import annotations

import pytest

from catzilla import Catzilla
from tests.promises.helpers import RawClient


@pytest.fixture
def app():
    """In production, so that a text which must not reach a client is not there by permission."""
    return Catzilla(production=True, show_banner=False)


@pytest.fixture(autouse=True)
def close_raw_clients(live_server):
    """Close what a test left open, before its servers stop: they then need not wait for the grace to pass."""
    yield
    while RawClient.opened:
        RawClient.opened.pop().close()
