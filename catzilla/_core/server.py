"""The server of one process: a loop that a thread of its own leads, listening sockets, and an orderly end.

Decides the order of starting and stopping. Signals, several processes and settings are above (`serve.py`,
`supervisor.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from catzilla._core.access_log import AccessLog
from catzilla._core.bridge import Bridge
from catzilla._core.clock import monotonic
from catzilla._core.dispatch import Application
from catzilla._core.fanout import Fanout
from catzilla._core.http_connection import HTTPConnection
from catzilla._core.leader import Leadership
from catzilla._core.limits import MIB, Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.services import Services
from catzilla._core.sockets import BACKLOG
from catzilla._core.timers import Timers
from catzilla._core.tls_listener import TLSListener
from catzilla._core.turns import Turns
from catzilla._core.workers import Workers

logger = logging.getLogger("catzilla")

CLOSING = 0.5  # seconds that generators have to run their `finally` once their streams are cut
JOINING = 0.3  # seconds that worker threads then have to end; those in user code are left behind, they are daemons
KEPT_BYTES = 4 * MIB  # see `_keep_freed_memory`; twice the largest buffer of a stream

# Since 3.13 a loop removes the file of a Unix socket when it stops; but others may go on listening on the socket.
_KEEP_SOCKET_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, or the standard one where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class HTTPServer:
    """Serves one application on listening sockets until it is stopped."""

    def __init__(
        self,
        application: Application,
        sockets: list[socket.socket],
        *,
        limits: Limits,
        ssl_context: ssl.SSLContext | None = None,
        access_log: bool = False,
        on_start: Callable[[Services], object] | None = None,
    ) -> None:
        self._application = application
        self._sockets = sockets
        self._limits = limits
        self._ssl_context = ssl_context
        self._logs_access = access_log
        self._on_start = on_start  # called on the loop thread before anything is accepted
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._grace = limits.shutdown_grace
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self._first_leader = threading.Thread(target=self._run, name="catzilla-loop", daemon=True)
        self.on_end: Callable[[], object] | None = None  # called once, by the thread that led last, when all is over
        self.services: Services | None = None
        self.left_threads: list[str] = []  # names of workers that were in user code when the server had ended
        self.left_streams: list[str] = []  # names of streams whose iterators could not be closed in time

    def start(self) -> None:
        """Begin to serve on a thread of its own; returns once it does. Raises what kept it from it. [any thread]"""
        self._first_leader.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def request_stop(self, grace: float | None = None) -> None:
        """Begin to stop and return at once; `grace` in seconds replaces `shutdown_grace`. [any thread]"""
        loop, stopping = self._loop, self._stopping
        if loop is None or stopping is None:
            return
        if grace is not None:
            self._grace = grace
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(stopping.set)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the server has ended; False when `timeout` seconds pass first. [any thread]"""
        return self._ended.wait(timeout)

    @property
    def failure(self) -> BaseException | None:
        """What ended the server, if it was not asked to end. [any thread]"""
        return self._failure

    def _run(self) -> None:
        """The first of the threads that lead the loop."""
        _keep_freed_memory()
        try:
            loop = self._loop = new_event_loop()
            handle = LoopHandle(loop)
            leadership = Leadership(loop, handle)
        except BaseException as error:
            self._end(error)
        else:
            leadership.lead(self._serve(loop, handle, leadership), self._over)

    def _over(self, serving: asyncio.Task[None], error: BaseException | None) -> None:
        """The loop has ended. [the last thread that led it]"""
        if error is None and serving.cancelled():
            error = asyncio.CancelledError()
        self._end(error or (serving.exception() if serving.done() else None))

    def _end(self, failure: BaseException | None) -> None:
        """Let go of the loop and the sockets, whatever else fails."""
        try:
            if failure is not None:
                self._failure = failure
                if self._ready.is_set():
                    logger.error("the server failed", exc_info=failure)
        finally:
            for sock in self._sockets:
                sock.close()
            if self._loop is not None:
                self._loop.close()
            self._ready.set()
            self._ended.set()
            if self.on_end is not None:
                self.on_end()

    async def _serve(self, loop: asyncio.AbstractEventLoop, handle: LoopHandle, leadership: Leadership) -> None:
        self._stopping = asyncio.Event()
        services = self.services = self._make_services(loop, handle, leadership)
        try:
            if self._on_start is not None:
                self._on_start(services)
            listeners = [await self._listen(loop, services, sock) for sock in self._sockets]
            self._ready.set()
            await self._stopping.wait()
            began = monotonic()
            for listener, sock in zip(listeners, self._sockets, strict=True):
                listener.close()
                sock.close()  # ours too, else the kernel goes on accepting for us
            for listener in listeners:
                if isinstance(listener, TLSListener):
                    await listener.wait_closed()
            await self._stop_connections(services)
            await self._stop_streams(services, began + self._grace)
            await self._stop_turns(services, began + self._grace)
        finally:
            await self._release(loop, services, leadership)
        logger.debug("stopped seconds=%.2f left_threads=%s", monotonic() - began, self.left_threads)

    async def _release(self, loop: asyncio.AbstractEventLoop, services: Services, leadership: Leadership) -> None:
        """Let go of everything, also after a failure."""
        services.workers.stop()
        services.turns.stop()
        await services.bridge.close()
        ending = (services.workers, services.turns.workers, leadership)
        joined = [loop.run_in_executor(None, each.join, JOINING) for each in ending]
        self.left_threads = [name for names in await asyncio.gather(*joined) for name in names]
        await loop.shutdown_default_executor()
        if services.access_log is not None:
            services.access_log.close(JOINING)

    def _make_services(self, loop: asyncio.AbstractEventLoop, handle: LoopHandle, leadership: Leadership) -> Services:
        timers = Timers(loop)
        limits = self._limits
        workers = Workers(loop, limits)
        # `Turns` keeps the sockets' budgets, and whoever it has given a place must find a thread: no limit here.
        unlimited = replace(limits, max_requests=sys.maxsize, max_streams=0)
        socket_workers = Workers(loop, unlimited, name="catzilla-socket", shares=False)
        return Services(
            loop=loop,
            limits=limits,
            application=self._application,
            handle=handle,
            timers=timers,
            workers=workers,
            turns=Turns(loop, handle, socket_workers, limits, leadership=leadership),
            fanout=Fanout(loop, timers, limits.presence_delay),
            bridge=Bridge(loop, handle, workers, timers, limits),
            access_log=AccessLog() if self._logs_access else None,
        )

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, services: Services, sock: socket.socket
    ) -> asyncio.AbstractServer | TLSListener:
        context = self._ssl_context

        def connect() -> HTTPConnection:
            return HTTPConnection(services, secure=context is not None)

        if context is not None:
            return TLSListener(loop, sock, connect, context, self._limits.head_timeout)
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(connect, sock=sock, backlog=BACKLOG, **_KEEP_SOCKET_FILE)
        return await loop.create_server(connect, sock=sock, backlog=BACKLOG)

    async def _stop_connections(self, services: Services) -> None:
        """Let open responses finish within the grace, then cut what is left."""
        services.stopping = True
        for connection in list(services.connections):
            try:
                connection.stop()
            except Exception:  # whatever it is, the others are owed their end
                logger.exception("stopping failed: connection=%r", connection)
        if services.connections:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(services.empty.wait(), self._grace)
        for connection in list(services.connections):
            connection.stop_now()

    async def _stop_streams(self, services: Services, grace_ends: float) -> None:
        """Give generators time to run their `finally`: what is left of the grace, and a moment in any case."""
        deadline = max(monotonic() + CLOSING, grace_ends)
        while services.bridge.streams and monotonic() < deadline:
            await services.bridge.wait_closed(deadline - monotonic())
        self.left_streams = sorted(stream.name for stream in services.bridge.streams)

    async def _stop_turns(self, services: Services, grace_ends: float) -> None:
        """Give WebSocket handlers, and the hooks of the rooms they have left, the same."""
        services.fanout.depart_now()
        await services.turns.wait_idle(max(CLOSING, grace_ends - monotonic()))


def _keep_freed_memory() -> None:
    """Have the C library keep a few MiB of what is freed, for the next message or chunk.

    glibc gives memory at the end of its heap back to the kernel from 128 KiB on, and each message of some ten KiB was
    faulted in anew, page by page: up to 20 faults a message, and half of its time. The threshold follows the largest
    mapped block that was ever freed (mallopt(3), M_MMAP_THRESHOLD); this one is never touched.
    """
    bytes(KEPT_BYTES)
