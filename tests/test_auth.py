"""Bearer tokens wherever a client can put them, and what a principal says of itself."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from types import MappingProxyType, SimpleNamespace
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.auth import bearer_token, expires_at, principal_id
from catzilla.request import Request
from tests.requests_made import Body, make_head


def asking(*fields: tuple[str, str]) -> Request:
    return Request(make_head(headers=list(fields)), Body())


def authorization(value: str) -> Request:
    return asking(("Authorization", value))


def offering(*lines: str) -> Request:
    return asking(*(("Sec-WebSocket-Protocol", line) for line in lines))


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER   abc", "abc"),
        ("Bearer abc.def-ghi_jkl~mno+pqr/stu==", "abc.def-ghi_jkl~mno+pqr/stu=="),
        ("Bearer 1|opaque:token", "1|opaque:token"),
        ("Bearer a%20b", "a%20b"),  # only a subprotocol is percent-decoded
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer a b", None),
        ("Bearer a, Basic b", None),
        ("Bearerabc", None),
        ("XBearer abc", None),
        ("Basic YTpi", None),
        ("Bearer caf\xe9", None),
        ("", None),
    ],
)
def test_the_authorization_header(value, token):
    assert bearer_token(authorization(value)) == token


def test_nothing_is_no_token():
    assert bearer_token(asking()) is None


def test_two_authorization_headers_are_none():
    twice = ("Authorization", "Bearer abc"), ("Authorization", "Bearer def")
    assert bearer_token(asking(*twice)) is None
    assert bearer_token(asking(*twice, ("Sec-WebSocket-Protocol", "bearer.ghi"))) is None


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        (["bearer.abc"], "abc"),
        (["chat, bearer.abc"], "abc"),
        (["chat,\tbearer.abc ,other"], "abc"),
        (["chat", "bearer.abc"], "abc"),
        (["Bearer.abc"], "abc"),
        (["bearer.eyJh.eyJz.c2ln"], "eyJh.eyJz.c2ln"),
        (["bearer.abc%3D%3D"], "abc=="),
        (["bearer.a+b"], "a+b"),
        (["bearer.first, bearer.second"], "first"),
        (["bearer., bearer.second"], "second"),
        (["bearer.%0d%0a, bearer.second"], "second"),
        (["bearer.%ff"], None),
        (["bearer.%20"], None),
        (["bearer.caf%C3%A9"], None),
        (["bearer."], None),
        (["bearer"], None),
        (["bearer-abc"], None),
        (["xbearer.abc"], None),
        (['"bearer.abc"'], None),  # RFC 6455 section 4.1: tokens, never quoted strings
        ([""], None),
        ([",,"], None),
    ],
)
def test_the_subprotocol(lines, token):
    assert bearer_token(offering(*lines)) == token


def test_the_header_comes_first_and_another_scheme_does_not_hide_the_subprotocol():
    subprotocol = ("Sec-WebSocket-Protocol", "bearer.def")
    assert bearer_token(asking(("Authorization", "Bearer abc"), subprotocol)) == "abc"
    # A browser sends the credentials of a site with Basic authentication by itself.
    assert bearer_token(asking(("Authorization", "Basic YTpi"), subprotocol)) == "def"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_token_arrives_as_it_was_sent(token):
    assert bearer_token(authorization(f"Bearer {token}")) == token
    assert bearer_token(offering("chat, bearer." + quote(token, safe="!~*'()"))) == token


# Principals


@dataclass
class User:
    id: object = None
    expires_at: object = None


def row(**fields: object) -> sqlite3.Row:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    names = ", ".join(f"? as {name}" for name in fields)
    found = connection.execute(f"select {names}", list(fields.values())).fetchone()
    connection.close()
    assert isinstance(found, sqlite3.Row)
    return found


UUID_TEXT = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("principal", "identity"),
    [
        ("alice", "alice"),
        (7, 7),
        (User("alice"), "alice"),
        (User(7), 7),
        (User(0), 0),
        (User(UUID(UUID_TEXT)), UUID_TEXT),
        (User(None), None),
        ({"id": "alice"}, "alice"),
        ({"id": 0}, 0),
        (MappingProxyType({"id": 7}), 7),
        (row(id=7, name="alice"), 7),
        (row(name="alice"), None),
        ({"name": "alice"}, None),
        ({"id": None}, None),
        (None, None),
        (True, None),
        (object(), None),
        (("alice",), None),
        (User, None),
        (dict, None),
    ],
)
def test_who_it_is(principal, identity):
    assert principal_id(principal) == identity
    assert type(principal_id(principal)) is type(identity)


def test_the_attribute_comes_before_the_item():
    class Named(dict):
        id = "attribute"

    assert principal_id(Named(id="item")) == "attribute"


@pytest.mark.parametrize("identity", [b"x", 1.5, True, ("a",), ["a"], object()])
def test_an_id_that_is_none_is_refused_by_name(identity):
    for principal in (User(identity), {"id": identity}):
        with pytest.raises(TypeError, match=f"{type(principal).__name__} is a {type(identity).__name__}"):
            principal_id(principal)


NOON = datetime(2030, 1, 2, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (1893585600, 1893585600.0),
        (1893585600.5, 1893585600.5),
        (-math.inf, -math.inf),
        (math.inf, None),
        (NOON, 1893585600.0),
        (NOON.replace(tzinfo=None), 1893585600.0),
        (NOON.astimezone(timezone(timedelta(hours=-7))), 1893585600.0),
    ],
)
def test_when_it_ends(value, seconds):
    assert expires_at(User(expires_at=value)) == seconds
    assert expires_at({"expires_at": value}) == seconds
    assert expires_at(SimpleNamespace(expires_at=value)) == seconds


@pytest.mark.parametrize("principal", [None, "alice", 7, {}, {"id": 1}, object(), row(id=1)])
def test_most_do_not_end(principal):
    assert expires_at(principal) is None


def test_a_database_row_may_end():
    assert expires_at(row(expires_at=12.5)) == 12.5


@pytest.mark.parametrize("value", ["2030-01-02", True, timedelta(hours=1), NOON.date(), object()])
def test_an_end_of_another_type_is_refused_by_name(value):
    for principal in (User(expires_at=value), {"expires_at": value}):
        with pytest.raises(TypeError, match=f"{type(principal).__name__} is a {type(value).__name__}"):
            expires_at(principal)


def test_nan_is_no_time():
    with pytest.raises(ValueError, match="User is NaN"):
        expires_at(User(expires_at=math.nan))


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["large", "small", "more digits than are shown"])
def test_what_no_float_holds_is_no_time(value):
    for principal in (User(expires_at=value), {"expires_at": value}):
        with pytest.raises(ValueError, match=f"{type(principal).__name__} is beyond any time; None means"):
            expires_at(principal)


class Nowhere(tzinfo):
    """A zone that does not know where it is, which makes a `datetime` naive."""

    def utcoffset(self, when):
        return None


@pytest.mark.parametrize("when", [datetime.min, datetime.max, NOON.replace(tzinfo=None)])
def test_a_datetime_of_an_unknown_zone_is_naive(when):
    assert expires_at(User(expires_at=when.replace(tzinfo=Nowhere()))) == expires_at(User(expires_at=when))
