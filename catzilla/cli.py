"""The command line: `catzilla run module:app` and `catzilla routes module:app`.

Every option of `run` comes from `settings.options()`, which also names its environment variable. Errors a user can
mend are one line: 2 for a command that makes no sense, 1 for an address that cannot be listened on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import click

from catzilla import __version__
from catzilla.app import Catzilla
from catzilla.errors import SettingsError
from catzilla.loading import LoadError, load_app
from catzilla.reload import inherited_socket, reloaded_settings, run_with_reload
from catzilla.serve import listening, run
from catzilla.settings import Option, Settings, options, unknown_variables


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="catzilla")
def main() -> None:
    """Streaming and real-time web applications in plain synchronous Python."""


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every setting as an option, with its unit, default and environment variable in the help."""
    for option in reversed(options()):
        command = _click_option(option)(command)
    return command


def _click_option(option: Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = "" if option.default is None else f"; default {_shown(option)}"
    text = f"{option.help[:1].upper()}{option.help[1:]} [{option.env}{default}]"
    if option.type is bool:
        flags = f"{option.flag}/--no-{option.flag[2:]}"
        return click.option(flags, option.name, default=None, help=text)
    kind = option.unit.upper() if option.unit else {str: "TEXT", int: "NUMBER", float: "NUMBER"}[option.type]
    return click.option(option.flag, option.name, type=str, default=None, metavar=kind, help=text)


def _shown(option: Option) -> str:
    if option.type is bool:
        return "yes" if option.default else "no"
    return str(option.default)


@main.command("run")
@click.argument("target", metavar="MODULE:APP")
@_setting_options
def run_command(target: str, **flags: Any) -> None:
    """Serve the app called APP in MODULE, which is looked for in the current directory first.

    \b
        catzilla run myproject:app --port 8080
        catzilla run myproject.web:app --reload

    A flag beats its environment variable, which is in brackets. Sizes take k, M and G.
    """
    settings = _settings(flags)
    inherited = inherited_socket()
    if inherited is not None:
        _serve(_load(target), reloaded_settings(settings), [inherited])
        return
    for variable in unknown_variables(os.environ):
        click.echo(f"catzilla: there is no setting {variable}", err=True)
    if settings.reload:
        with _listening(settings) as sockets:
            sys.exit(_watch(sockets, settings))
    app = _load(target)
    with _listening(settings) as sockets:
        _serve(app, settings, sockets)


@main.command("routes")
@click.argument("target", metavar="MODULE:APP")
def routes_command(target: str) -> None:
    """List the routes of an app: method, path and handler."""
    rows = [("METHOD", "PATH", "HANDLER"), *_load(target).routes()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for method, path, handler in rows:
        click.echo(f"{method:<{widths[0]}}  {path:<{widths[1]}}  {handler}")


def _settings(flags: dict[str, Any]) -> Settings:
    try:
        return Settings.load(flags, os.environ)
    except SettingsError as error:
        _fail(str(error), 2)


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """As `listening`, and an address that is taken is one line. An `OSError` of the app's own keeps its traceback."""
    with contextlib.ExitStack() as stack:
        try:
            sockets = stack.enter_context(listening(settings))
        except OSError as error:
            _fail(error.strerror or str(error), 1)
        yield sockets


def _serve(app: Catzilla, settings: Settings, sockets: list[socket.socket]) -> None:
    try:
        run(app, settings, sockets=sockets)
    except SettingsError as error:
        _fail(str(error), 2)


def _watch(sockets: list[socket.socket], settings: Settings) -> int:
    try:
        return run_with_reload(sockets, settings)
    except SettingsError as error:
        _fail(str(error), 2)


def _load(target: str) -> Catzilla:
    try:
        return load_app(target)
    except LoadError as error:
        _fail(str(error), 2)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"catzilla: {message}", err=True)
    sys.exit(code)
