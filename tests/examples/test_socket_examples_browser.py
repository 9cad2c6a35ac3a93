"""The pages of the examples with WebSockets in a real browser, in several tabs of it where several people talk."""

from __future__ import annotations

import pytest

from catzilla import Catzilla
from examples import admin_socket, chat, room_as_events, showcase, ticker
from tests.examples.page import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def open_tab(chromium, live_server):
    """`open_tab(url)`: a page in a tab of its own, which is in front from then on; `tab.front()` brings it back.

    It asks for `live_server` so that tabs are closed before their servers, which they would miss.
    """
    first = chromium.current_window_handle
    chromium.get_log("browser")  # forgets what another test left
    tabs = []

    class Tab(Page):
        def __init__(self, url: str) -> None:
            super().__init__(chromium)
            chromium.switch_to.new_window("tab")
            self.handle = chromium.current_window_handle
            tabs.append(self)
            chromium.get(url)

        def front(self) -> None:
            chromium.switch_to.window(self.handle)

        def close(self) -> None:
            self.front()
            chromium.close()
            tabs.remove(self)
            chromium.switch_to.window(tabs[-1].handle if tabs else first)

    yield Tab
    errors = []
    while tabs:
        tabs[-1].front()
        errors += tabs[-1].console_errors()
        tabs[-1].close()
    assert errors == []


def lines(page):
    """What a chat shows, without the times."""
    words = "(line) => [...line.childNodes].slice(0, -1).map((node) => node.textContent).join(' ')"
    return page.browser.execute_script(f"return [...document.querySelectorAll('#log li')].map({words})")


def wait_lines(page, *expected):
    page.wait(lambda: lines(page)[-len(expected) :] == list(expected), f"the last lines to be {expected}")


def enter(page, name, room="lobby"):
    """Fill in the form that a chat begins with."""
    page.wait(lambda: len(page.all("#enter option")) == len(chat.ROOMS), "the rooms to be listed")
    page.find(f"#enter option[value={room}]").click()
    page.write("#enter input", name)
    page.wait(lambda: page.text("[role=status]") == f"you are {name}", "the chat to be open")


@pytest.fixture
def chat_url(live_server):
    """The chat in an app of its own: rooms and their history live as long as their app."""
    app = Catzilla()
    chat.add_chat(app)
    live = live_server(app, presence_delay=0.1)
    return f"{live.url}/chat"


def test_two_tabs_chat(open_tab, chat_url):
    alice = open_tab(chat_url)
    enter(alice, "alice")
    wait_lines(alice, "alice came in")
    alice.write("#say input", "is anybody here?")
    wait_lines(alice, "alice is anybody here?")

    bob = open_tab(chat_url)
    assert bob.wait(lambda: bob.texts("#enter option"), "the rooms")[0] == "lobby (1 here)"
    enter(bob, "bob")
    wait_lines(bob, "alice came in", "alice is anybody here?", "bob came in")  # the history, then his own arrival
    bob.wait_texts("#here li", ["alice", "bob"])
    bob.write("#say input", "I am <b>here</b>")

    alice.front()
    alice.wait_texts("#here li", ["alice", "bob"])
    wait_lines(alice, "bob came in", "bob I am <b>here</b>")
    alice.write("#say input", "good to see you")
    wait_lines(alice, "alice good to see you")
    assert alice.texts("#log .mine span") == ["is anybody here?", "good to see you"]

    bob.front()
    wait_lines(bob, "bob I am <b>here</b>", "alice good to see you")
    assert bob.texts("#log .mine span") == ["I am <b>here</b>"]
    bob.close()
    alice.front()
    wait_lines(alice, "alice good to see you", "bob left")
    alice.wait_texts("#here li", ["alice"])


def test_a_reload_of_a_chat_is_no_departure(open_tab, live_server):
    app = Catzilla()
    chat.add_chat(app)
    live = live_server(app, presence_delay=60)
    alice = open_tab(f"{live.url}/chat?name=alice&room=kitchen")
    wait_lines(alice, "alice came in")
    alice.browser.refresh()
    alice.wait_texts("#here li", ["alice"])
    alice.write("#say input", "here again")
    wait_lines(alice, "alice came in", "alice here again")


def test_a_chat_comes_back_with_its_server(open_tab, live_server):
    app = Catzilla()
    chat.add_chat(app)
    live = live_server(app)
    alice = open_tab(f"{live.url}/chat?name=alice&room=garden")
    alice.wait_texts("#here li", ["alice"])
    live.restart()
    alice.wait(lambda: alice.text("[role=status]") == "the server is away; trying again", "the page to notice")
    alice.wait(lambda: alice.text("[role=status]") == "you are alice", "the page to come back")
    alice.wait_texts("#here li", ["alice"])
    alice.write("#say input", "still here")
    wait_lines(alice, "alice still here")
    alice.console_errors()  # it may have tried while the server was away


def test_a_chat_room_that_is_none(open_tab, chat_url):
    page = open_tab(f"{chat_url}?name=alice&room=attic")
    page.wait(lambda: page.text("[role=status]") == "closed: forbidden", "the refusal")


