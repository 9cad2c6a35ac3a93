"""What a thread is serving at this moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catzilla._core.waits import Waits


class Current(threading.local):
    """What the thread is serving; nothing outside of a request.

    `waits` are those of its request. `go_live` turns a response that is written to into a stream; the application
    sets it while a handler runs. `about_to_block` is to be called before the thread waits for anything: it is set
    while something rests until the thread comes back (`leader.py`).
    """

    waits: Waits | None = None
    go_live: Callable[[Any], Any] | None = None
    about_to_block: Callable[[], object] | None = None


current = Current()
