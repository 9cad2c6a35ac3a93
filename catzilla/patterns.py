"""Path patterns: `/items/{item_id:int}` taken apart into segments, each static or with parameters.

Decides the syntax, the converters and the messages for patterns that make no sense. Does not know routes or methods.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from catzilla.errors import RouteError


@dataclass(frozen=True)
class Converter:
    """What a parameter matches and what it becomes. The lower `rank` is tried first: the narrower converter wins."""

    regex: str
    convert: Callable[[str], Any]
    rank: int


# Numbers are unsigned and ASCII: "-1", "+1" and other scripts' digits are no match, so that one resource has one path.
# A path takes slashes but does not begin with one, or os.path.join(root, path) would leave the root.
CONVERTERS = {
    "uuid": Converter("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", UUID, 0),
    "int": Converter("[0-9]+", int, 1),
    "float": Converter(r"[0-9]+(?:\.[0-9]+)?", float, 2),
    "str": Converter("[^/]+", str, 3),
    "path": Converter("[^/].*", str, 4),
}

_PARAMETER = re.compile(r"\{([^{}]*)\}")
_PERCENT_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class Segment:
    """One piece of a pattern between slashes that has parameters. `key` is equal for segments that match the same."""

    key: str
    names: tuple[str, ...]
    rank: tuple[int, int]
    takes_rest: bool
    match: Callable[[str], tuple[Any, ...] | None]


@dataclass(frozen=True)
class Pattern:
    """A path pattern, parsed: static segments are `str`."""

    text: str
    segments: tuple[str | Segment, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(name for segment in self.segments if isinstance(segment, Segment) for name in segment.names)


def parse_pattern(text: object) -> Pattern:
    """Take a pattern apart.

    A parameter is `{name}` or `{name:converter}`; static text may stand around it (`/v{major:int}.{minor:int}`).

    Raises: `RouteError` naming the pattern and what to write instead.
    """
    if not isinstance(text, str):
        raise RouteError(f"a path pattern is a str, not {type(text).__name__}: write @app.get('/path')")
    _refuse_foreign_syntax(text)
    pieces = text[1:].split("/")
    segments: list[str | Segment] = []
    for index, piece in enumerate(pieces):
        is_last = index == len(pieces) - 1
        if not piece and not is_last:
            raise RouteError(f"path {text!r} has an empty segment: write one slash, not two")
        segments.append(_parse_segment(text, piece, is_last) if "{" in piece or "}" in piece else piece)
    pattern = Pattern(text, tuple(segments))
    for name in pattern.names:
        if pattern.names.count(name) > 1:
            raise RouteError(f"path {text!r} has two parameters {name!r}: give one of them another name")
    return pattern


def _refuse_foreign_syntax(text: str) -> None:
    if not text.startswith("/"):
        raise RouteError(f"path {text!r} does not begin with a slash: write {'/' + text!r}")
    if "<" in text and ">" in text:
        ours = re.sub(r"<(?:(\w+):)?(\w+)>", lambda m: f"{{{m[2]}{':' + m[1] if m[1] else ''}}}", text)
        raise RouteError(f"path {text!r}: parameters stand in braces here: write {ours!r}")
    for mark, what in (("?", "query"), ("#", "fragment")):
        if mark in text:
            raise RouteError(f"path {text!r}: a {what} is no part of a path: write {text.partition(mark)[0]!r}")
    if _PERCENT_ENCODED.search(text):
        raise RouteError(f"path {text!r} is percent-encoded, but paths are decoded before they are matched: decode it")


def _parse_segment(text: str, piece: str, is_last: bool) -> Segment:
    """Compile one segment that has parameters."""
    literals = _PARAMETER.split(piece)[::2]  # static text before, between and after the parameters
    if any("{" in literal or "}" in literal for literal in literals):
        raise RouteError(f"path {text!r}: a brace in {piece!r} is not closed or not opened: write {{name:converter}}")
    parameters = [_parse_parameter(text, inner) for inner in _PARAMETER.findall(piece)]
    if "" in literals[1:-1]:
        raise RouteError(f"path {text!r}: {piece!r} does not say where one parameter ends: put text between them")
    takes_rest = any(kind == "path" for _, kind in parameters)
    if takes_rest and (not is_last or len(parameters) > 1 or any(literals)):
        raise RouteError(f"path {text!r}: a path parameter takes all that follows: make it the whole last segment")
    names = tuple(name for name, _ in parameters)
    kinds = [kind for _, kind in parameters]
    key = "".join(f"{literal}{{{kind}}}" for literal, kind in zip(literals[:-1], kinds, strict=True)) + literals[-1]
    # Segments with more static text are narrower, then those with narrower converters.
    rank = (-sum(map(len, literals)), sum(CONVERTERS[kind].rank for kind in kinds))
    return Segment(key, names, rank, takes_rest, _matcher(literals, kinds))


def _parse_parameter(text: str, inner: str) -> tuple[str, str]:
    name, colon, kind = inner.partition(":")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise RouteError(f"path {text!r}: {name!r} is no parameter name: write a Python identifier in the braces")
    if colon and kind not in CONVERTERS:
        raise RouteError(f"path {text!r}: there is no converter {kind!r}: write one of {', '.join(sorted(CONVERTERS))}")
    return name, kind or "str"


def _matcher(literals: list[str], kinds: list[str]) -> Callable[[str], tuple[Any, ...] | None]:
    """A function from the text of a segment to the converted values, or None when it does not match."""
    if kinds == ["str"] and not any(literals):
        return lambda segment: (segment,) if segment else None  # the commonest by far, without a regex
    groups = [f"({CONVERTERS[kind].regex})" for kind in kinds]
    pieces = zip(map(re.escape, literals), [*groups, ""], strict=True)
    regex = "".join(literal + group for literal, group in pieces)
    fullmatch = re.compile(regex, re.DOTALL).fullmatch
    converts = [CONVERTERS[kind].convert for kind in kinds]

    def match(segment: str) -> tuple[Any, ...] | None:
        found = fullmatch(segment)
        if found is None:
            return None
        try:
            return tuple(convert(value) for convert, value in zip(converts, found.groups(), strict=True))
        except ValueError:  # an int of more digits than Python converts
            return None

    return match
