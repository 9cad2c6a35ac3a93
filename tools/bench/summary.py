"""From samples to figures: medians, spreads, and how many times better the base did. Pure arithmetic.

A ratio is the median of the ratios of each round, not the ratio of two medians: both of a round's figures come from the
same minute of the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tools.bench.rounds import Measurements
from tools.bench.scenario import Metric, Sample, Scenario


@dataclass(frozen=True)
class Spread:
    """The median of a metric over the rounds, with the extremes."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """What one peer did in one scenario. `ratio` is above 1 where the base did better than this peer."""

    peer: str
    spreads: dict[str, Spread]
    ratio: float | None
    note: str = ""


def values(samples: Sequence[Sample | None], key: str) -> list[float | None]:
    """The metric `key` of each round; None where there is none."""
    return [None if sample is None else sample.get(key) for sample in samples]


def spread(samples: Sequence[Sample | None], key: str) -> Spread | None:
    """The spread of a metric; None if no round has it."""
    known = [value for value in values(samples, key) if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def ratio(base: Sequence[Sample | None], other: Sequence[Sample | None], metric: Metric) -> float | None:
    """How many times better `base` did than `other`: the median over the rounds that both have; None without any."""
    ratios = []
    for mine, theirs in zip(values(base, metric.key), values(other, metric.key), strict=False):
        upper, lower = (mine, theirs) if metric.better == "more" else (theirs, mine)
        if upper is not None and lower:
            ratios.append(upper / lower)
    return statistics.median(ratios) if ratios else None


def summarise(scenario: Scenario, results: Sequence[Measurements], base: str) -> list[Row]:
    """One row for each peer that took part, compared with the peer named `base`."""
    base_samples = next((result.samples for result in results if result.peer.name == base), [])
    rows = []
    for result in results:
        if result.skipped is not None:
            continue
        spreads = {metric.key: spread(result.samples, metric.key) for metric in scenario.metrics}
        rows.append(
            Row(
                peer=result.peer.name,
                spreads={key: found for key, found in spreads.items() if found is not None},
                ratio=ratio(base_samples, result.samples, scenario.primary),
                note=f"failed {len(result.errors)}x: {result.errors[-1]}" if result.errors else "",
            )
        )
    return rows
