"""Finding `module:app`: where it is looked for, and one line that says so where it is not found."""

from __future__ import annotations

import importlib
import sys

import pytest

from catzilla import Catzilla
from catzilla.loading import LoadError, load_app

APP = "from catzilla import Catzilla\napp = Catzilla()\n"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """The current directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(directory):
    """`write(path, source)` puts a module into the current directory."""

    def make(path: str, source: str = APP) -> None:
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        importlib.invalidate_caches()

    return make


def refusal(target: str) -> str:
    with pytest.raises(LoadError) as refused:
        load_app(target)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("target", ["one_web:app", "one_web"])
def test_a_module_of_the_current_directory(write, target):
    write("one_web.py")
    assert load_app(target) is sys.modules["one_web"].app


def test_a_module_in_a_package(write):
    write("two_pkg/__init__.py", "")
    write("two_pkg/deep/web.py")
    assert isinstance(load_app("two_pkg.deep.web:app"), Catzilla)


def test_an_attribute_of_an_attribute(write):
    write("three_web.py", APP + "class Config:\n    main = Catzilla()\n")
    assert load_app("three_web:Config.main") is sys.modules["three_web"].Config.main


def test_the_current_directory_comes_first_and_once(write, directory):
    write("four_web.py")
    load_app("four_web:app")
    load_app("four_web:app")
    assert sys.path[0] == str(directory)
    assert sys.path.count(str(directory)) == 1


@pytest.mark.parametrize("target", ["", ":", ":app", "web:"])
def test_what_names_no_app(target):
    assert refusal(target) == f"{target!r} names no app: write MODULE:APP, such as myproject:app"


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("web.py:app", "web:app"),
        ("web.py", "web:app"),
        ("./shop/web.py:main", "shop.web:main"),
        ("shop/web:main", "shop.web:main"),
    ],
)
def test_a_file_where_a_module_is_meant(target, meant):
    assert refusal(target) == f"{target!r} is a file: write the module's name, {meant}"


@pytest.mark.parametrize("target", [".web:app", "..web:app"])
def test_a_relative_name(target):
    assert "without a dot in front" in refusal(target)


def test_no_such_module(directory):
    assert refusal("nosuch:app") == (
        f"nosuch:app: looked for a module 'nosuch' in {directory} and on the Python path, and found no 'nosuch'"
    )


def test_no_such_module_in_a_package(write):
    write("five_pkg/__init__.py", "")
    assert refusal("five_pkg.nosuch.web:app").endswith("and found no 'five_pkg.nosuch'")


def test_no_such_attribute_and_one_that_is_close(write):
    write("six_web.py", APP + "application = Catzilla()\n")
    assert refusal("six_web:aplication") == (
        "six_web:aplication: module 'six_web' has no 'aplication'; did you mean 'application'?"
    )


def test_no_such_attribute_and_none_that_is_close(write):
    write("seven_web.py", "from catzilla import Catzilla\nshop = Catzilla()\nadmin = Catzilla()\n")
    assert refusal("seven_web") == "seven_web: module 'seven_web' has no 'app'; its apps are shop, admin"


def test_no_app_at_all(write):
    write("eight_web.py", "x = 1\n")
    assert refusal("eight_web") == "eight_web: module 'eight_web' has no 'app'; it has no app at its top level"


def test_something_that_is_no_app(write):
    write("nine_web.py", APP + "def make():\n    return app\n")
    assert refusal("nine_web:make") == (
        "nine_web:make: looked for a Catzilla app, found function instead; its apps are app"
    )


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("raise ValueError('no database')", ValueError, "no database"),
        ("open('nosuch.json')", FileNotFoundError, "nosuch.json"),
        ("import nosuch_library", ModuleNotFoundError, "nosuch_library"),
        ("def broken(:", SyntaxError, "syntax"),
    ],
    ids=["ValueError", "OSError", "ModuleNotFoundError", "SyntaxError"],
)
def test_what_the_module_itself_raises_is_its_own_error(write, source, error, message):
    write("ten_web.py", source)
    with pytest.raises(error, match=message):
        load_app("ten_web:app")


def test_a_module_that_listens_while_it_is_imported(write):
    write("listens_at_import.py", APP + "\napp.listen(port=0)\n")
    assert "__main__" in refusal("listens_at_import:app")
