"""Percentiles of a list of times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of `values` do not exceed; None of nothing."""
    if not values:
        return None
    rank = math.ceil(share * len(values) - 1e-9)
    return sorted(values)[max(rank, 1) - 1]


def milliseconds(values: Sequence[float]) -> dict[str, float | None]:
    """`p50_ms`, `p99_ms` and `max_ms` of times in seconds."""
    scaled = [value * 1000 for value in values]
    return {"p50_ms": percentile(scaled, 0.5), "p99_ms": percentile(scaled, 0.99), "max_ms": percentile(scaled, 1.0)}
