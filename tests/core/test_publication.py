"""The text of a position is read back exactly, and no other text is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.publication import Kind, Position, Publication

EPOCHS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=32)


@given(EPOCHS, st.integers(0, 10**19 - 1))
def test_a_position_is_read_back_from_its_text(epoch, offset):
    position = Position(epoch, offset)
    assert str(position) == f"{epoch}-{offset}"
    assert Position.parse(str(position)) == position


@given(st.text() | st.from_regex(r"\A[a-z0-9]*-?[0-9]*\Z"))
def test_a_text_is_a_position_or_refused(text):
    try:
        position = Position.parse(text)
    except ValueError:
        return
    assert str(position) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "k3f9x2",
        "k3f9x2-",
        "-42",
        "k3f9x2-42 ",
        "k3f9x2-42\n",
        " k3f9x2-42",
        "k3f9x2--42",
        "k3f9x2-+42",
        "k3f9x2-042",
        "k3f9x2-4_2",
        "k3f9x2-4.2",
        "k3f9x2-\N{ARABIC-INDIC DIGIT FOUR}",
        "k3f9x2-\N{SUPERSCRIPT TWO}",
        "K3F9X2-42",
        "\N{LATIN SMALL LETTER SHARP S}-42",
        "k3f9-x2-42",
        "k" * 33 + "-1",
        "k-" + "1" * 20,
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ValueError, match="no position; one looks like 'k3f9x2-42'"):
        Position.parse(text)


def test_a_refusal_does_not_repeat_a_long_text():
    with pytest.raises(ValueError) as refused:
        Position.parse("x" * 100_000)
    assert len(str(refused.value)) < 200


def test_a_position_is_a_value_and_cannot_be_changed():
    position = Position("k3f9x2", 42)
    assert {position: 1}[Position("k3f9x2", 42)] == 1
    assert position != Position("k3f9x2", 43)
    assert position != Position("k3f9x3", 42)
    with pytest.raises(AttributeError):
        position.offset = 43


def test_a_publication_shows_what_it_is_and_not_what_it_says():
    publication = Publication("lobby", Kind.JSON, b'"secret"', "chat", "c_1", Position("k3f9x2", 42), 1.5)
    assert repr(publication) == "<Publication 'lobby' k3f9x2-42 json 8 bytes event='chat'>"
    publication = Publication("lobby", Kind.TEXT, b"", None, None, Position("k3f9x2", 43), 1.5)
    assert repr(publication) == "<Publication 'lobby' k3f9x2-43 text 0 bytes>"


def test_the_numbers_of_kinds_are_settled_because_brokers_store_them():
    assert {kind.name: kind.value for kind in Kind} == {"TEXT": 1, "BINARY": 2, "JSON": 3}
