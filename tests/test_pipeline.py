"""The way of a request through an app: what answers, in which order, and what becomes of each kind of failure."""

from __future__ import annotations

from typing import Any

import pytest

from catzilla import Catzilla, FileResponse, Response, StreamingResponse
from catzilla._core.current import current
from catzilla._core.messages import Reply, Source
from catzilla._core.pace import Pace
from catzilla._core.waits import Waits
from catzilla.errors import BodyTooLarge, Disconnected, HTTPError, Overloaded, RemoteProtocolError
from tests.requests_made import Body, make_head
from tests.test_writer import LiveStream


class FakeExchange:
    """A request as the pipeline gets it from the server."""

    def __init__(self, app: Catzilla, method: str, target: str, body: Any = b"", **head: Any) -> None:
        self.head = make_head(method, target, **head)
        self.body = body if isinstance(body, Body) else Body(body)
        self.plan = app.pipeline.plan(self.head)
        self.live: LiveStream | None = None
        self.started: list[Reply] = []
        self.gone = False
        self.waits = Waits()

    def leave(self) -> None:
        """The client leaves."""
        self.gone = True
        self.waits.interrupt(Disconnected())

    def start_live(self, reply: Reply) -> LiveStream:
        if self.gone:
            raise Disconnected
        self.started.append(reply)
        self.live = LiveStream()
        return self.live


@pytest.fixture
def app():
    return Catzilla(production=True)


@pytest.fixture
def handle(app):
    """`handle(method, target, ...)` gives the reply; `handle.exchange` what it went through."""

    def call(method: str = "GET", target: str = "/", **options: Any) -> Reply:
        call.exchange = FakeExchange(app, method, target, **options)
        return app.pipeline.handle(call.exchange)

    yield call
    assert current.go_live is None, "the next request on this thread would write to this one's response"


def header(reply: Reply, name: str) -> str | None:
    return next((value.decode() for key, value in reply.headers if key.lower() == name.encode()), None)


# Routing.


def test_a_handler_answers(app, handle):
    @app.get("/items/{item_id:int}")
    def item(request, item_id):
        return {"id": item_id, "q": request.query_params.get("q")}

    reply = handle(target="/items/7?q=x")
    assert reply.status == 200
    assert reply.body in (b'{"id":7,"q":"x"}', b'{"id": 7, "q": "x"}')


def test_nothing_at_a_path(handle):
    reply = handle(target="/nowhere")
    assert reply.status == 404
    assert b"there is nothing at /nowhere" in reply.body


def test_another_method(app, handle):
    app.get("/")(lambda request: "x")
    reply = handle("POST")
    assert reply.status == 405
    assert header(reply, "allow") == "GET, HEAD, OPTIONS"


def test_options(app, handle):
    app.get("/")(lambda request: "x")
    reply = handle("OPTIONS")
    assert (reply.status, reply.body) == (204, b"")
    assert header(reply, "allow") == "GET, HEAD, OPTIONS"


def test_a_route_has_one_pace_for_all_its_requests(app):
    app.get("/a")(lambda request: "x")
    app.get("/b")(lambda request: "x")
    paces = [app.pipeline.plan(make_head(target=target)).pace for target in ("/a", "/a", "/b", "/nowhere", "/no")]
    assert paces[0] is paces[1]
    assert paces[0] is not paces[2]
    assert paces[3] is paces[4]
    assert all(isinstance(pace, Pace) for pace in paces)


def test_a_not_found_handler(app, handle):
    app.set_not_found_handler(lambda request: f"no {request.path}")
    assert (handle(target="/x").status, handle(target="/x").body) == (404, b"no /x")
    app.set_not_found_handler(lambda request: Response(410, body="gone"))
    assert handle(target="/x").status == 410


# Failures.


def failing(app, error: BaseException) -> None:
    @app.get("/")
    def handler(request):
        raise error


def test_an_unhandled_exception_is_500_and_logged(app, handle, caplog):
    failing(app, ValueError("secret"))
    reply = handle()
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "failed" in caplog.text
    assert "secret" in caplog.text


def test_in_development_the_client_sees_it(handle, app):
    app.pipeline.production = False
    failing(app, ValueError("secret"))
    assert b"secret" in handle().body


def test_an_http_error_is_its_status_and_not_logged(app, handle, caplog):
    failing(app, HTTPError(418, "short and stout", {"X-Pot": "tea"}))
    reply = handle()
    assert reply.status == 418
    assert header(reply, "x-pot") == "tea"
    assert caplog.text == ""


@pytest.mark.parametrize(("error", "status"), [(BodyTooLarge(5), 413), (RemoteProtocolError(408, "too slow"), 408)])
def test_what_the_body_did_wrong_is_its_status(app, handle, error, status):
    @app.post("/")
    def handler(request):
        return request.body()

    assert handle("POST", body=Body([b"x"], error)).status == status


