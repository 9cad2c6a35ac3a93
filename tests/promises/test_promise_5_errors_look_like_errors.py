"""Promise 5: an early failure is a real error response; a late one cuts the connection, and tells no secrets.

The bytes are read off the socket as they are, because what must not be there (a terminating chunk, a clean end, a piece
of a traceback) is what a client library would hide.
"""

from __future__ import annotations

import logging
import queue
import threading

import pytest

from catzilla import (
    Catzilla,
    CSVResponse,
    EventStream,
    HTTPError,
    JSONLinesResponse,
    JSONResponse,
    Response,
    StreamingResponse,
    sleep,
)
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, streams_of

SECRET = "secret-7f3a"  # stands in every exception here, and in no answer
TERMINATOR = b"0\r\n\r\n"


class OnPurpose(Exception):
    """What handlers raise here."""


@pytest.fixture
def log(caplog):
    """The lines of catzilla's log so far."""
    caplog.set_level(logging.INFO, logger="catzilla")

    def lines(level: int = logging.ERROR) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= level]

    return lines


def failing(*items, error=None):
    yield from items
    raise error or OnPurpose(SECRET)


def head_and_body(answer: bytes) -> tuple[bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


# Before the head.

EARLY = {
    "generator": lambda: StreamingResponse(failing()),
    "bare generator": failing,
    "function": lambda: StreamingResponse(failing),
    "wrapped": lambda: CSVResponse(failing(), filename="x.csv"),
    "after a pause": lambda: StreamingResponse(failing(sleep(0.001))),
    "after empty items": lambda: StreamingResponse(failing("", b"")),
    "EventStream": lambda: EventStream(failing()),
    "JSONLinesResponse": lambda: JSONLinesResponse(failing()),
    "not iterable after all": lambda: StreamingResponse(NotIterable()),
}


class NotIterable:
    def __iter__(self):
        raise OnPurpose(SECRET)


@pytest.fixture(params=EARLY)
def early(request, app):
    @app.get("/")
    def handler():
        return EARLY[request.param]()


def test_a_failure_before_the_first_item_is_a_500(app, live_server, early, log):
    live = live_server(app)
    with live.connect() as connection:
        for _ in range(2):  # and the connection goes on
            response = connection.get("/")
            assert response.status_code == 500
            assert response.headers["content-type"].startswith("text/")
            assert SECRET not in response.text
    assert len(log()) == 2, "not logged once a request"
    eventually(lambda: not streams_of(live), "the streams are gone")


def test_a_failure_before_the_first_item_reaches_the_exception_handler(app, live_server, early):
    app.set_exception_handler(OnPurpose, lambda request, error: JSONResponse({"path": request.path}, 418))
    response = live_server(app).get("/")
    assert (response.status_code, response.json()) == (418, {"path": "/"})


def test_an_http_error_before_the_first_item_is_its_status(app, live_server, log):
    @app.get("/")
    def handler():
        return StreamingResponse(failing(error=HTTPError(404, "no such export", {"X-Why": "gone"})))

    response = live_server(app).get("/")
    assert response.status_code == 404
    assert "no such export" in response.text
    assert response.headers["X-Why"] == "gone"
    assert log() == []


def test_the_internal_error_handler_answers_a_stream_that_fails_early(app, live_server):
    app.set_internal_error_handler(lambda request, error: Response(500, body="sorry"))

    @app.get("/")
    def handler():
        return StreamingResponse(failing())

    assert live_server(app).get("/").text == "sorry"


def test_middleware_sees_the_error_response_of_a_stream(app, live_server):
    statuses: queue.SimpleQueue[int] = queue.SimpleQueue()

    @app.middleware(post_route=True)
    def after(request, response):
        statuses.put(response.status_code)
        response.set_header("X-After", "yes")

    @app.get("/")
    def handler():
        return StreamingResponse(failing())

    response = live_server(app).get("/")
    assert (response.status_code, response.headers["X-After"]) == (500, "yes")
    assert [statuses.get() for _ in range(statuses.qsize())][-1] == 500


def test_development_shows_the_error_and_production_does_not(live_server):
    def build(production: bool) -> Catzilla:
        app = Catzilla(production=production, show_banner=False, log_requests=False)

        @app.get("/")
        def handler():
            return StreamingResponse(failing())

        return app

    assert SECRET in live_server(build(production=False)).get("/").text
    assert SECRET not in live_server(build(production=True)).get("/").text


@pytest.mark.parametrize("kind", ["writer", "with writer"])
def test_a_writer_that_fails_before_its_first_write_is_a_500(app, live_server, kind, log):
    @app.get("/")
    def handler():
        response = StreamingResponse()
        if kind == "writer":
            response.writer()
            raise OnPurpose(SECRET)
        with response.writer():
            raise OnPurpose(SECRET)

    response = live_server(app).get("/")
    assert response.status_code == 500
    assert SECRET not in response.text
    assert len(log()) == 1


def test_42_as_the_first_item_names_handler_and_type(app, live_server, log):
    @app.get("/")
    def the_answer():
        return StreamingResponse(iter([42]))

    assert live_server(app).get("/").status_code == 500
    assert len(log()) == 1


# After the head.


def writes_and_fails():
    response = StreamingResponse()
    with response.writer() as w:
        w.write("first")
        raise OnPurpose(SECRET)


def writes_and_fails_outside():
    response = StreamingResponse()
    w = response.writer()
    w.write("first")
    raise OnPurpose(SECRET)


def fails_in_a_wrapper():
    def wrapper(items):
        for item in items:
            yield item
            raise OnPurpose(SECRET)

    response = StreamingResponse(iter(["first", "second"]))
    response.wrap_stream(wrapper)
    return response


LATE = {
    "generator": lambda: StreamingResponse(failing("first")),
    "after a pause": lambda: StreamingResponse(failing("first", sleep(0.01))),
    "wrapper": fails_in_a_wrapper,
    "writer": writes_and_fails,
    "writer, outside of with": writes_and_fails_outside,
    "no text": lambda: StreamingResponse(iter(["first", 42])),
    "BaseException": lambda: StreamingResponse(failing("first", error=SystemExit(SECRET))),
    "HTTPError": lambda: StreamingResponse(failing("first", error=HTTPError(404, SECRET))),
}


@pytest.fixture(params=LATE)
def late(request, app):
    @app.get("/")
    def handler():
        return LATE[request.param]()


def test_a_late_failure_has_no_terminator(app, live_server, late, log):
    live = live_server(app)
    with RawClient(live, get("/")) as client:
        head, body = head_and_body(client.read_to_end())
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body in (b"5\r\nfirst\r\n", b""), "something else than what the handler gave"
    assert TERMINATOR not in body
    eventually(lambda: not streams_of(live) and log(), "the stream is gone and the error is logged")
    assert len(log()) == 1, f"logged {len(log())} times: {log()}"
    assert "test_promise_5" in log()[0], "the log line does not name the handler"


def test_a_client_library_takes_a_cut_body_for_what_it_is(app, live_server, late):
    with pytest.raises(EOFError):
        live_server(app).get("/")


def test_a_late_failure_is_a_reset_in_http_1_0(app, live_server, late, log):
    """There the end of the connection is the end of the body, so a clean end would be a lie."""
    client = RawClient(live_server(app), get("/", version="1.0"))
    with pytest.raises(ConnectionResetError) as reset:
        client.read_to_end()
    assert SECRET.encode() not in reset.value.args[0]
    eventually(log, "the error is logged")
    assert len(log()) == 1


def test_a_stream_that_ends_well_is_a_clean_end_in_http_1_0(app, live_server):
    """Or the test above proves nothing."""

    @app.get("/")
    def handler():
        return StreamingResponse(iter(["first"]))

    with RawClient(live_server(app), get("/", version="1.0")) as client:
        assert head_and_body(client.read_to_end())[1] == b"first"


def test_a_failure_after_the_head_has_left_alone(app, live_server, log):
    """The first item took longer than `head_grace`: too late for a 404, so a cut, and a line in the log."""
    go_on = threading.Event()

    @app.get("/{kind}")
    def handler(kind):
        def items():
            assert go_on.wait(PATIENCE)
            raise HTTPError(404, SECRET) if kind == "http-error" else OnPurpose(SECRET)
            yield

        return StreamingResponse(items())

    live = live_server(app, head_grace=0.01)
    for kind in ("http-error", "error"):
        go_on.clear()
        with RawClient(live, get(f"/{kind}")) as client:
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            go_on.set()
            assert client.read_to_end() == b""
    eventually(lambda: len(log()) == 2, "each is logged once")
    assert all("handler" in line for line in log())


def test_items_before_the_failure_arrive(app, live_server):
    """A cut throws nothing away that was given before it."""

    @app.get("/")
    def handler():
        return StreamingResponse(failing(*[f"{i:06d}" for i in range(50_000)]))

    with live_server(app).stream("/") as client:
        received = b""
        with pytest.raises(EOFError):
            for piece in client:
                received += piece
    assert received == b"".join(b"%06d" % i for i in range(50_000))


# A declared length.


@pytest.mark.parametrize(
    ("items", "what"),
    [
        (["abc"], "short"),
        (["abc", sleep(0.01)], "short"),
        ([], "short"),
        (["abcdef"], "more"),
        (["abc", "def"], "more"),
        (["abcde", sleep(0.01), "f"], "more"),
        (["abc", sleep(0.01), "d" * 1000], "more"),
    ],
    ids=str,
)
@pytest.mark.parametrize("by", ["generator", "writer"])
def test_a_body_that_is_not_as_long_as_declared_is_cut(app, live_server, log, items, what, by):
    @app.get("/")
    def handler():
        response = StreamingResponse(None if by == "writer" else iter(items), headers={"Content-Length": "5"})
        if by == "writer":
            with response.writer() as w:
                w.flush()
                for item in items:
                    if isinstance(item, str):
                        w.write(item)
        return response

    live = live_server(app)
    with RawClient(live, get("/") + get("/next")) as client:
        try:
            answer = client.read_to_end()
        except ConnectionResetError as reset:
            answer = reset.args[0]
    assert answer.count(b"HTTP/1.1") <= 1, "the connection went on after a body of the wrong length"
    body = head_and_body(answer)[1]
    assert "abcdef".startswith(body.decode()[:6])
    assert len(body) <= 5, "more bytes than were declared"
    if what == "short":
        assert len(body) < 5
    assert len(log()) == 1, f"logged {len(log())} times: {log()}"
    assert what in log()[0]
    eventually(lambda: not streams_of(live), "the stream is gone")


def test_a_body_as_long_as_declared_is_whole(app, live_server, log):
    @app.get("/")
    def handler():
        return StreamingResponse(iter(["abc", "", sleep(0.001), "de"]), headers={"Content-Length": "5"})

    with live_server(app).connect() as connection:
        for _ in range(3):
            response = connection.get("/")
            assert response.body == b"abcde"
            assert response.headers["Content-Length"] == "5"
            assert "Transfer-Encoding" not in response.headers
    assert log() == []


@pytest.mark.parametrize("value", ["five", "-5", "5.0", "", "5, 5"])
def test_a_declared_length_that_is_no_number_is_a_500(app, live_server, log, value):
    @app.get("/")
    def handler():
        return StreamingResponse(iter(["abcde"]), headers={"Content-Length": value})

    live = live_server(app, client_timeout=5)
    assert live.get("/").status_code == 500
    assert len(log()) == 1
    eventually(lambda: not streams_of(live), "the stream is gone")


# Errors in what handles errors.


def test_an_error_in_post_route_middleware_is_a_500_even_for_a_stream(app, live_server, log):
    started = []

    @app.middleware(post_route=True)
    def after(request, response):
        if response.status_code == 200:
            raise OnPurpose(SECRET)

    @app.get("/")
    def handler():
        return StreamingResponse(failing(started.append(True)))

    response = live_server(app).get("/")
    assert response.status_code == 500
    assert SECRET not in response.text
    assert len(log()) == 1


def test_a_post_route_middleware_that_always_fails_is_still_a_500(app, live_server, log):
    @app.middleware(post_route=True)
    def after(request, response):
        raise OnPurpose(SECRET)

    @app.get("/plain")
    def plain():
        return "plain"

    @app.get("/stream")
    def stream():
        return StreamingResponse(iter(["never"]))

    live = live_server(app)
    for path in ("/plain", "/stream", "/nowhere"):
        response = live.get(path)
        assert response.status_code == 500
        assert SECRET not in response.text
    assert log()


@pytest.mark.parametrize("kind", ["exception", "internal", "not found"])
def test_an_error_in_an_error_handler_is_a_500(app, live_server, log, kind):
    def broken(*args):
        raise RuntimeError(SECRET)

    if kind == "exception":
        app.set_exception_handler(OnPurpose, broken)
    elif kind == "internal":
        app.set_internal_error_handler(broken)
    else:
        app.set_not_found_handler(broken)

    @app.get("/plain")
    def plain():
        raise OnPurpose(SECRET)

    @app.get("/stream")
    def stream():
        return StreamingResponse(failing())

    live = live_server(app)
    for path in ["/nowhere"] if kind == "not found" else ["/plain", "/stream"]:
        response = live.get(path)
        assert response.status_code == 500
        assert SECRET not in response.text
    assert log()


@pytest.mark.parametrize("handler_result", ["stream", "None"])
def test_an_error_handler_that_answers_with_nonsense_is_a_500(app, live_server, handler_result):
    app.set_internal_error_handler(
        lambda request, error: StreamingResponse(iter(["no"])) if handler_result == "stream" else None
    )

    @app.get("/")
    def handler():
        return StreamingResponse(failing())

    live = live_server(app)
    assert live.get("/").status_code == 500
    eventually(lambda: not streams_of(live), "the streams are gone")


# Errors in `finally`.


def test_an_error_in_finally_after_the_last_item_cuts(app, live_server, log):
    """Whether the body is whole is the generator's to say, and it did not get to the end."""

    @app.get("/")
    def handler():
        def items():
            try:
                yield "first"
            finally:
                raise OnPurpose(SECRET)

        return StreamingResponse(items())

    with RawClient(live_server(app), get("/")) as client:
        assert TERMINATOR not in client.read_to_end()
    assert len(log()) == 1


def test_an_error_in_finally_when_the_client_has_left_is_logged(app, live_server, log):
    @app.get("/")
    def handler():
        def items():
            try:
                yield "first"
                yield sleep(60)
            finally:
                raise OnPurpose(SECRET)

        return StreamingResponse(items())

    live = live_server(app)
    client = live.stream("/")
    next(client)
    client.close()
    eventually(log, "the error is logged")
    eventually(lambda: not streams_of(live), "the stream is gone")
    assert len(log()) == 1
    assert live.get("/nowhere").status_code == 404


def test_a_generator_that_ignores_generator_exit_does_not_stay(app, live_server, log):
    @app.get("/")
    def handler():
        def items():
            while True:
                try:
                    yield "x"
                    yield sleep(60)
                except GeneratorExit:
                    yield "never"

        return StreamingResponse(items())

    live = live_server(app)
    client = live.stream("/")
    next(client)
    client.close()
    eventually(log, "the RuntimeError of the generator is logged")
    eventually(lambda: not streams_of(live), "the stream is gone")
