"""The two forms of a result: a table to read and JSON to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tools.bench.rounds import Measurements
from tools.bench.scenario import Amount, Metric, Scenario
from tools.bench.summary import Row, Spread


def table(scenario: Scenario, amount: Amount, rows: Sequence[Row], base: str) -> str:
    """A scenario as text: one line a peer, the spread and the ratio for the first metric."""
    primary = scenario.primary
    titles = ["", primary.label, "min-max", f"{base} x", *(metric.label for metric in scenario.metrics[1:])]
    lines = [_cells(scenario, row) for row in rows]
    widths = [max(len(line[column]) for line in [titles, *lines]) for column in range(len(titles))]
    body = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in [titles, *lines])
    ]
    head = f"{scenario.name}: {scenario.title}\n{_amount(amount)}; {primary.better} is better"
    notes = [f"  {row.peer} {row.note}" for row in rows if row.note]
    return "\n".join([head, "", *(line.rstrip() for line in body), *notes])


def _amount(amount: Amount) -> str:
    parts = [f"median of {amount.rounds} rounds" if amount.rounds > 1 else "one round"]
    if amount.seconds:
        parts.append(f"{amount.seconds:g} s each")
    if amount.count:
        parts.append(f"n = {amount.count:,}")
    return ", ".join(parts)


def _cells(scenario: Scenario, row: Row) -> list[str]:
    primary = row.spreads.get(scenario.primary.key)
    others = [_number(row.spreads.get(metric.key), metric) for metric in scenario.metrics[1:]]
    extremes = _range(primary, scenario.primary)
    return [row.peer, _number(primary, scenario.primary), extremes, _ratio(row.ratio), *others]


def _number(spread: Spread | None, metric: Metric) -> str:
    return "-" if spread is None else f"{spread.median:,.{metric.digits}f}"


def _range(spread: Spread | None, metric: Metric) -> str:
    return "-" if spread is None else f"{spread.low:,.{metric.digits}f}-{spread.high:,.{metric.digits}f}"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def as_json(
    scenario: Scenario, amount: Amount, results: Sequence[Measurements], rows: Sequence[Row], base: str
) -> dict[str, Any]:
    """A scenario as plain data: what was measured, every sample, and the figures made of them."""
    by_peer = {row.peer: row for row in rows}
    return {
        "title": scenario.title,
        "metrics": [dataclasses.asdict(metric) for metric in scenario.metrics],
        "amount": dataclasses.asdict(amount),
        "base": base,
        "peers": {result.peer.name: _peer_json(result, by_peer.get(result.peer.name)) for result in results},
    }


def _peer_json(result: Measurements, row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"skipped": result.skipped}
    return {
        "figures": {key: dataclasses.asdict(spread) for key, spread in row.spreads.items()},
        "base_is_times_better": row.ratio,
        "samples": result.samples,
        "errors": result.errors,
    }
