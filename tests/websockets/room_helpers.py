"""Sockets whose server side a test holds in its hands, and what they get.

Nothing here waits for time to pass. That something is *not* delivered is shown by what is sent behind it: whatever one
thread publishes and sends takes effect in that order, so a mark sent last is received last.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from catzilla import Catzilla, WebSocket, streaming_stats
from catzilla._core.fanout import Fanout
from catzilla.testing import ClientWebSocket, HandshakeRefused, LiveServer, WebSocketClosed
from tests.promises.helpers import PATIENCE, eventually, services_of

MARK = "<mark>"


class Peer(NamedTuple):
    """Both ends of one connection."""

    client: ClientWebSocket
    ws: WebSocket


class Door:
    """A route whose handler only hands over its `ws`, so that the test does what a handler would do.

    Sockets are opened one after the other, so whose `ws` it is that has arrived is known.
    """

    def __init__(self, app: Catzilla, path: str = "/ws", *, linear: bool = False, **options: Any) -> None:
        self.path = path
        self.arrived: queue.SimpleQueue[WebSocket] = queue.SimpleQueue()
        self.closed: queue.SimpleQueue[tuple[str, int, str]] = queue.SimpleQueue()
        arrived, closed = self.arrived, self.closed

        class Callbacks:
            def on_open(self, ws):
                arrived.put(ws)

            def on_close(self, ws, code, reason):
                closed.put((ws.id, code, reason))

        def run(ws):
            arrived.put(ws)
            for _ in ws:
                pass
            closed.put((ws.id, ws.close_code, ws.close_reason))

        app.websocket(path, **options)(run if linear else Callbacks)

    def open(self, live: LiveServer, path: str | None = None, **options: Any) -> Peer:
        """Connect, and give both ends."""
        client = live.websocket(self.path if path is None else path, **options)
        return Peer(client, self.arrived.get(timeout=PATIENCE))

    def open_many(self, live: LiveServer, count: int, **options: Any) -> list[Peer]:
        return [self.open(live, **options) for _ in range(count)]


class Calls:
    """What callbacks on other threads were called with, in order."""

    def __init__(self) -> None:
        self._calls: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, what: Any) -> None:
        with self._changed:
            self._calls.append(what)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Any]:
        """All calls so far, once there are `count`."""
        with self._changed:
            come = self._changed.wait_for(lambda: len(self._calls) >= count, PATIENCE)
            assert come, f"{len(self._calls)} calls and not {count} within {PATIENCE:g} s: {self._calls}"
            return list(self._calls)

    @property
    def so_far(self) -> list[Any]:
        with self._changed:
            return list(self._calls)


def fanout_of(live: LiveServer) -> Fanout:
    return services_of(live).fanout


def on_loop(live: LiveServer, function: Callable[[], Any]) -> Any:
    """What `function()` gives on the loop, behind everything this thread has done."""
    return services_of(live).handle.call(function)


def received(peer: Peer) -> list[str | bytes]:
    """Everything that was sent to a connection until now."""
    peer.ws.send(MARK)
    return received_until(peer.client, MARK)


def received_until(client: ClientWebSocket, last: str | bytes) -> list[str | bytes]:
    """Every message before `last`."""
    messages: list[str | bytes] = []
    while (message := client.receive()) != last:
        messages.append(message)
    return messages


def close_of(client: ClientWebSocket) -> tuple[int, str]:
    """Code and reason with which the server closes, whatever it sends before."""
    try:
        while True:
            client.receive()
    except WebSocketClosed as end:
        return end.code, end.reason


def refusal_of(live: LiveServer, path: str, **options: Any) -> HandshakeRefused:
    """The response to a handshake that must be refused."""
    try:
        live.websocket(path, **options)
    except HandshakeRefused as refused:
        return refused
    raise AssertionError(f"the WebSocket {path} was opened; it should have been refused")


def together(functions: Iterable[Callable[[], object]]) -> None:
    """Run each in a thread of its own, all at once; raises what one of them raised."""
    functions = list(functions)
    begin = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            begin.wait(PATIENCE)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
        assert not thread.is_alive(), "a thread of the test is stuck"
    if errors:
        raise errors[0]


def losses() -> dict[str, int]:
    """The counters of the four policies."""
    stats = streaming_stats()
    return {
        "disconnect": stats.slow_disconnects,
        "drop_oldest": stats.slow_dropped,
        "conflate": stats.slow_conflated,
        "gap": stats.slow_gaps,
    }


def holds_no_thread(live: LiveServer) -> bool:
    """Whether every thread for sockets and hooks is idle."""
    figures = services_of(live).turns.statistics()
    return figures.threads == figures.idle and not figures.waiting


def wait_empty(live: LiveServer) -> None:
    """Everybody is gone, and nothing is left of them."""
    services = services_of(live)
    eventually(lambda: not services.fanout.rooms, f"every room is empty; there are {services.fanout.rooms}")
    eventually(lambda: services.websockets == 0, "no WebSocket is open")
    eventually(lambda: not services.bridge.streams, "no stream is open")
