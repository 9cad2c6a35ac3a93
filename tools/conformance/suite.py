"""Where the Autobahn TestSuite comes from: `kosoku`, which drives its case files on today's Python.

Decides which version runs and where it is looked for. Its runner changes the interpreter it lives in (`binascii`,
`sys.path`), so nothing but `drive.py`, in a process of its own, imports it.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

VERSION = "0.1.0"
"""The extra `test` in pyproject.toml names the same."""
CACHE = Path(__file__).parents[2] / ".conformance"
"""Ignored by git; holds the suite for an environment that was installed without the extra `test`."""
INSTALL_TIMEOUT = 120.0
"""Seconds for pip to fetch some 3 MB."""


class SuiteMissing(Exception):
    """There is no suite to run; the message says why and what to do about it."""


def is_installed() -> bool:
    """Whether this environment has the version that is wanted."""
    try:
        return importlib.metadata.version("kosoku") == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def ensure(cache: Path = CACHE) -> list[str]:
    """What a process has to have on its `sys.path` for `import kosoku`: nothing, or a directory that pip has filled.

    Raises:
        SuiteMissing: it is neither installed nor to be had.
    """
    if is_installed():
        return []
    target = cache / f"kosoku-{VERSION}"
    if not (target / "kosoku" / "__init__.py").exists():
        install(target)
    return [str(target)]


def install(target: Path) -> None:
    """Fetch it from the package index into a directory of its own, so that no environment is changed."""
    print(f"installing kosoku {VERSION} into {target}", file=sys.stderr, flush=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--upgrade", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), f"kosoku=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise SuiteMissing(_how(f"pip took longer than {INSTALL_TIMEOUT:g} s")) from None
    if done.returncode:
        raise SuiteMissing(_how("pip says:\n" + done.stderr.strip()))


def _how(reason: str) -> str:
    return f"kosoku {VERSION} is not installed and could not be fetched: `pip install kosoku=={VERSION}`. {reason}"
