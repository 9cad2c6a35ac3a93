"""Runs one client: `python -m tools.bench.clients NAME '{"port": 8000, ...}'` prints its result as JSON."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from tools.bench.clients import (
    events,
    first_byte,
    hold,
    requests,
    steady,
    stream,
    ws_broadcast,
    ws_echo,
    ws_hold,
)
from tools.bench.descriptors import raise_descriptor_limit

CLIENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "stream": stream.measure,
    "requests": requests.measure,
    "steady": steady.measure,
    "first_byte": first_byte.measure,
    "events": events.measure,
    "hold": hold.measure,
    "ws_echo": ws_echo.measure,
    "ws_broadcast": ws_broadcast.measure,
    "ws_hold": ws_hold.measure,
}
HOLDING: dict[str, Callable[[], None]] = {"hold": hold.until_closed, "ws_hold": ws_hold.until_closed}
"""What keeps connections open after the result, until standard input closes."""


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    raise_descriptor_limit()
    # A collection in the client would show as latency of the server.
    gc.disable()
    print(json.dumps(CLIENTS[name](**arguments)), flush=True)
    if name in HOLDING:
        HOLDING[name]()


if __name__ == "__main__":
    main()
