"""The fixture `live_server` as a project that has catzilla installed meets it: in a pytest of its own."""

from __future__ import annotations

import pytest

PREAMBLE = """
import threading
from catzilla import Catzilla, StreamingResponse

app = Catzilla(production=True, show_banner=False)
running = threading.Event()

@app.get("/hello")
def hello():
    return "hi"

@app.get("/stuck")
def stuck_handler():
    running.set()
    threading.Event().wait(30)
    return ""

@app.get("/stream")
def rows():
    def stuck_rows():
        yield "one"
        running.set()
        threading.Event().wait(30)
        yield "two"
    return StreamingResponse(stuck_rows())
"""


@pytest.fixture
def outcome(pytester):
    """Runs one test in a process of its own, with nothing but the installed plugin."""

    def run(source: str) -> pytest.RunResult:
        pytester.makepyfile(PREAMBLE + source)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider")

    return run


def test_the_fixture_is_there_and_a_clean_test_passes(outcome):
    result = outcome("""
def test_it(live_server):
    assert live_server(app).get("/hello").text == "hi"
""")
    result.assert_outcomes(passed=1)


def test_a_test_that_leaks_a_thread_fails_and_the_handler_is_named(outcome):
    result = outcome("""
def test_it(live_server):
    live = live_server(app, shutdown_grace=0.1)
    live.connect().send_raw(b"GET /stuck HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    assert running.wait(10)
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.re_match_lines([r".*the thread catzilla-\S+ still runs `stuck_handler` \(.*test_\w+\.py:\d+\)"])
    result.stdout.fnmatch_lines(["*threading.Event().wait(30)*"])


def test_a_test_that_leaves_a_generator_unclosed_fails_and_it_is_named(outcome):
    result = outcome("""
def test_it(live_server):
    live = live_server(app, shutdown_grace=0.1)
    with live.stream("/stream") as stream:
        assert next(stream) == b"one"
        assert running.wait(10)
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the generator of *rows* was not closed*"])


def test_leaks_can_be_allowed(outcome):
    result = outcome("""
def test_it(live_server):
    live = live_server(app, shutdown_grace=0.1, allow_leaks=True)
    live.connect().send_raw(b"GET /stuck HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    assert running.wait(10)
""")
    result.assert_outcomes(passed=1)


def test_a_test_without_the_fixture_pays_nothing(outcome):
    """pytest loads the plugin in every run, so it may not bring the test client with it."""
    result = outcome("""
import sys
def test_it():
    assert "catzilla.testing" not in sys.modules
""")
    result.assert_outcomes(passed=1)
