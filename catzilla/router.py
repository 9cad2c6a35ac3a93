"""Which endpoint answers a method and a path: a tree of segments, with a dictionary in front for static paths.

Decides precedence (static before parameter, narrow before wide, with backtracking), 404 against 405, and what a second
registration does. Does not know what an endpoint is, and answers nothing itself. Registering is for one thread;
matching is for any, once that is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar, Union

from catzilla.errors import RouteError
from catzilla.groups import Route, RouteDecorators, RouterGroup
from catzilla.headers import is_token
from catzilla.patterns import Pattern, Segment, parse_pattern

__all__ = ["Found", "Match", "NotFound", "Options", "Route", "RouteDecorators", "Router", "RouterGroup", "WrongMethod"]

T = TypeVar("T")


class Found(Generic[T]):
    """A route matches: `endpoint` is what it was registered with, `params` its converted parameters by name."""

    __slots__ = ("endpoint", "params")

    def __init__(self, endpoint: T, params: dict[str, Any]) -> None:
        self.endpoint = endpoint
        self.params = params  # a fresh dictionary a match: the request may keep it

    def __repr__(self) -> str:
        return f"Found({self.endpoint!r}, {self.params!r})"


class NotFound(NamedTuple):
    """No route has this path, whatever the method: 404."""

    path: str


class WrongMethod(NamedTuple):
    """The path is known, the method is not: 405 with `Allow: ` and these, sorted (RFC 9110 section 15.5.6)."""

    allowed: tuple[str, ...]


class Options(NamedTuple):
    """An OPTIONS request that no route answers itself: 204 with `Allow: ` and these (RFC 9110 section 9.3.7)."""

    allowed: tuple[str, ...]


Match = Union[Found[T], NotFound, WrongMethod, Options]  # noqa: UP007  a generic alias written with | needs no T


class Router(Generic[T]):
    """Routes by path pattern and method."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._static: dict[str, dict[str, _Entry[T]]] = {}
        self._routes: dict[tuple[str, _Leaf[T]], None] = {}

    def add(self, method: str, pattern: str, endpoint: T, overwrite: bool = False) -> Pattern:
        """Register `endpoint` for a method and a pattern, and return the parsed pattern.

        Raises: `RouteError` for a pattern or method that makes no sense, and for a second registration of the same
        method and path unless `overwrite` is true. `{a}` and `{b}` are the same path; `{a}` and `{a:int}` are not.
        """
        parsed = parse_pattern(pattern)
        method = _check_method(method, pattern)
        leaf = self._root.leaf_for(parsed)
        present = leaf.explicit.get(method)
        if present is not None and not overwrite:
            raise RouteError(
                f"{method} {pattern} is registered already, as {method} {present.pattern.text}: "
                "change the path, or write overwrite=True"
            )
        leaf.explicit[method] = _Entry(endpoint, parsed)
        leaf.by_method = dict(leaf.explicit)
        # HEAD is GET without its content (RFC 9110 section 9.3.2), unless a route says otherwise.
        if "GET" in leaf.explicit:
            leaf.by_method.setdefault("HEAD", leaf.explicit["GET"])
        if not parsed.names:
            self._static[pattern] = leaf.by_method
        self._routes[method, leaf] = None
        return parsed

    def match(self, method: str, path: str) -> Match[T]:
        """The route for a method (upper case) and a decoded path without query. [any thread]

        A path that several patterns match goes to the first, in order of precedence, that has the method.
        """
        by_method = self._static.get(path)
        if by_method is not None:
            entry = by_method.get(method)
            if entry is not None:
                return Found(entry.endpoint, {})
        if path == "*":  # about the server as a whole, so no route is meant (RFC 9112 section 3.2.4)
            return self._server_wide(method)
        allowed: set[str] = set()
        for leaf, values in self._root.leaves(path[1:].split("/"), 0, ()):
            entry = leaf.by_method.get(method)
            if entry is not None:
                return Found(entry.endpoint, dict(zip(entry.pattern.names, values, strict=True)))
            allowed.update(leaf.by_method)
        if not allowed:
            return NotFound(path)
        methods = tuple(sorted(allowed | {"OPTIONS"}))
        return Options(methods) if method == "OPTIONS" else WrongMethod(methods)

    def _server_wide(self, method: str) -> Match[T]:
        methods = {name for _, leaf in self._routes for name in leaf.by_method}
        return Options(tuple(sorted(methods | {"OPTIONS"}))) if method == "OPTIONS" else WrongMethod(("OPTIONS",))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is registered."""
        return not self._routes

    def routes(self) -> list[tuple[str, str, T]]:
        """Every (method, pattern, endpoint), in the order of registration."""
        entries = ((method, leaf.explicit[method]) for method, leaf in self._routes)
        return [(method, entry.pattern.text, entry.endpoint) for method, entry in entries]


class _Entry(Generic[T]):
    """One registered route. The parameter names are the route's, not the node's: routes may share a path."""

    __slots__ = ("endpoint", "pattern")

    def __init__(self, endpoint: T, pattern: Pattern) -> None:
        self.endpoint = endpoint
        self.pattern = pattern


class _Leaf(Generic[T]):
    """The routes of one path: as registered, and as looked up, where HEAD follows GET."""

    __slots__ = ("by_method", "explicit")

    def __init__(self) -> None:
        self.explicit: dict[str, _Entry[T]] = {}
        self.by_method: dict[str, _Entry[T]] = {}


class _Node(Generic[T]):
    """A place in the tree. The static child comes before the ones with parameters, which are sorted by rank."""

    __slots__ = ("dynamic", "leaf", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node[T]] = {}
        self.dynamic: list[tuple[Segment, _Node[T]]] = []
        self.leaf: _Leaf[T] | None = None

    def leaf_for(self, pattern: Pattern) -> _Leaf[T]:
        """The leaf of a pattern, made where it is missing."""
        node = self
        for segment in pattern.segments:
            node = node._child(segment)
        if node.leaf is None:
            node.leaf = _Leaf()
        return node.leaf

    def _child(self, segment: str | Segment) -> _Node[T]:
        if isinstance(segment, str):
            return self.static.setdefault(segment, _Node())
        for known, node in self.dynamic:
            if known.key == segment.key:
                return node
        node = _Node()
        self.dynamic.append((segment, node))
        self.dynamic.sort(key=lambda child: child[0].rank)
        return node

    def leaves(self, segments: list[str], index: int, values: tuple[Any, ...]) -> Iterator[tuple[_Leaf[T], Any]]:
        """Every leaf that the path reaches, best first, with its parameter values.

        The depth is the pattern's, not the path's, and a node is visited at most once, so a hostile path costs no more
        than its length and the number of routes.
        """
        if index == len(segments):
            if self.leaf is not None:
                yield self.leaf, values
            return
        text = segments[index]
        child = self.static.get(text)
        if child is not None:
            yield from child.leaves(segments, index + 1, values)
        for segment, node in self.dynamic:
            if segment.takes_rest:
                found = segment.match("/".join(segments[index:]))
                if found is not None and node.leaf is not None:
                    yield node.leaf, (*values, *found)
            else:
                found = segment.match(text)
                if found is not None:
                    yield from node.leaves(segments, index + 1, (*values, *found))


def _check_method(method: object, pattern: str) -> str:
    if not isinstance(method, str) or not is_token(method):
        raise RouteError(f"path {pattern!r}: {method!r} is no HTTP method: write 'GET', 'POST' or the like")
    return method.upper()
