"""What becomes JSON, and the message for what does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from catzilla.json_text import to_json


@dataclass
class Point:
    x: int
    when: date


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True]}, '{"a":[1,null,true]}'),
        ("é\n", '"é\\n"'),
        (datetime(2030, 1, 2, 3, 4, tzinfo=timezone.utc), '"2030-01-02T03:04:00+00:00"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.10"), '"1.10"'),
        ([Point(1, date(2030, 1, 2))], '[{"x":1,"when":"2030-01-02"}]'),
    ],
)
def test_values_become_one_line(value, text):
    assert to_json(value) == text


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", Point])
def test_an_object_without_json_form_is_named(value):
    with pytest.raises(TypeError, match=f"{type(value).__name__} is not JSON: make it a dict"):
        to_json({"deep": [value]})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_browsers_cannot_read_is_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json([value])


def test_a_circle_is_refused():
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        to_json(circle)