def test_the_nearest_exception_handler_answers(app, handle):
    class Base(Exception):
        pass

    class Special(Base):
        pass

    app.set_exception_handler(Exception, lambda request, error: ("any", 500))
    app.set_exception_handler(Base, lambda request, error: (f"base {error}", 400))
    failing(app, Special("x"))
    reply = handle()
    assert (reply.status, reply.body) == (400, b"base x")


def test_a_handler_for_http_errors_sees_404s_too(app, handle):
    app.set_exception_handler(HTTPError, lambda request, error: ({"code": error.status_code}, error.status_code))
    assert handle(target="/nowhere").status == 404
    assert b'"code"' in handle(target="/nowhere").body


def test_an_internal_error_handler_answers_what_nothing_else_does(app, handle, caplog):
    app.set_internal_error_handler(lambda request, error: (f"sorry, {type(error).__name__}", 503))
    failing(app, ValueError("secret"))
    reply = handle()
    assert (reply.status, reply.body) == (503, b"sorry, ValueError")
    assert "secret" in caplog.text


def test_an_error_handler_that_fails_too(app, handle, caplog):
    app.set_exception_handler(ValueError, lambda request, error: 1 / 0)
    failing(app, ValueError("secret"))
    reply = handle()
    assert reply.status == 500
    assert "the error handler failed too" in caplog.text


def test_a_return_value_that_is_none_of_those_allowed(app, handle, caplog):
    @app.get("/")
    def handler(request):
        return object()

    assert handle().status == 500
    assert "it may return" in caplog.text


def test_a_client_that_has_left_gets_nothing_and_nobody_is_blamed(app, handle, caplog):
    @app.get("/")
    def handler(request):
        handle.exchange.leave()
        handle.exchange.waits.check()

    handle()
    assert caplog.text == ""


def test_a_disconnection_of_something_else_is_an_error(app, handle, caplog):
    failing(app, Disconnected())
    assert handle().status == 500
    assert "failed" in caplog.text


def test_a_full_budget_is_503(app, handle):
    failing(app, Overloaded("the server runs as many streams as it may"))
    reply = handle()
    assert reply.status == 503
    assert header(reply, "retry-after") == "1"


# Middleware.


def test_the_order_of_middleware(app, handle):
    seen = []

    @app.middleware(priority=10)
    def late(request):
        seen.append("late")

    @app.middleware(priority=90)
    def early(request):
        seen.append("early")

    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        seen.append("after")
        response.set_header("X-After", "yes")

    @app.get("/")
    def handler(request):
        seen.append("handler")
        return "x"

    assert header(handle(), "x-after") == "yes"
    assert seen == ["early", "late", "handler", "after"]


def test_middleware_may_answer(app, handle):
    app.middleware(lambda request: ("stop", 403))
    app.get("/")(lambda request: pytest.fail("not reached"))
    assert (handle().status, handle().body) == (403, b"stop")


def test_middleware_sees_errors_too(app, handle):
    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        response.set_header("X-Status", response.status_code)

    failing(app, HTTPError(404))
    assert header(handle(), "x-status") == "404"
    assert header(handle(target="/nowhere"), "x-status") == "404"


def test_post_route_middleware_that_fails_is_answered_once(app, handle, caplog):
    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        raise ValueError("secret")

    app.get("/")(lambda request: "x")
    reply = handle()
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "the error response failed too" in caplog.text


# Streams.


def test_a_generator_is_a_stream_and_its_early_failure_an_answer(app, handle):
    @app.get("/")
    def handler(request):
        yield "x"

    reply = handle()
    assert isinstance(reply.body, Source)
    early = reply.body.fail_early(HTTPError(402, "pay"))
    assert early.status == 402
    assert isinstance(early.body, bytes)


def test_the_answer_to_an_early_failure_must_be_plain(app, handle, tmp_path, caplog):
    path = tmp_path / "file"
    path.write_text("x")
    opened = []

    def answer(request, error):
        response = FileResponse(str(path)) if isinstance(error, KeyError) else StreamingResponse(["x"])
        opened.append(response)
        return response

    app.set_exception_handler(LookupError, answer)

    @app.get("/")
    def handler(request):
        yield "x"

    reply = handle()
    for error in (KeyError("k"), IndexError("i")):
        assert reply.body.fail_early(error).status == 500
    assert caplog.text.count("must be a plain response") == 2


def test_a_stream_whose_declared_length_is_no_number(app, handle):
    app.get("/")(lambda request: StreamingResponse(["x"], headers={"Content-Length": "seven"}))
    assert handle().status == 500


