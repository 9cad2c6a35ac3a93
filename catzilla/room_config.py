"""What is settled about a room, and what a room may be called. Knows no members and no messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from catzilla._core.outbox import OnSlow
from catzilla.brokers.base import Retention

MAX_NAME = 128  # characters of a room's name
USER_PREFIX = "~"  # of the streams that belong to principals; no room's name begins with it


@dataclass
class RoomConfig:
    """What is settled about one room. Written while it is set up, read by any thread."""

    public: bool = False
    on_slow: OnSlow = OnSlow.DISCONNECT
    history: int = 0
    history_ttl: float = 300.0
    authorize: Callable[..., Any] | None = None
    joined: list[Callable[..., Any]] = field(default_factory=list)
    left: list[Callable[..., Any]] = field(default_factory=list)

    given: set[str] = field(default_factory=set)  # names of options that were set

    def update(self, options: dict[str, Any]) -> list[str]:
        """Settle what `app.room` was given; returns what that changes of what it was given before."""
        changes = []
        for name, value in options.items():
            before = getattr(self, name)
            if name in self.given and before != value:
                changes.append(f"{name}={_written(value)} replaces {_written(before)}")
            setattr(self, name, value)
        self.given |= options.keys()
        return changes

    @property
    def retention(self) -> Retention | None:
        return Retention(messages=self.history, age=self.history_ttl) if self.history else None


def _written(option: object) -> str:
    """An option as `app.room` takes it."""
    return repr(option.value if isinstance(option, OnSlow) else option)


def check_name(name: object) -> None:
    """Refuse what is no room's name. Raises: `ValueError`, `TypeError`."""
    if not isinstance(name, str):
        raise TypeError(f"a room's name is a str, not {type(name).__name__}")
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{name[:40]!r} is no name of a room: write 1 to {MAX_NAME} printable characters")
    if name.startswith(USER_PREFIX):
        raise ValueError(f"{name!r} is no name of a room: {USER_PREFIX} begins those of users; write app.user(...)")


def room_options(
    public: bool | None, history: int | None, history_ttl: float | None, on_slow: str | None
) -> dict[str, Any]:
    """The options of `app.room` that were given, checked. Raises: `ValueError` saying what to write instead."""
    given: dict[str, Any] = {}
    if public is not None:
        if public not in (True, False):  # a word such as "no" would open it to everybody
            raise ValueError(f"public={public!r}: write True or False")
        given["public"] = bool(public)
    if history is not None:
        count: object = history
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"history={history!r}: write how many messages to keep, 0 for none")
        given["history"] = history
    if history_ttl is not None:
        seconds: object = history_ttl
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds > 0:
            raise ValueError(f"history_ttl={history_ttl!r}: write how many seconds to keep them")
        given["history_ttl"] = float(history_ttl)
    if on_slow is not None:
        try:
            given["on_slow"] = OnSlow(on_slow)
        except ValueError:
            names = ", ".join(repr(each.value) for each in OnSlow)
            raise ValueError(f"on_slow={on_slow!r}: write one of {names}") from None
    return given
