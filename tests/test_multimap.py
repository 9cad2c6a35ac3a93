"""First value, all values, and the order of both."""

from __future__ import annotations

import pytest

from catzilla.multimap import MultiMap


def test_a_name_may_have_several_values():
    values = MultiMap([("a", "1"), ("b", "2"), ("a", "3")])
    assert values["a"] == "1"
    assert values.get("c", "none") == "none"
    assert values.getlist("a") == ["1", "3"]
    assert values.getlist("c") == []
    assert dict(values) == {"a": "1", "b": "2"}
    assert values.multi_items() == [("a", "1"), ("a", "3"), ("b", "2")]
    assert len(values) == 2
    assert "A" not in values
    with pytest.raises(KeyError):
        values["c"]


def test_the_lists_are_copies():
    values = MultiMap([("a", "1")])
    values.getlist("a").append("2")
    assert values.getlist("a") == ["1"]
