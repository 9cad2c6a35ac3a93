"""The fixture `live_server` as a project that has catzilla installed meets it: in a pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

SUITE = """
import sys
import threading

def test_an_early_look():
    assert "catzilla.testing" not in sys.modules

from catzilla import Catzilla, StreamingResponse

app = Catzilla(production=True, show_banner=False)
running = threading.Event()

@app.get("/hello")
def hello():
    return "hi"

@app.get("/stuck")
def stuck_handler():
    running.set()
    threading.Event().wait(60)
    return ""

@app.get("/rows")
def rows():
    def stuck_rows():
        yield "one"
        running.set()
        threading.Event().wait(60)
        yield "two"
    return StreamingResponse(stuck_rows())

def get_stuck(live):
    running.clear()
    live.connect().send_raw(b"GET /stuck HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    assert running.wait(10)

def test_clean(live_server):
    assert live_server(app).get("/hello").text == "hi"

def test_leaked_thread(live_server):
    get_stuck(live_server(app, shutdown_grace=0.1))

def test_unclosed_generator(live_server):
    running.clear()
    with live_server(app, shutdown_grace=0.1).stream("/rows") as stream:
        assert next(stream) == b"one"
        assert running.wait(10)

def test_allowed(live_server):
    get_stuck(live_server(app, shutdown_grace=0.1, allow_leaks=True))

def test_clean_after_the_leaks(live_server):
    assert live_server(app).get("/hello").text == "hi"
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What pytest prints for SUITE, in a project of its own and with the installed plugin alone."""
    project = tmp_path_factory.mktemp("project")
    (project / "test_suite.py").write_text(SUITE)
    (project / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=50, check=False).stdout


def outcomes(output: str, test: str) -> list[str]:
    return re.findall(rf"^test_suite\.py::{test} (\w+)", output, re.MULTILINE)


def section(output: str, test: str) -> str:
    """The report of the one test that failed at its end."""
    after = output.partition(f"ERROR at teardown of {test} ")[2].partition("\n")[2]
    return re.split(r"^(?:_{3,}.*_{3,}|={3,}.*={3,})$", after, flags=re.MULTILINE)[0]


def test_the_fixture_is_there_and_a_clean_test_passes(output):
    assert outcomes(output, "test_clean") == ["PASSED"]


def test_a_leaked_thread_fails_the_test_and_names_the_handler(output):
    assert outcomes(output, "test_leaked_thread") == ["PASSED", "ERROR"]
    report = section(output, "test_leaked_thread")
    assert re.search(r"the thread catzilla-\S+ still runs `stuck_handler` \(.*test_suite\.py:\d+\)", report)
    assert "threading.Event().wait(60)" in report


def test_an_unclosed_generator_fails_the_test_and_is_named(output):
    assert outcomes(output, "test_unclosed_generator") == ["PASSED", "ERROR"]
    report = section(output, "test_unclosed_generator")
    assert re.search(r"the generator of \S*rows\S* was not closed", report)
    assert "`stuck_handler`" not in report  # leaked by the test before, and reported there


def test_leaks_can_be_allowed(output):
    assert outcomes(output, "test_allowed") == ["PASSED"]


def test_a_leak_is_held_against_one_test_only(output):
    assert outcomes(output, "test_clean_after_the_leaks") == ["PASSED"]


def test_the_plugin_brings_no_client_before_it_is_asked_for(output):
    """pytest loads the plugin in every run, so it may not cost one that does not use it."""
    assert outcomes(output, "test_an_early_look") == ["PASSED"]
