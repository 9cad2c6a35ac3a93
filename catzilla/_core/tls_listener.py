"""Accepting TLS connections: from a listening socket to a transport whose handshake is over. [loop thread]

The loop could do it by itself (`create_server(ssl=...)`), but then nobody can end a handshake that is under way: its
transport is not handed out before the end, and a loop with an open transport may not close at all. So each handshake
is a task here. One that fails is the client's affair and is not logged.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

logger = logging.getLogger("catzilla")

ACCEPTS = 64  # connections a turn, so that the loop comes up for air
PAUSE = 1.0  # seconds without accepting after the process has run out of descriptors


class TLSListener:
    """Accepts on `sock` until `close`, and makes a protocol by `connect` for each connection.

    `timeout` is what a handshake may take, in seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        timeout: float,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._connect = connect
        self._context = context
        self._timeout = timeout
        self._closed = False
        self._handshakes: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept nobody any more and end the handshakes that are under way; the socket stays the caller's."""
        self._closed = True
        self._loop.remove_reader(self._socket)
        for handshake in self._handshakes:
            handshake.cancel()

    async def wait_closed(self) -> None:
        """Return once every handshake has ended, after `close`."""
        if self._handshakes:
            await asyncio.wait(self._handshakes)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors left: the connection stays in the kernel's queue
                logger.warning("cannot accept: %s; trying again in %g s", error, PAUSE)
                self._loop.remove_reader(self._socket)
                self._loop.call_later(PAUSE, self._resume)
                return
            accepted.setblocking(False)
            handshake = self._loop.create_task(self._shake_hands(accepted))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket, self._accept)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._connect, accepted, ssl=self._context, ssl_handshake_timeout=self._timeout
            )
        except (OSError, asyncio.CancelledError):  # an `SSLError` is one, and so are a timeout and a reset
            accepted.close()
