"""What all tests share: Hypothesis without its stopwatch, a real browser, and no silent skips in CI."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import settings

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

settings.register_profile("catzilla", deadline=None, print_blob=True)  # a busy machine is not a slow function
settings.load_profile("catzilla")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI everything is installed, so a skip means that a promise went unchecked."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: nothing may be skipped in CI, yet: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    # An expected failure reports itself as skipped too; so may what only another platform can run.
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("platform_only")
    if IN_CI and report.skipped and not expected:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if IN_CI and report.outcome == "skipped":
        _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium driven by Selenium, one for the whole run. Mark the test with `browser`."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        missing = "chromium" if not browser else "chromedriver"
        pytest.skip(f"NO BROWSER: {missing} is not installed; on Debian: apt-get install chromium chromium-driver")

    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    # Left alone, it looks for updates, suggestions and accounts: a test talks to loopback only.
    for argument in ("background-networking", "component-update", "sync", "quic"):
        options.add_argument(f"--disable-{argument}")
    options.add_argument("--no-first-run")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses its sandbox to root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = Chrome(options=options, service=Service(driver))
    window.set_page_load_timeout(20)
    yield window
    window.quit()
