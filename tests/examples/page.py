"""A real browser's page, as the tests of examples use it: every wait is for what it shows, and has a limit."""

from __future__ import annotations

PATIENCE = 20.0  # seconds for anything to appear


class Page:
    """A page in a browser, by what a person sees of it; the methods that take a card are the showcase's."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def find(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def all(self, selector: str):
        return self.browser.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        # In one step, for the page may replace an element between finding and asking it. textContent, because what a
        # person would see leaves out what is scrolled away.
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return self.browser.execute_script(script, selector)

    def state(self, card: str) -> str | None:
        return self.find(f"#{card}").get_dom_attribute("data-state")

    def click(self, selector: str) -> None:
        button = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
        button.click()

    def choose(self, card: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(f"#{card} select")).select_by_value(value)

    def wait(self, condition, what: str):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, poll_frequency=0.02).until(lambda _: condition(), what)

    def start(self, card: str) -> None:
        self.click(f"#{card} [data-run]")

    def finish(self, card: str, state: str = "done") -> str:
        """Wait until the card's demo is over; gives what its status line says."""
        over = ("done", "failed", "stopped")
        self.wait(lambda: self.state(card) in over, f"the demo {card!r} to end")
        status = self.text(f"#{card} .status")
        assert self.state(card) == state, status
        return status

    def stop(self, card: str, said: str = "the generator is closed") -> None:
        assert self.text(f"#{card} [aria-pressed=true]") == "Stop"
        self.start(card)
        assert said in self.finish(card, "stopped")

    def texts(self, selector: str) -> list[str]:
        """What each of several elements says."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        return list(self.browser.execute_script(script, selector))

    def wait_texts(self, selector: str, expected: list[str]) -> None:
        """Wait until several elements say this."""
        self.wait(lambda: self.texts(selector) == expected, f"{selector} to say {expected}")

    def write(self, selector: str, text: str) -> None:
        """Type into a field, and press Enter."""
        self.find(selector).send_keys(text + "\n")

    def console_errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
