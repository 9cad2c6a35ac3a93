"""`--workers`: several processes share an address, are replaced when they die, and stop together."""

from __future__ import annotations

import os
import signal
from time import perf_counter

import psutil
import pytest

from tests.commands import commands, is_alive, write_module
from tests.promises.helpers import eventually

GRACE = 0.5
SECOND = 1.0
MARGIN = 2.0  # for a busy machine, and for the interpreters to end

APP = """
    def say(what):
        os.write(1, f"{what} {os.getpid()}\\n".encode())  # whole, whoever else is writing

    @app.get("/pid")
    def pid():
        return str(os.getpid())

    @app.get("/events")
    def events():
        def items():
            try:
                yield str(os.getpid())
                yield sleep(60)
            finally:
                say("events finally")
        return EventStream(items())

    @app.get("/endless")
    def endless():
        def items():
            try:
                while True:
                    yield "x" * 1000
                    yield sleep(0.01)
            finally:
                say("endless finally")
        return StreamingResponse(items())

    @app.get("/blocked")
    def blocked():
        say("blocked began")
        time.sleep(60)

    @app.on_startup
    def begin():
        say("startup")

    @app.on_shutdown
    def end():
        say("shutdown")
"""


@pytest.fixture
def start(tmp_path):
    """`start(*flags)` gives a command that serves `APP` with two workers; both are ready."""
    write_module(tmp_path, APP)
    with commands(tmp_path) as start_command:

        def run(*flags: str):
            command = start_command(
                "-m", "catzilla", "run", "web:app", "--port=0", "--workers=2", f"--shutdown-grace={GRACE}", *flags
            )
            command.listens()
            wait_for_pids(command, 2)
            return command

        yield run


def wait_for_pids(command, count: int, without: int | None = None) -> set[str]:
    """Ask on new connections until `count` processes have answered."""
    seen: set[str] = set()

    def all_answered() -> bool:
        seen.add(command.get("/pid").text)
        return len(seen - {str(without)}) == count

    eventually(all_answered, f"{count} processes answer")
    return seen


def test_requests_are_answered_by_every_process(start):
    command = start()
    pids = {int(pid) for pid in wait_for_pids(command, 2)}
    assert pids == command.descendants()
    assert command.process.pid not in pids
    assert b"2 processes" in command.errors
    assert command.errors.count(b"listening on") == 1


def test_a_process_that_is_killed_is_replaced(start):
    command = start()
    killed, other = sorted(command.descendants())
    os.kill(killed, signal.SIGKILL)
    command.expect(rb"process=%d ended with status -9; starting another" % killed)
    pids = wait_for_pids(command, 2, without=killed)
    assert str(other) in pids
    assert len(command.descendants()) == 2
    command.send(signal.SIGTERM)
    assert command.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_all_of_them_within_the_grace_and_a_second(start, number):
    command = start()
    pids = command.descendants()
    for _ in range(6):
        command.open("/events").recv(1)
        command.open("/endless").recv(1)
    command.open("/blocked")
    command.expect(rb"blocked began")
    sent_at = command.send(number)
    assert command.end() == 0
    assert perf_counter() - sent_at < GRACE + SECOND + MARGIN
    assert not any(map(is_alive, pids))
    assert command.output.count(b"events finally") == 6
    assert command.output.count(b"endless finally") == 6
    assert command.output.count(b"shutdown") == 2
    assert b"Traceback" not in command.errors


def test_ctrl_c_in_a_terminal_is_one_signal_to_each_of_them(start):
    """A terminal sends it to all processes in the foreground, and the first of them passes it on besides."""
    command = start()
    for _ in range(6):
        command.open("/endless").recv(1)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.end() == 0
    assert command.output.count(b"endless finally") == 6, "a worker took it for a second signal"
    assert command.output.count(b"shutdown") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_second_signal_ends_all_of_them_at_once(start, number):
    command = start("--shutdown-grace=60")
    pids = command.descendants()
    for _ in range(4):
        command.open("/blocked")
    command.expect(rb"(blocked began[^b]*){4}")
    command.send(signal.SIGTERM)
    # The first is taken when the workers do not listen any more; a second that came before it would be the first.
    eventually(lambda: not any(map(listens, command.descendants())), "the workers have closed the address")
    assert command.descendants(), "somebody has open responses and is within the grace"
    sent_at = command.send(number)
    command.end()
    assert perf_counter() - sent_at < MARGIN
    assert not any(map(is_alive, pids))


def listens(pid: int) -> bool:
    """Whether a process has a listening socket."""
    try:
        return any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("tcp4"))
    except psutil.NoSuchProcess:
        return False


def test_a_startup_hook_that_fails_is_not_repeated_for_ever(tmp_path):
    write_module(
        tmp_path,
        """
        @app.on_startup
        def begin():
            raise ConnectionError("no database")
        """,
    )
    with commands(tmp_path) as start_command:
        command = start_command("-m", "catzilla", "run", "web:app", "--port=0", "--workers=2")
        assert command.end() == 1
        times = command.errors.count(b"ConnectionError: no database")
        assert 2 <= times <= 10
        assert b"worker processes end as soon as they start" in command.errors


def test_a_certificate_that_cannot_be_read_is_one_error_and_not_one_a_process(tmp_path):
    write_module(tmp_path, "")
    with commands(tmp_path) as start_command:
        command = start_command(
            "-m", "catzilla", "run", "web:app", "--port=0", "--workers=2", "--ssl-certfile=nosuch.pem"
        )
        assert command.end() == 2
        assert command.errors.count(b"nosuch.pem") == 1
        assert b"Traceback" not in command.errors


def test_split_rooms_are_warned_of_once_and_not_once_a_process(start, tmp_path):
    with (tmp_path / "web.py").open("a") as module:
        module.write("\napp.room('lobby', public=True)\n")
    command = start()
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert command.errors.count(b"rooms and presence are per process") == 1


def test_rooms_that_nobody_uses_are_not_warned_of(start):
    command = start()
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert b"per process" not in command.errors


def test_hooks_run_in_each_process(start):
    command = start()
    pids = command.descendants()
    command.send(signal.SIGTERM)
    assert command.end() == 0
    for pid in pids:
        assert b"startup %d\n" % pid in command.output
        assert b"shutdown %d\n" % pid in command.output
    assert command.output.count(b"startup") == 2
