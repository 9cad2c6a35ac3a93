"""flask-sock: WebSockets of Flask, a handler's thread and a reader's thread for each."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from flask_sock import Sock
from simple_websocket import ConnectionClosed

from tools.bench.apps.flask_app import app

# Its default reads 4 KiB at a time.
app.config["SOCK_SERVER_OPTIONS"] = {"receive_bytes": 65536}

sock = Sock(app)
members: set[Any] = set()
members_lock = threading.Lock()


@sock.route("/echo")
def echo(connection: Any) -> None:
    while True:
        connection.send(connection.receive())


@sock.route("/broadcast")
def member(connection: Any) -> None:
    with members_lock:
        members.add(connection)
    try:
        while True:
            message = connection.receive()
            with members_lock:
                everybody = list(members)
            for each in everybody:
                with contextlib.suppress(ConnectionClosed):
                    each.send(message)
    finally:
        with members_lock:
            members.discard(connection)
