"""What a scenario is: a title, the figures it yields, and a function that measures one peer once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tools.bench.peers import Peer

Sample = dict[str, "float | None"]
"""One measurement: a value for each metric; None for a metric this peer has no answer to."""


@dataclass(frozen=True)
class Metric:
    """One figure. The first of a scenario is the one that peers are compared by."""

    key: str
    label: str
    """Column title, with the unit."""
    better: Literal["more", "less", "neither"]
    digits: int = 0
    """Decimal places in the table."""


@dataclass(frozen=True)
class Options:
    """How much to measure; None means what the scenario finds right."""

    rounds: int | None = None
    seconds: float | None = None
    count: int | None = None
    quick: bool = False


@dataclass(frozen=True)
class Amount:
    """How much one measurement of a scenario is."""

    rounds: int
    seconds: float
    """Length of the measured window; 0 where the scenario has none."""
    count: int
    """Connections or requests, as the scenario says; 0 where it has none."""

    def adjusted(self, options: Options) -> Amount:
        """This amount as asked for on the command line. `quick` is one round of a fifth of the time and count.

        What a scenario has none of stays 0, whatever is asked for.
        """
        fifth = 5 if options.quick else 1
        return Amount(
            rounds=options.rounds or (1 if options.quick else self.rounds),
            seconds=(options.seconds or self.seconds / fifth) if self.seconds else 0.0,
            count=(options.count or self.count // fifth) if self.count else 0,
        )


@dataclass(frozen=True)
class Scenario:
    """One kind of work on which peers are compared."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    amount: Amount
    measure: Callable[[Peer, Amount], Sample]
    """Starts a fresh server of the peer, measures it once, and ends it."""

    @property
    def primary(self) -> Metric:
        return self.metrics[0]
