"""Results as text: the counts of every group, and what went wrong where something did."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from tools.conformance.runs import Result

GROUPS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and performance",
    10: "automatic fragmentation",
    12: "compression",
    13: "compression, with parameters",
}
VERDICTS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")
"""The columns; every verdict of a `Result` is one of them."""


def table(results: Sequence[Result]) -> str:
    """A line a group and one for all of them: how many cases ended how, and the seconds they took."""
    groups = sorted({result.group for result in results})
    rows = [
        ["group", "", "cases", *VERDICTS, "seconds"],
        *(
            _row(str(group), GROUPS.get(group, ""), [each for each in results if each.group == group])
            for group in groups
        ),
        _row("all", "", results),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _row(name: str, title: str, results: Sequence[Result]) -> list[str]:
    counts = Counter(result.verdict for result in results)
    seconds = sum(result.milliseconds for result in results) / 1000
    return [name, title, str(len(results)), *(str(counts[verdict] or "-") for verdict in VERDICTS), f"{seconds:.1f}"]


def failed(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.verdict == "FAILED"]


def explain(result: Result) -> str:
    """What a case sent, what it expected and what it got."""
    ending = f"{result.close}: {result.result_close}" if result.close else ""
    reason = f" {result.close_reason!r}" if result.close_reason else ""
    facts = {
        "sent": result.description,
        "expected": result.expectation,
        "events": result.expected,
        "received": result.received,
        "outcome": result.result,
        "ending": ending,
        "close code": f"{result.close_code}{reason}, expected {list(result.expected_close_codes)}" if ending else "",
    }
    body = "\n".join(f"  {name}: {_plain(text)}" for name, text in facts.items() if text)
    return f"FAILED {result.id} ({result.behavior})\n{body}"


def _plain(text: str) -> str:
    """On one line, without the markup of the suite's HTML reports."""
    return textwrap.shorten(text.replace("<br>", " "), 1000)
