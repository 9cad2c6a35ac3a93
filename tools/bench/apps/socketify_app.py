"""socketify: uWebSockets with handlers in Python. `python -m tools.bench.apps.socketify_app PORT`."""

from __future__ import annotations

import sys
from typing import Any

from socketify import App, AppListenOptions, CompressOptions

from tools.bench import work

MIB = 1024 * 1024


def hello(response: Any, request: Any) -> None:
    response.end(work.HELLO)


def echo(socket: Any, message: str | bytes, opcode: int) -> None:
    socket.send(message, opcode)


def join(socket: Any) -> None:
    socket.subscribe("all")


def publish(socket: Any, message: str | bytes, opcode: int) -> None:
    app.publish("all", message, opcode)


# Room for 16 of the large messages in either direction; nothing is dropped because a client is slow for a moment.
bounds = {"compression": CompressOptions.DISABLED, "max_payload_length": MIB, "max_backpressure": MIB}

app = App()
app.get("/", hello)
app.ws("/echo", {**bounds, "message": echo})
app.ws("/broadcast", {**bounds, "open": join, "message": publish})

if __name__ == "__main__":
    app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
    app.run()
