"""What a thread is serving at this moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catzilla._core.leader import Lead
    from catzilla._core.waits import Waits


class Current(threading.local):
    """What the thread is serving; nothing outside of a request.

    `waits` are those of its request. `go_live` turns a response that is written to into a stream; the application
    sets it while a handler runs. `lead` is set while this thread leads the loop and is lent (`leader.py`): the loop
    rests until it comes back, so it is to resign before it waits for anything.
    """

    waits: Waits | None = None
    go_live: Callable[[Any], Any] | None = None
    lead: Lead | None = None


current = Current()
