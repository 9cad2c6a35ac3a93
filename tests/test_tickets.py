"""Tickets: good once, for one path, for a while, and only if we have signed them."""

from __future__ import annotations

import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, dataclass
from datetime import datetime, timezone
from random import Random
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.auth import expires_at, principal_id
from catzilla.errors import HTTPError
from catzilla.request import Request
from catzilla.tickets import MAX_TICKET_CHARS, TicketPrincipal, Tickets
from tests.requests_made import Body, make_head


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Claims:
    """The single use, with a clock of its own, as another machine has it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.until: dict[str, float] = {}
        self.lock = threading.Lock()

    def __call__(self, key: str, ttl: float) -> bool:
        with self.lock:
            if self.until.get(key, 0.0) > self.clock.now:
                return False
            self.until[key] = self.clock.now + ttl
            return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def claims(clock):
    return Claims(clock)


@pytest.fixture
def tickets(clock, claims):
    return Tickets("a secret", claims, clock)


def asking(path: str, *given: str, rest: str = "") -> Request:
    query = "&".join(f"ticket={one}" for one in given) + rest
    return Request(make_head(target=f"{quote(path)}?{query}", path=path), Body())


def refusal(tickets: Tickets, request: Request) -> str:
    with pytest.raises(HTTPError) as caught:
        tickets.redeem(request)
    assert caught.value.status_code == 401
    assert "WWW-Authenticate" in caught.value.headers
    return caught.value.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
principals = st.integers() | st.text() | st.lists(json_values, max_size=3) | st.dictionaries(st.text(), json_values)


paths = st.text(st.characters(exclude_characters="=", codec="utf-8")).map("/".__add__)


@given(principals, paths)
def test_a_json_principal_comes_back_equal(principal, path):
    clock = Clock()
    tickets = Tickets("a secret", Claims(clock), clock)
    try:
        ticket = tickets.issue(principal, path)
    except ValueError:
        assert len(repr(principal) + path) > MAX_TICKET_CHARS / 16  # escapes take up to twelve characters for one
        return
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", ticket)
    back = tickets.redeem(Request(make_head(target=f"/x?ticket={ticket}", path=path), Body()))
    assert back == principal
    assert type(back) is type(principal)


def test_half_a_surrogate_pair_is_json_too(tickets):
    """A browser's `JSON.stringify` writes one as an escape, and `json.loads` reads it."""
    assert tickets.redeem(asking("/chat", tickets.issue({"name": "\ud83d"}, "/chat"))) == {"name": "\ud83d"}


@dataclass
class User:
    id: object
    expires_at: object = None
    secret: str = "not in the ticket"


@pytest.mark.parametrize(
    ("principal", "back"),
    [
        (User("alice"), TicketPrincipal("alice")),
        (User(7, 1_700_000_100), TicketPrincipal(7, 1_700_000_100.0)),
        (User(7, datetime(2030, 1, 2, 12, tzinfo=timezone.utc)), TicketPrincipal(7, 1893585600.0)),
        (User(UUID(int=1)), TicketPrincipal("00000000-0000-0000-0000-000000000001")),
        (TicketPrincipal("alice", 5.0), TicketPrincipal("alice", 5.0)),
    ],
)
def test_any_other_comes_back_as_who_it_is_and_when_it_ends(tickets, principal, back):
    got = tickets.redeem(asking("/chat", tickets.issue(principal, "/chat")))
    assert got == back
    assert principal_id(got) == principal_id(principal)
    assert expires_at(got) == expires_at(principal)
    with pytest.raises(FrozenInstanceError):
        got.id = "bob"


@pytest.mark.parametrize(
    "principal",
    [
        None,
        1.5,
        b"alice",
        ("alice",),
        object(),
        User(None),
        {"id": UUID(int=1)},
        {"id": 1, "expires_at": datetime(2030, 1, 2)},
        {1: "a number for a name"},
        {"roles": ("a", "tuple")},
        [{1, 2}],
        [float("nan")],
    ],
)
def test_what_would_not_come_back_is_refused_when_it_is_issued(tickets, principal):
    with pytest.raises(TypeError, match=r"issue it for the principal's id") as caught:
        tickets.issue(principal, "/chat")
    assert type(principal).__name__ in str(caught.value)


