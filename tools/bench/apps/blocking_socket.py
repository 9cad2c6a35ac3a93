"""The physical limit: one thread a connection, blocking sends, no framework. `python -m ...blocking_socket PORT`.

What a server that hands every chunk of a plain generator to the kernel from the generator's own thread can reach. It
reads just enough of a request to answer it and checks nothing.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator

from tools.bench import work

JOINED_BYTES = 64 * 1024

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
HELLO_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (
    len(work.HELLO),
    work.HELLO,
)
MISSING_REPLY = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def joined(items: Iterator[bytes]) -> Iterator[bytes]:
    """Small items as blocks of about 64 KiB: one send for each 20-byte line would be no limit at all."""
    block: list[bytes] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item)
        if size >= JOINED_BYTES:
            yield b"".join(block)
            block.clear()
            size = 0
    if block:
        yield b"".join(block)


STREAMS: dict[bytes, Callable[[], Iterator[bytes]]] = {
    b"/chunks8k": lambda: work.repeat(work.CHUNK_8K),
    b"/chunks64k": lambda: work.repeat(work.CHUNK_64K),
    b"/lines": lambda: joined(work.repeat(work.LINE)),
    b"/first": work.first,
    b"/fresh": work.fresh,
    b"/ticks": work.ticks,
}


def send_all(connection: socket.socket, parts: list[bytes]) -> None:
    """One `sendmsg`, and the rest with `sendall` if the kernel took less."""
    sent = connection.sendmsg(parts)
    if sent < sum(map(len, parts)):
        connection.sendall(memoryview(b"".join(parts))[sent:])


def stream(connection: socket.socket, chunks: Iterator[bytes]) -> None:
    connection.sendall(STREAM_HEAD)
    for chunk in chunks:
        send_all(connection, [b"%x\r\n" % len(chunk), chunk, b"\r\n"])
    connection.sendall(b"0\r\n\r\n")


def serve(connection: socket.socket) -> None:
    """Answers requests on one connection, one after the other, until the client leaves."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pending = b""
    with connection:
        try:
            while True:
                while b"\r\n\r\n" not in pending:
                    received = connection.recv(65536)
                    if not received:
                        return
                    pending += received
                head, _, pending = pending.partition(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                if path in STREAMS:
                    stream(connection, STREAMS[path]())
                else:
                    connection.sendall(HELLO_REPLY if path == b"/" else MISSING_REPLY)
        except OSError:
            return


def main() -> None:
    threading.stack_size(256 * 1024)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
