"""The guide's snippets stand in the examples word for word, and every example can be run."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path

import pytest

from catzilla import Catzilla

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "__init__")
SNIPPETS = dict(
    re.findall(
        r"^## (\w+)\.py\n\n```python\n(.*?)```$",
        Path(__file__).with_name("seed_snippets.txt").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
)


def test_every_snippet_was_found():
    assert len(SNIPPETS) == 7


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_stands_word_for_word_in_its_example(name):
    assert SNIPPETS[name] in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_how_it_is_run(name):
    module = importlib.import_module(f"examples.{name}")
    assert f"`catzilla run examples.{name}:app`" in module.__doc__
    assert isinstance(module.app, Catzilla)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_run_as_a_script_listens(name, monkeypatch):
    listening = []
    monkeypatch.setattr(Catzilla, "listen", lambda app: listening.append(app))
    module = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert listening == [module["app"]]
