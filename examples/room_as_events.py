"""One room, two ways to listen: as a WebSocket, and as Server-Sent Events, which catch up after an interruption.

Run it with `catzilla run examples.room_as_events:app`, then open http://127.0.0.1:8000/news in a browser, or
`curl -N http://127.0.0.1:8000/news/events` and, elsewhere, `curl -d 'It rains' http://127.0.0.1:8000/news`.

The page is room_as_events.html. Neither way holds a thread while nothing is published.
"""

from pathlib import Path

from catzilla import Catzilla, FileResponse, HTTPError, Request, Response, WebSocket

PAGE = Path(__file__).with_name("room_as_events.html")


def add_news(app: Catzilla) -> None:
    """Give an app the room `news` and its page; the showcase has them, too."""
    news = app.room("news", public=True, history=100, history_ttl=600)

    @app.get("/news")
    def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})

    @app.post("/news")
    def publish(request: Request) -> dict[str, str]:
        """Anything may publish: a handler as here, a WebSocket as below, a thread."""
        text = request.text().strip()
        if not text:
            raise HTTPError(400, "there is no news in the body")
        return {"position": str(news.publish(text[:500]))}

    @app.get("/news/position")
    def position() -> dict[str, str]:
        """Where the room stands: whoever listens from here on misses nothing."""
        return {"position": str(news.position())}

    @app.get("/news/events")
    def as_events(request: Request) -> Response:
        """Each event's id is its position. A browser that reconnects sends the last one, and gets what it missed."""
        return news.stream(request)

    @app.websocket("/news/socket")
    class AsSocket:
        """The same texts, and a way to send some. What is published while it is away it does not get."""

        def on_open(self, ws: WebSocket) -> None:
            ws.join(news)

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            news.publish(message[:500])


app = Catzilla()
add_news(app)

if __name__ == "__main__":
    app.listen()
