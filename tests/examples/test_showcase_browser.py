"""The showcase in a real browser: every card is used as a person would, and shows what it should.

Each test waits for what the page shows, and ends with a look at the browser's console.
"""

from __future__ import annotations

import hashlib

import pytest

from examples import server_sent_events, showcase, token_stream
from tests.examples.page import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def page(live_server, chromium):
    live = live_server(showcase.app)
    chromium.get_log("browser")  # forgets what another test left
    chromium.get(live.url)
    page = Page(chromium)
    page.expected_errors = []
    page.wait(lambda: page.text("#active") != "–", "the first statistics")
    yield page
    errors = page.console_errors()
    chromium.get("about:blank")  # leaves every stream
    assert len(errors) == len(page.expected_errors), errors
    assert all(part in error for part, error in zip(page.expected_errors, errors, strict=True)), errors


def test_tokens_appear_word_by_word(page):
    field = page.find("#tokens input")
    field.clear()
    field.send_keys("Are you there?")
    page.start("tokens")
    answer = token_stream.ANSWER.format(prompt="Are you there?")
    part = page.wait(lambda: page.text("#tokens .output"), "the first token")
    assert len(part) < len(answer)
    assert page.state("tokens") == "running"
    assert "reads" in page.finish("tokens")
    assert page.text("#tokens .output") == answer


def test_stopping_closes_the_generator(page):
    def count() -> int:  # of the whole process, with commas
        return int(page.text("#disconnects").replace(",", ""))

    left = count()
    page.start("tokens")
    page.wait(lambda: page.text("#tokens .output"), "the first token")
    page.stop("tokens")
    page.wait(lambda: count() > left, "the server to notice")
    page.wait(lambda: "token_stream" not in page.text("#streams"), "the stream to be gone")


def test_events(page, hurry):
    hurry(server_sent_events, 0.2)
    page.start("events")
    page.wait(lambda: "#2  {'count': 2," in page.text("#events .output"), "the third event")
    page.stop("events")
    assert page.text("#events .output").startswith("#0  {'count': 0,")


def test_progress(page):
    page.start("progress")
    seen = page.wait(lambda: page.find("#progress progress").get_property("value"), "progress")
    assert 0 < seen < 100
    assert page.finish("progress") == "the job is done"
    assert page.text("#progress .big") == "100 %"


@pytest.mark.parametrize("source", ["/live/csv", "/live/csv-file"])
def test_csv_rows_appear_while_they_are_written(page, source):
    page.choose("csv", source)
    page.start("csv")
    page.wait(lambda: "item-5" in page.text("#csv .output"), "some rows")
    assert page.text("#csv th") == "id"
    page.stop("csv")


def test_csv_from_sqlite(page):
    page.start("csv")
    assert page.finish("csv").startswith("200,000 rows, ")
    assert page.text("#csv tr:last-child td") == "200000"


def test_json_lines(page):
    page.start("ndjson")
    assert page.finish("ndjson").startswith("50 rows in ")
    assert len(page.all("#ndjson tr")) == 51


def test_plain_text(page):
    page.start("text")
    part = page.wait(lambda: page.text("#text .output"), "the first line")
    assert "Count: 9" not in part
    page.finish("text")
    assert page.text("#text .output").splitlines() == [f"Count: {i}" for i in range(10)]


def test_throughput(page):
    page.choose("throughput", "16")
    page.start("throughput")
    assert "16.8 MB in " in page.finish("throughput")
    assert int(page.text("#throughput .big")) > 0
    assert page.find("#throughput progress").get_property("value") == 100
    page.wait(lambda: "MB" in page.text("#bytes"), "the statistics to have it")


def test_a_slow_reader_pauses_the_generator(page):
    page.start("slow")
    page.wait(lambda: page.text("#generator") == "waiting for the client", "the generator to be paused")
    page.wait(lambda: float(page.text("#read").split()[0]) >= 2, "the page to have read something")
    ahead = float(page.text("#made").split()[0]) - float(page.text("#read").split()[0])
    assert 0 < ahead < 48  # MiB: the buffers of the kernel and the browser
    page.stop("slow")
    page.wait(lambda: page.text("#generator") == "closed", "the generator to be closed")


def test_an_early_failure_is_a_500(page):
    page.expected_errors = ["/errors/early"]
    page.click("#failures [data-run=early]")
    assert page.finish("failures") == "a whole response, with status 500"
    assert page.text("#failures .output").startswith("The browser sees: 500 Internal Server Error")


def test_a_late_failure_is_a_cut(page):
    page.expected_errors = ["ERR_INCOMPLETE_CHUNKED_ENCODING"]
    cut = int(page.text("#errors"))
    page.click("#failures [data-run=late]")
    assert "the response was cut" in page.finish("failures", "failed")
    assert page.text("#failures .output").splitlines() == [f"line {number} of 10" for number in range(1, 6)]
    page.wait(lambda: int(page.text("#errors")) > cut, "the statistics to have it")


def test_upload(page, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"a few words\n" * 1000)
    page.find("#upload input[type=file]").send_keys(str(path))
    page.start("upload")
    assert page.finish("upload") == "status 200"
    answer = page.text("#upload .output")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in answer
    assert '"filename": "notes.txt"' in answer


def test_download(page):
    page.start("download")
    assert page.finish("download").startswith("status 206, Content-Range: bytes 0-99/")
    assert page.text("#download .output") == (showcase.FOLDER / "showcase.py").read_text(encoding="utf-8")[:100]


def test_live_statistics(page):
    page.wait(lambda: "examples.showcase.live_stats" in page.text("#streams"), "the row of the statistics themselves")
    assert page.state("statistics") == "running"
    assert int(page.text("#active")) == len(page.all("#streams tbody tr"))
    points = page.wait(lambda: page.find("#spark polyline").get_dom_attribute("points"), "the throughput line")
    page.wait(lambda: page.find("#spark polyline").get_dom_attribute("points") != points, "it to go on")


def test_every_card_shows_its_source(page):
    for card in page.all("[data-source]:is(section, article)"):
        page.click(f"#{card.get_dom_attribute('id')} summary")
    sources = [
        f"#{card.get_dom_attribute('id')} details pre" for card in page.all("[data-source]:is(section, article)")
    ]
    assert len(sources) == 17
    for source in sources:
        page.wait(lambda source=source: "catzilla run examples." in page.text(source), f"{source} to be filled")


def test_the_theme_is_kept(page):
    background = "return getComputedStyle(document.body).backgroundColor"
    before = page.browser.execute_script(background)
    page.click("#theme")
    after = page.browser.execute_script(background)
    assert after != before
    page.browser.refresh()
    assert page.browser.execute_script(background) == after
    page.browser.execute_script("localStorage.clear()")


def test_everything_has_a_name_for_a_screen_reader(page):
    controls = page.all("button, select, input:not([type=hidden]), progress, summary, [role=region]")
    assert len(controls) > 25
    assert [control.get_attribute("outerHTML") for control in controls if not control.accessible_name] == []


def test_it_fits_a_telephone(page):
    telephone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", telephone)
    try:
        width = "const root = document.documentElement; return [root.clientWidth, root.scrollWidth]"
        visible, needed = page.browser.execute_script(width)
        assert visible <= 360
        assert needed <= visible
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
