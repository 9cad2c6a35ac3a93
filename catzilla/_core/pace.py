"""Whether a handler is quick: a guess from what its runs have taken, which decides whose thread it may run on."""

from __future__ import annotations

from catzilla._core.reinforcement import TICK

BLOCKING = 0.05  # seconds in user code that are not quick; waits for the interpreter lock stay below
PROOF = 20  # quick runs in a row that prove a handler quick
PROOF_AGAIN = 1000  # the same for one that has blocked before

INSTANT = 0.0002  # seconds for a message: less than this, and calling up a thread for it would cost a good part more
INSTANT_PROOF = 100  # such messages in a row that prove callbacks instant
INSTANT_PROOF_AGAIN = 5000  # the same for those that have held up the thread that leads


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


class CallbackPace:
    """Whether callbacks for messages are instant, so that the thread that runs the loop may do them (`leader.py`).

    Kept for each route. Written by whoever runs its callbacks, read by any thread; as with `Pace`, a count may be lost.
    What takes a tick, and so may have held up the loop that long, does it once in some thousand messages at the most.
    """

    __slots__ = ("_needed", "is_instant", "notable")

    def __init__(self) -> None:
        self.is_instant = False
        self.notable = 0.0  # seconds; what takes less would change nothing, and need not be recorded
        self._needed = INSTANT_PROOF

    def record(self, seconds: float, messages: int) -> None:
        """Note that so many messages took `seconds` together, without a break."""
        if seconds > TICK:
            self.overstayed()
        elif seconds > INSTANT * messages:
            self._prove(max(self._needed, INSTANT_PROOF))
        elif not self.is_instant:
            self._needed -= messages
            if self._needed <= 0:
                self.is_instant, self.notable = True, INSTANT

    def overstayed(self) -> None:
        """The loop had to be taken over from the thread that runs them, or might have been."""
        self._prove(INSTANT_PROOF_AGAIN)

    def _prove(self, needed: int) -> None:
        self.is_instant, self.notable = False, 0.0
        self._needed = needed
