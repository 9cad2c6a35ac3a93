"""The command line and `app.listen`: help, errors in one line with their exit codes, and real servers.

What a command says is asked in this process where no server starts, and of a real process where one does.
"""

from __future__ import annotations

import re
import signal
import socket
import sys

import pytest
from click.testing import CliRunner

import catzilla
from catzilla.cli import main
from catzilla.settings import options
from tests.commands import commands, write_module
from tests.promises.helpers import eventually

APP = """
    @app.get("/")
    def hello():
        return "hello"

    @app.route("/items/{item_id:int}", methods=["PUT", "DELETE"])
    def change_item(item_id):
        return {}
"""


@pytest.fixture
def start(tmp_path):
    """`start(*arguments, environ=None)` runs `python ARGUMENTS` where `web.py` is."""
    write_module(tmp_path, APP)
    with commands(tmp_path) as start_command:
        yield start_command


@pytest.fixture
def run(start):
    """`run(*flags, environ=None)` runs `catzilla run web:app`."""
    return lambda *flags, environ=None: start("-m", "catzilla", "run", "web:app", *flags, environ=environ)


def help_of(*command: str) -> str:
    """The text of `--help`, with its lines joined."""
    result = CliRunner().invoke(main, [*command, "--help"], prog_name="catzilla", terminal_width=120)
    assert result.exit_code == 0
    return re.sub(r"\s+", " ", result.stdout)


# What a command says about itself.


def test_help_names_the_commands():
    said = help_of()
    assert all(name in said for name in main.commands)


def test_h_is_help():
    assert CliRunner().invoke(main, ["-h"]).stdout == CliRunner().invoke(main, ["--help"]).stdout


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_help_shows_a_setting_whole(option):
    """Its flag, its unit, what it is for, its default and its environment variable."""
    said = help_of("run")
    assert f" {option.flag} " in said
    if option.type is bool:
        assert f" {option.flag} / --no-{option.flag[2:]} " in said
    elif option.unit:
        assert f" {option.flag} {option.unit.upper()} " in said
    assert option.help[1:] in said
    default = {True: "yes", False: "no"}[option.default] if isinstance(option.default, bool) else option.default
    assert f"[{option.env}]" in said if default is None else f"[{option.env}; default {default}]" in said


def test_help_of_routes():
    assert "MODULE:APP" in help_of("routes")


def test_version():
    result = CliRunner().invoke(main, ["--version"], prog_name="catzilla")
    assert (result.exit_code, result.stdout) == (0, f"catzilla, version {catzilla.__version__}\n")


def test_routes(start):
    command = start("-m", "catzilla", "routes", "web:app")
    assert command.end() == 0
    assert [line.split() for line in command.output.decode().splitlines()] == [
        ["METHOD", "PATH", "HANDLER"],
        ["GET", "/", "web.hello"],
        ["PUT", "/items/{item_id:int}", "web.change_item"],
        ["DELETE", "/items/{item_id:int}", "web.change_item"],
    ]


# Commands that make no sense.


@pytest.mark.parametrize("command", ["run", "routes"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nosuch:app", "looked for a module 'nosuch'"),
        ("web:ap", "did you mean 'app'?"),
        ("web:hello", "found function instead; its apps are app"),
        ("web.py:app", "write the module's name, web:app"),
        (":app", "names no app"),
    ],
)
def test_an_app_that_is_not_there_is_one_line(monkeypatch, tmp_path, command, target, message):
    write_module(tmp_path, APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = CliRunner().invoke(main, [command, target])
    monkeypatch.delitem(sys.modules, "web", raising=False)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"catzilla: .*\n", result.stderr)
    assert message in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port=eighty"], "--port='eighty': write a whole number"),
        (["--port=70000"], "--port=70000: write a port from 0 to 65535"),
        (["--uds=web.sock", "--port=80"], "leave one out"),
        (["--reload", "--workers=2"], "--workers=2: --reload runs one process"),
        (["--max-body-bytes=much"], "write a size in bytes such as 65536, 64k or 1M"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(flags, message):
    result = CliRunner().invoke(main, ["run", "web:app", *flags])
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"catzilla: .*\n", result.stderr)
    assert message in result.stderr


