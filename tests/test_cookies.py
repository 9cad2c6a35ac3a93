"""Cookies as browsers send them, and the ones that we set."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.cookies import format_set_cookie, parse_cookies


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2;", {"a": "1", "b": "2"}),
        ("a=first; a=second", {"a": "first"}),
        ("a=x=y", {"a": "x=y"}),
        ("a=", {"a": ""}),
        ("lonely; =nameless; a=1", {"a": "1"}),
        ('a="two words"', {"a": "two words"}),
        ('a="say \\"hi\\""', {"a": 'say "hi"'}),
        ('a="x\\073y"', {"a": "x;y"}),
        ('a="', {"a": '"'}),
        ("a=[1] {2}", {"a": "[1] {2}"}),
        ("a=caf\xc3\xa9", {"a": "café"}),  # UTF-8 read as Latin-1, which is how header bytes arrive
        ("a=caf\xe9", {"a": "café"}),
    ],
)
def test_cookies_are_read(header, cookies):
    assert parse_cookies(header) == cookies


def test_a_cookie_is_lax_and_for_the_whole_site_by_default():
    assert format_set_cookie("a", "1") == "a=1; Path=/; SameSite=Lax"


def test_every_attribute():
    cookie = format_set_cookie(
        "a", "1", timedelta(hours=1), datetime(2030, 1, 2, 3, 4, 5), "/x", "example.com", True, True, "none"
    )
    assert cookie == (
        "a=1; Expires=Wed, 02 Jan 2030 03:04:05 GMT; Max-Age=3600; Domain=example.com; Path=/x; "
        "Secure; HttpOnly; SameSite=None"
    )


def test_dates_of_every_kind_are_gmt():
    east = timezone(timedelta(hours=2))
    assert "Expires=Wed, 02 Jan 2030 01:00:00 GMT" in format_set_cookie(
        "a", expires=datetime(2030, 1, 2, 3, tzinfo=east)
    )
    assert "Expires=Thu, 01 Jan 1970 00:00:00 GMT" in format_set_cookie("a", expires=0)
    assert "Expires=some day" in format_set_cookie("a", expires="some day")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a b"}, "no cookie name"),
        ({"name": "a=b"}, "no cookie name"),
        ({"name": "a", "value": "x\r\ny"}, "control character at position 1"),
        ({"name": "a", "value": "x\0"}, "control character"),
        ({"name": "a", "path": "/;x"}, "path '/;x' has a semicolon"),
        ({"name": "a", "domain": "x\n"}, "domain"),
        ({"name": "a", "expires": "x; Secure"}, "semicolon"),
        ({"name": "a", "samesite": "maybe"}, "samesite is"),
        ({"name": "a", "samesite": "none"}, "secure=True"),
    ],
)
def test_what_a_cookie_may_not_hold_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        format_set_cookie(**arguments)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_value_without_control_characters_comes_back(value):
    pair = format_set_cookie("a", value, path=None, samesite=None)
    pair.encode("latin-1")
    assert ";" not in pair
    assert parse_cookies(f"z=1; {pair}; b=2") == {"z": "1", "a": value, "b": "2"}
