"""What the application hands over when it accepts a WebSocket: the handshake's outcome, and whom its messages go to."""

from __future__ import annotations

import contextvars
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from catzilla._core.pace import CallbackPace
from catzilla._core.ws_handshake import Handshake

if TYPE_CHECKING:
    from catzilla._core.ws_connection import WebSocketConnection


class SocketHandler(Protocol):
    """The handler of one connection, bound to it. What it raises is turned into a close code by `failed`."""

    is_linear: bool  # it runs in `opened` for as long as it likes, on a thread of its own, and receives by itself

    @property
    def name(self) -> str:
        """What log lines call it. [any thread]"""

    @property
    def pace(self) -> CallbackPace:
        """That of its route. [any thread]"""

    def bind(self, connection: WebSocketConnection) -> None:
        """The connection is open; nothing else is called before. [loop thread]"""

    def opened(self) -> None:
        """[worker thread]"""

    def received(self, message: str | bytes) -> None:
        """A message, in order, one at a time; never of a linear handler. [worker thread]"""

    def ended(self, code: int, reason: str) -> None:
        """Nothing more will come; once, also if `opened` has failed; never of a linear handler. [worker thread]"""

    def release(self) -> None:
        """Nothing more will be called: let go of everything. [any thread]"""

    def failed(self, error: BaseException) -> tuple[int, str]:
        """Log what the handler raised; the code and reason to close with. [worker thread]"""


@dataclass(slots=True)
class Upgrade:
    """An accepted handshake. `expires_in` is in seconds, None for never; `identity` is None for an anonymous client."""

    handshake: Handshake
    handler: SocketHandler
    principal: Any = None
    identity: Hashable = None
    expires_in: float | None = None
    context: contextvars.Context | None = None  # that the handler runs in; set by the exchange