def test_an_unknown_flag():
    result = CliRunner().invoke(main, ["run", "web:app", "--prot=80"])
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("raise ValueError('no database')", "ValueError: no database"),
        ("open('nosuch.json')", "FileNotFoundError: [Errno 2] No such file or directory: 'nosuch.json'"),
        ("import nosuch_library", "ModuleNotFoundError: No module named 'nosuch_library'"),
        ("Settings(port=-1)", "catzilla.errors.SettingsError: port=-1: write a port from 0 to 65535"),
    ],
    ids=["ValueError", "OSError", "ModuleNotFoundError", "SettingsError"],
)
def test_what_an_app_raises_at_import_has_its_own_traceback(start, tmp_path, source, last_line):
    write_module(tmp_path, source)
    command = start("-m", "catzilla", "run", "web:app", "--port=0")
    assert command.end() == 1
    said = command.errors.decode()
    assert "Traceback (most recent call last):" in said
    assert f'{tmp_path / "web.py"}", line' in said
    assert said.splitlines()[-1] == last_line
    assert "listening" not in said


# Serving.


def test_it_listens_on_a_free_port_and_says_where(run):
    command = run("--port=0")
    assert command.listens() > 0
    assert command.output == b"", "the banner is no output"
    assert command.get().text == "hello"
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert b"Traceback" not in command.errors


def test_the_console_script(tmp_path):
    """What installing puts on the path calls the same function as `python -m catzilla`."""
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="catzilla")
    assert script.load() is main


def test_a_port_in_use_is_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = run(f"--port={port}")
        assert command.end() == 1
    assert re.fullmatch(rb"catzilla: cannot listen on 127\.0\.0\.1:%d: .*\n" % port, command.errors)


@pytest.mark.parametrize("flags", [["--workers=2"], ["--reload"]], ids=["workers", "reload"])
def test_a_port_in_use_is_one_line_in_any_way_of_running(run, flags):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = run(f"--port={taken.getsockname()[1]}", *flags)
        assert command.end() == 1
    assert re.fullmatch(rb"catzilla: cannot listen on .*\n", command.errors)


def test_variables_are_read_and_flags_beat_them(run):
    command = run("--port=0", environ={"CATZILLA_PORT": "1", "CATZILLA_WORKERS": "2"})
    command.listens()
    assert b"2 processes" in command.errors


def test_a_variable_that_is_no_setting_is_warned_of(run):
    command = run("--port=0", environ={"CATZILLA_PROT": "1"})
    command.listens()
    assert b"catzilla: there is no setting CATZILLA_PROT; did you mean CATZILLA_PORT?\n" in command.errors


@pytest.mark.parametrize("flag", ["--access-log", "--no-access-log"])
def test_the_access_log_is_a_line_a_response(run, flag):
    command = run("--port=0", flag)
    command.listens()
    assert command.get("/").text == "hello"
    command.send(signal.SIGTERM)
    assert command.end() == 0
    lines = [line for line in command.errors.decode().splitlines() if "GET /" in line]
    assert len(lines) == (1 if flag == "--access-log" else 0)


# Hooks.

HOOKS = """
    for number in range(3):
        app.on_startup(lambda number=number: print("up", number, flush=True))
        app.on_shutdown(lambda number=number: print("down", number, flush=True))
"""


def test_hooks_run_in_order_and_in_reverse(start, tmp_path):
    write_module(tmp_path, HOOKS)
    command = start("-m", "catzilla", "run", "web:app", "--port=0")
    command.listens()
    assert command.output.split() == b"up 0 up 1 up 2".split()
    command.forget()
    command.send(signal.SIGTERM)
    assert command.end() == 0
    assert command.output.split() == b"down 2 down 1 down 0".split()


