"""In CI a skipped test is a failed one: what tests/conftest.py refuses, in a pytest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py").read_text()


@pytest.fixture
def outcomes(pytester, monkeypatch):
    """Runs a test file under this project's conftest, in CI or not; gives the outcomes and the output."""

    def run(source: str, ci: str) -> tuple[dict[str, int], str]:
        monkeypatch.setenv("CI", ci)
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile("import pytest\n" + source)
        pytester.makeini("[pytest]\nmarkers = platform_only")
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
        return result.parseoutcomes(), result.stdout.str()

    return run


SKIPPED = "def test_it():\n    pytest.skip('no redis-server')"


def test_a_skip_is_a_failure_in_ci_and_says_what_is_missing(outcomes):
    counts, output = outcomes(SKIPPED, ci="true")
    assert counts == {"failed": 1}
    assert "nothing may be skipped in CI, yet: Skipped: no redis-server" in output


@pytest.mark.parametrize("ci", ["", "0", "false"])
def test_elsewhere_a_skip_is_a_skip(outcomes, ci):
    counts, _ = outcomes(SKIPPED, ci)
    assert counts == {"skipped": 1}


def test_a_skip_in_a_fixture_and_one_by_a_mark_are_refused_too(outcomes):
    counts, _ = outcomes(
        """
@pytest.fixture
def browser():
    pytest.skip("no browser")

def test_fixture(browser):
    pass

@pytest.mark.skipif(True, reason="no nginx")
def test_mark():
    pass
""",
        ci="true",
    )
    assert sum(counts.values()) == 2
    assert "skipped" not in counts


def test_a_file_that_skips_itself_is_refused_too(outcomes):
    counts, output = outcomes("pytest.importorskip('there_is_no_such_module')", ci="true")
    assert "skipped" not in counts
    assert "there_is_no_such_module" in output


def test_what_depends_on_the_platform_may_be_skipped(outcomes):
    counts, _ = outcomes("@pytest.mark.platform_only\n" + SKIPPED, ci="true")
    assert counts == {"skipped": 1}


def test_an_expected_failure_is_no_skip(outcomes):
    counts, _ = outcomes("@pytest.mark.xfail\ndef test_it():\n    assert False", ci="true")
    assert counts == {"xfailed": 1}
