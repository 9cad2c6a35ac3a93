"""The command line: `python -m tools.conformance`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools.conformance import report, runs, selection, server, suite
from tools.conformance.runs import Result

EPILOG = """
examples:
  python -m tools.conformance
  python -m tools.conformance --quick
  python -m tools.conformance --groups 1-7,12.1
  python -m tools.conformance --groups 7.1.5 --server ws://127.0.0.1:9001

The suite is kosoku, which runs the case files of the Autobahn TestSuite; without the extra `test` it is fetched from
the package index. The server is an echo of catzilla on the loopback address with compression on, its limits on
messages raised and no keepalive pings, which the suite takes for a failure. OK, NON-STRICT (a SHOULD of the RFC not
followed), INFORMATIONAL (the RFC leaves it open) and UNIMPLEMENTED (an option of compression declined) conform; FAILED
does not. All of it takes about a quarter of an hour.
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.conformance",
        description="Runs the Autobahn TestSuite against catzilla's WebSockets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--groups", default=selection.ALL, metavar="1-7,9,12.1", help="groups and cases (default: all, %(default)s)"
    )
    which.add_argument("--quick", action="store_true", help="all but compression, and samples of that: under a minute")
    parser.add_argument("--server", metavar="URL", help="test this echo server, such as ws://127.0.0.1:9001")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result to FILE")
    return parser


def server_at(url: str | None) -> contextlib.AbstractContextManager[str]:
    """The server that was asked for, or one of catzilla's."""
    return contextlib.nullcontext(url) if url else server.running()


@contextlib.contextmanager
def progress() -> Iterator[Callable[[Result], None]]:
    """Shows which case has ended: on a terminal in a line that is gone afterwards, elsewhere a line a group."""
    seen: set[int] = set()
    on_terminal = sys.stderr.isatty()

    def show(result: Result) -> None:
        if on_terminal:
            print(f"\r\x1b[K{result.id} {result.verdict}", end="", file=sys.stderr, flush=True)
        elif result.group not in seen:
            print(f"group {result.group}", file=sys.stderr, flush=True)
        seen.add(result.group)

    try:
        yield show
    finally:
        if on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 if a case FAILED or the server did, 2 if nothing could be run."""
    parser = make_parser()
    asked = parser.parse_args(arguments)
    try:
        prefixes = selection.parse(selection.QUICK if asked.quick else asked.groups)
    except ValueError as mistake:
        parser.error(str(mistake))
    results: list[Result] = []
    broken = ""
    try:
        paths = suite.ensure()
        with server_at(asked.server) as url, progress() as watch:
            results = runs.run(url, prefixes, paths, watch)
    except (suite.SuiteMissing, runs.DriverFailed) as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except server.ServerFailed as failure:
        broken = str(failure)
    if asked.json:
        asked.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=2) + "\n")
    return conclude(results, broken)


def conclude(results: Sequence[Result], broken: str) -> int:
    """Prints the counts, then what failed; `broken` is what befell the server, if anything did."""
    if results:
        print(report.table(results))
    failed = report.failed(results)
    for result in failed:
        print(f"\n{report.explain(result)}")
    if broken:
        print(f"\n{broken}")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