def test_a_principal_that_holds_itself_is_refused(tickets):
    principal: list[object] = []
    principal.append(principal)
    with pytest.raises(TypeError, match="JSON"):
        tickets.issue(principal, "/chat")


def test_a_wrong_id_or_end_is_named_when_it_is_issued(tickets):
    with pytest.raises(TypeError, match="User is a bytes"):
        tickets.issue(User(b"alice"), "/chat")
    with pytest.raises(TypeError, match="User is a str"):
        tickets.issue(User("alice", "tomorrow"), "/chat")


def test_it_is_good_once(tickets):
    ticket = tickets.issue("alice", "/chat")
    assert tickets.redeem(asking("/chat", ticket)) == "alice"
    for _ in range(3):
        assert refusal(tickets, asking("/chat", ticket)) == "the ticket has been used"


def test_two_tickets_are_two(tickets):
    first, second = (tickets.issue("alice", "/chat") for _ in range(2))
    assert first != second
    assert tickets.redeem(asking("/chat", first)) == tickets.redeem(asking("/chat", second)) == "alice"


def test_of_many_that_come_at_once_one_gets_in(tickets):
    ticket = tickets.issue("alice", "/chat")
    together = threading.Barrier(8, timeout=10)

    def attempt() -> bool:
        together.wait()
        try:
            return bool(tickets.redeem(asking("/chat", ticket)) == "alice")
        except HTTPError:
            return False

    with ThreadPoolExecutor(8) as pool:
        results = [job.result(timeout=10) for job in [pool.submit(attempt) for _ in range(8)]]
    assert sorted(results) == [False] * 7 + [True]


def test_it_expires(tickets, clock, claims):
    ticket = tickets.issue("alice", "/chat", ttl=30)
    clock.now += 30
    assert refusal(tickets, asking("/chat", ticket)) == "the ticket has expired"
    assert not claims.until
    clock.now -= 0.001
    assert tickets.redeem(asking("/chat", ticket)) == "alice"


def test_used_up_until_it_has_expired_on_a_clock_that_is_behind(clock):
    ahead, shared = Clock(clock.now + 20), Claims(clock)
    here, there = Tickets("a secret", shared, clock), Tickets("a secret", shared, ahead)
    ticket = here.issue("alice", "/chat", ttl=30)
    assert there.redeem(asking("/chat", ticket)) == "alice"
    clock.now += 29
    assert refusal(here, asking("/chat", ticket)) == "the ticket has been used"


def test_it_is_for_its_path_and_an_attempt_elsewhere_does_not_use_it_up(tickets, claims):
    ticket = tickets.issue("alice", "/chat/café")
    for path in ("/chat", "/chat/café/", "/Chat/café", "/"):
        assert refusal(tickets, asking(path, ticket)) == "the ticket is not valid"
    assert not claims.until
    assert tickets.redeem(asking("/chat/café", ticket)) == "alice"


def test_the_rest_of_the_query_is_free(tickets):
    assert tickets.redeem(asking("/chat", tickets.issue("alice", "/chat"), rest="&room=1")) == "alice"


def test_a_missing_one_is_said_to_be_missing(tickets):
    request = Request(make_head(target="/chat?Ticket=abc"), Body())
    assert "add ?ticket=" in refusal(tickets, request)


@pytest.mark.parametrize("forged", ["", ".", "a", "a.b", ".a.b", "\N{SNOWMAN}", "x" * 5000, "..", "WyJhIl0.WyJhIl0"])
def test_a_forged_one_is_not_valid(tickets, claims, forged):
    assert refusal(tickets, asking("/chat", quote(forged))) == "the ticket is not valid"
    assert not claims.until


def test_several_are_not_valid(tickets):
    ticket = tickets.issue("alice", "/chat")
    assert refusal(tickets, asking("/chat", ticket, ticket)) == "the ticket is not valid"
    assert refusal(tickets, asking("/chat", "forged", ticket)) == "the ticket is not valid"


