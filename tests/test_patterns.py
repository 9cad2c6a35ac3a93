"""Patterns that make no sense are refused with the pattern and what to write instead."""

from __future__ import annotations

import pytest

from catzilla.errors import RouteError
from catzilla.patterns import parse_pattern


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("items", "does not begin with a slash: write '/items'"),
        ("", "does not begin with a slash"),
        (5, "a path pattern is a str, not int"),
        ("/a//b", "empty segment"),
        ("/{id:integer}", "no converter 'integer': write one of float, int, path, str, uuid"),
        ("/{id:}", "no converter ''"),
        ("/{a}/{a}", "two parameters 'a'"),
        ("/{a}-{a}", "two parameters 'a'"),
        ("/{id", "not closed or not opened"),
        ("/id}", "not closed or not opened"),
        ("/{{id}}", "not closed or not opened"),
        ("/{}", "'' is no parameter name"),
        ("/{item-id}", "'item-id' is no parameter name"),
        ("/{class}", "'class' is no parameter name"),
        ("/{a}{b}", "does not say where one parameter ends"),
        ("/{p:path}/edit", "make it the whole last segment"),
        ("/x{p:path}", "make it the whole last segment"),
        ("/<int:item_id>", "write '/{item_id:int}'"),
        ("/<name>", "write '/{name}'"),
        ("/items?sort=1", "a query is no part of a path: write '/items'"),
        ("/items#top", "a fragment is no part of a path: write '/items'"),
        ("/caf%C3%A9", "percent-encoded"),
    ],
)
def test_a_bad_pattern_says_what_to_write(pattern, message):
    with pytest.raises(RouteError) as refused:
        parse_pattern(pattern)
    assert message in str(refused.value)
    assert repr(pattern) in str(refused.value) or not isinstance(pattern, str)


def test_names_are_in_order():
    assert parse_pattern("/{b}/x/{a:int}.{c}/{d:path}").names == ("b", "a", "c", "d")


def test_a_percent_sign_alone_is_text():
    assert parse_pattern("/100%/{x}").segments[0] == "100%"
