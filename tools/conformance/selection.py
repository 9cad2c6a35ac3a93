"""Which cases run: `1-7,9,12.1` as whole groups, ranges of groups and beginnings of case numbers.

Knows how the cases are numbered (`group.part.case`, some without a part) and not which there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ALL = "1-7,9,10,12,13"
"""Every group there is; the suite has no 8 and no 11."""

QUICK = f"1-7,9,10,12.1.18,13.3.10,{','.join(f'12.{part}.1,12.{part}.11' for part in range(1, 6))}," + ",".join(
    f"13.{part}.1" for part in range(1, 8)
)
"""All but compression, and of that a message of every kind and every set of parameters: under a minute."""

_RANGE = re.compile(r"(\d+)-(\d+)")
_PREFIX = re.compile(r"\d+(\.\d+){0,2}")


def parse(text: str) -> list[str]:
    """The beginnings of case numbers that `text` names, in its order.

    Raises:
        ValueError: something that is neither a group, nor a range of groups, nor the beginning of a case's number.
    """
    prefixes: list[str] = []
    for item in text.split(","):
        span = _RANGE.fullmatch(item.strip())
        if span:
            prefixes += [str(group) for group in range(int(span[1]), int(span[2]) + 1)]
        elif _PREFIX.fullmatch(item.strip()):
            prefixes.append(item.strip())
        else:
            raise ValueError(f"{item!r} is neither a group like 7, nor a range like 1-7, nor cases like 12.1 or 7.1.5")
    return prefixes


def selected(cases: Iterable[str], prefixes: Sequence[str]) -> list[str]:
    """Those of `cases` that begin with one of `prefixes`, in their own order; `7.1` begins `7.1.5`, not `7.13.1`."""
    return [case for case in cases if any(f"{case}.".startswith(f"{prefix}.") for prefix in prefixes)]
