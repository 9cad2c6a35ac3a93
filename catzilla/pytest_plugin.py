"""The pytest fixture `live_server`, which comes with installing catzilla.

Imports nothing of catzilla until a test asks for the fixture: pytest loads this file in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from catzilla.app import Catzilla
    from catzilla.testing import LiveServer


@pytest.fixture
def live_server() -> Iterator[Callable[..., LiveServer]]:
    """A factory: `live_server(app, **settings)` gives a running `catzilla.testing.LiveServer`.

    As many a test as it likes. At the end of the test all are stopped, and a worker thread that still runs or a
    generator that was not closed fails the test, unless the server was made with `allow_leaks=True`.
    """
    from catzilla.testing import LeakError, LiveServer
    from catzilla.testing.live import check_leaks

    servers: list[LiveServer] = []
    with ExitStack() as stops:

        def start(app: Catzilla, **settings: Any) -> LiveServer:
            server = LiveServer(app, **settings)
            stops.callback(server.stop)
            servers.append(server)
            return server

        yield start
    try:
        check_leaks(servers)
    except LeakError as leak:
        pytest.fail(str(leak), pytrace=False)
