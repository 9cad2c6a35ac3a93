"""Finds what a stopped server left behind: worker threads that still run, and generators that nobody closed.

Looks at thread names and stacks only; does not know how the server is built.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterable
from time import monotonic
from types import FrameType

THREAD_PREFIX = "catzilla-"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
_INSTALLED = ("site-packages", "dist-packages")  # lie inside the standard library's directory, and are not part of it


def server_threads() -> set[threading.Thread]:
    """The threads alive now that belong to some catzilla server."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)}


def leaked_threads(known: set[threading.Thread], timeout: float) -> list[threading.Thread]:
    """The server threads that are not in `known` and still run in `timeout` seconds; returns as soon as none do."""
    deadline = monotonic() + timeout
    for thread in server_threads() - known:
        thread.join(max(0.0, deadline - monotonic()))
    return sorted(server_threads() - known, key=lambda thread: thread.name)


def describe(threads: Iterable[threading.Thread], unclosed_streams: Iterable[str]) -> str:
    """What leaked, for a person who has to find it: the handler's name, and the stack of each thread."""
    frames = sys._current_frames()
    parts = [f"the generator of {name} was not closed" for name in unclosed_streams]
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        if frame is not None:  # else it ended this moment
            stack = "".join(traceback.format_stack(frame))
            parts.append(f"the thread {thread.name} still runs {_user_function(frame)}; it is here:\n{stack}")
    return "\n".join(parts)


def _user_function(frame: FrameType) -> str:
    """The outermost function on a stack that is neither catzilla's nor the standard library's: the handler."""
    outermost = "no handler: it belongs to the server itself"
    current: FrameType | None = frame
    while current is not None:
        path = current.f_code.co_filename
        stdlib = path.startswith((_STDLIB, "<frozen ")) and not any(name in path for name in _INSTALLED)
        if not stdlib and not path.startswith(_PACKAGE):
            name = getattr(current.f_code, "co_qualname", current.f_code.co_name)
            outermost = f"`{name}` ({path}:{current.f_code.co_firstlineno})"
        current = current.f_back
    return outermost
