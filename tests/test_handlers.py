"""Every signature that a handler may have gets the right arguments, and every other is refused with its remedy."""

from __future__ import annotations

import functools
import inspect

import pytest

from catzilla.errors import RouteError
from catzilla.handlers import bind_arguments, handler_name

REQUEST = object()
PARAMS = {"item_id": 7, "name": "x"}


class Request:
    """Stands in for the real one: handlers are recognised by the annotation's name."""


def call(handler, params=PARAMS):
    return bind_arguments(handler, list(params), "/the/path")(REQUEST, params)


@pytest.mark.parametrize(
    ("handler", "result"),
    [
        (lambda: "none", "none"),
        (lambda request: (request,), (REQUEST,)),
        (lambda r: (r,), (REQUEST,)),
        (lambda request, item_id: (request, item_id), (REQUEST, 7)),
        (lambda req, name, item_id: (req, name, item_id), (REQUEST, "x", 7)),
        (lambda item_id: (item_id,), (7,)),
        (lambda name, item_id: (name, item_id), ("x", 7)),
        (lambda item_id, request: (item_id, request), (7, REQUEST)),
        (lambda request, page=1: (request, page), (REQUEST, 1)),
        (lambda page=1: (page,), (1,)),
        (lambda request, *, item_id: (request, item_id), (REQUEST, 7)),
        (lambda *, request, name: (request, name), (REQUEST, "x")),
        (lambda request=None: (request,), (REQUEST,)),
        (lambda **given: given, PARAMS),
        (lambda request, **given: (request, given), (REQUEST, PARAMS)),
        (lambda request, name, **given: (request, name, given), (REQUEST, "x", {"item_id": 7})),
        (lambda *given: given, (REQUEST,)),
        (lambda *given, **named: (given, named), ((REQUEST,), PARAMS)),
    ],
)
def test_a_handler_gets_what_it_takes(handler, result):
    assert call(handler) == result


def test_an_annotation_says_which_parameter_is_the_request():
    def plain(item_id, r: Request, page: int = 1):
        return item_id, r, page

    assert call(plain) == (7, REQUEST, 1)


def test_a_string_annotation_counts_too():
    def handler(item_id, r):
        return item_id, r

    handler.__annotations__["r"] = "catzilla.Request"
    assert call(handler) == (7, REQUEST)


def test_a_path_parameter_may_be_called_request():
    assert bind_arguments(lambda request: request, ["request"])(REQUEST, {"request": "path"}) == "path"


def test_methods_partials_and_callable_objects_are_handlers():
    class Handlers:
        def method(self, request, item_id):
            return request, item_id

        def __call__(self, request, name):
            return request, name

    assert call(Handlers().method) == (REQUEST, 7)
    assert call(Handlers()) == (REQUEST, "x")
    assert call(functools.partial(lambda extra, request, name: (extra, request, name), "e")) == ("e", REQUEST, "x")


def test_a_callable_that_hides_its_signature_gets_the_request():
    class Opaque:
        __signature__ = "none"

        def __call__(self, *given):
            return given

    assert call(Opaque()) == (REQUEST,)


def test_a_decorated_handler_is_seen_through_its_wrapper():
    def inner(request, item_id):
        return request, item_id

    @functools.wraps(inner)
    def wrapper(*args, **kwargs):
        return inner(*args, **kwargs)

    assert call(wrapper) == (REQUEST, 7)


def test_a_generator_function_gives_a_generator():
    def stream(request, item_id):
        yield item_id

    result = call(stream)
    assert inspect.isgenerator(result)
    assert list(result) == [7]


@pytest.mark.parametrize(
    ("handler", "parameter"),
    [
        (lambda request, itemid: None, "itemid"),
        (lambda item_id, other: None, "other"),
        (lambda request, *, other: None, "other"),
    ],
)
def test_a_parameter_that_the_path_has_not_is_refused(handler, parameter):
    handler.__qualname__ = "show"
    with pytest.raises(RouteError) as refused:
        call(handler)
    message = str(refused.value)
    assert f"handler {__name__}.show takes {parameter!r}" in message
    assert "path '/the/path' has item_id, name" in message
    assert f"write {{{parameter}}} in the path" in message


def test_positional_only_path_parameters_are_refused():
    def handler(request, item_id, /): ...

    with pytest.raises(RouteError, match="remove the /"):
        call(handler)


async def coroutine(request): ...


async def async_generator(request):
    yield 1


class AsyncCall:
    async def __call__(self, request): ...


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (coroutine, "write plain def, without await"),
        (functools.partial(coroutine), "write plain def, without await"),
        (AsyncCall(), "write plain def, without await"),
        (async_generator, "write plain def with yield"),
    ],
)
def test_async_is_refused_with_what_to_write(handler, message):
    with pytest.raises(RouteError) as refused:
        bind_arguments(handler, [], "/the/path")
    assert message in str(refused.value)
    assert handler_name(handler) in str(refused.value)
    assert "'/the/path'" in str(refused.value)


def test_names_are_module_and_function():
    assert handler_name(coroutine) == f"{__name__}.coroutine"
    assert handler_name(functools.partial(coroutine)) == f"{__name__}.coroutine"
    assert handler_name(AsyncCall()) == f"{__name__}.AsyncCall"
