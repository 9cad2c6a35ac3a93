"""The ring keeps what its three bounds allow, and replays everything after an offset or says that it cannot.

Held against a model that keeps every message for ever and works each answer out anew.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from catzilla._core.history import History
from catzilla._core.publication import Kind, Position, Publication

NO_BYTES, NO_AGE = 10**9, 10.0**9


def message(offset: int, size: int = 1) -> Publication:
    return Publication("lobby", Kind.BINARY, b"x" * size, None, None, Position("k3f9x2", offset), 1.7e9)


def filled(count: int, *, messages: int = 1000, size: int = 1) -> History:
    history = History()
    for offset in range(1, count + 1):
        history.append(message(offset, size), 0.0, messages, NO_BYTES, NO_AGE)
    return history


def offsets(publications: list[Publication] | None) -> list[int] | None:
    return None if publications is None else [publication.position.offset for publication in publications]


class AgainstModel(RuleBasedStateMachine):
    """Any order of messages kept and not kept, bounds that change, time that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.history = History()
        self.given: list[Publication] = []  # everything that was ever kept for a moment
        self.came: dict[int, float] = {}  # when, by offset
        self.gone: set[int] = set()  # offsets of those that some bound has taken since
        self.last = 0
        self.age = 0.0

    def alive(self) -> list[Publication]:
        return [publication for publication in self.given if publication.position.offset not in self.gone]

    def take(self, publication: Publication) -> None:
        self.gone.add(publication.position.offset)

    @rule(
        size=st.integers(0, 12),
        messages=st.integers(1, 6),
        max_bytes=st.integers(1, 30),
        age=st.sampled_from([0.5, 2.0, 5.0, 1e9]),
    )
    def keep(self, size, messages, max_bytes, age):
        self.last += 1
        publication = message(self.last, size)
        self.history.append(publication, self.now, messages, max_bytes, age)
        self.given.append(publication)
        self.came[self.last] = self.now
        self.age = age
        alive = self.alive()
        for index, older in enumerate(alive):
            newer = alive[index:]
            if len(newer) > messages or sum(len(p.payload) for p in newer) > max_bytes:
                self.take(older)
        self.expire_model()

    @rule()
    def do_not_keep(self):
        self.history.skip()
        self.last += 1

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds):
        self.now += seconds

    def expire_model(self):
        for publication in self.alive():
            if self.now - self.came[publication.position.offset] >= self.age:
                self.take(publication)

    @rule()
    def expire(self):
        self.history.expire(self.now)
        self.expire_model()

    @precondition(lambda self: self.given)
    @rule()
    def clear(self):
        self.history.clear()
        for publication in self.alive():
            self.take(publication)

    @invariant()
    def it_holds_what_the_model_holds(self):
        alive = self.alive()
        assert self.history.last == self.last
        assert len(self.history) == len(alive)
        assert self.history.bytes == sum(len(publication.payload) for publication in alive)
        assert self.history.newest() == alive
        for count in range(len(alive) + 2):
            assert self.history.newest(count) == alive[max(0, len(alive) - count) :]

    @invariant()
    def it_replays_everything_or_nothing(self):
        alive = {publication.position.offset: publication for publication in self.alive()}
        for since in range(self.last + 1):
            missed = range(since + 1, self.last + 1)
            expected = [alive[offset] for offset in missed] if all(offset in alive for offset in missed) else None
            assert self.history.after(since) == expected, f"after {since} of {self.last}: {self.history}"


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_an_empty_one_recovers_who_missed_nothing():
    assert History().after(0) == []
    assert History().newest() == []


def test_one_that_begins_late_knows_nothing_of_what_was_before():
    history = History(last=7)
    assert history.after(6) is None
    assert history.after(7) == []
    history.append(message(8), 0.0, 10, NO_BYTES, NO_AGE)
    assert history.after(6) is None
    assert offsets(history.after(7)) == [8]


def test_the_edge_of_what_was_trimmed():
    history = filled(10, messages=3)
    assert history.after(6) is None
    assert offsets(history.after(7)) == [8, 9, 10]
    assert offsets(history.after(10)) == []


def test_bytes_keep_the_newest_that_fit_exactly():
    history = History()
    for offset, size in enumerate((5, 5, 10), start=1):
        history.append(message(offset, size), 0.0, 100, 10, NO_AGE)
        assert history.bytes <= 10
    assert offsets(history.newest()) == [3]


def test_one_larger_than_the_bound_leaves_nothing():
    history = filled(3)
    history.append(message(4, size=11), 0.0, 100, 10, NO_AGE)
    assert (len(history), history.bytes) == (0, 0)
    assert history.after(3) is None
    assert history.after(4) == []


def test_a_message_goes_when_it_reaches_its_age():
    history = History()
    history.append(message(1), 100.0, 10, NO_BYTES, 5.0)
    history.append(message(2), 103.0, 10, NO_BYTES, 5.0)
    history.expire(104.9)
    assert offsets(history.newest()) == [1, 2]
    history.expire(105.0)
    assert offsets(history.newest()) == [2]
    assert history.after(0) is None
    assert history.ends == 108.0
    history.expire(107.9)
    assert offsets(history.newest()) == [2]
    history.expire(108.0)
    assert history.newest() == []


def test_what_came_before_one_that_was_not_kept_can_be_read_but_not_replayed():
    history = filled(2)
    history.skip()
    history.append(message(4), 0.0, 10, NO_BYTES, NO_AGE)
    assert offsets(history.newest()) == [1, 2, 4]
    assert history.after(2) is None
    assert offsets(history.after(3)) == [4]
    history.append(message(5), 0.0, 2, NO_BYTES, NO_AGE)
    assert offsets(history.newest()) == [4, 5]
    assert offsets(history.after(3)) == [4, 5]


@pytest.mark.parametrize("offset", [0, 3, 5])
def test_an_owner_that_skips_or_repeats_an_offset_is_told(offset):
    with pytest.raises(AssertionError, match=f"offset {offset} after 3"):
        filled(3).append(message(offset), 0.0, 10, NO_BYTES, NO_AGE)


def test_an_offset_that_is_yet_to_come_is_no_question():
    with pytest.raises(AssertionError, match="yet to come"):
        filled(3).after(4)


def test_the_lists_that_it_gives_are_the_callers_own():
    history = filled(3)
    history.newest().clear()
    history.after(0).clear()
    assert offsets(history.after(0)) == [1, 2, 3]


def test_it_shows_what_it_holds():
    assert repr(filled(5, messages=2, size=7)) == "<History 2 messages, 14 bytes, after 3 up to 5>"
