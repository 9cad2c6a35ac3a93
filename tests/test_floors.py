"""tools/floors.py on small made trees: what it must refuse, and what it must let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import floors

TABLE = """
entry   __init__ cli testing/*
words   request sse
terms   _core/__init__ _core/messages
"""


@pytest.fixture
def errors(tmp_path):
    """Writes a tree of `{path: source}` under a package and returns what the check refuses about it."""

    def write_and_check(files: dict[str, str], table: str = TABLE) -> list[str]:
        for path, source in {"__init__.py": "", "_core/__init__.py": "", **files}.items():
            file = tmp_path / "catzilla" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        return floors.check(tmp_path, table).errors

    return write_and_check


@pytest.mark.parametrize(
    "source",
    [
        "from catzilla._core.messages import Head",
        "from catzilla._core import messages",
        "from ._core import messages",
        "import catzilla._core.messages as messages",
        "import json",
    ],
)
def test_imports_that_go_down_or_out_pass(errors, source):
    assert errors({"_core/messages.py": "", "request.py": source}) == []


@pytest.mark.parametrize(
    "source",
    [
        "from catzilla.request import Request",
        "from catzilla import request",
        "from .. import request",
        "from ..request import Request",
        "import catzilla.request",
        "def late():\n    from catzilla.request import Request",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from catzilla.request import Request",
        "import typing\nif typing.TYPE_CHECKING:\n    from catzilla.request import Request",
        "try:\n    import catzilla.request\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_that_goes_up_is_refused_however_it_is_written(errors, source):
    (error,) = errors({"_core/messages.py": source, "request.py": ""})
    assert (
        f"catzilla/_core/messages.py:{source.count(chr(10), 0, source.index('request')) + 1}: imports request" in error
    )
    assert "(words) from the floor 'terms' below it" in error


def test_the_package_itself_stands_at_the_entry(errors):
    (error,) = errors({"request.py": "from catzilla import Catzilla"})
    assert "catzilla/request.py:1: imports __init__ (entry)" in error


def test_a_module_that_is_not_in_the_table_is_named(errors):
    assert errors({"_core/gizmo.py": ""}) == [
        "catzilla/_core/gizmo.py: stands on no floor; add `_core/gizmo` to the table FLOORS in tools/floors.py"
    ]


def test_a_star_takes_in_a_whole_package(errors):
    assert errors({"testing/__init__.py": "", "testing/deep/wire.py": "import socket"}) == []


def test_modules_of_one_floor_may_know_each_other(errors):
    assert errors({"request.py": "from catzilla.sse import Event", "sse.py": ""}) == []


def test_a_cycle_at_import_time_is_refused(errors):
    assert errors({"request.py": "from catzilla import sse", "sse.py": "from catzilla import request"}) == [
        "a cycle of imports: request -> sse -> request"
    ]


@pytest.mark.parametrize(
    "source",
    [
        "def late():\n    from catzilla import request",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from catzilla import request",
    ],
)
def test_a_cycle_that_no_import_waits_for_passes(errors, source):
    assert errors({"request.py": "from catzilla import sse", "sse.py": source}) == []


@pytest.mark.parametrize("module", ["asyncio", "threading", "socket", "time", "concurrent.futures"])
def test_the_words_are_pure(errors, module):
    (error,) = errors({"sse.py": f"import {module}"})
    assert error.startswith(f"catzilla/sse.py:1: imports {module}, but the floor 'words' is pure")


def test_a_name_of_the_standard_library_is_refused(errors):
    found = errors({"queue.py": ""}, TABLE.replace("words ", "words queue "))
    assert found == ["catzilla/queue.py: `queue` shadows the standard library; name it by its noun"]


@pytest.mark.parametrize(("lines", "refused", "questioned"), [(400, 0, 0), (401, 0, 1), (600, 0, 1), (601, 1, 0)])
def test_a_long_file_is_questioned_and_a_very_long_one_refused(tmp_path, lines, refused, questioned):
    for path in ("catzilla/__init__.py", "tools/long.py"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text("")
    (tmp_path / "tools" / "long.py").write_text("x = 1\n" * lines)

    report = floors.check(tmp_path, TABLE.replace("_core/__init__", ""))

    assert (len(report.errors), len(report.questions)) == (refused, questioned)
    assert all(f"tools/long.py: {lines} lines" in line for line in report.errors + report.questions)


def test_the_table_reads_from_the_roof_down():
    building = floors.Building()
    assert building.name(building.floor("_core/messages")) == "terms"
    assert building.name(building.floor("brokers/memory")) == "live"
    assert building.name(building.floor("testing/http_client")) == "entry"
    assert building.floor("cli") > building.floor("app") > building.floor("sse") > building.floor("_core/server")


def test_this_checkout_stands():
    root = Path(floors.__file__).resolve().parent.parent
    assert floors.check(root).errors == []


def test_the_command_fails_when_something_is_refused(errors, tmp_path, monkeypatch, capsys):
    errors({"_core/gizmo.py": ""})
    monkeypatch.setattr(floors, "__file__", str(tmp_path / "tools" / "floors.py"))

    assert floors.main() == 1
    assert "error: catzilla/_core/gizmo.py: stands on no floor" in capsys.readouterr().err
