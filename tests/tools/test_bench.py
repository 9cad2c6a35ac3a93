"""The bench: its arithmetic, its parsers piece by piece, and one tiny run of the whole against real servers."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tools.bench import report, rounds, scenarios, server, summary, work
from tools.bench.clients import events, wire, wrk
from tools.bench.clients.latency import percentile
from tools.bench.descriptors import raise_descriptor_limit
from tools.bench.peers import PEERS
from tools.bench.scenario import Amount, Metric, Options, Scenario

ROOT = Path(__file__).parents[2]
LIMIT = PEERS["blocking-socket"]
MORE = Metric("rate", "MB/s", "more", 1)
LESS = Metric("rate", "ms", "less", 2)


def samples(*rates: float | None) -> list[dict[str, float | None] | None]:
    return [None if rate is None else {"rate": rate} for rate in rates]


def bench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.bench", *arguments]


def captured(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The bench run to its end, with what it printed."""
    return subprocess.run(bench(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


# Arithmetic


def test_a_percentile_is_a_value_that_occurred() -> None:
    hundred = list(range(1, 101))
    assert [percentile(hundred, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([], 0.5) is None


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    # The ratio of the medians would be 20 / 20.
    assert summary.ratio(samples(10, 20, 90), samples(20, 10, 30), MORE) == 2.0


def test_a_ratio_above_one_says_that_the_base_is_better() -> None:
    assert summary.ratio(samples(10), samples(40), LESS) == 4.0
    assert summary.ratio(samples(10), samples(40), MORE) == 0.25


def test_a_failed_round_leaves_the_other_rounds_paired() -> None:
    assert summary.ratio(samples(10, None, 30), samples(5, 1, 10), MORE) == 2.5
    assert summary.ratio(samples(None), samples(5), MORE) is None
    assert summary.ratio(samples(5), samples(0), MORE) is None


def test_a_spread_ignores_rounds_without_a_value() -> None:
    assert summary.spread(samples(3, None, 1, 2), "rate") == summary.Spread(median=2, low=1, high=3)
    assert summary.spread(samples(None), "rate") is None


def test_what_a_scenario_has_none_of_stays_none() -> None:
    assert Amount(5, 0.0, 500).adjusted(Options(seconds=3.0)) == Amount(5, 0.0, 500)
    assert Amount(5, 2.0, 0).adjusted(Options(count=9, rounds=2)) == Amount(2, 2.0, 0)
    assert Amount(5, 2.0, 500).adjusted(Options(quick=True)) == Amount(1, 0.4, 100)


# Rounds


def tiny_scenario(measure: Any) -> Scenario:
    return Scenario("tiny", "a tiny one", (MORE,), Amount(2, 0.0, 0), measure)


def test_peers_take_turns_within_a_round() -> None:
    turns: list[str] = []

    def measure(peer: Any, amount: Amount) -> dict[str, float]:
        turns.append(peer.name)
        return {"rate": 1.0}

    peers = [replace(LIMIT, name="a"), replace(LIMIT, name="b")]
    rounds.run(tiny_scenario(measure), peers, Amount(2, 0.0, 0), lambda text: None)
    assert turns == ["a", "b", "a", "b"]


def test_a_peer_that_fails_is_reported_and_the_others_go_on() -> None:
    def measure(peer: Any, amount: Amount) -> dict[str, float]:
        if peer.name == "broken":
            raise server.ServerFailed("it would not start")
        return {"rate": 2.0}

    scenario = tiny_scenario(measure)
    peers = [
        replace(LIMIT, name="broken"),
        replace(LIMIT, name="works"),
        replace(LIMIT, name="absent", only=frozenset()),
    ]
    results = rounds.run(scenario, peers, scenario.amount, lambda text: None)
    rows = summary.summarise(scenario, results, "works")
    text = report.table(scenario, scenario.amount, rows, "works")
    document = report.as_json(scenario, scenario.amount, results, rows, "works")["peers"]

    assert "broken failed 2x: it would not start" in text
    assert document["works"]["samples"] == [{"rate": 2.0}, {"rate": 2.0}]
    assert document["broken"]["errors"] == ["it would not start"] * 2
    assert document["absent"] == {"skipped": "not part of this scenario"}


def test_a_mistake_of_the_bench_itself_is_not_taken_for_a_failed_peer() -> None:
    def measure(peer: Any, amount: Amount) -> dict[str, float]:
        raise KeyError("a typo")

    with pytest.raises(KeyError):
        rounds.run(tiny_scenario(measure), [LIMIT], Amount(1, 0.0, 0), lambda text: None)


# What the clients understand


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_response_is_measured_whole_and_byte_by_byte() -> None:
    response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    head = len(response) - 5
    assert wire.response_bytes(response + b"HTTP/1.1 2") == len(response)
    found = [wire.response_bytes(response[:end]) for end in range(len(response) + 1)]
    assert found == [None] * head + [len(response)] * 6


def test_a_response_that_is_no_answer_stops_the_measurement() -> None:
    with pytest.raises(wire.Unexpected, match="503"):
        wire.response_bytes(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_found_wherever_the_bytes_are_cut(pair: tuple[socket.socket, socket.socket], size: int) -> None:
    ours, theirs = pair
    sent = b"HTTP/1.1 200 OK\r\n\r\n10\r\ndue=12.500000\n\r\n10\r\ndue=13.000000\n\r\n"
    stream = events.Stream(ours)
    found: list[float] = []
    for start in range(0, len(sent), size):
        theirs.sendall(sent[start : start + size])
        found += stream.advance() or []
    assert (found, stream.status) == ([12.5, 13.0], 200)


def test_a_closed_stream_is_told_from_a_silent_one(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert events.Stream(ours).advance() is None


WRK_OUTPUT = """Running 2s test @ http://127.0.0.1:8000/
  Latency Distribution
     50%  412.00us
     75%  460.00us
     90%    1.20ms
     99%    2.50ms
  40800 requests in 2.00s, 5.10MB read
Requests/sec:  20400.12
"""


def test_the_output_of_wrk_is_read_in_its_units() -> None:
    figures = wrk.parse(WRK_OUTPUT)
    assert figures == {"requests_per_s": 20400.12, "p50_ms": pytest.approx(0.412), "p99_ms": 2.5, "client": "wrk"}


def test_errors_that_wrk_saw_are_no_figure() -> None:
    with pytest.raises(ValueError, match="errors"):
        wrk.parse(WRK_OUTPUT + "  Non-2xx or 3xx responses: 12\n")


# The work


def test_a_sleeper_loses_the_ticks_it_was_not_resumed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: clock[0])
    schedule = work.Schedule()
    assert schedule.event() == b"due=100.000000\n"
    clock[0] = 100.1
    assert (schedule.pause(), schedule.due) == (pytest.approx(0.4), 100.5)
    clock[0] = 101.7
    assert (schedule.pause(), schedule.due) == (pytest.approx(0.3), 102.0)


def test_a_line_is_twenty_bytes_with_one_mark() -> None:
    assert (len(work.LINE), work.LINE.count(work.LINE_MARK)) == (20, 1)
    framing = b"%x\r\n\r\n" % len(work.LINE)
    assert work.LINE_MARK not in framing


def test_the_counter_is_shared_between_those_who_open_its_file(tmp_path: Path) -> None:
    mine = work.Counter.create(tmp_path / "counter")
    theirs = work.Counter(tmp_path / "counter")
    assert [theirs.increment(), theirs.increment(), mine.value] == [1, 2, 2]


# Servers


def test_a_server_that_ends_early_is_quoted() -> None:
    broken = replace(LIMIT, name="broken", command=lambda port, threads: ["-c", "raise SystemExit('no such option')"])
    with pytest.raises(server.ServerFailed, match="broken ended with status 1: no such option"), server.running(broken):
        pytest.fail("it was taken for ready")


def test_a_server_is_gone_after_its_block_also_when_that_raises() -> None:
    others = set(psutil.Process().children())  # a browser that other tests use, for one
    with pytest.raises(ZeroDivisionError), server.running(LIMIT) as running:
        processes = set(psutil.Process().children()) - others
        assert running.resident_bytes() > 0
        assert running.cpu_seconds() >= 0
        raise ZeroDivisionError
    assert processes
    assert not any(process.is_running() for process in processes)


def test_no_server_survives_a_bench_that_is_told_to_end() -> None:
    command = bench("chunks64k", "--seconds", "50", "--peers", "blocking-socket")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        family = wait_for_children(process.pid, count=2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(family, timeout=10)[1]


def wait_for_children(pid: int, count: int) -> list[Any]:
    """The server and the client of a bench that runs; both are there within seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        family: list[Any] = psutil.Process(pid).children(recursive=True)
        if len(family) >= count:
            return family
        time.sleep(0.02)
    raise AssertionError(f"fewer than {count} children")


def test_stalled_generators_settle_and_are_counted() -> None:
    sample = scenarios.measure_stalled(LIMIT, Amount(1, 0.2, 2))
    assert sample["paused"] == 1.0
    assert sample["healthy_p99_ms"] is not None


# The whole


def test_a_run_prints_a_table_and_writes_every_sample(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = ("chunks64k", "lines", "--seconds", "0.2", "--rounds", "2", "--json", str(file))
    peers = ["catzilla", "blocking-socket"]
    run = captured(*command, "--peers", ",".join(peers))
    assert run.returncode == 0, run.stdout + run.stderr
    document = json.loads(file.read_text())

    assert {"cpu", "cores", "python", "date", "load", "peers"} <= set(document["machine"])
    assert set(document["scenarios"]) == {"chunks64k", "lines"}
    for name, peer in itertools.product(("chunks64k", "lines"), peers):
        result = document["scenarios"][name]["peers"][peer]
        rates = [sample["mb_per_s"] for sample in result["samples"]]
        assert len(rates) == 2
        assert min(rates) == result["figures"]["mb_per_s"]["low"] > 0
        assert peer in run.stdout
    assert document["scenarios"]["lines"]["peers"][peers[0]]["base_is_times_better"] == 1.0


def test_the_list_names_every_scenario_and_peer() -> None:
    run = captured("--list")
    assert run.returncode == 0
    assert all(name in run.stdout for name in [*scenarios.SCENARIOS, *PEERS])


@pytest.mark.parametrize("arguments", [["nosuch"], ["chunks8k", "--peers", "nosuch"], []])
def test_a_mistake_on_the_command_line_is_one_message(arguments: list[str]) -> None:
    run = captured(*arguments)
    assert run.returncode == 2
    assert "error:" in run.stderr
    assert "Traceback" not in run.stderr


def test_every_server_sees_the_descriptor_limit_of_the_bench() -> None:
    hard = raise_descriptor_limit()
    others = set(psutil.Process().children())
    with server.running(LIMIT):
        (process,) = set(psutil.Process().children()) - others
        assert process.rlimit(psutil.RLIMIT_NOFILE)[0] == hard
