"""Which answer a conditional or range request gets, by the tables of RFC 9110 sections 13 and 14."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.conditional import Answer, evaluate
from catzilla.headers import Headers
from tests.requests_made import make_head

ETAG = '"v1"'
MODIFIED = 1_700_000_000.75  # file times have fractions, HTTP dates have none
SIZE = 1000
DATE = formatdate(1_700_000_000, usegmt=True)
BEFORE = formatdate(1_699_999_999, usegmt=True)
AFTER = formatdate(1_700_000_001, usegmt=True)
ASCTIME = "Tue Nov 14 22:13:20 2023"


def ask(headers: dict[str, str], method: str = "GET", etag: str = ETAG, size: int = SIZE) -> Answer:
    return evaluate(method, Headers(make_head(headers=headers).headers), etag, MODIFIED, size)


WHOLE = Answer(200, 0, SIZE)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"If-None-Match": ETAG}, 304),
        ({"If-None-Match": 'W/"v1"'}, 304),
        ({"If-None-Match": '"v0", "v1"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"v0"'}, 200),
        ({"If-None-Match": "v1"}, 200),
        ({"If-None-Match": '"v0,", "v1"'}, 304),
        ({"If-None-Match": '"v0"', "If-Modified-Since": DATE}, 200),
        ({"If-Modified-Since": DATE}, 304),
        ({"If-Modified-Since": ASCTIME}, 304),
        ({"If-Modified-Since": AFTER}, 304),
        ({"If-Modified-Since": BEFORE}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Mon, 99 Nov 2023 22:13:20 GMT"}, 200),
        ({"If-Match": ETAG}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"v0"'}, 412),
        ({"If-Match": 'W/"v1"'}, 412),
        ({"If-Match": '"v0"', "If-None-Match": ETAG}, 412),
        ({"If-Match": ETAG, "If-Unmodified-Since": BEFORE}, 200),
        ({"If-Unmodified-Since": DATE}, 200),
        ({"If-Unmodified-Since": BEFORE}, 412),
        ({"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions(headers, status, method):
    assert ask(headers, method) == Answer(status, 0, SIZE if status == 200 else 0)


def test_conditions_are_for_get_and_head():
    assert ask({"If-None-Match": ETAG, "Range": "bytes=0-1"}, "POST") == WHOLE


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        ("bytes=0-0", Answer(206, 0, 1)),
        ("bytes=0-499", Answer(206, 0, 500)),
        ("bytes=500-", Answer(206, 500, 500)),
        ("bytes=-1", Answer(206, 999, 1)),
        ("bytes=-5000", Answer(206, 0, 1000)),
        ("bytes=999-5000", Answer(206, 999, 1)),
        ("Bytes= 1-2 ", Answer(206, 1, 2)),
        ("bytes=1000-", Answer(416, 0, 0)),
        ("bytes=1000-1001", Answer(416, 0, 0)),
        ("bytes=-0", Answer(416, 0, 0)),
        ("bytes=-", WHOLE),
        ("bytes=2-1", WHOLE),
        ("bytes=0-1,5-6", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=+0-1", WHOLE),
        ("bytes=٠-١", WHOLE),
        ("bytes=0-" + "9" * 5000, WHOLE),
        ("lines=0-1", WHOLE),
        ("0-1", WHOLE),
    ],
)
def test_ranges(wanted, answer):
    assert ask({"Range": wanted}) == answer


def test_a_range_is_for_get_alone():
    assert ask({"Range": "bytes=0-1"}, "HEAD") == WHOLE


def test_nothing_of_an_empty_representation_can_be_had():
    assert ask({"Range": "bytes=0-"}, size=0) == Answer(416, 0, 0)
    assert ask({"Range": "bytes=-5"}, size=0) == Answer(416, 0, 0)
    assert ask({}, size=0) == Answer(200, 0, 0)


@pytest.mark.parametrize(
    ("condition", "etag", "status"),
    [
        (ETAG, ETAG, 206),
        ('"v0"', ETAG, 200),
        ('W/"v1"', 'W/"v1"', 200),
        (DATE, ETAG, 206),
        (BEFORE, ETAG, 200),
        (AFTER, ETAG, 200),
        ("junk", ETAG, 200),
    ],
)
def test_if_range_makes_a_part_depend_on_the_validator(condition, etag, status):
    assert ask({"Range": "bytes=0-1", "If-Range": condition}, etag=etag).status == status


@given(st.integers(0, 1200), st.integers(0, 1200) | st.none(), st.integers(1, 1100))
def test_a_part_is_never_outside(first, last, size):
    answer = ask({"Range": f"bytes={first}-{'' if last is None else last}"}, size=size)
    expected = list(range(size))[first : None if last is None else last + 1]
    if last is not None and last < first:
        assert answer == Answer(200, 0, size)
    elif not expected:
        assert answer == Answer(416, 0, 0)
    else:
        assert answer == Answer(206, first, len(expected))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_any_condition_gets_some_answer(text):
    for name in ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"):
        assert ask({"Range": "bytes=0-1", name: text}).status in (200, 206, 304, 412, 416)
