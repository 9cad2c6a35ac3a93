"""Checks the architecture: imports go down only, one idea a file, no module that shadows the standard library.

    python -m tools.floors

Reads the code, never runs it. An import inside a function or under `TYPE_CHECKING` counts like any other: a name that
a module knows is a name that it depends on. Modules of one floor may know each other as long as none of them, at
import time, waits for itself.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "catzilla"

# The building, roof first. A module may import what stands on its own floor or below it. `dir/*` is a whole package.
FLOORS = """
entry      __init__ __main__ cli loading serve reload banner pytest_plugin testing/* client
assembly   app pipeline handshake
live       streaming writer events websocket socket_binding socket_handlers rooms room_config room_server
           room_stream brokers/* recovery auth origins tickets stats middleware error_pages
words      request response router groups handlers patterns headers cookies multimap json_text forms files conditional
           sse sse_parser settings errors
process    _core/server _core/sockets _core/supervisor _core/tls_listener
wires      _core/http_connection _core/http_responses _core/ws_connection _core/ws_output _core/socket_handling
           _core/upgrade _core/wire _core/dispatch _core/services _core/access_log _core/file_sender
gears      _core/bridge _core/stream _core/pulled_stream _core/written_stream _core/fed_stream _core/body
           _core/worker _core/workers _core/pace _core/current _core/timers _core/loop_handle _core/fanout _core/turns
           _core/waits _core/reinforcement _core/leader _core/quick_turns
rules      _core/http1 _core/ws _core/ws_handshake _core/watermark _core/history _core/outbox _core/burst _core/rate
terms      _core/__init__ _core/messages _core/publication _core/errors _core/codes _core/limits _core/clock
"""

# Floors whose modules are functions of their input: testable without a thread, a socket, a clock or a loop.
PURE_FLOORS = {"words", "rules"}
IMPURE = {"asyncio", "concurrent", "multiprocessing", "queue", "selectors", "socket", "threading", "time", "uvloop"}

QUESTIONED_LINES = 400
REFUSED_LINES = 600
MEASURED = (PACKAGE, "tools", "examples")


@dataclass(frozen=True)
class Import:
    """One imported module. `at_import` is false inside a function and under `TYPE_CHECKING`."""

    module: str
    line: int
    at_import: bool


@dataclass
class Report:
    """What was found. Only `errors` fail the check."""

    errors: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)


class Building:
    """The table of floors: which module stands where."""

    def __init__(self, table: str = FLOORS) -> None:
        rows = [row.split() for row in re.split(r"\n(?=\S)", table.strip())]  # an indented line goes on with its floor
        self.names = [row[0] for row in rows]
        self._floor_of = {entry: len(rows) - height for height, row in enumerate(rows) for entry in row[1:]}

    def floor(self, path: str) -> int | None:
        """The floor of a module such as `_core/bridge`, counted from 1 at the bottom; None if the table lacks it."""
        if path in self._floor_of:
            return self._floor_of[path]
        parents = path.split("/")[:-1]
        wholes = ("/".join([*parents[:depth], "*"]) for depth in range(len(parents), 0, -1))
        return next((self._floor_of[whole] for whole in wholes if whole in self._floor_of), None)

    def name(self, floor: int) -> str:
        return self.names[len(self.names) - floor]


def module_path(file: Path, package: Path) -> str:
    """`_core/bridge` for `catzilla/_core/bridge.py`: how the table writes it."""
    return file.relative_to(package).with_suffix("").as_posix()


def imports(tree: ast.Module, file: Path, root: Path) -> Iterator[Import]:
    """Every import of a file, absolute, whether it is written relative or not; `from a import b` gives `a.b` and `a`'s
    own file only if `b` is no module."""
    here = list(file.relative_to(root).with_suffix("").parts[:-1])

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield Import(inner if is_module(inner, root) else origin, node.lineno, at_import)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from walk(statement, False)
            for statement in node.orelse:
                yield from walk(statement, at_import)
        else:
            inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inside)

    yield from walk(tree, True)


def is_module(dotted: str, root: Path) -> bool:
    path = root.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def known_as(dotted: str, root: Path) -> str | None:
    """How the table writes an imported module: `_core/bridge` for `catzilla._core.bridge`; None for a foreign one."""
    top, *rest = dotted.split(".")
    if top != PACKAGE:
        return None
    if (root.joinpath(top, *rest) / "__init__.py").is_file():
        rest.append("__init__")
    return "/".join(rest)


def check_imports(root: Path, building: Building, report: Report) -> None:
    """Refuses unknown modules, imports that go up, impure imports on a pure floor, and cycles."""
    package = root / PACKAGE
    graph: dict[str, set[str]] = {}
    for file in sorted(package.rglob("*.py")):
        name, shown = module_path(file, package), file.relative_to(root)
        floor = building.floor(name)
        if floor is None:
            report.errors.append(f"{shown}: stands on no floor; add `{name}` to the table FLOORS in tools/floors.py")
            continue
        edges = graph.setdefault(name, set())
        for found in imports(ast.parse(file.read_bytes(), str(file)), file, root):
            target = known_as(found.module, root)
            where = f"{shown}:{found.line}"
            if target is None:
                check_pure(found.module, building.name(floor), where, report)
                continue
            check_direction(target, floor, building, where, report)
            if found.at_import:
                edges.add(target)
    report.errors.extend(f"a cycle of imports: {' -> '.join(cycle)}" for cycle in cycles(graph))


def check_pure(module: str, floor: str, where: str, report: Report) -> None:
    if floor in PURE_FLOORS and module.split(".", maxsplit=1)[0] in IMPURE:
        report.errors.append(
            f"{where}: imports {module}, but the floor {floor!r} is pure (no threads, sockets, clock or loop); "
            f"take the value as an argument, or move the code to the gears"
        )


def check_direction(target: str, floor: int, building: Building, where: str, report: Report) -> None:
    above = building.floor(target)
    if above is not None and above > floor:
        report.errors.append(
            f"{where}: imports {target} ({building.name(above)}) from the floor {building.name(floor)!r} below it; "
            f"imports only go down: pass in what is needed, or move the code"
        )


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One cycle for each knot of modules that import each other, written so that it ends where it begins."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            found.append([*trail[trail.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            visit(target, [*trail, module])
        done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def check_lengths(root: Path, report: Report) -> None:
    """One idea a file: a long one is questioned, a very long one refused."""
    for file in sorted(file for top in MEASURED for file in (root / top).rglob("*.py")):
        lines = len(file.read_bytes().splitlines())
        shown = f"{file.relative_to(root)}: {lines} lines"
        if lines > REFUSED_LINES:
            report.errors.append(f"{shown}, over {REFUSED_LINES}: split it by idea")
        elif lines > QUESTIONED_LINES:
            report.questions.append(f"{shown}, over {QUESTIONED_LINES}: is this still one idea?")


def check_names(root: Path, report: Report) -> None:
    """No module named like one of the standard library: `import queue` must have one answer."""
    for file in sorted((root / PACKAGE).rglob("*.py")):
        names = {file.stem, *file.relative_to(root / PACKAGE).parts[:-1]}
        for name in sorted(names & sys.stdlib_module_names):
            report.errors.append(
                f"{file.relative_to(root)}: `{name}` shadows the standard library; name it by its noun"
            )


def check(root: Path, table: str = FLOORS) -> Report:
    """Everything there is to say about the tree under `root`."""
    report = Report()
    check_imports(root, Building(table), report)
    check_lengths(root, report)
    check_names(root, report)
    return report


def main() -> int:
    report = check(Path(__file__).resolve().parent.parent)
    for question in report.questions:
        print(f"question: {question}")
    for error in report.errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
