"""Which pages may open a socket: the check of an Origin header, and of the list that a registration gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.errors import RouteError
from catzilla.origins import check_origins, origin_allowed


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", "localhost:8000"),
        ("https://app.example", "app.example"),
        ("HTTPS://App.Example", "app.EXAMPLE"),
        ("https://app.example:443", "app.example"),
        ("https://app.example", "app.example:443"),
        ("http://app.example", "app.example:80"),
        ("http://app.example:80", "app.example"),
        ("https://app.example", "app.example:80"),  # a proxy ends TLS and passes on the port on which it listens
        ("https://app.example:8443", "app.example:8443"),
        ("http://app.example", "app.example:"),  # RFC 3986 lets the port be empty
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[2001:db8::a]", "[2001:DB8:0:0::000A]:80"),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("http://my_host:8000", "my_host:8000"),
    ],
)
def test_a_page_of_this_server_may(origin, host):
    assert origin_allowed(origin, host, None)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "app.example"),
        ("https://app.example.evil.example", "app.example"),
        ("https://evilapp.example", "app.example"),
        ("https://app.example", "evil.app.example"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://app.example:8000", "app.example"),
        ("http://app.example", "app.example:8000"),
        ("http://127.0.0.1:8000", "localhost:8000"),
        ("http://[::1]:8000", "[::2]:8000"),
        ("http://[::1]:8000", "::1:8000"),
        ("null", "null"),
        ("null", "app.example"),
        ("", "app.example"),
        ("", ""),
        ("app.example", "app.example"),
        ("//app.example", "app.example"),
        ("https://app.example/", "app.example"),
        ("https://app.example/path", "app.example"),
        ("https://app.example?x", "app.example"),
        ("https://user@app.example", "app.example"),
        ("https://app.example#app.example", "app.example"),
        ("https://evil.example https://app.example", "app.example"),
        ("https://app.example, https://app.example", "app.example"),  # two header lines, joined
        ("https://evil.example\\.app.example", "app.example"),
        (" https://app.example", "app.example"),
        ("https://app.example\n", "app.example"),
        ("https://app.example:0", "app.example:0"),
        ("https://app.example:65536", "app.example:65536"),
        ("https://app.example:٤٤٣", "app.example"),
        ("https://[::1", "[::1"),
        ("https://[:::1]", "[:::1]"),
        ("https://", ""),
        ("capacitor://localhost", "localhost"),
        ("chrome-extension://app.example", "app.example"),
        ("https://app.example", None),
        ("https://app.example", ""),
        ("https://app.example", "app.example, evil.example"),
        ("https://app.example", "app.example/"),
    ],
)
def test_any_other_page_may_not(origin, host):
    assert not origin_allowed(origin, host, None)


@pytest.mark.parametrize("allowed", [None, "*", ["https://app.example"], []])
def test_without_an_origin_it_is_no_browser(allowed):
    assert origin_allowed(None, "app.example", allowed)
    assert origin_allowed(None, None, allowed)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "rubbish", ""])
def test_everything_may_be_allowed(origin):
    assert origin_allowed(origin, "app.example", "*")


def test_a_list_stands_for_itself():
    allowed = check_origins(["https://App.example", "http://localhost:5173", "capacitor://localhost"])
    for origin in ("https://app.example", "https://APP.example:443", "http://localhost:5173", "capacitor://localhost"):
        assert origin_allowed(origin, "api.example", allowed), origin
    for origin in (
        "http://app.example",  # listed is the https one, and a list says the scheme
        "https://app.example:80",
        "https://localhost:5173",
        "http://localhost",
        "https://api.example",  # ours, but not listed: a list stands in place of the default
        "null",
        "",
    ):
        assert not origin_allowed(origin, "api.example", allowed), origin


def test_an_empty_list_allows_no_page():
    assert not origin_allowed("https://app.example", "app.example", check_origins([]))


def test_a_list_that_was_not_checked_works_the_same_and_rubbish_in_it_allows_nothing():
    assert origin_allowed("https://app.example", "api.example", ["HTTPS://APP.example:443"])
    assert not origin_allowed("rubbish", "api.example", ["rubbish"])
    assert not origin_allowed("null", "api.example", ["null"])


@pytest.mark.parametrize(
    ("value", "checked"),
    [
        (None, None),
        ("*", "*"),
        ([], ()),
        (["https://app.example"], ("https://app.example",)),
        (("https://App.Example:443", "http://b.example:80"), ("https://app.example", "http://b.example")),
        (["https://app.example:80"], ("https://app.example:80",)),
        ({"http://[::0:1]:8000"}, ("http://[::1]:8000",)),
    ],
)
def test_what_is_right_is_written_in_one_way(value, checked):
    assert check_origins(value) == checked


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("https://app.example", 'write origins=["https://app.example"]'),
        ("app.example", 'write origins=["https://app.example"]'),
        ("", 'write origins=["https://app.example"]'),
        (7, "not int"),
        ({"https://app.example": 1}, "not dict"),
        ([7], "not int"),
        ([None], "not NoneType"),
        (["*"], 'write origins="*"'),
        (["null"], "sandboxed"),
        (["https://*.example"], "wildcard"),
        (["https://bücher.example"], "xn--"),
        (["my.example"], 'write "https://my.example"'),
        (["my.example:8443"], 'write "https://my.example:8443"'),
        (["localhost:5173"], 'write "http://localhost:5173"'),
        (["//my.example"], 'write "https://my.example"'),
        (["https://my.example/"], 'write "https://my.example"'),
        (["http://my.example/app?x#y"], 'write "http://my.example"'),
        (["https://user:pw@my.example"], 'write "https://my.example"'),
        ([" https://my.example "], 'write "https://my.example"'),
        (["wss://my.example"], 'write "https://my.example"'),
        (["ws://my.example:8000/chat"], 'write "http://my.example:8000"'),
        (["https://"], 'write "https://app.example"'),
        (["https://a b"], 'write "https://app.example"'),
        (["https://my.example:99999"], "is no origin"),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_write_instead(value, said):
    with pytest.raises(RouteError) as caught:
        check_origins(value)
    assert said in str(caught.value)


names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
authorities = st.builds(
    lambda name, port: name if port is None else f"{name}:{port}", names, st.none() | st.integers(1, 65535)
)


@given(authorities, st.sampled_from(["http", "https"]), st.booleans())
def test_a_browsers_own_server_is_always_allowed(authority, scheme, shout):
    origin = f"{scheme}://{authority}"
    assert origin_allowed(origin.upper() if shout else origin, authority, None)
    assert origin_allowed(origin, "elsewhere.example", check_origins([origin]))


@given(authorities, authorities)
def test_another_authority_is_never_allowed(ours, theirs):
    def plain(authority: str) -> str:
        return authority.removesuffix(":80").removesuffix(":443")

    assert origin_allowed(f"https://{theirs}", ours, None) == (plain(ours) == plain(theirs))


@given(st.text(), st.text() | st.none())
def test_no_text_upsets_it(origin, host):
    origin_allowed(origin, host, None)
    if origin_allowed(origin, "app.example", ["https://app.example"]):
        assert origin.lower() in ("https://app.example", "https://app.example:443", "https://app.example:")
    try:
        checked = check_origins([origin])
    except RouteError:
        return
    assert check_origins(checked) == checked
