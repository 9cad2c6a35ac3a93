"""`--reload`, with real files and real file events: the code changes and the address stays."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from time import perf_counter

import pytest

from catzilla import Settings
from catzilla._core.limits import Limits
from catzilla.cli import main
from catzilla.reload import RELOAD_GRACE, inherited_socket, reloaded_settings
from catzilla.testing.errors import IncompleteBody
from tests.commands import LISTENS, commands, is_alive, write_module
from tests.promises.helpers import eventually

SECOND = 1.0
MARGIN = 2.0  # for a busy machine, for the file event and for the interpreters

APP = """
    @app.get("/")
    def answer():
        return "ANSWER"

    @app.get("/events")
    def events():
        def items():
            try:
                yield "hello"
                yield sleep(60)
            finally:
                print("events finally", flush=True)
        return EventStream(items())

    @app.get("/endless")
    def endless():
        def items():
            try:
                while True:
                    yield "x" * 1000
                    yield sleep(0.01)
            finally:
                print("endless finally", flush=True)
        return StreamingResponse(items())
"""


@pytest.fixture
def write(tmp_path):
    """`write(answer)` makes the app one that answers so."""
    return lambda answer: write_module(tmp_path, APP.replace("ANSWER", answer))


@pytest.fixture
def start(tmp_path, write):
    """`start(*flags)` gives a command that serves the app under `--reload`."""
    write("first")
    with commands(tmp_path) as start_command:

        def run(*flags: str):
            command = start_command("-m", "catzilla", "run", "web:app", "--port=0", "--reload", *flags)
            command.listens()
            return command

        yield run


def test_a_change_is_served_on_the_same_port(start, write):
    command = start()
    port = command.port
    (child,) = command.descendants()
    assert command.get().text == "first"
    command.forget()
    write("second")
    command.expect(rb"catzilla: web\.py changed; starting again")
    assert command.listens() == port
    assert command.get().text == "second"
    assert not is_alive(child)


def test_no_connection_is_refused_in_between(start, write):
    """Connections that come while nothing serves wait in the socket that the parent holds.

    One that the old process accepts as it ends may be closed unasked or be sent a 503; such a client asks again.
    """
    command = start()
    answers: list[str] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask_on() -> None:
        try:
            while not done.is_set():
                with contextlib.suppress(ConnectionResetError):
                    answer = command.get()
                    if answer.status_code != 503:
                        answers.append(answer.text)
        except Exception as error:
            failures.append(error)

    client = threading.Thread(target=ask_on)
    client.start()
    try:
        for answer in ("second", "third"):
            write(answer)
            eventually(lambda: failures or answers[-1:] == [answer], f"{answer} is answered")  # noqa: B023
    finally:
        done.set()
        client.join()
    assert failures == []
    in_order = [answer for index, answer in enumerate(answers) if answer not in answers[:index]]
    assert in_order == ["first", "second", "third"]


def test_a_syntax_error_is_shown_and_mended(start, write, tmp_path):
    command = start()
    (tmp_path / "web.py").write_text("def broken(:\n")
    command.expect(rb"SyntaxError")
    eventually(lambda: not command.descendants(), "the broken one has ended")
    assert command.process.poll() is None
    command.forget()
    write("mended")
    command.expect(LISTENS)
    assert command.get().text == "mended"


def test_an_open_event_stream_ends_within_the_grace_and_a_second(start, write):
    command = start("--shutdown-grace=60")  # of the last stop only: whoever changes code is waiting
    with command.events("/events") as events, command.stream("/endless") as endless:
        assert next(events).data == "hello"
        assert next(endless)
        command.forget()
        changed_at = perf_counter()
        write("second")
        command.expect(LISTENS)
        assert perf_counter() - changed_at < RELOAD_GRACE + SECOND + MARGIN
        with pytest.raises(IncompleteBody):
            next(events)
        with pytest.raises(IncompleteBody):
            endless.read_all()
    assert command.output.count(b"events finally") == 1
    assert command.output.count(b"endless finally") == 1
    assert command.get().text == "second"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("to_all", [True, False], ids=["from a terminal", "to the parent"])
def test_a_signal_ends_parent_and_child(start, number, to_all):
    command = start()
    pids = command.descendants()
    with command.events("/events") as events:
        assert next(events).data == "hello"
        sent_at = perf_counter()
        (os.killpg if to_all else os.kill)(command.process.pid, number)
        assert command.end() == 0
    assert perf_counter() - sent_at < RELOAD_GRACE + SECOND + MARGIN
    assert not any(map(is_alive, pids))
    assert b"events finally" in command.output
    assert b"Traceback" not in command.errors


def test_a_signal_while_nothing_serves(start, tmp_path):
    command = start()
    (tmp_path / "web.py").write_text("raise ValueError('not now')\n")
    command.expect(rb"ValueError: not now")
    eventually(lambda: not command.descendants(), "the broken one has ended")
    command.send(signal.SIGINT)
    assert command.end() == 1, "the code of the process that failed"


def test_a_signal_while_it_starts_again(start, tmp_path):
    """The old process has gone, the new one is still importing."""
    command = start()
    (tmp_path / "web.py").write_text("print('importing', flush=True)\nimport threading\nthreading.Event().wait()\n")
    command.expect(rb"importing")
    command.send(signal.SIGTERM)
    assert command.end() == 128 + signal.SIGTERM


def test_other_files_are_not_watched(start, write, tmp_path):
    command = start()
    (tmp_path / "notes.txt").write_text("a note")
    write("second")  # its event comes after that of the note
    command.expect(rb"web\.py changed")
    assert b"notes" not in command.errors


def test_a_unix_socket_stays_and_is_removed_at_the_end(tmp_path, write):
    write("first")
    with commands(tmp_path) as start_command:
        command = start_command("-m", "catzilla", "run", "web:app", "--uds=web.sock", "--reload")
        command.expect(rb"listening on unix:web\.sock")
        made_at = (tmp_path / "web.sock").stat().st_ino
        command.forget()
        write("second")
        command.expect(rb"listening on unix:web\.sock")
        assert (tmp_path / "web.sock").stat().st_ino == made_at
        command.send(signal.SIGTERM)
        assert command.end() == 0
        assert not (tmp_path / "web.sock").exists()


def test_an_unknown_variable_is_named_once(tmp_path, write):
    write("first")
    with commands(tmp_path) as start_command:
        command = start_command(
            "-m", "catzilla", "run", "web:app", "--port=0", "--reload", environ={"CATZILLA_PROT": "1"}
        )
        command.listens()
        assert command.errors.count(b"CATZILLA_PROT") == 1
        assert b"CATZILLA_INHERITED" not in command.errors


def test_without_watchfiles(monkeypatch, tmp_path):
    from click.testing import CliRunner

    monkeypatch.setitem(sys.modules, "watchfiles", None)
    result = CliRunner().invoke(main, ["run", "web:app", "--reload", "--uds", str(tmp_path / "web.sock")])
    assert result.exit_code == 2
    assert result.stderr == "catzilla: --reload needs the package watchfiles: pip install 'catzilla[reload]'\n"
    assert not (tmp_path / "web.sock").exists()


def test_a_shorter_grace_than_that_of_a_reload_holds():
    def grace(seconds: float) -> float:
        return reloaded_settings(Settings(limits=Limits(shutdown_grace=seconds))).limits.shutdown_grace

    assert grace(0.1) == 0.1
    assert grace(60.0) == RELOAD_GRACE


def test_who_was_started_by_hand_inherits_no_socket(monkeypatch):
    monkeypatch.delenv("CATZILLA_INHERITED_SOCKET", raising=False)
    assert inherited_socket() is None
