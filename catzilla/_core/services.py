"""What all connections of one server share."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catzilla._core.access_log import AccessLog
from catzilla._core.bridge import Bridge
from catzilla._core.clock import HTTPDate
from catzilla._core.fanout import Fanout
from catzilla._core.limits import Limits
from catzilla._core.loop_handle import LoopHandle
from catzilla._core.timers import Timers
from catzilla._core.turns import Turns
from catzilla._core.workers import Workers

if TYPE_CHECKING:
    from catzilla._core.dispatch import Application
    from catzilla._core.wire import Wire


@dataclass
class Services:
    """Owned by the loop; workers use `limits`, `application`, `handle`, `workers`, `fanout`, `bridge` as those say."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    application: Application
    handle: LoopHandle
    timers: Timers
    workers: Workers  # of requests and streams
    turns: Turns  # of sockets, with workers of their own
    fanout: Fanout
    bridge: Bridge
    access_log: AccessLog | None
    date: HTTPDate = field(default_factory=HTTPDate)
    connections: set[Wire] = field(default_factory=set)
    accepted: int = 0  # connections ever
    requests: int = 0  # ever
    websockets: int = 0  # open now
    messages_received: int = 0  # of WebSockets, ever
    messages_sent: int = 0  # the same, as far as the transport
    rate_limited: int = 0  # WebSockets that were closed because they sent too many messages, ever
    node: str = field(default_factory=lambda: secrets.token_hex(4))  # this server, in the ids of its connections
    stopping: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # set when the last connection is gone

    def connected(self, connection: Wire) -> int:
        """A connection is made; returns its number."""
        self.accepted += 1
        self.connections.add(connection)
        self.empty.clear()
        return self.accepted

    def forget(self, connection: Wire) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()
