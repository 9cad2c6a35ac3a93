"""Conditional and range requests (RFC 9110 sections 13 and 14): what to answer for one stored representation.

Decides between the whole, a part, 304, 412 and 416 from the request's header fields and two validators. Does not know
files, and serves single ranges only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from catzilla.headers import Headers

_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.IGNORECASE | re.ASCII)
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True)
class Answer:
    """What to answer: 200 with all, 206 with `length` bytes from `offset`, or 304, 412 or 416 with nothing."""

    status: int
    offset: int
    length: int


def evaluate(method: str, headers: Headers, etag: str, modified: float, size: int) -> Answer:
    """The answer for a representation of `size` bytes, last modified at `modified` (seconds since 1970).

    The order is that of RFC 9110 section 13.2.2. Fields that do not parse are ignored, as the RFC has it.
    """
    whole = Answer(200, 0, size)
    if method not in ("GET", "HEAD"):
        return whole
    if _precondition_failed(headers, etag, modified):
        return Answer(412, 0, 0)
    if _not_modified(headers, etag, modified):
        return Answer(304, 0, 0)
    # A range is defined for GET alone (section 14.2), and If-Range makes it depend on the validator (section 13.1.5).
    wanted = headers.get("range") if method == "GET" else None
    if wanted is None or not _if_range_holds(headers, etag, modified):
        return whole
    return _part(wanted, size) or whole


def _precondition_failed(headers: Headers, etag: str, modified: float) -> bool:
    tags = headers.getlist("if-match")
    if tags:
        # Strong comparison (section 8.8.3.2): a weak tag never matches.
        return not _listed(", ".join(tags), etag, weak=False)
    since = _date(headers.get("if-unmodified-since"))
    return since is not None and int(modified) > since


def _not_modified(headers: Headers, etag: str, modified: float) -> bool:
    tags = headers.getlist("if-none-match")
    if tags:
        return _listed(", ".join(tags), etag, weak=True)
    since = _date(headers.get("if-modified-since"))
    # HTTP dates have no fractions, so the comparison is in whole seconds.
    return since is not None and int(modified) <= since


def _if_range_holds(headers: Headers, etag: str, modified: float) -> bool:
    condition = headers.get("if-range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == etag and not etag.startswith("W/")
    return _date(condition) == int(modified)


def _listed(tags: str, etag: str, weak: bool) -> bool:
    if tags.strip() == "*":
        return True
    found = _ENTITY_TAG.findall(tags)
    if weak:
        return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in found}
    return etag in found and not etag.startswith("W/")


def _date(value: str | None) -> int | None:
    """An HTTP date in seconds since 1970, None when there is none or it does not parse."""
    if value is None:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:  # "-0000", or an asctime date, which is UTC (section 5.6.7)
        moment = moment.replace(tzinfo=timezone.utc)
    return int((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds())


def _part(wanted: str, size: int) -> Answer | None:
    """The part that a `Range` asks for; None to ignore it.

    Several ranges are answered with the whole, which section 14.2 allows: multipart/byteranges is rarely asked for and
    is a way to make a server send far more than it has.
    """
    match = _RANGE.fullmatch(wanted)
    if match is None or match.groups() == ("", "") or max(map(len, match.groups())) > 18:
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        length = min(int(last), size)
        return Answer(206, size - length, length) if length else Answer(416, 0, 0)
    start, end = int(first), min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None  # not a valid range, so not one at all (section 14.1.1)
    return Answer(206, start, end - start + 1) if start < size else Answer(416, 0, 0)
