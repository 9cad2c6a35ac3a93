"""Whether a handler is quick: a guess from what its runs have taken, which decides whose thread it may run on."""

from __future__ import annotations

BLOCKING = 0.05  # seconds in user code that are not quick; waits for the interpreter lock stay below
PROOF = 20  # quick runs in a row that prove a handler quick
PROOF_AGAIN = 1000  # the same for one that has blocked before


class Pace:
    """Whether a handler has proven quick; kept for each route. Written by workers, read by any thread.

    What counts is a run from its start to its return: of a handler that answers at once, or of a generator until it is
    parked. Two workers that write at the same time may lose a count; a wrong guess costs a thread or a delay.
    """

    __slots__ = ("_needed", "is_quick")

    def __init__(self) -> None:
        self.is_quick = False
        self._needed = PROOF

    def record(self, seconds: float) -> None:
        """Note that user code ran for `seconds` without a break."""
        if seconds > BLOCKING:
            self.is_quick = False
            self._needed = PROOF_AGAIN
        elif not self.is_quick:
            self._needed -= 1
            self.is_quick = self._needed <= 0
