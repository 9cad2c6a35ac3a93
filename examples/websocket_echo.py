"""An echo over a WebSocket, in both styles: a function that loops over messages, and a class that is called for each.

Run it with `catzilla run examples.websocket_echo:app`, then talk to it with
`python -m websockets ws://127.0.0.1:8000/echo`.
"""

from catzilla import Catzilla, WebSocket

app = Catzilla()


@app.websocket("/echo")
def echo(ws: WebSocket) -> None:
    """One thread as long as the client stays: local variables are the state, and the end of the loop is the end."""
    for message in ws:  # str or bytes, whichever came
        ws.send(message)


@app.websocket("/echo-callbacks")
class Echo:
    """No thread while nothing comes. One instance for each client, and its messages one after the other."""

    def on_open(self, ws: WebSocket) -> None:
        self.count = 0

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.count += 1
        ws.send(f"{self.count}: {message!r}")


if __name__ == "__main__":
    app.listen()
