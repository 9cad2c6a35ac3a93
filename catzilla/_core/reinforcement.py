"""How many threads to start beside those that do not keep up with what waits.

`Workers` and `Turns` ask at each tick in which something waits. Who is at work may be stuck in user code: then one more
is started, and twice as many at each following tick. Or each of its jobs blocks for less than a tick, for a database,
say: then it moves on, but the process is idle while jobs wait, because what holds them up is not the interpreter lock.
Then one more is started at each tick, because more get more done. Knows no thread and no queue.
"""

from __future__ import annotations

from collections.abc import Callable

from catzilla._core.clock import Load

TICK = 0.002  # seconds: how long a thread may be in one job before another one is started beside it
IDLE = 0.5  # processors: a process that has used less between two ticks was waiting for something else
MOST = 1024  # started in one tick


class Reinforcement:
    """Beside those that are stuck: one at first, and twice as many at each following tick. [loop thread]"""

    __slots__ = ("_load", "_next", "is_idle")

    def __init__(self, load: Callable[[], float] | None = None) -> None:
        self._load = load or Load(2.5 * TICK)
        self._next = 1
        self.is_idle = False  # whether the process was, between the last two ticks

    def begin(self) -> None:
        """Something waits, and the first tick is to come: what was before does not count."""
        self._load()
        self.reset()

    def look(self) -> None:
        """A tick. It asks the system, so no lock should be held."""
        self.is_idle = self._load() < IDLE

    def reset(self) -> None:
        """Those at work keep up."""
        self._next = 1

    def count(self, most: int) -> int:
        """How many to start now beside those that are stuck, no more than `most`."""
        count = min(self._next, most)
        self._next = min(2 * self._next, MOST)
        return count