def test_a_room_as_events(open_tab, live_server):
    live = live_server(room_as_events.app)
    page = open_tab(f"{live.url}/news")
    page.wait(lambda: page.text("[role=status]") == "listening, both ways", "both to be open")
    page.write("form input", "one")
    for list_ in ("#socket li", "#events li"):
        page.wait_texts(list_, ["one"])
    page.click("#away")
    page.write("form input", "two")
    room = room_as_events.app.room("news")
    page.wait(lambda: room.history(1)[0].data == "two", "it to be published")
    live.post("/news", data="three")
    page.click("#away")
    page.wait_texts("#events li", ["one", "two", "three"])  # they catch up
    page.wait(lambda: page.text("[role=status]") == "listening, both ways", "both to be open again")
    live.post("/news", data="four")
    page.wait_texts("#events li", ["one", "two", "three", "four"])
    page.wait_texts("#socket li", ["one", "four"])  # a plain socket does not


def test_a_ticker(open_tab, live_server, monkeypatch):
    monkeypatch.setattr(ticker, "SECONDS_A_TICK", 0.02)
    page = open_tab(f"{live_server(ticker.app).url}/ticker")
    page.wait(lambda: page.text("#CAT .up") or page.text("#CAT .down"), "a price to move")
    assert page.texts("tbody label") == [f" {symbol}" for symbol in ticker.OPENING]
    page.click("#CAT input")

    def still():
        """No price of CAT among twenty others."""
        before, count = page.text("#CAT .price"), int(page.text("[role=status]").split()[0])
        page.wait(lambda: int(page.text("[role=status]").split()[0]) > count + 20, "more prices")
        return page.text("#CAT .price") == before

    page.wait(still, "CAT to stand still")
    stood_at = page.text("#CAT .price")
    page.click("#CAT input")
    page.wait(lambda: page.text("#CAT .price") != stood_at, "CAT to move again")


@pytest.fixture
def nobody_is_signed_in(monkeypatch):
    """A browser sends its cookies to every port of a host, so to the next test's server too."""
    monkeypatch.setattr(admin_socket, "sessions", {})


@pytest.mark.usefixtures("nobody_is_signed_in")
def test_the_console(open_tab, live_server):
    page = open_tab(f"{live_server(admin_socket.app).url}/admin")
    page.write("input[type=password]", "enigma")
    page.wait(lambda: page.all("#cookie"), "the console")
    for way in ("cookie", "ticket", "bearer"):
        page.click(f"#{way}")
        if way == "bearer":
            page.wait(lambda: page.browser.switch_to.alert, "the question for the token")
            page.browser.switch_to.alert.accept()
        page.wait(lambda way=way: f"connected as ada ({way})" in page.text("[role=status]"), f"the socket, by {way}")
        page.write("form input", f"by {way}")
        page.wait(lambda way=way: page.texts("ol li")[-1:] == [f"ada: by {way}"], "the answer")
    page.write("form input", "stats")
    page.wait(lambda: '"websockets":' in page.text("ol li:last-child"), "the figures")


@pytest.mark.usefixtures("nobody_is_signed_in")
def test_the_console_is_not_for_everybody(open_tab, live_server):
    page = open_tab(f"{live_server(admin_socket.app).url}/admin")
    page.find("input[name=name]").clear()
    page.find("input[name=name]").send_keys("bob")
    page.write("input[type=password]", "builder")
    page.wait(lambda: page.all("#cookie"), "the console")
    page.click("#cookie")
    page.wait(lambda: page.text("[role=status]") == "closed: 4503 forbidden", "the refusal")


# In the showcase.


@pytest.fixture
def showcase_page(live_server, open_tab):
    page = open_tab(live_server(showcase.app, presence_delay=0.1).url)
    page.wait(lambda: page.text("#sockets") == "0", "the first statistics")
    return page


def frame(page, card, number=0):
    """Go into a card's page; `page.browser.switch_to.default_content()` leaves it."""
    page.browser.switch_to.default_content()
    frames = page.wait(lambda: page.all(f"#{card} iframe"), "the page in the card")
    page.browser.switch_to.frame(frames[number])


def test_the_showcase_chats(showcase_page):
    page = showcase_page
    page.start("chat")
    for number in (0, 1):
        frame(page, "chat", number)
        page.wait_texts("#here li", ["alice", "bob"])
    page.write("#say input", "hello from bob")
    frame(page, "chat", 0)
    page.wait(lambda: "bob hello from bob" in lines(page), "alice to have it")
    page.browser.switch_to.default_content()
    page.wait(lambda: page.text("#sockets") == "2", "the statistics to have both")
    page.stop("chat", "closed here")
    page.wait(lambda: page.text("#sockets") == "0", "both to be gone")


def test_the_showcase_echoes(showcase_page):
    page = showcase_page
    field = page.find("#echo input")
    field.clear()
    field.send_keys("Größe 🐈"[:5])
    page.start("echo")
    assert page.finish("echo") == "the last one: Größe"
    assert int(page.text("#echo .big")) > 0
    assert page.find("#echo progress").get_property("value") == 1000


@pytest.mark.usefixtures("nobody_is_signed_in")
@pytest.mark.parametrize(
    ("card", "shown"), [("ticker", "tbody tr"), ("room", "#events"), ("admin", "input[type=password]")]
)
def test_the_showcase_shows_the_page(showcase_page, card, shown):
    page = showcase_page
    page.start(card)
    frame(page, card)
    page.wait(lambda: page.all(shown), f"{shown} in the page")
    page.browser.switch_to.default_content()
    page.stop(card, "closed here")
    assert page.all(f"#{card} iframe") == []