def test_a_stream_that_answers_an_error_has_no_second_chance(app, handle):
    app.set_exception_handler(ValueError, lambda request, error: StreamingResponse(["oops"], status_code=400))
    failing(app, ValueError())
    reply = handle()
    assert reply.status == 400
    assert reply.body.fail_early is None or callable(reply.body.fail_early)


# Responses that are written to.


def test_writing_goes_live_after_post_route_middleware(app, handle):
    seen = []

    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        seen.append(response.status_code)
        response.set_header("X-After", "yes")

    @app.get("/")
    def handler(request):
        response = StreamingResponse(status_code=201)
        with response.writer() as writer:
            writer.write("live")
            assert seen == [201]
        return response

    handle()
    (reply,) = handle.exchange.started
    assert (reply.status, header(reply, "x-after")) == (201, "yes")
    assert handle.exchange.live.data == [b"live"]
    assert handle.exchange.live.ended == [False]
    assert seen == [201], "it is not asked again at the end"


def write_and(app, then) -> None:
    @app.get("/")
    def handler(request):
        response = StreamingResponse()
        response.writer().write("partial")
        return then(response)


def test_a_failure_after_the_first_write_cuts(app, handle, caplog):
    write_and(app, lambda response: 1 / 0)
    handle()
    assert True in handle.exchange.live.ended
    assert "failed while it was writing; cut" in caplog.text


def test_a_client_that_leaves_while_it_is_written_to(app, handle, caplog):
    def leave(response):
        handle.exchange.leave()
        handle.exchange.waits.check()

    write_and(app, leave)
    handle()
    assert True in handle.exchange.live.ended
    assert "failed" not in caplog.text


def test_returning_another_response_than_the_one_written_to(app, handle, caplog):
    write_and(app, lambda response: "something else")
    handle()
    assert True in handle.exchange.live.ended
    assert "but has written to another response; cut" in caplog.text


def test_one_request_writes_to_one_response(app, handle):
    errors = []

    def second(response):
        try:
            StreamingResponse().writer().write("x")
        except ValueError as error:
            errors.append(str(error))
        response._writer.close()
        return response

    write_and(app, second)
    handle()
    assert errors == ["another response of this request is being written already"]


def test_a_writer_that_nobody_used_yet_begins_when_the_handler_returns(app, handle):
    writers = []

    @app.get("/")
    def handler(request):
        response = StreamingResponse()
        writers.append(response.writer())
        return response

    handle()
    assert len(handle.exchange.started) == 1
    assert handle.exchange.live.ended == []
    writers[0].write("later")
    writers[0].close()
    assert handle.exchange.live.data == [b"later"]


@pytest.mark.parametrize(("end", "failed"), [("abort", True), ("close", False)])
def test_a_writer_that_was_ended_before_it_began(app, handle, end, failed):
    @app.get("/")
    def handler(request):
        response = StreamingResponse()
        getattr(response.writer(), end)()
        return response

    handle()
    assert handle.exchange.live.ended[-1] is failed, "an aborted response is nothing to take for whole"


def test_a_client_that_left_before_the_writer_began(app, handle):
    @app.get("/")
    def handler(request):
        handle.exchange.leave()
        response = StreamingResponse()
        response.writer()
        return response

    handle()
    assert handle.exchange.started == []


@pytest.mark.parametrize("written", [True, False])
def test_middleware_may_refuse_what_is_about_to_be_written(app, handle, written):
    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        if response.status_code == 200:
            raise HTTPError(403, "not for you")

    @app.get("/")
    def handler(request):
        response = StreamingResponse()
        writer = response.writer()
        if written:
            writer.write("x")
        return response

    assert handle().status == 403
    assert handle.exchange.started == []


def test_a_write_after_a_refused_one_is_refused_the_same_way(app, handle):
    errors = []

    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        if not errors:
            raise HTTPError(403, "not for you")

    @app.get("/")
    def handler(request):
        response = StreamingResponse()
        with response.writer() as writer:
            try:
                writer.write("x")
            except HTTPError as error:
                errors.append(error)
            writer.write("y")
        return response

    handle()
    assert len(errors) == 1
    assert handle.exchange.live.data == [b"y"]


def test_middleware_cannot_replace_what_is_being_written(app, handle, caplog):
    @app.middleware(pre_route=False, post_route=True)
    def after(request, response):
        return Response(body="other") if response.status_code == 200 else None

    write_and(app, lambda response: response)
    assert handle().status == 500
    assert "cannot replace a response that is being written; change it in place" in caplog.text


def test_a_field_that_the_request_does_not_have_is_the_clients_mistake(live_server):
    app = Catzilla(production=True)

    @app.get("/")
    def handler(request):
        return request.query_params["q"]

    response = live_server(app).get("/")
    assert response.status_code == 400
    assert "'q'" in response.text
