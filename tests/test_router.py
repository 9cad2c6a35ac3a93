"""Precedence, converters, methods and refusals, and Hypothesis against a router that is too simple to be wrong."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla.errors import RouteError
from catzilla.router import Found, NotFound, Options, Router, WrongMethod

UUID = "6fa459ea-ee8a-3ca4-894e-db77e160355e"


def router(*patterns: str) -> Router[str]:
    """A router where GET of each pattern leads to the pattern itself."""
    made: Router[str] = Router()
    for pattern in patterns:
        made.add("GET", pattern, pattern)
    return made


def found(made: Router[str], path: str, method: str = "GET") -> tuple[str, dict] | None:
    match = made.match(method, path)
    return (match.endpoint, match.params) if isinstance(match, Found) else None


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("/items", "/items", {}),
        ("/items/", "/items/", {}),
        ("/{name}", "/Zoë", {"name": "Zoë"}),
        ("/{name:str}", "/a.b", {"name": "a.b"}),
        ("/{n:int}", "/007", {"n": 7}),
        ("/{x:float}", "/1.5", {"x": 1.5}),
        ("/{x:float}", "/2", {"x": 2.0}),
        ("/{u:uuid}", f"/{UUID.upper()}", {"u": uuid.UUID(UUID)}),
        ("/f/{rest:path}", "/f/a/b//c", {"rest": "a/b//c"}),
        ("/f/{rest:path}", "/f/a\nb", {"rest": "a\nb"}),
        ("/{a}/{b:int}/c", "/x/3/c", {"a": "x", "b": 3}),
        ("/v{major:int}.{minor:int}", "/v1.20", {"major": 1, "minor": 20}),
        ("/{name}.json", "/a.b.json", {"name": "a.b"}),
        ("/a+b/{x}", "/a+b/c", {"x": "c"}),
    ],
)
def test_a_pattern_matches(pattern, path, params):
    assert found(router(pattern), path) == (pattern, params)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/items", "/items/"),
        ("/items/", "/items"),
        ("/items", "/Items"),
        ("/{name}", "/"),
        ("/{name}", "/a/b"),
        ("/{n:int}", "/-1"),
        ("/{n:int}", "/1.0"),
        ("/{n:int}", "/٣"),
        ("/{n:int}", "/1\n"),
        ("/{n:int}", "/" + "9" * 5000),
        ("/{x:float}", "/nan"),
        ("/{x:float}", "/1e5"),
        ("/{u:uuid}", f"/{UUID[:-1]}"),
        ("/f/{rest:path}", "/f/"),
        ("/f/{rest:path}", "/f//etc/passwd"),
        ("/f/{rest:path}", "/f"),
        ("/v{major:int}.{minor:int}", "/v1x2"),
    ],
)
def test_a_pattern_does_not_match(pattern, path):
    assert router(pattern).match("GET", path) == NotFound(path)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/items/new", "/items/new"),
        ("/items/7", "/items/{n:int}"),
        ("/items/7.5", "/items/{x:float}"),
        (f"/items/{UUID}", "/items/{u:uuid}"),
        ("/items/v7", "/items/v{n:int}"),
        ("/items/vx", "/items/{name}"),
        ("/items/a/b", "/items/{rest:path}"),
    ],
)
def test_the_narrower_pattern_wins_whatever_the_order(path, pattern):
    patterns = [
        "/items/{rest:path}",
        "/items/{name}",
        "/items/{x:float}",
        "/items/v{n:int}",
        "/items/{n:int}",
        "/items/{u:uuid}",
        "/items/new",
    ]
    for order in (patterns, patterns[::-1]):
        assert found(router(*order), path)[0] == pattern


def test_a_static_segment_that_leads_nowhere_is_taken_back():
    made = router("/a/b/c", "/a/{x}/d", "/{rest:path}")
    assert found(made, "/a/b/d") == ("/a/{x}/d", {"x": "b"})
    assert found(made, "/a/b/e") == ("/{rest:path}", {"rest": "a/b/e"})


def test_each_route_has_its_own_parameter_names():
    made: Router[str] = Router()
    made.add("GET", "/items/{item}", "get")
    made.add("POST", "/items/{item_id}", "post")
    assert found(made, "/items/x") == ("get", {"item": "x"})
    assert found(made, "/items/x", "POST") == ("post", {"item_id": "x"})


def test_params_are_a_fresh_dictionary_each_time():
    made = router("/static")
    first, second = made.match("GET", "/static"), made.match("GET", "/static")
    assert isinstance(first, Found)
    assert isinstance(second, Found)
    first.params["leak"] = 1
    assert second.params == {}


def test_a_match_shows_what_it_found():
    assert repr(router("/{x:int}").match("GET", "/1")) == "Found('/{x:int}', {'x': 1})"


def test_head_follows_get_until_it_has_a_route_of_its_own():
    made = router("/items", "/x/{y}")
    assert found(made, "/items", "HEAD") == ("/items", {})
    assert found(made, "/x/1", "HEAD") == ("/x/{y}", {"y": "1"})
    made.add("HEAD", "/items", "own")
    assert found(made, "/items", "HEAD") == ("own", {})
    made.add("GET", "/items", "new", overwrite=True)
    assert found(made, "/items", "HEAD") == ("own", {})


def test_a_wrong_method_names_those_of_every_pattern_that_the_path_matches():
    made: Router[str] = Router()
    made.add("GET", "/items/new", "a")
    made.add("POST", "/items/{name}", "b")
    made.add("PUT", "/items/{n:int}", "c")
    assert made.match("DELETE", "/items/new") == WrongMethod(("GET", "HEAD", "OPTIONS", "POST"))
    assert made.match("DELETE", "/items/1") == WrongMethod(("OPTIONS", "POST", "PUT"))


def test_a_less_specific_pattern_answers_a_method_that_the_specific_one_has_not():
    made: Router[str] = Router()
    made.add("GET", "/items/new", "form")
    made.add("POST", "/items/{name}", "create")
    assert found(made, "/items/new", "POST") == ("create", {"name": "new"})


def test_options_is_automatic_until_it_has_a_route_of_its_own():
    made = router("/items")
    assert made.match("OPTIONS", "/items") == Options(("GET", "HEAD", "OPTIONS"))
    assert made.match("OPTIONS", "/none") == NotFound("/none")
    made.add("OPTIONS", "/items", "own")
    assert found(made, "/items", "OPTIONS") == ("own", {})


def test_an_asterisk_asks_about_the_server_and_is_no_path():
    made = router("/", "/{x}")
    made.add("POST", "/items", "post")
    made.add("OPTIONS", "/", "own")
    assert made.match("OPTIONS", "*") == Options(("GET", "HEAD", "OPTIONS", "POST"))
    assert made.match("GET", "*") == WrongMethod(("OPTIONS",))


@pytest.mark.parametrize(("first", "second"), [("/a", "/a"), ("/{x}", "/{y}"), ("/{x:int}/{y}", "/{a:int}/{b:str}")])
def test_a_second_route_on_the_same_path_is_refused(first, second):
    made = router(first)
    with pytest.raises(RouteError, match=re.escape(f"GET {second} is registered already, as GET {first}")):
        made.add("GET", second, "again")
    assert [endpoint for _, _, endpoint in made.routes()] == [first]


def test_overwrite_takes_the_place_of_the_first():
    made = router("/a/{x}")
    made.add("get", "/a/{y}", "new", overwrite=True)
    assert found(made, "/a/1") == ("new", {"y": "1"})
    assert made.routes() == [("GET", "/a/{y}", "new")]


def test_routes_are_listed_in_the_order_of_registration():
    made: Router[int] = Router()
    made.add("POST", "/b", 1)
    made.add("GET", "/a/{x}", 2)
    made.add("GET", "/b", 3)
    assert made.routes() == [("POST", "/b", 1), ("GET", "/a/{x}", 2), ("GET", "/b", 3)]


@pytest.mark.parametrize("method", ["", "GET /", "G\n", 5])
def test_what_is_no_method_is_refused(method):
    with pytest.raises(RouteError, match="no HTTP method"):
        Router().add(method, "/", "x")


# Hypothesis: the tree against trying every pattern as a regular expression, most specific first.

REGEXES = {"int": "[0-9]+", "str": "[^/]+", "path": "[^/].*"}
RANKS = {"int": 1, "str": 2, "path": 3}
literal = st.sampled_from(["a", "b", "1", "12"])
middle = st.one_of(literal, st.sampled_from(["{}", "{:int}"]))
last = st.one_of(middle, st.just("{:path}"))
pattern_shapes = st.tuples(st.lists(middle, max_size=3), last).map(lambda parts: (*parts[0], parts[1]))
paths = st.lists(st.sampled_from(["a", "b", "1", "12", "c", "", "x.y"]), min_size=1, max_size=5).map(tuple)


def named(shape: tuple[str, ...]) -> str:
    """The pattern of a shape, with parameters p0, p1, ... by position."""
    return "".join("/" + segment.replace("{", f"{{p{index}") for index, segment in enumerate(shape))


def kind(segment: str) -> str | None:
    return (segment.strip("{}:") or "str") if segment.startswith("{") else None


def naive_match(shapes: list[tuple[str, ...]], path: str) -> str | None:
    def specificity(shape):
        return [0 if kind(segment) is None else RANKS[kind(segment)] for segment in shape]

    for shape in sorted(shapes, key=specificity):
        regex = "".join("/" + (segment if kind(segment) is None else REGEXES[kind(segment)]) for segment in shape)
        if re.fullmatch(regex, path, re.DOTALL):
            return named(shape)
    return None


@given(st.lists(pattern_shapes, min_size=1, max_size=8, unique=True), paths)
def test_the_tree_finds_what_trying_every_pattern_finds(shapes, segments):
    path = "/" + "/".join(segments)
    match = found(router(*map(named, shapes)), path)
    assert (match and match[0]) == naive_match(shapes, path)


@given(st.text(max_size=60), st.sampled_from(["GET", "HEAD", "OPTIONS", "BREW"]))
def test_any_path_gets_some_answer(text, method):
    made = router("/", "/{x}", "/{x}/{y:int}", "/f/{rest:path}", "/v{a:int}-{b}")
    assert isinstance(made.match(method, "/" + text), (Found, NotFound, WrongMethod, Options))


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), min_size=1, max_size=4))
def test_parameters_come_back_as_they_were_sent(values):
    pattern = "".join(f"/{{p{index}}}" for index in range(len(values)))
    expected = {f"p{index}": value for index, value in enumerate(values)}
    assert found(router(pattern), "/" + "/".join(values)) == (pattern, expected)
