"""A live ticker in callback style: a thousand watchers hold no thread, and slow ones skip to the newest price.

Run it with `catzilla run examples.ticker:app`, then open http://127.0.0.1:8000/ticker in a browser.

The page is ticker.html. Each symbol has a room of its own; a page says which it watches.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catzilla import Catzilla, FileResponse, WebSocket

PAGE = Path(__file__).with_name("ticker.html")
OPENING = {"CAT": 120.0, "KIWI": 8.5, "OWL": 64.2, "YAK": 31.9}
SECONDS_A_TICK = 0.25


class Market:
    """Made-up prices, from a thread that knows nothing of the web: it tells each to a function."""

    def __init__(self, tell: Callable[[str, float], object]) -> None:
        self.tell = tell
        self.closing = threading.Event()

    def open(self) -> None:
        self.closing.clear()
        self.thread = threading.Thread(target=self.trade, name="market")
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.thread.join()

    def trade(self) -> None:
        prices = dict(OPENING)
        while not self.closing.wait(SECONDS_A_TICK):  # wakes at once when it closes, so Ctrl-C does not wait for a tick
            for symbol, price in prices.items():
                prices[symbol] = price * (1 + random.gauss(0, 0.003))
                self.tell(symbol, round(prices[symbol], 2))


def add_ticker(app: Catzilla) -> None:
    """Give an app the ticker; the showcase has it, too."""
    # Whoever does not keep up gets the newest price and none of those before it. A history of one is for newcomers.
    rooms = {symbol: app.room(f"ticker/{symbol}", public=True, on_slow="conflate", history=1) for symbol in OPENING}

    market = Market(lambda symbol, price: rooms[symbol].publish({"symbol": symbol, "price": price}))
    app.on_startup(market.open)
    app.on_shutdown(market.close)

    @app.get("/ticker")
    def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})

    @app.websocket("/ticker/socket")
    class Ticker:
        def on_open(self, ws: WebSocket) -> None:
            for symbol in rooms:
                self.watch(ws, symbol)

        def on_message(self, ws: WebSocket, message: Any) -> None:
            """`watch CAT` or `ignore CAT`."""
            wish, _, symbol = str(message).partition(" ")
            if wish not in ("watch", "ignore") or symbol not in rooms:
                ws.send_json({"error": f"write watch or ignore, and one of {', '.join(rooms)}"})
            elif wish == "watch":
                self.watch(ws, symbol)
            else:
                ws.leave(rooms[symbol])

        def watch(self, ws: WebSocket, symbol: str) -> None:
            ws.join(rooms[symbol])
            for message in rooms[symbol].history():
                ws.send_json(message.data)


app = Catzilla()
add_ticker(app)

if __name__ == "__main__":
    app.listen()
