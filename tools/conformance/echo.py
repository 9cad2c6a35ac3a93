"""The server under test, run as `python -m tools.conformance.echo`: everything that arrives is sent back.

Prints its port on a line when it listens and ends when its input does, so it never outlives who started it. What it
logs goes to its standard error; if anything of it is left behind at the end, that is an error too.
"""

from __future__ import annotations

import logging
import sys

from catzilla import Catzilla, WebSocket
from catzilla.testing import LiveServer

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest message of the suite has 16 MiB."""
MAX_MESSAGE_FRAGMENTS = 100_000
"""The most fragments of one message are 65,536: 4 MiB in steps of 64 bytes."""
PING_INTERVAL = 600.0
"""Seconds; longer than any case. The suite ends a case of groups 12 and 13 as FAILED when it is pinged meanwhile, which
RFC 6455 section 5.5.2 allows a server to do at any time, and on a slow machine some last longer than the default."""

app = Catzilla(production=True, show_banner=False, log_requests=False)


@app.websocket("/", compression=True)
class Echo:
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        ws.send(message)


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    with LiveServer(
        app,
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_message_fragments=MAX_MESSAGE_FRAGMENTS,
        ping_interval=PING_INTERVAL,
    ) as live:
        print(live.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
