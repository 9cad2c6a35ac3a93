"""One process that runs cases: `python -m tools.conformance.drive URL PREFIX...`; the only place that imports kosoku.

Writes JSON lines to its standard output: first `{"selected": [...]}`, then each case as it ends. A case that the
suite itself cannot end is given up after `CASE_TIMEOUT`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from kosoku import FailureError, run_fuzzingclient
from kosoku.cases import CASES

from tools.conformance.selection import selected

CASE_TIMEOUT = 500.0
"""Seconds; the most patient case waits for 480."""
CLIP = 200
"""How many characters of a list of events are kept: some hold messages of megabytes."""


def as_dict(result: Any) -> dict[str, Any]:
    """What a report needs of a `kosoku.CaseResult`."""
    return {
        "id": result.case_id,
        "behavior": result.behavior.value,
        "close": result.behavior_close.value,
        "passed": result.passed,
        "description": result.description,
        "expectation": result.expectation,
        "result": result.result,
        "result_close": result.result_close,
        "expected": clip(repr(result.expected)),
        "received": clip(repr(result.received)),
        "expected_close_codes": (result.expected_close or {}).get("closeCode", []),
        "close_code": result.remote_close_code,
        "close_reason": result.remote_close_reason,
        "milliseconds": result.duration,
    }


def clip(text: str) -> str:
    return text if len(text) <= CLIP else f"{text[:CLIP]}... ({len(text):,} characters)"


async def run_case(url: str, case: str) -> dict[str, Any]:
    """One case on a connection of its own."""
    try:
        results = await asyncio.wait_for(run_fuzzingclient(url, [case]), CASE_TIMEOUT)
    except FailureError as failure:
        results = failure.results
    except asyncio.TimeoutError:
        return {"id": case, "behavior": "ERROR", "result": f"did not end within {CASE_TIMEOUT:g} s"}
    return as_dict(results[0])


async def run(url: str, prefixes: Sequence[str]) -> None:
    cases = selected(CASES, prefixes)
    write({"selected": cases})
    for case in cases:
        write(await run_case(url, case))


def write(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2:]))
    # The threads of the suite's runner now and then abort an interpreter that takes itself down.
    os._exit(0)