@pytest.mark.parametrize("error", ["ValueError", "FileNotFoundError", "SystemExit"])
@pytest.mark.parametrize("how", [["-m", "catzilla", "run", "web:app", "--port=0"], ["web.py"]], ids=["run", "listen"])
def test_a_startup_hook_that_fails_keeps_it_from_listening(start, tmp_path, how, error):
    write_module(
        tmp_path,
        f"""
        @app.on_startup
        def connect():
            raise {error}("no database")

        if __name__ == "__main__":
            app.listen(port=0)
        """,
    )
    command = start(*how)
    assert command.end() == 1
    assert b"listening" not in command.errors
    assert b"no database" in command.errors
    if error != "SystemExit":
        assert b"in connect\n" in command.errors, "the traceback is that of the hook"


# `app.listen` and `app.stop`.


def script(tmp_path, source: str) -> str:
    """A module that listens when it is run; its name."""
    return write_module(tmp_path, APP + source, "serving").name


def test_listen_from_a_script(start, tmp_path):
    command = start(script(tmp_path, '    app.listen(port=0)\n    print("returned")\n'))
    command.listens()
    assert command.get().text == "hello"
    command.send(signal.SIGINT)
    assert command.end() == 0
    assert command.output == b"returned\n"


def test_listen_reads_no_variables(start, tmp_path):
    """The program's own arguments decide; `catzilla run` is for settings from outside."""
    command = start(script(tmp_path, "    app.listen(port=0)\n"), environ={"CATZILLA_WORKERS": "2"})
    command.listens()
    assert b"processes" not in command.errors


def test_stop_from_another_thread(start, tmp_path):
    source = """
    asked = threading.Event()
    threading.Thread(target=lambda: (asked.wait(), app.stop())).start()

    @app.get("/ask")
    def ask():
        asked.set()
        return "asked"

    app.listen(port=0)
    print("returned")
    """
    command = start(script(tmp_path, source))
    command.listens()
    assert command.get("/ask").text == "asked"
    assert command.end() == 0
    assert command.output == b"returned\n"


def test_stop_from_a_handler_lets_its_answer_out(start, tmp_path):
    source = """
    @app.get("/stop")
    def stop():
        app.stop()
        return "stopping"

    app.listen(port=0)
    """
    command = start(script(tmp_path, source))
    command.listens()
    assert command.get("/stop").text == "stopping"
    assert command.end() == 0


def test_listen_outside_of_the_main_thread(start, tmp_path):
    """It takes no signals there; `app.stop` ends it, and the program goes on."""
    source = """
    server = threading.Thread(target=app.listen, kwargs={"port": 0})
    server.start()

    @app.get("/stop")
    def stop():
        app.stop()
        return "stopping"

    server.join()
    print("returned")
    """
    command = start(script(tmp_path, source))
    command.listens()
    assert command.get("/").text == "hello"
    eventually(lambda: command.get("/stop").text == "stopping", "the route is there")
    assert command.end() == 0
    assert command.output == b"returned\n"


def test_listen_again_after_a_stop(start, tmp_path):
    source = """
    @app.get("/stop")
    def stop():
        app.stop()
        return "stopping"

    app.listen(port=0)
    print("between", flush=True)
    app.listen(port=0)
    """
    command = start(script(tmp_path, source))
    command.listens()
    assert command.get("/stop").text == "stopping"
    command.expect(rb"between")
    command.expect(rb"(?s)listening.*listening")
    command.port = int(re.findall(rb"127\.0\.0\.1:(\d+)", command.errors)[-1])
    assert command.get("/stop").text == "stopping"
    assert command.end() == 0


@pytest.mark.parametrize(
    ("call", "last_line"),
    [
        ("app.listen(prot=80)", "SettingsError: there is no setting 'prot'; did you mean port?"),
        ("app.listen(reload=True)", "SettingsError: reload needs the command line: catzilla run module:app --reload"),
        ("app.listen(ssl_certfile='no.pem')", "SettingsError: cannot use the certificate no.pem"),
    ],
)
def test_listen_with_settings_that_make_no_sense(start, tmp_path, call, last_line):
    command = start(script(tmp_path, f"    {call}\n"))
    assert command.end() == 1
    assert last_line in command.errors.decode().splitlines()[-1]
