"""How prefixes, middleware and nesting add up in groups, and what the decorators refuse."""

from __future__ import annotations

import pytest

from catzilla.errors import RouteError
from catzilla.router import Route, RouterGroup


def handler():
    return "x"


def outer(request): ...


def inner(request): ...


def own(request): ...


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options"])
def test_each_method_has_its_decorator(method):
    group = RouterGroup()
    assert getattr(group, method)("/x", middleware=[own], overwrite=True)(handler) is handler
    assert group.routes() == [Route(method.upper(), "/x", handler, (own,), True)]


def test_route_takes_several_methods_and_get_by_default():
    group = RouterGroup("/api")
    group.route("/a")(handler)
    group.route("/b", methods=["GET", "POST"])(handler)
    assert [(r.method, r.path) for r in group.routes()] == [("GET", "/api/a"), ("GET", "/api/b"), ("POST", "/api/b")]


def test_groups_nest_with_prefixes_and_middleware_from_the_outside_in():
    api, users = RouterGroup("/api/", middleware=[outer]), RouterGroup("/users/{user}", middleware=[inner])
    api.include_group(users)
    users.get("/posts", middleware=[own])(handler)  # after it was included
    assert api.routes() == [Route("GET", "/api/users/{user}/posts", handler, (outer, inner, own))]
    assert users.routes() == [Route("GET", "/users/{user}/posts", handler, (inner, own))]


@pytest.mark.parametrize(
    ("prefix", "path", "whole"), [("/api", "", "/api"), ("/api", "/", "/api/"), ("", "/", "/"), ("", "", "/")]
)
def test_paths_stand_behind_the_prefix_as_they_are(prefix, path, whole):
    group = RouterGroup(prefix)
    group.get(path)(handler)
    assert [route.path for route in group.routes()] == [whole]


def test_a_group_cannot_be_inside_itself():
    a, b, c = RouterGroup("/a"), RouterGroup("/b"), RouterGroup("/c")
    a.include_group(b)
    b.include_group(c)
    with pytest.raises(RouteError, match="'/a' would be inside itself"):
        c.include_group(a)
    with pytest.raises(RouteError, match="'/c' would be inside itself"):
        c.include_group(c)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: RouterGroup("api"), "write '/api'"),
        (lambda: RouterGroup("/api", middleware=outer), "write middleware=[function]"),
        (lambda: RouterGroup().get("x")(handler), "write '/x'"),
        (lambda: RouterGroup().get("/x", middleware=own)(handler), "write middleware=[function]"),
        (lambda: RouterGroup().route("/x", methods="GET")(handler), "write methods=['GET']"),
        (lambda: RouterGroup().route("/x", methods=[])(handler), "has no methods"),
        (lambda: RouterGroup().get("/x")("handler"), "a handler is a function, not str"),
    ],
)
def test_a_bad_declaration_says_what_to_write(declare, message):
    with pytest.raises(RouteError) as refused:
        declare()
    assert message in str(refused.value)


def test_an_async_handler_is_refused_where_it_is_declared():
    async def handle(): ...

    with pytest.raises(RouteError, match="write plain def"):
        RouterGroup().get("/x")(handle)


def test_a_decorator_without_its_path():
    group = RouterGroup()
    with pytest.raises(RouteError, match=r"write @app\.get\('/path'\)"):
        group.get(lambda: "x")
