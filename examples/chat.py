"""A chat: rooms, names, who is here, and the last messages for whoever comes in.

Run it with `catzilla run examples.chat:app`, then open http://127.0.0.1:8000/chat in two tabs, under two names.

The page is chat.html. A name belongs to whoever claims it; `examples.admin_socket` asks for a password.
"""

import secrets
import threading
import time
from pathlib import Path
from typing import Any

from catzilla import Catzilla, FileResponse, Forbidden, HTTPError, Request, Room, WebSocket

PAGE = Path(__file__).with_name("chat.html")
ROOMS = ("lobby", "kitchen", "garden")

in_turn = threading.Lock()  # names are looked up and told in one step: the newest list is the last to arrive


def visitor(request: Request) -> str:
    """Who is asking. It runs before the connection is accepted, so nobody without a name gets in."""
    name = request.query_params.get("name", "").strip()
    if not 0 < len(name) <= 20:
        raise HTTPError(401, "say who you are, in 1 to 20 characters: ?name=alice")
    return name


def say(room: Room, **message: Any) -> None:
    """Publish to everybody in a room. By its id a page knows what it has got live and in the history, too."""
    room.publish({"id": secrets.token_hex(8), "at": time.time(), **message})


def tell_who_is_here(room: Room) -> None:
    """One arrival however many tabs somebody has, and no departure for a tab that is reloaded."""

    @room.on_join
    def came(name: str) -> None:
        with in_turn:
            say(room, note=f"{name} came in", here=sorted(room.members()))

    @room.on_leave
    def left(name: str) -> None:
        with in_turn:
            say(room, note=f"{name} left", here=sorted(room.members()))


def add_chat(app: Catzilla) -> None:
    """Give an app the chat. Rooms belong to an app, so this takes one: the showcase has the same chat as this file."""
    rooms = {name: app.room(name, public=True, history=50) for name in ROOMS}
    for room in rooms.values():
        tell_who_is_here(room)

    @app.get("/chat")
    def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})

    @app.get("/chat/rooms")
    def how_many_are_where() -> dict[str, int]:
        return {name: room.count() for name, room in rooms.items()}

    @app.websocket("/chat/{room_name}", auth=visitor)
    def chat(ws: WebSocket, room_name: str) -> None:
        room = rooms.get(room_name)
        if room is None:  # the app may have other public rooms, which are none of the chat's
            raise Forbidden(f"the chat has no room {room_name!r}")  # the client is told 4503, forbidden
        ws.join(room)
        with in_turn:
            ws.send_json({"history": [message.data for message in room.history()], "here": sorted(room.members())})
        for text in ws:
            if isinstance(text, str) and text.strip():
                say(room, who=ws.principal, text=text[:500])


app = Catzilla()
add_chat(app)

if __name__ == "__main__":
    app.listen()
