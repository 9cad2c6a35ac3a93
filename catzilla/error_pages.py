"""What an error looks like to the client: a page, JSON or a line of text, as it accepts.

In development an unhandled exception shows its traceback; in production nothing of it leaves the server.
"""

from __future__ import annotations

import html
import traceback

from catzilla.errors import HTTPError, phrase
from catzilla.request import Request
from catzilla.response import HTMLResponse, JSONResponse, Response

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }}
pre {{ background: #f6f6f6; border: 1px solid #ddd; border-radius: 6px; padding: 1rem; overflow-x: auto }}
p.where {{ color: #777 }}
</style></head><body><h1>{title}</h1><p>{detail}</p>{more}</body></html>
"""


def error_response(request: Request, error: HTTPError) -> Response:
    """The answer to an `HTTPError`: its status, its detail and its headers."""
    response = _render(request, error.status_code, error.detail, "")
    response.headers.update(error.headers)
    return response


def exception_response(request: Request, error: BaseException, *, production: bool) -> Response:
    """The answer to an exception that nobody handled: 500, with the traceback in development."""
    if production:
        return _render(request, 500, "the server failed to answer this request", "")
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return _render(request, 500, f"{type(error).__name__}: {error}", trace)


def _render(request: Request, status: int, detail: str, trace: str) -> Response:
    accept = request.get_header("accept") or ""
    title = f"{status} {phrase(status)}"
    if "text/html" in accept:
        where = f'<p class="where">{html.escape(request.method)} {html.escape(request.path)}</p>'
        more = f"{where}<pre>{html.escape(trace)}</pre>" if trace else ""
        return HTMLResponse(_PAGE.format(title=html.escape(title), detail=html.escape(detail), more=more), status)
    if "json" in accept:
        data = {"error": phrase(status), "status": status, "detail": detail}
        return JSONResponse(data | ({"traceback": trace.splitlines()} if trace else {}), status)
    lines = [title, *([detail] if detail != phrase(status) else []), *([trace] if trace else [])]
    return Response(status, "text/plain", "\n".join(lines).rstrip("\n") + "\n")
