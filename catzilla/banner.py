"""What is said at the start: where the app listens, and how to stop it."""

from __future__ import annotations

from collections.abc import Sequence

from catzilla.app import Catzilla
from catzilla.settings import Settings


def banner(app: Catzilla, urls: Sequence[str], settings: Settings) -> str:
    """A few lines for standard error."""
    mode = "production" if app.production else "development"
    count = len(app.routes())
    details = [mode, f"{count} route{'' if count == 1 else 's'}"]
    if settings.workers > 1:
        details.append(f"{settings.workers} processes")
    return f"catzilla is listening on {', '.join(urls)} ({', '.join(details)}); Ctrl-C stops it"
