"""A mapping whose names may have several values: query parameters, form fields, uploaded files.

Knows nothing of where the pairs came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from catzilla.errors import MissingField

V = TypeVar("V")


class MultiMap(Mapping[str, V]):
    """Read-only, case-sensitive, in order: `m["tag"]` is the first value of a name, `m.getlist("tag")` all of them.

    Where there is none, `m["tag"]` raises `MissingField`, a `KeyError` that is answered 400.
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, V]] = ()) -> None:
        self._values: dict[str, list[V]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> V:
        try:
            return self._values[name][0]
        except KeyError:
            raise MissingField(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getlist(self, name: str) -> list[V]:
        """Every value of a name, in order; empty when there is none."""
        return list(self._values.get(name, ()))

    def multi_items(self) -> list[tuple[str, V]]:
        """Every (name, value) pair, grouped by name, repeated names included."""
        return [(name, value) for name, values in self._values.items() for value in values]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"
