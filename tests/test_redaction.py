"""A ticket lets its holder in, so it is shown nowhere: in no log, in no representation, on no error page."""

from __future__ import annotations

import logging
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.current import current
from catzilla._core.messages import redacted
from catzilla.app import Catzilla
from catzilla.request import Request
from tests.requests_made import Body, make_head


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/", "/"),
        ("*", "*"),
        ("/?", "/?"),
        ("/chat?room=1", "/chat?room=1"),
        ("/chat?ticket=abc", "/chat?ticket=***"),
        ("/chat?ticket=", "/chat?ticket=***"),
        ("/chat?ticket", "/chat?ticket"),
        ("/chat?a=1&ticket=abc&b=2", "/chat?a=1&ticket=***&b=2"),
        ("/chat?ticket=abc&ticket=def", "/chat?ticket=***&ticket=***"),
        ("/chat?TICKET=abc&Ticket=def", "/chat?TICKET=***&Ticket=***"),
        ("/chat?%74icket=abc", "/chat?%74icket=***"),
        ("/chat?%54%49%43%4b%45%54=abc", "/chat?%54%49%43%4b%45%54=***"),
        ("/chat?ticket=a=b=c", "/chat?ticket=***"),
        ("/chat?ticket=a?b", "/chat?ticket=***"),
        ("/chat?ticket=a;b", "/chat?ticket=***"),
        ("/chat?x=?&ticket=abc", "/chat?x=?&ticket=***"),
        ("/chat?&&ticket=abc&", "/chat?&&ticket=***&"),
        ("http://app.example/chat?ticket=abc", "http://app.example/chat?ticket=***"),
        ("http://app.example?ticket=abc", "http://app.example?ticket=***"),
        ("/chat?%zz=1&ticket=abc", "/chat?%zz=1&ticket=***"),
        ("/chat?%ff=1&%ff%74icket=abc", "/chat?%ff=1&%ff%74icket=abc"),
        ("/ticket=abc", "/ticket=abc"),
        ("/tickets?tickets=2&my_ticket=1&tick+et=3", "/tickets?tickets=2&my_ticket=1&tick+et=3"),
        ("/chat?x=ticket", "/chat?x=ticket"),
        ("/chat?q=100%25", "/chat?q=100%25"),
    ],
)
def test_only_the_value_of_a_ticket_is_hidden(target, shown):
    assert redacted(target) == shown


def spelled(name: str, draw: st.DrawFn) -> str:
    """The name, in any case and with any of its letters percent-encoded."""
    letters = (letter.upper() if draw(st.booleans()) else letter for letter in name)
    return "".join(f"%{ord(letter):02x}" if draw(st.booleans()) else letter for letter in letters)


@st.composite
def pairs(draw: st.DrawFn) -> str:
    name = spelled("ticket", draw) if draw(st.booleans()) else quote(draw(st.text(max_size=5)), safe="")
    value = draw(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="&#"), max_size=8))
    return draw(st.sampled_from([f"{name}={value}", f"{name}=SECRET{value}", name, ""]))


@given(st.sampled_from(["/", "/a/b", "http://app.example/"]), st.lists(pairs(), max_size=6))
def test_no_value_of_a_ticket_survives_and_all_else_does(path, query):
    target = f"{path}?{'&'.join(query)}"
    shown = redacted(target)
    before = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    after = parse_qsl(shown.partition("?")[2], keep_blank_values=True)
    assert len(before) == len(after)
    assert [name for name, _ in before] == [name for name, _ in after]
    for (name, value), (_, seen) in zip(before, after, strict=True):
        if name.lower() != "ticket":
            assert seen == value
        else:
            assert seen == "***" or seen == value == ""  # "ticket" without "=" has no value
    assert redacted(shown) == shown


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_a_target_without_tickets_stays_as_it_is(target):
    names = [name.lower() for name, _ in parse_qsl(target.partition("?")[2], keep_blank_values=True)]
    if "ticket" not in names:
        assert redacted(target) == target


def test_representations():
    head = make_head(target="/chat?ticket=SECRET", headers={"Authorization": "Bearer SECRET", "Cookie": "s=SECRET"})
    assert repr(head) == "<RequestHead GET /chat?ticket=***>"
    assert repr(Request(head, Body())) == "<Request GET /chat?ticket=***>"


@pytest.fixture
def seen():
    """What the handler found out about the server's own objects."""
    return []


@pytest.fixture
def app(seen):
    app = Catzilla(show_banner=False, log_requests=True)

    @app.get("/fine")
    def fine(request):
        seen.append(repr(request))
        seen.append(repr(current.go_live.__self__.exchange))
        return f"known to the handler: {request.query_params['ticket']}"

    @app.get("/broken")
    def broken(request):
        raise RuntimeError("a fault of the handler's")

    return app


@pytest.mark.parametrize("path", ["/fine", "/broken", "/missing"])
@pytest.mark.parametrize("accept", ["text/html", "application/json", "text/plain"])
def test_a_server_shows_it_nowhere(app, seen, live_server, caplog, path, accept):
    caplog.set_level(logging.DEBUG)
    live = live_server(app)
    response = live.get(f"{path}?x=1&%54icket=SECRET&ticket=SECRET", headers={"Accept": accept})
    live.stop()  # the access log is written by then
    if path == "/fine":
        assert response.text == "known to the handler: SECRET"
        assert len(seen) == 2
        assert all("GET /fine?x=1&%54icket=***&ticket=***" in shown for shown in seen), seen
    else:
        assert "SECRET" not in response.text
    lines = [f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records]
    assert any(f'"GET {path}?x=1&%54icket=***&ticket=*** HTTP/1.1"' in line for line in lines), lines
    if path == "/broken":
        assert any("method=GET target=/broken?x=1&%54icket=***&ticket=*** failed" in line for line in lines), lines
    assert not any("SECRET" in line for line in [*lines, *seen])
