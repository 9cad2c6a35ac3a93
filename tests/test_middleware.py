"""The order of middleware, what it may answer, and which functions are refused."""

from __future__ import annotations

import pytest

from catzilla.errors import HandlerReturnError, RouteError
from catzilla.middleware import Chain, MiddlewareStack
from catzilla.request import Request
from catzilla.response import Response
from tests.requests_made import Body, make_head


@pytest.fixture
def request_():
    return Request(make_head(), Body())


def pre(log: list[str], name: str, answer: object = None):
    def function(request):
        log.append(name)
        return answer

    return function


def post(log: list[str], name: str, answer: object = None):
    def function(request, response):
        log.append(name)
        return answer

    return function


def test_an_empty_chain_does_nothing(request_):
    chain = MiddlewareStack().chain()
    response = Response()
    assert chain.before(request_) is None
    assert chain.after(request_, response) is response
    assert (chain.pre, chain.post) == ((), ())


def test_higher_priority_runs_first_then_groups_then_the_route(request_):
    log: list[str] = []
    stack = MiddlewareStack()
    stack.add(pre(log, "low"), priority=1)
    stack.add(pre(log, "middle 1"))
    stack.add(pre(log, "high"), priority=100)
    stack.add(pre(log, "middle 2"))
    stack.add(post(log, "post low"), priority=1, post_route=True)
    stack.add(post(log, "post high"), priority=100, post_route=True)
    chain = stack.chain((pre(log, "group"), post(log, "post group"), pre(log, "route"), post(log, "post route")))
    chain.before(request_)
    assert log == ["high", "middle 1", "middle 2", "low", "group", "route"]
    log.clear()
    chain.after(request_, Response())
    assert log == ["post high", "post low", "post group", "post route"]


@pytest.mark.parametrize("answer", [Response(403, body="no"), ("no", 403)])
def test_the_first_answer_stops_the_rest(request_, answer):
    log: list[str] = []
    chain = MiddlewareStack().chain((pre(log, "a"), pre(log, "b", answer), pre(log, "c")))
    response = chain.before(request_)
    assert (response.status_code, response.body) == (403, b"no")
    assert log == ["a", "b"]


def test_each_post_route_function_sees_what_the_one_before_it_made(request_):
    def count(request, response):
        response.set_header("X-Count", int(response.get_header("X-Count", "0")) + 1)

    def replace(request, response):
        return Response(201, headers={"X-Count": response.get_header("X-Count")})

    response = MiddlewareStack().chain((count, replace, count)).after(request_, Response())
    assert (response.status_code, response.get_header("x-count")) == (201, "2")


def test_a_function_for_both_phases_runs_in_both(request_):
    calls = []

    def both(request, response=None):
        calls.append(response)

    response = Response()
    chain = MiddlewareStack().chain((both,))
    chain.before(request_)
    chain.after(request_, response)
    assert calls == [None, response]
    stack = MiddlewareStack()
    assert (stack.add(both, post_route=True).pre, stack.all()[0].post) == (True, True)
    assert stack.add(both, pre_route=False, post_route=True).pre is False
    assert stack.add(both).post is False


def test_a_default_that_is_no_response_does_not_make_it_post_route():
    def limited(request, limit=10): ...

    chain = MiddlewareStack().chain((limited,))
    assert (len(chain.pre), len(chain.post)) == (1, 0)


def test_a_callable_that_hides_its_signature_is_pre_route():
    class Opaque:
        __signature__ = "none"

        def __call__(self, *given): ...

    chain = MiddlewareStack().chain((Opaque(),))
    assert (len(chain.pre), len(chain.post)) == (1, 0)


def test_post_route_alone_is_enough_to_say():
    entry = MiddlewareStack().add(lambda request, response: None, post_route=True, name="after")
    assert (entry.pre, entry.post, entry.name) == (False, True, "after")


def test_an_answer_that_is_none_names_the_middleware(request_):
    stack = MiddlewareStack()
    stack.add(pre([], "x", 42), name="guard")
    with pytest.raises(HandlerReturnError, match=r"handler guard returned builtins\.int"):
        stack.chain().before(request_)


def test_the_app_says_what_an_answer_becomes(request_):
    seen = []

    def coerce(value, name):
        seen.append((value, name))
        return Response(204)

    stack = MiddlewareStack(coerce)
    stack.add(pre([], "x", iter("ab")), name="stream")
    assert stack.chain().before(request_).status_code == 204
    assert seen[0][1] == "stream"


def test_chains_are_kept_until_something_is_registered():
    stack = MiddlewareStack()
    own = pre([], "own")
    first = stack.chain((own,))
    assert stack.chain((own,)) is first
    assert isinstance(first, Chain)
    stack.add(pre([], "late"))
    assert [name for _, name in stack.chain((own,)).pre] != [name for _, name in first.pre]


async def async_middleware(request): ...


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (lambda request: None, {"post_route": True}, "write def <lambda>(request, response)"),
        (lambda request, response: None, {}, "write post_route=True"),
        (lambda request: None, {"pre_route": False}, "runs never"),
        (lambda: None, {}, "write def <lambda>(request)"),
        (lambda a, b, c: None, {"post_route": True}, "write def <lambda>(request)"),
        (async_middleware, {}, "write plain def"),
        ("name", {}, "a middleware is a function, not str"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(function, arguments, message):
    with pytest.raises(RouteError) as refused:
        MiddlewareStack().add(function, **arguments)
    assert message in str(refused.value)


@pytest.mark.parametrize("function", [lambda: None, lambda a, b, c: None, async_middleware])
def test_a_route_refuses_the_same(function):
    with pytest.raises(RouteError):
        MiddlewareStack().chain((function,))
