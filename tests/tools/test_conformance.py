"""The Autobahn TestSuite: its tool piece by piece, then the quick part of the suite itself against catzilla."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from tools.conformance import report, runs, selection, server, suite
from tools.conformance.runs import Result

ROOT = Path(__file__).parents[2]
QUICK_TIMEOUT = 420
"""Seconds for what takes half a minute: under coverage, on a busy machine, every message is that much slower."""


@pytest.fixture
def kosoku() -> None:
    """The suite, installed: a test fetches nothing."""
    if not suite.is_installed():
        pytest.skip(f"NO KOSOKU: the Autobahn TestSuite is not installed: pip install kosoku=={suite.VERSION}")


def conformance(*arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    """The tool run to its end, with what it printed."""
    command = [sys.executable, "-m", "tools.conformance", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


# Which cases


def test_a_selection_names_groups_ranges_and_cases() -> None:
    assert selection.parse("1-3,9, 12.1,7.1.5") == ["1", "2", "3", "9", "12.1", "7.1.5"]


@pytest.mark.parametrize("text", ["", "1-", "1,,2", "7.*", "-1", "1.2.3.4"])
def test_a_selection_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is neither a group"):
        selection.parse(text)


def test_a_number_selects_what_it_begins_and_not_what_looks_alike() -> None:
    cases = ["1.1.1", "2.1", "7.1.5", "7.13.1", "12.1.1", "12.1.11"]
    assert selection.selected(cases, ["7.1", "12.1.1", "2"]) == ["2.1", "7.1.5", "12.1.1"]
    assert selection.selected(cases, ["1"]) == ["1.1.1"]


def test_the_quick_part_has_every_group_and_every_kind_of_compression() -> None:
    quick = selection.parse(selection.QUICK)
    assert {name.split(".")[0] for name in quick} == set(selection.parse(selection.ALL))
    assert {name.rpartition(".")[0] for name in quick if "." in name} == {
        *(f"12.{part}" for part in range(1, 6)),
        *(f"13.{part}" for part in range(1, 8)),
    }


# Where the suite comes from


def test_the_extra_installs_the_version_that_the_tool_wants() -> None:
    assert f'"kosoku=={suite.VERSION};' in (ROOT / "pyproject.toml").read_text()


def test_a_suite_that_cannot_be_had_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "is_installed", lambda: False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(suite.SuiteMissing, match=r"pip install kosoku==(.|\n)*No matching distribution"):
        suite.ensure(tmp_path)


def test_what_was_fetched_once_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "is_installed", lambda: False)
    monkeypatch.setattr(suite, "install", lambda target: pytest.fail("fetched again"))
    package = tmp_path / f"kosoku-{suite.VERSION}" / "kosoku"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert suite.ensure(tmp_path) == [str(package.parent)]


# Results


@pytest.mark.parametrize(
    ("behavior", "close", "verdict"),
    [
        ("OK", "OK", "OK"),
        ("NON-STRICT", "OK", "NON-STRICT"),
        ("INFORMATIONAL", "INFORMATIONAL", "INFORMATIONAL"),
        ("UNIMPLEMENTED", "OK", "UNIMPLEMENTED"),
        ("FAILED", "OK", "FAILED"),
        ("ERROR", "", "FAILED"),
        ("OK", "WRONG CODE", "FAILED"),
        ("OK", "UNCLEAN", "FAILED"),
        ("OK", "FAILED BY CLIENT", "FAILED"),
        ("NON-STRICT", "FAILED", "FAILED"),
    ],
)
def test_a_case_is_counted_by_its_answer_and_by_its_end(behavior: str, close: str, verdict: str) -> None:
    assert Result("1.1.1", behavior, close).verdict == verdict
    assert verdict in report.VERDICTS


def test_the_table_counts_every_group_and_all_together() -> None:
    results = [
        Result("9.1.1", "OK", "OK", milliseconds=1500),
        Result("12.1.1", "UNIMPLEMENTED", "OK"),
        Result("9.1.2", "FAILED", "OK", milliseconds=500),
        Result("9.10.1", "OK", "OK"),
    ]
    head, nine, twelve, whole = (line.split() for line in report.table(results).splitlines())
    assert head == ["group", "cases", "OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED", "seconds"]
    assert nine == ["9", "limits", "and", "performance", "3", "2", "-", "-", "-", "1", "2.0"]
    assert twelve == ["12", "compression", "1", "-", "-", "-", "1", "-", "0.0"]
    assert whole == ["all", "4", "2", "-", "-", "1", "1", "2.0"]


def test_a_failed_case_is_explained_on_lines_of_their_own() -> None:
    line = {
        "id": "7.1.5",
        "behavior": "FAILED",
        "close": "WRONG CODE",
        "passed": False,
        "description": "Send a fragment,<br>then close",
        "expectation": "Clean close\n  with normal code.",
        "result": "The close code should have been 1000 or empty",
        "expected_close_codes": [1000],
        "close_code": 1002,
        "close_reason": "incomplete",
    }
    assert report.explain(Result.from_json(line)).splitlines() == [
        "FAILED 7.1.5 (FAILED)",
        "  sent: Send a fragment, then close",
        "  expected: Clean close with normal code.",
        "  outcome: The close code should have been 1000 or empty",
        "  ending: WRONG CODE:",
        "  close code: 1002 'incomplete', expected [1000]",
    ]


def test_a_connection_that_was_never_open_is_explained_too() -> None:
    line = {"id": "1.1.1", "behavior": "ERROR", "close": "FAILED", "result": "refused", "close_code": None}
    assert "  outcome: refused" in report.explain(Result.from_json(line)).splitlines()


# The processes


def collected(source: str, monkeypatch: pytest.MonkeyPatch, silence: float = 30.0) -> list[Result]:
    """What a driver that is `source` comes to."""
    monkeypatch.setattr(runs, "DRIVER", python(source))
    monkeypatch.setattr(runs, "SILENCE_TIMEOUT", silence)
    return runs.run("ws://127.0.0.1:9", ["1"], [])


SAYS = """
import json, sys, threading
def say(**document): print(json.dumps(document), flush=True)
say(selected=["1.1.1", "1.1.2", "1.1.3"])
say(id="1.1.1", behavior="OK", close="OK")
"""
FALLS_SILENT = "print('no more', file=sys.stderr, flush=True); threading.Event().wait(50)"


@pytest.mark.parametrize("end", ["sys.exit('no more')", FALLS_SILENT])
def test_what_a_driver_leaves_undone_has_failed(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = collected(SAYS + end, monkeypatch, silence=2.0)
    assert [(result.id, result.verdict) for result in results] == [
        ("1.1.1", "OK"),
        ("1.1.2", "FAILED"),
        ("1.1.3", "FAILED"),
    ]
    assert "no more" in results[1].result


def test_a_driver_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(runs.DriverFailed, match="no kosoku here"):
        collected("raise SystemExit('no kosoku here')", monkeypatch)


def test_no_case_at_all_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(runs.DriverFailed, match="no such cases"):
        collected("print('{\"selected\": []}')", monkeypatch)


def serve_once(source: str) -> None:
    """Start `source` as the server under test and have it stop."""
    with server.running(python(source)) as url:
        assert url == "ws://127.0.0.1:1/"


LISTENS = "import sys, threading; print(1, flush=True)\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise SystemExit('cannot')", "did not listen(.|\n)*cannot"),
        (LISTENS + "raise SystemExit(3)", "with status 3"),
        (LISTENS + "sys.stdin.read(); raise SystemExit('left a thread')", "status 1(.|\n)*left a thread"),
        (LISTENS + "threading.Event().wait(50)", "did not stop within"),
    ],
)
def test_a_server_that_misbehaves_is_an_error(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_TIMEOUT", 3.0)
    with pytest.raises(server.ServerFailed, match=message):
        serve_once(source)


def test_a_server_that_stops_when_it_is_told_to_is_none() -> None:
    serve_once(LISTENS + "sys.stdin.read()")


@pytest.fixture
def wrong_echo() -> Iterator[str]:
    """The URL of a server that answers what nobody has sent."""

    def answer(ws: ServerConnection) -> None:
        for _ in ws:
            ws.send("something else")

    with serve(answer, "127.0.0.1", 0) as wrong:
        thread = threading.Thread(target=wrong.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{wrong.socket.getsockname()[1]}/"
        wrong.shutdown()
        thread.join(10)


# The whole


def test_a_server_that_fails_is_found_out(kosoku: None, wrong_echo: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    run = conformance("--groups", "1.1.1,1.1.2,2.1", "--server", wrong_echo, "--json", str(file))
    assert run.returncode == 1, run.stdout + run.stderr
    verdicts = {result["id"]: result["behavior"] for result in json.loads(file.read_text())}
    assert verdicts == {"1.1.1": "FAILED", "1.1.2": "FAILED", "2.1": "OK"}
    assert "FAILED 1.1.2 (FAILED)" in run.stdout
    assert "something else" in run.stdout  # what it received


def test_a_server_that_is_not_there_has_failed(kosoku: None) -> None:
    run = conformance("--groups", "1.1.1", "--server", "ws://127.0.0.1:9")
    assert run.returncode == 1
    assert "FAILED 1.1.1 (ERROR)" in run.stdout


@pytest.mark.parametrize("groups", ["8", "one"])
def test_a_mistake_on_the_command_line_is_one_message(kosoku: None, groups: str) -> None:
    run = conformance("--groups", groups, "--server", "ws://127.0.0.1:9")
    assert run.returncode == 2
    assert "error:" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.timeout(QUICK_TIMEOUT + 30)
def test_catzilla_conforms(kosoku: None, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    run = conformance("--quick", "--json", str(file), timeout=QUICK_TIMEOUT)
    assert run.returncode == 0, run.stdout + run.stderr
    results = [Result.from_json(document) for document in json.loads(file.read_text())]
    counts = Counter(result.verdict for result in results)
    # Compression was agreed on wherever it was offered: what is UNIMPLEMENTED fails nothing, and tests nothing.
    assert set(counts) == {"OK", "NON-STRICT", "INFORMATIONAL"}
    assert counts["OK"] > 0.9 * len(results) > 270
