"""A console for administrators: who may connect is settled before the WebSocket is accepted, who may join a room after.

Run it with `catzilla run examples.admin_socket:app`, then open http://127.0.0.1:8000/admin and sign in as ada, password
enigma; or, as bob, password builder, who may sign in but not join.

There are three ways to say who one is: the cookie of a session, which a browser sends by itself; a ticket, for a page
that has no cookie here; a bearer token, for programs. The page is admin_socket.html.
"""

import hmac
import secrets
import time
from pathlib import Path
from typing import Any

from catzilla import (
    Catzilla,
    FileResponse,
    HTMLResponse,
    HTTPError,
    RedirectResponse,
    Request,
    Response,
    WebSocket,
    bearer_token,
    streaming_stats,
)

PAGE = Path(__file__).with_name("admin_socket.html")
SESSION_SECONDS = 600.0

# As short as an example may be: a real application keeps hashes, in a database.
PEOPLE = {"ada": {"password": "enigma", "staff": True}, "bob": {"password": "builder", "staff": False}}
TOKENS = {"let-me-in": "ada"}

LOGIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title><link rel="icon" href="data:,">
<style>:root { color-scheme: light dark } body { font: 1rem/1.5 system-ui, sans-serif; margin: 1.5rem }</style>
<form method="post" action="/admin/login">
  <p><label>Name <input name="name" value="ada" required autocomplete="username"></label>
  <p><label>Password <input name="password" type="password" required autocomplete="current-password"></label>
  <p><button>Sign in</button> %s
</form>
"""

sessions: dict[str, dict[str, Any]] = {}
"""By the value of the cookie: whose session it is."""


def principal_of(name: str) -> dict[str, Any]:
    """Somebody who has proven who they are. A socket is closed with 4501 when `expires_at` has come."""
    return {"id": name, "staff": PEOPLE[name]["staff"], "expires_at": time.time() + SESSION_SECONDS}


def signed_in(request: Request) -> dict[str, Any] | None:
    """Whose session's cookie a request has."""
    session = sessions.get(request.cookies.get("session", ""))
    return session if session is not None and session["expires_at"] > time.time() else None


def add_admin(app: Catzilla) -> None:
    """Give an app the console; the showcase has it, too."""
    control = app.room("control")

    @control.authorize
    def is_staff(principal: dict[str, Any], request: Request) -> bool:
        return bool(principal["staff"])

    def authenticated(request: Request) -> dict[str, Any]:
        """The principal; whoever is none gets a plain 401 and no WebSocket."""
        if "ticket" in request.query_params:
            holder: dict[str, Any] = app.tickets.redeem(request)  # good once, for this path, for a few seconds
            return holder
        token = bearer_token(request)  # a header, or the subprotocol that a browser can send in its place
        if token in TOKENS:
            return principal_of(TOKENS[token])
        session = signed_in(request)
        if session is None:
            raise HTTPError(401, "sign in first")
        return session

    @app.websocket("/admin/socket", auth=authenticated, subprotocols=["admin"])
    def console(ws: WebSocket) -> None:
        ws.join(control)  # not for bob: `Forbidden`, which ends the handler, closes with 4503
        name = ws.principal["id"]
        ws.send_json({"hello": name, "until": ws.principal["expires_at"]})
        for command in ws:
            if command == "stats":
                stats = streaming_stats()
                ws.send_json({"websockets": stats.active_websockets, "connections": stats.connections})
            else:
                control.publish({"from": name, "text": str(command)[:500]})

    @app.post("/admin/ticket")
    def ticket(request: Request) -> dict[str, str]:
        return {"ticket": app.tickets.issue(authenticated(request), "/admin/socket")}

    @app.get("/admin")
    def page(request: Request) -> Response:
        if signed_in(request) is None:
            return HTMLResponse(LOGIN % "", headers={"Cache-Control": "no-store"})
        return FileResponse(PAGE, headers={"Cache-Control": "no-store"})

    @app.post("/admin/login")
    def login(request: Request) -> Response:
        form = request.form()
        name, password = str(form["name"]), str(form["password"])
        person = PEOPLE.get(name)
        if person is None or not hmac.compare_digest(password.encode(), str(person["password"]).encode()):
            return HTMLResponse(LOGIN % "That is not right.", status_code=401)
        for key in [key for key, session in sessions.items() if session["expires_at"] < time.time()]:
            sessions.pop(key, None)
        key = secrets.token_urlsafe()
        sessions[key] = principal_of(name)
        response = RedirectResponse("/admin", status_code=303)
        response.set_cookie("session", key, max_age=int(SESSION_SECONDS), httponly=True)  # and secure=True with https
        return response


app = Catzilla()
add_admin(app)

if __name__ == "__main__":
    app.listen()
