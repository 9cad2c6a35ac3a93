"""The showcase without a browser: its own routes, and that it shows every example."""

from __future__ import annotations

import json
import re

import pytest

from catzilla.testing import IncompleteBody
from examples import showcase, token_stream


@pytest.fixture
def live(live_server):
    return live_server(showcase.app)


def test_the_page_asks_nobody_else(live):
    page = live.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+""", page.text)) == {"http://www.w3.org"}  # a namespace


def test_every_example_is_mounted():
    handlers = {name for _, _, name in showcase.app.routes()}
    files = {path.stem for path in showcase.FOLDER.glob("*.py")} - {"__init__", "showcase"}
    assert {name.split(".")[1] for name in handlers} == files | {"showcase"}


def test_the_sources_behind_the_cards(live):
    assert live.get("/source/token_stream.py").text == (showcase.FOLDER / "token_stream.py").read_text(encoding="utf-8")
    assert live.get("/source/showcase.html").status_code == 404
    assert set(re.findall(r'data-source="([^"]+)"', live.get("/").text)) <= set(live.get("/live/files").json())


def test_throughput(live):
    assert len(live.get("/throughput/3").body) == 3 * showcase.MIB
    assert live.get("/throughput/0").status_code == 400
    assert live.get("/throughput/1025").status_code == 400


def test_live_statistics_show_a_slow_reader(live):
    with live.stream("/endless/mine", receive_buffer_bytes=4096) as slow, live.events("/stats") as statistics:
        next(slow)
        event = next(event for event in statistics if '"waiting for the client"' in event.data)
        stats = json.loads(event.data)
        assert {stream["route"] for stream in stats["streams"]} >= {"examples.showcase.endless"}
        assert stats["produced"]["mine"] > 0
        slow.close()
        assert next(event for event in statistics if '"produced":{}' in event.data)


def test_live_statistics_come_again_and_again(live):
    with live.events("/stats") as statistics:
        _, second, third = (json.loads(next(statistics).data) for _ in range(3))
    (before,), (after,) = second["streams"], third["streams"]
    assert before["route"] == after["route"] == "examples.showcase.live_stats"
    assert after["age"] > before["age"]
    assert after["bytes_sent"] > before["bytes_sent"]


def test_an_early_failure_is_a_500(live):
    response = live.get("/errors/early")
    assert response.status_code == 500
    assert "the database is down" in response.text  # in development


def test_a_late_failure_cuts_the_connection(live):
    with live.stream("/errors/late") as stream, pytest.raises(IncompleteBody):
        assert stream.status_code == 200
        received = b""
        for piece in stream:
            received += piece
    assert received.decode() == "".join(f"line {number} of 10\n" for number in range(1, 6))


def test_the_examples_run_here_too(live, monkeypatch):
    monkeypatch.setattr(token_stream, "SECONDS_A_TOKEN", 0.0)
    assert live.get("/live/tokens?prompt=x").text == token_stream.ANSWER.format(prompt="x")
    assert live.get("/live/export").text.count("\n") == 200_001
    assert len(live.get("/live/large-file").body) == 64 * showcase.MIB
    assert live.get("/live/json-stream").text.count("\n") == 50
    assert live.get("/live/stats").json()["total_bytes_streamed"] > 64 * showcase.MIB
    assert live.get("/live/upload").status_code == 200
