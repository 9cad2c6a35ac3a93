"""Finding the app that `module:app` names, and saying what was looked for where it is not found."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from types import ModuleType
from typing import NoReturn

from catzilla import app as app_module
from catzilla.app import Catzilla
from catzilla.settings import Settings


class LoadError(Exception):
    """There is no such app; the message is one line that says what was looked for and what was found instead."""


def load_app(target: str) -> Catzilla:
    """The app that `target` names: `package.module:name`. The current directory comes first on the path.

    Raises: `LoadError`; and whatever importing the module raises, if it is the module's own doing.
    """
    module_name, colon, attribute = target.partition(":")
    if not module_name or (colon and not attribute):
        raise LoadError(f"{target!r} names no app: write MODULE:APP, such as myproject:app")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise LoadError(f"{target!r} is a file: write the module's name, {dotted}:{attribute or 'app'}")
    if module_name.startswith("."):
        raise LoadError(f"{target!r}: write the module's whole name, without a dot in front")
    module = _import(module_name, target)
    found = _resolve(module, attribute or "app", target)
    if isinstance(found, Catzilla):
        return found
    raise LoadError(f"{target}: looked for a Catzilla app, found {type(found).__name__} instead{_apps(module)}")


def _import(name: str, target: str) -> ModuleType:
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    runner, app_module.runner = app_module.runner, _refuse_to_listen
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the named module or its package: one that it imports itself is another error, with its traceback.
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        raise LoadError(
            f"{target}: looked for a module {name!r} in {directory} and on the Python path, and found no {error.name!r}"
        ) from None
    finally:
        app_module.runner = runner


def _refuse_to_listen(app: Catzilla, settings: Settings) -> NoReturn:
    raise LoadError('the module calls app.listen() while it is imported: put that under if __name__ == "__main__":')


def _resolve(module: ModuleType, attribute: str, target: str) -> object:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), 1)
            hint = f"; did you mean {close[0]!r}?" if close else _apps(module)
            raise LoadError(f"{target}: module {module.__name__!r} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def _apps(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Catzilla)]
    return f"; its apps are {', '.join(names)}" if names else "; it has no app at its top level"
