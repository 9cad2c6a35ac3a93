"""Several processes under one: started, replaced, stopped and given up on. Forked in a process of their own.

Each test runs a small program, because a process with threads, such as this one, should not fork.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from catzilla._core.supervisor import Supervisor

PREAMBLE = """
    import os, signal, sys, time
    from catzilla._core import supervisor
    from catzilla._core.supervisor import Supervisor
    def say(*words):
        os.write(1, (" ".join(map(str, words)) + chr(10)).encode())
    def serve_until_asked():
        signal.signal(signal.SIGTERM, lambda *a: os._exit(0))
        signal.signal(signal.SIGINT, lambda *a: os._exit(0))
        say("serving", os.getpid())
        while True:
            signal.pause()
"""


class Program:
    """A running program that says lines."""

    def __init__(self, code: str) -> None:
        source = textwrap.dedent(PREAMBLE) + textwrap.dedent(code)
        self.process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=os.getcwd(),
            start_new_session=True,
        )

    def line(self) -> list[str]:
        line = self.process.stdout.readline()
        assert line, f"the program ended: {self.process.stderr.read()}"
        return line.split()

    def serving(self, count: int) -> set[int]:
        """The next `count` processes that say that they serve."""
        pids = set()
        while len(pids) < count:
            word, pid = self.line()
            assert word == "serving"
            pids.add(int(pid))
        return pids

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """The exit status, and what was written to standard error."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.fixture
def program() -> Iterator:
    programs: list[Program] = []

    def start(code: str) -> Program:
        programs.append(Program(code))
        return programs[-1]

    yield start
    for each in programs:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_start_and_stop_together(program, number):
    running = program("Supervisor(3, serve_until_asked, 5.0).run(); say('done')")
    pids = running.serving(3)
    running.signal(number)
    assert running.line() == ["done"]
    assert running.end() == (0, "")
    assert not any(map(is_alive, pids))


def test_a_process_that_dies_is_replaced(program):
    running = program("supervisor.QUICK_DEATH = 0; Supervisor(2, serve_until_asked, 5.0).run(); say('done')")
    first, _ = pids = running.serving(2)
    os.kill(first, signal.SIGKILL)
    (new,) = running.serving(1)
    assert new not in pids
    running.signal(signal.SIGTERM)
    assert running.line() == ["done"]
    status, errors = running.end()
    assert status == 0
    assert f"process={first} ended with status -9; starting another" in errors


def test_processes_that_die_at_once_are_given_up(program):
    running = program("""
        def fail():
            raise ValueError("cannot serve")
        try:
            Supervisor(2, fail, 5.0).run()
        except RuntimeError as error:
            say("gave-up")
            sys.exit(3)
    """)
    assert running.line() == ["gave-up"]
    status, errors = running.end()
    assert status == 3
    assert errors.count("ValueError: cannot serve") >= 5


def test_a_life_that_was_long_enough_forgives_the_quick_deaths_before(program):
    running = program("""
        deaths = 0
        original = Supervisor._reap
        clock = [0.0]
        supervisor.time = type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])})
        def reap(self):
            global deaths
            deaths += 1
            if deaths % 4 == 0:
                clock[0] += 10  # the one that ends now has lived for long
            reaped = original(self)
            deaths -= not reaped
            if deaths == 12:
                self._stop(signal.SIGTERM)
            return reaped
        Supervisor._reap = reap
        Supervisor(1, lambda: None, 5.0).run()
        say("deaths", deaths >= 12)
    """)
    assert running.line() == ["deaths", "True"]
    assert running.end()[0] == 0


def test_a_process_that_does_not_stop_is_killed_after_its_grace(program):
    running = program("""
        def stubborn():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("serving", os.getpid())
            while True:
                signal.pause()
        Supervisor(1, stubborn, -0.9).run()  # a second is added
        say("done")
    """)
    (pid,) = running.serving(1)
    running.signal(signal.SIGTERM)
    assert running.line() == ["done"]
    assert not is_alive(pid)


def test_a_second_signal_does_not_wait_for_the_grace(program):
    running = program("""
        def stubborn():
            signal.signal(signal.SIGTERM, lambda *a: say("asked"))
            say("serving", os.getpid())
            while True:
                signal.pause()
        Supervisor(1, stubborn, 1000.0).run()
        say("done")
    """)
    (pid,) = running.serving(1)
    running.signal(signal.SIGTERM)
    assert running.line() == ["asked"]
    running.signal(signal.SIGTERM)
    assert running.line() == ["done"]
    assert not is_alive(pid)


def test_the_signals_are_as_before_when_it_has_ended(program):
    running = program("""
        def handle(*args):
            pass
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, handle)
        Supervisor(1, serve_until_asked, 1000.0).run()
        say("handlers", all(signal.getsignal(n) is handle for n in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM)))
        say("mask", signal.pthread_sigmask(signal.SIG_BLOCK, []) == set())
        say("timer", signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0))
    """)
    running.serving(1)
    running.signal(signal.SIGTERM)
    assert [running.line() for _ in range(3)] == [["handlers", "True"], ["mask", "True"], ["timer", "True"]]


@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_signal_between_a_fork_and_the_next_line_reaches_everybody(program, which):
    running = program(f"""
        forks = 0
        def fork(real=os.fork):
            global forks
            forks += 1
            pid = real()
            if pid and forks == {which}:
                os.kill(os.getpid(), signal.SIGTERM)
            return pid
        supervisor.os = type("Os", (), {{**vars(os), "fork": staticmethod(fork)}})
        Supervisor(3, signal.pause, 1000.0).run()
        say("done", forks)
    """)
    assert running.line() == ["done", "3"]


def test_a_process_that_is_gone_already_needs_no_signal():
    supervisor = Supervisor(1, print, 5.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    supervisor._started = {ended.pid: 0.0}
    supervisor._send(signal.SIGTERM)
