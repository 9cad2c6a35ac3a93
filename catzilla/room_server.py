"""The rooms' side of one server: what the broker tells is handed to its loop, and hooks run on its workers.

Decides in which order the hooks of a room run, and what happens when they do not keep up.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from catzilla._core.current import current
from catzilla._core.outbox import OnSlow
from catzilla._core.publication import Publication
from catzilla._core.services import Services
from catzilla._core.turns import Turn

if TYPE_CHECKING:
    from catzilla.rooms import Rooms

logger = logging.getLogger("catzilla")

CONDENSE_FROM = 1000  # comings and goings in one room that its hooks were not told of yet; see `HookTurn`


class RoomServer:
    """The subscription of one server, and the hooks that it has to run."""

    def __init__(self, rooms: Rooms, services: Services) -> None:
        self.rooms = rooms
        self.services = services
        self.fanout = services.fanout
        self.handle = services.handle
        self.hooks: dict[str, HookTurn] = {}  # of the rooms that have some to run; the loop's
        self.unsubscribe = rooms.broker.subscribe(self._deliver)

    def rules(self, name: str) -> RoomRules:
        """What the fan-out asks about a room."""
        return RoomRules(self, name)

    def _deliver(self, publication: Publication) -> None:
        self.fanout.posting(publication)
        self.handle.post(self.fanout.deliver, publication)

    def tell(self, name: str, identity: Hashable, principal: Any, *, arrived: bool) -> None:
        """Have a room's hooks told who has come or gone, behind what they wait for already. [loop thread]"""
        turn = self.hooks.get(name)
        if turn is None:
            turn = self.hooks[name] = HookTurn(self, name)
        turn.add(identity, principal, arrived)
        turn.wake()


class RoomRules:
    """See `_core.fanout.RoomRules`."""

    __slots__ = ("_name", "_server")

    def __init__(self, server: RoomServer, name: str) -> None:
        self._server = server
        self._name = name

    @property
    def on_slow(self) -> OnSlow:
        return self._server.rooms.config(self._name).on_slow

    @property
    def is_watched(self) -> bool:
        config = self._server.rooms.config(self._name)
        return bool(config.joined or config.left)

    def joined(self, identity: Hashable, principal: Any) -> None:
        if self.is_watched:
            self._server.tell(self._name, identity, principal, arrived=True)

    def left(self, identity: Hashable, principal: Any) -> None:
        if self.is_watched:
            self._server.tell(self._name, identity, principal, arrived=False)


class HookTurn(Turn):
    """Who has come and gone in one room, as far as its hooks were not told. Kept while there is somebody.

    From `CONDENSE_FROM` on, because a hook is stuck, say, whoever has come and gone meanwhile is left out, so that no
    more waits than is true: one event for each identity that has changed.
    """

    __slots__ = ("_events", "_lock", "_name", "_number", "_of_identity", "_server", "_warned")

    def __init__(self, server: RoomServer, name: str) -> None:
        super().__init__(server.services.turns)
        self._server = server
        self._name = name
        self._warned = False
        self._lock = threading.Lock()  # guards what follows
        self._number = 0  # of the last event
        self._events: dict[int, tuple[Hashable, Any, bool]] = {}  # by number, in the order of what happened
        self._of_identity: dict[Hashable, deque[int]] = {}  # the numbers of each identity's events

    def add(self, identity: Hashable, principal: Any, arrived: bool) -> None:
        """Somebody has come or gone. [loop thread]"""
        with self._lock:
            numbers = self._of_identity.get(identity)
            if len(self._events) >= CONDENSE_FROM:
                if not self._warned:
                    self._warned = True
                    logger.warning("room=%r: its hooks do not keep up; who comes and goes is left out", self._name)
                if numbers is not None:  # the last one says the opposite; without the two the rest still alternates
                    del self._events[numbers.pop()]
                    if not numbers:
                        del self._of_identity[identity]
                    return
            self._number += 1
            self._events[self._number] = (identity, principal, arrived)
            if numbers is None:
                numbers = self._of_identity[identity] = deque()
            numbers.append(self._number)

    def work(self) -> None:
        """See `Turn`. [worker thread]"""
        current.waits = None  # a hook serves no request
        while (event := self._next()) is not None:
            _, principal, arrived = event
            config = self._server.rooms.config(self._name)
            for hook in list(config.joined if arrived else config.left):
                self._call(hook, principal)

    def _next(self) -> tuple[Hashable, Any, bool] | None:
        with self._lock:
            number = next(iter(self._events), None)
            if number is None:
                return None
            event = self._events.pop(number)
            numbers = self._of_identity[event[0]]
            numbers.popleft()
            if not numbers:
                del self._of_identity[event[0]]
            return event

    def _call(self, hook: Callable[..., Any], principal: Any) -> None:
        try:
            hook(principal)
        except Exception:
            logger.exception("room=%r: a hook failed: hook=%r", self._name, hook)

    def worked(self) -> None:
        """See `Turn`. [loop thread]"""
        if self._events:
            self.wake()
        else:
            self._server.hooks.pop(self._name, None)
