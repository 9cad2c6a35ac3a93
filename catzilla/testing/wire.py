"""One client connection as a blocking socket: every wait has a limit, and a test can make the client misbehave.

Nothing is read behind the test's back: bytes leave the kernel only when the test asks for some, so a client that is
not read is a stalled client. `receive_buffer_bytes` bounds what the kernel takes in meanwhile. Knows nothing of HTTP.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from catzilla.testing.errors import Frozen

READ_BYTES = 64 * 1024
THROTTLED_READS_PER_SECOND = 20  # a slow reader takes many small reads, as one behind a thin line does

_Selector: type[Any] = getattr(selectors, "PollSelector", selectors.SelectSelector)  # poll has no limit of 1,024 files
_EITHER = selectors.EVENT_READ | selectors.EVENT_WRITE
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True)
class Origin:
    """Where a server listens: a host and a port, or a Unix socket (`uds`); TLS if there is a `certificate`.

    `certificate` is the path of the server's own PEM file, and exactly that certificate is trusted, whatever its name.
    """

    host: str
    port: int
    uds: str | None = None
    certificate: str | None = None

    @property
    def authority(self) -> str:
        """The value of the `Host` header, such as `127.0.0.1:8000`; a Unix socket calls itself `localhost`."""
        if self.uds is not None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def tls(self) -> bool:
        return self.certificate is not None

    def connect(self, timeout: float, receive_buffer_bytes: int | None = None) -> socket.socket:
        """A connected socket. Raises `OSError` if nobody listens."""
        address: Any = self.uds
        if self.uds is not None:
            family = socket.AF_UNIX
        else:
            family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            if receive_buffer_bytes is not None:  # before connecting: the window is agreed in the handshake
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
            connection.connect(address)
            if self.uds is None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._encrypt(connection) if self.tls else connection
        except BaseException:
            connection.close()
            raise

    def _encrypt(self, connection: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf itself is the anchor
        return context.wrap_socket(connection, server_hostname=self.host)


class Wire:
    """One connection to `origin`.

    `timeout` is the longest silence in seconds that any wait accepts before it raises `TimeoutError`. One thread reads,
    and one, the same or another, writes; `freeze`, `thaw`, `throttle`, `drop` and `close` work from any thread.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        timeout: float = 10.0,
        receive_buffer_bytes: int | None = None,
        on_close: Callable[[Wire], None] = lambda wire: None,
    ) -> None:
        self.origin = origin
        self.timeout = timeout
        self.received_bytes = 0
        self.unsent = b""  # what the latest `send` left when it raised `TimeoutError`
        self.purpose = "a connection"  # what messages say was going on
        self._on_close = on_close
        self._socket = origin.connect(timeout, receive_buffer_bytes)
        self._socket.setblocking(False)
        self._gate = threading.Condition()  # held for each single read, so that freeze() returns between two reads
        self._frozen_by: int | None = None
        self._bytes_per_s: float | None = None
        self._next_read_at = 0.0
        self._waiting = 0  # how many threads are inside a selector
        self._wakers: set[socket.socket] = set()  # one for each of those that send
        self._closed: str | None = None

    @property
    def closed(self) -> bool:
        return self._closed is not None

    @property
    def frozen(self) -> bool:
        return self._frozen_by is not None

    def check(self, timeout: float | None = None) -> None:
        """Raise what a read would raise now, without reading: `Frozen`, or `ConnectionAbortedError` when closed."""
        with self._gate:
            self._wait_for_thaw(monotonic() + (self.timeout if timeout is None else timeout))
            self._check_open()

    def receive(self, timeout: float | None = None, *, until: bytes | None = None) -> bytes:
        """Whatever has arrived, at most 64 KiB; `b""` when the peer has ended its side.

        What follows the mark `until` stays in the kernel if the mark is among what has arrived (not under TLS).
        Blocks until there is something. Raises `TimeoutError` after `timeout` seconds of silence, `Frozen`,
        `ConnectionResetError`, and `ConnectionAbortedError` on a connection that the test itself has ended.
        """
        timeout = self.timeout if timeout is None else timeout
        self._keep_pace()
        deadline = monotonic() + timeout
        while True:
            with self._gate:
                self._wait_for_thaw(deadline)
                self._check_open()
                try:
                    return self._took(self._socket.recv(self._read_size(until)))
                except _WOULD_BLOCK:
                    pass
            self._wait_ready(selectors.EVENT_READ, deadline, timeout)

    def send(self, data: bytes, *, until_answered: bool = False, timeout: float | None = None) -> bool:
        """Send all of `data`; False if the peer closed its side first.

        Raises `TimeoutError` when the peer has taken nothing for `timeout` seconds; the rest is then in `unsent`.

        With `until_answered`, also stops and gives False as soon as the peer says something: a server may refuse a
        body that is still being sent, and then reads no more of it (RFC 9110 section 10.1.1). TLS cannot tell an
        answer from its own housekeeping, so there it sends on.
        """
        listens = until_answered and not self.origin.tls
        timeout = self.timeout if timeout is None else timeout
        view = memoryview(data)
        while view:
            try:
                if listens and self._wait_ready(_EITHER, monotonic() + timeout, timeout) & selectors.EVENT_READ:
                    return False
                view = view[self._send_some(view) :]
            except _WOULD_BLOCK:
                self._wait_to_send(view, timeout)
            except BrokenPipeError:
                return False
        return True

    # --- faults --------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Read nothing more until `thaw`. When this returns, no read is under way.

        A read by the thread that froze the connection raises `Frozen` at once, for nobody could end it; a read in
        another thread waits for `thaw`, and raises `Frozen` when its time is up.
        """
        with self._gate:
            self._frozen_by = threading.get_ident()

    def thaw(self) -> None:
        """Undo `freeze`."""
        with self._gate:
            self._frozen_by = None
            self._gate.notify_all()

    def throttle(self, bytes_per_s: float | None) -> None:
        """Read at most this much a second from now on; None reads freely again."""
        if bytes_per_s is not None and bytes_per_s <= 0:
            raise ValueError(f"throttle() takes a positive number of bytes a second, not {bytes_per_s}; see freeze()")
        with self._gate:
            self._bytes_per_s = bytes_per_s
            self._next_read_at = 0.0
            self._gate.notify_all()

    def drop(self) -> None:
        """Vanish: the connection is reset (RST), whatever is under way; on a Unix socket it is closed unread."""
        if not self.closed and self.origin.uds is None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end("the test dropped this connection", socket.SHUT_RD)

    def close(self) -> None:
        """Close the connection; nothing if it is closed."""
        self._end("the test closed this connection", socket.SHUT_RDWR)

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading (a TCP FIN)."""
        self._socket.shutdown(socket.SHUT_WR)

    # --- inside --------------------------------------------------------------------------------------------------

    def _end(self, why: str, how: int) -> None:
        with self._gate:
            if self._closed is not None:
                return
            self._closed = why
            self._gate.notify_all()
            # Closing under a thread that waits frees the file's number, and the wait goes on for whoever gets it next.
            # So the thread is woken, and closes.
            left_to_waiter = self._waiting > 0
            for waker in self._wakers:
                waker.send(b"!")
        try:
            self._socket.shutdown(how)
        except OSError:
            pass  # the peer was faster
        if not left_to_waiter:
            self._socket.close()
        self._on_close(self)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise ConnectionAbortedError(self._closed)

    def _wait_for_thaw(self, deadline: float) -> None:
        while self._frozen_by is not None and self._closed is None:
            left = deadline - monotonic()
            if self._frozen_by == threading.get_ident() or left <= 0:
                raise Frozen(f"{self.purpose} is frozen and was read; thaw() it first")
            self._gate.wait(left)

    def _keep_pace(self) -> None:
        with self._gate:
            while self._closed is None and (left := self._next_read_at - monotonic()) > 0:
                self._gate.wait(left)

    def _read_size(self, until: bytes | None) -> int:
        size = READ_BYTES
        if self._bytes_per_s is not None:
            size = min(size, max(1, int(self._bytes_per_s / THROTTLED_READS_PER_SECOND)))
        if until is not None and not self.origin.tls:
            before, mark, _ = self._socket.recv(size, socket.MSG_PEEK).partition(until)
            size = len(before + mark) if mark else size
        return size

    def _took(self, data: bytes) -> bytes:
        self.received_bytes += len(data)
        if self._bytes_per_s is not None:
            self._next_read_at = max(monotonic(), self._next_read_at) + len(data) / self._bytes_per_s
        return data

    def _send_some(self, view: memoryview) -> int:
        with self._gate:
            self._check_open()
            return self._socket.send(view)

    def _wait_to_send(self, view: memoryview, timeout: float) -> None:
        try:
            self._wait_ready(selectors.EVENT_WRITE, monotonic() + timeout, timeout)
        except TimeoutError:
            self.unsent = bytes(view)
            raise

    def _wait_ready(self, wanted: int, deadline: float, timeout: float) -> int:
        """Which of `wanted` the socket is ready for, 0 if the test ends it; raises `TimeoutError` at the deadline."""
        # A reader is woken by the end of the reading side. That of the writing side would be a FIN, and `drop` sends
        # none: so a sender is woken by a socket of its own.
        alarm, waker = socket.socketpair() if wanted & selectors.EVENT_WRITE else (None, None)
        try:
            with self._gate:
                self._check_open()
                self._waiting += 1
                if waker is not None:
                    self._wakers.add(waker)
            try:
                with _Selector() as selector:
                    selector.register(self._socket, wanted)
                    if alarm is not None:
                        selector.register(alarm, selectors.EVENT_READ)
                    for key, ready in selector.select(max(0.0, deadline - monotonic())):
                        return int(ready) if key.fileobj is self._socket else 0
            finally:
                with self._gate:
                    self._waiting -= 1
                    self._wakers.discard(waker)
                    if self._closed is not None and not self._waiting:
                        self._socket.close()
        finally:
            for end in (alarm, waker):
                if end is not None:
                    end.close()
        raise TimeoutError(
            f"{self.purpose}: the server at {self.origin.uds or self.origin.authority} kept it waiting for "
            f"{timeout:g} s, after {self.received_bytes} bytes"
        )

    def __repr__(self) -> str:
        state = self._closed or ("frozen" if self._frozen_by else "open")
        return f"<Wire to {self.origin.uds or self.origin.authority}, {state}, {self.received_bytes} bytes received>"