@given(st.data())
def test_a_changed_one_never_lets_anybody_else_in(data):
    clock = Clock()
    tickets = Tickets("a secret", Claims(clock), clock)
    ticket = tickets.issue({"id": "alice", "pad": "x" * data.draw(st.sampled_from([0, 200]))}, "/chat")
    at = data.draw(st.integers(0, 9999)) % len(ticket)  # a ticket is random, and so is its length; what is drawn is not
    changed = ticket[:at] + data.draw(st.text("AZaz09-_.", max_size=2)) + ticket[at + 1 :]
    try:
        got = tickets.redeem(asking("/chat", changed))
    except HTTPError:
        assert refusal(tickets, asking("/chat", changed)) == "the ticket is not valid"
        return
    # Base64 has spare bits at its end, so another text may say the same; it is then the same ticket, and used up.
    assert got["id"] == "alice"
    assert refusal(tickets, asking("/chat", ticket)) == "the ticket has been used"


def test_another_secret_is_another_lock(tickets, claims, clock):
    ticket = tickets.issue("alice", "/chat")
    assert refusal(Tickets("another", claims, clock), asking("/chat", ticket)) == "the ticket is not valid"
    assert Tickets(b"a secret", claims, clock).redeem(asking("/chat", ticket)) == "alice"


def test_without_a_secret_each_has_its_own(claims, clock):
    first, second = Tickets(None, claims, clock), Tickets(None, claims, clock)
    ticket = first.issue("alice", "/chat")
    assert refusal(second, asking("/chat", ticket)) == "the ticket is not valid"
    assert first.redeem(asking("/chat", ticket)) == "alice"


@pytest.mark.parametrize("secret", ["", b""])
def test_an_empty_secret_is_refused(claims, secret):
    with pytest.raises(ValueError, match="empty"):
        Tickets(secret, claims)


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan")])
def test_a_lifetime_that_is_none_is_refused(tickets, ttl):
    with pytest.raises(ValueError, match="seconds above 0"):
        tickets.issue("alice", "/chat", ttl)


@pytest.mark.parametrize("path", ["", "chat", "https://app.example/chat"])
def test_a_path_that_is_none_is_refused(tickets, path):
    with pytest.raises(ValueError, match="begins with a slash"):
        tickets.issue("alice", path)


@pytest.mark.parametrize("path", ["/chat?room=1", "/chat?room=", "/chat?a&b=c"])
def test_a_path_with_a_query_could_never_be_redeemed_and_is_refused(tickets, path):
    with pytest.raises(ValueError, match=r"a path without a query, not '/chat[?].*: write '/chat' alone"):
        tickets.issue("alice", path)


def test_one_too_large_for_a_url_is_refused(tickets):
    principal = {"id": 1, "photo": Random(1).randbytes(3000).hex()}  # a ticket is compressed, but this is not to be
    with pytest.raises(ValueError, match=r"a ticket for this dict has \d+ characters"):
        tickets.issue(principal, "/chat")


def test_a_broker_that_fails_lets_nobody_in(clock):
    def claim(key: str, ttl: float) -> bool:
        raise ConnectionError("the broker is gone")

    tickets = Tickets("a secret", claim, clock)
    with pytest.raises(ConnectionError):
        tickets.redeem(asking("/chat", tickets.issue("alice", "/chat")))


def test_the_log_says_why_and_never_the_ticket(tickets, clock, caplog):
    caplog.set_level(logging.DEBUG, "catzilla")
    used, late, elsewhere = (tickets.issue("alice", "/chat") for _ in range(3))
    tickets.redeem(asking("/chat", used))
    refusal(tickets, asking("/chat", used))
    refusal(tickets, asking("/other", elsewhere))
    clock.now += 31
    refusal(tickets, asking("/chat", late))
    refusal(tickets, asking("/chat", "x.forgedforged"))
    refusal(tickets, asking("/chat"))
    refusal(tickets, asking("/chat", "a", "b"))
    refusal(tickets, asking("/evil\nfake=line", late))
    messages = [record.getMessage() for record in caplog.records]
    whys = [message.partition("why=")[2] for message in messages]
    expected = ["used", "it is for '/chat'", "expired 1.0 s ago", "BadSignature", "missing", "several"]
    assert whys == [*expected, "it is for '/chat'"]
    assert all(message.startswith("ticket refused: client=203.0.113.7 path='/") for message in messages)
    shown = "".join(messages)
    assert "\n" not in shown
    assert not any(part in shown for ticket in (used, late, elsewhere) for part in ticket.split("."))
    assert "forgedforged" not in shown


def test_the_secret_does_not_show(tickets):
    assert repr(tickets) == "<Tickets>"
