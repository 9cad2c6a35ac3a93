"""The command line: `catzilla run module:app` and `catzilla routes module:app`.

Every option of `run` comes from `settings.options()`, which also names its environment variable. Errors a user can
mend are one line: 2 for a command that makes no sense, 1 for an address that cannot be listened on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from catzilla import __version__
from catzilla.app import Catzilla
from catzilla.errors import SettingsError
from catzilla.loading import LoadError, load_app
from catzilla.reload import INHERITED, inherited_socket, run_with_reload
from catzilla.serve import bind, run
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
    for variable in unknown_variables({name: value for name, value in os.environ.items() if name not in INHERITED}):
        click.echo(f"catzilla: {variable} is not a setting", err=True)
    try:
        if settings.reload and INHERITED[0] not in os.environ:
            sys.exit(run_with_reload(bind(settings), settings))
        app = _load(target)
        inherited = inherited_socket()
        run(app, settings, sockets=None if inherited is None else [inherited])
    except SettingsError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(error.strerror or str(error), 1)


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


def _load(target: str) -> Catzilla:
    try:
        return load_app(target)
    except LoadError as error:
        _fail(str(error), 2)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"catzilla: {message}", err=True)
    sys.exit(code)
