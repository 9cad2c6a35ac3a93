"""The turns that the thread that runs the loop does by itself, between two of its laps (`leader.py`).

They are those whose callbacks have proven instant. What does not come back in time is not lost: the thread that takes
the loop over gives what has not begun to the workers.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from catzilla._core.clock import monotonic
from catzilla._core.current import current
from catzilla._core.leader import Lead, Leadership

if TYPE_CHECKING:
    from catzilla._core.turns import Turn, Turns

LAP = 0.0005  # seconds that the loop may rest before everything else gets its turn


class QuickTurns:
    """The turns that wait for the end of a lap: a `Loan` of the leader's.

    The loop puts turns into `_waiting`, and whoever does them takes them out at the other end; `_current` is written by
    the thread that leads and read by the one that takes over. All else is the loop's.
    """

    def __init__(self, leadership: Leadership, turns: Turns) -> None:
        self._leadership = leadership
        self._turns = turns
        self._waiting: deque[Turn] = deque()
        self._current: Turn | None = None
        self._has_asked = False  # for the leader, at the end of this lap

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def astray(self) -> int:
        """How many threads still do a turn for which they have lost the loop. [any thread]"""
        return self._leadership.astray

    def add(self, turn: Turn) -> bool:
        """Have a turn done at the end of this lap; False if it is for a worker to do. [loop thread]"""
        pace = turn.pace
        if pace is None or not pace.is_instant or not (self._has_asked or self._ask()):
            return False
        self._waiting.append(turn)
        return True

    def _ask(self) -> bool:
        """Ask for the leader, unless nobody would follow, or too many threads run callbacks already."""
        self._has_asked = self._turns.places > 0 and self._leadership.can_lend()
        if self._has_asked:
            self._leadership.lend(self)
        return self._has_asked

    def run(self, lead: Lead) -> None:
        """See `Loan`."""
        waiting, do, until = self._waiting, self._turns.do, monotonic() + LAP
        try:
            while waiting and lead.leads and monotonic() < until:
                try:
                    self._current = waiting.popleft()
                except IndexError:  # they were given away in this moment
                    break
                do(self._current)
                lead.moves += 1
        finally:
            self._current = current.waits = None

    def returned(self) -> None:
        """See `Loan`."""
        self._has_asked = False
        if self._waiting and not self._ask():
            self._give_away()
        self._turns.collect()

    def taken_over(self) -> None:
        """See `Loan`."""
        stuck = self._current
        if stuck is not None and stuck.pace is not None:
            stuck.pace.overstayed()
        self._has_asked = False
        self._give_away()

    def _give_away(self) -> None:
        """Let workers do what waits."""
        rest = []
        with contextlib.suppress(IndexError):
            while True:  # one by one: the former leader may be taking one in this moment
                rest.append(self._waiting.popleft())
        self._turns.show(rest)

    def came_late(self) -> None:
        """See `Loan`."""
        self._turns.handle.post(self._turns.collect)
