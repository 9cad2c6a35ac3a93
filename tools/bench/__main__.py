"""The command line: `python -m tools.bench NAME...`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tools.bench import machine, report, rounds, summary
from tools.bench.descriptors import raise_descriptor_limit
from tools.bench.peers import PEERS, Peer
from tools.bench.scenario import Options, Scenario
from tools.bench.scenarios import SCENARIOS

EPILOG = """
examples:
  python -m tools.bench chunks8k
  python -m tools.bench hello --peers catzilla,uvicorn-starlette --rounds 7
  python -m tools.bench sleepers --n 200 --seconds 5
  python -m tools.bench all --json bench.json
  python -m tools.bench all --quick

Each measurement starts a fresh server in its own process and a client in another, all on the loopback address. Peers
take turns within each round. The column "catzilla x" says how many times better catzilla did than that row: the median
of the ratios of each round, above 1 where catzilla is ahead. Without catzilla the first peer takes its place. `all`
takes about 40 minutes.
"""


def listing() -> str:
    """The names of all scenarios and peers, each with a line about it."""
    sections = {
        "scenarios": {
            name: each.title + (f"; n = {each.amount.count:,}" if each.amount.count else "")
            for name, each in SCENARIOS.items()
        },
        "peers": {name: each.about for name, each in PEERS.items()},
    }
    lines = []
    for title, entries in sections.items():
        width = max(map(len, entries))
        lines += [f"{title}:", *(f"  {name.ljust(width)}  {about}" for name, about in entries.items()), ""]
    return "\n".join(lines)


def chosen_peers(names: str) -> list[Peer]:
    """The peers named in a list with commas."""
    unknown = [name for name in names.split(",") if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    return [PEERS[name] for name in names.split(",")]


def chosen_scenarios(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names, each once.

    Raises:
        ValueError: no names, or one that is not known.
    """
    if not names:
        raise ValueError("name a scenario, or `all`; --list shows them")
    unknown = [name for name in names if name not in SCENARIOS and name != "all"]
    if unknown:
        raise ValueError(f"unknown scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}, and all")
    return [each for each in SCENARIOS.values() if "all" in names or each.name in names]


def positive_int(text: str) -> int:
    if int(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return int(text)


def positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Measures catzilla and its peers on the same work in one run.",
        epilog=f"{listing()}{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="scenarios to run, or `all`")
    add("--list", action="store_true", help="print the scenarios and the peers, and stop")
    add(
        "--rounds",
        type=positive_int,
        metavar="R",
        help="rounds, of which the median counts (default: 5, or 3 for the long scenarios)",
    )
    add("--peers", type=chosen_peers, metavar="A,B", help="peers with commas between (default: all)")
    add(
        "--seconds",
        type=positive,
        metavar="S",
        help="length of each measurement (default: as the scenario finds right)",
    )
    add(
        "--n",
        type=positive_int,
        dest="count",
        metavar="N",
        help="connections, or requests in `ttfb` (default: as the scenario says)",
    )
    add("--quick", action="store_true", help="one round of a fifth of the size: to see that all works, not to compare")
    add("--json", type=Path, metavar="FILE", help="write every sample, the figures and the machine to FILE")
    return parser


def end_on_sigterm(signum: int, frame: FrameType | None) -> None:
    """Leaves through every `finally`, so that no server survives."""
    raise SystemExit(128 + signum)


def run_scenario(scenario: Scenario, peers: Sequence[Peer], options: Options, base: str) -> dict[str, Any]:
    """Runs one scenario, prints its table, and returns it for the JSON."""
    amount = scenario.amount.adjusted(options)
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    end = "" if clear else "\n"
    results = rounds.run(scenario, peers, amount, lambda text: print(f"{clear}{text}", end=end, file=sys.stderr))
    print(clear, end="", file=sys.stderr, flush=True)
    rows = summary.summarise(scenario, results, base)
    print(report.table(scenario, amount, rows, base), end="\n\n", flush=True)
    return {**report.as_json(scenario, amount, results, rows, base), "load_after": os.getloadavg()[0]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 if some peer failed to be measured, 2 for a mistake on the command line."""
    parser = make_parser()
    asked = parser.parse_args(arguments)
    if asked.list:
        print(listing())
        return 0
    try:
        selected = chosen_scenarios(asked.names)
    except ValueError as mistake:
        parser.error(str(mistake))
    peers = asked.peers or list(PEERS.values())
    base = "catzilla" if any(peer.name == "catzilla" for peer in peers) else peers[0].name
    options = Options(asked.rounds, asked.seconds, asked.count, asked.quick)
    signal.signal(signal.SIGTERM, end_on_sigterm)
    raise_descriptor_limit()
    document: dict[str, Any] = {"machine": machine.describe(peers), "scenarios": {}}
    print(machine.line(document["machine"]), end="\n\n", flush=True)
    for scenario in selected:
        document["scenarios"][scenario.name] = run_scenario(scenario, peers, options, base)
        if asked.json:
            # After each scenario: a run of an hour that is interrupted keeps what it has.
            asked.json.write_text(json.dumps(document, indent=2) + "\n")
    failed = any(peer.get("errors") for each in document["scenarios"].values() for peer in each["peers"].values())
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
