"""A turn's burst: in order, each member with all that is its own, and a batch that is followed is closed."""

from __future__ import annotations

from catzilla._core.burst import JOINED_BYTES, Batch, followed, unpacked
from catzilla._core.outbox import PACKET_COST, Packet


def packet(text: str) -> Packet:
    return Packet(1, b"", [text.encode()])


def texts(burst, member_id="somebody") -> list[str]:
    return [each.frame[0].decode() for each in unpacked(burst, member_id)]


def test_nothing_one_thing_and_several():
    assert texts(None) == []
    assert texts(followed(None, packet("a"))) == ["a"]
    batch = Batch()
    batch.add(packet("b"), None)
    burst = followed(followed(followed(None, packet("a")), batch), packet("c"))
    assert texts(burst) == ["a", "b", "c"]


def test_what_is_added_to_a_batch_reaches_whoever_has_it_already():
    batch = Batch()
    alone, behind = followed(None, batch), followed(packet("a"), batch)
    batch.add(packet("b"), None)
    batch.add(packet("c"), None)
    assert texts(alone) == ["b", "c"]
    assert texts(behind) == ["a", "b", "c"]


def test_a_batch_that_is_followed_is_closed_alone_or_among_several():
    first, second = Batch(), Batch()
    burst = followed(first, second)
    assert (first.is_open, second.is_open) == (False, True)
    followed(burst, packet("a"))
    assert not second.is_open


def test_who_is_excluded_gets_the_rest():
    batch = Batch()
    batch.add(packet("a"), "alice")
    batch.add(packet("b"), None)
    batch.add(packet("c"), "bob")
    batch.finish()
    assert [batch.whole_for(name) for name in ("alice", "bob", "carol")] == [None, None, b"abc"]
    assert batch.whole is None, "it is not for everybody"
    assert [texts(batch, name) for name in ("alice", "bob", "carol")] == [["b", "c"], ["a", "b"], ["a", "b", "c"]]


def test_what_is_finished_is_joined_unless_it_is_too_much():
    small, large = Batch(), Batch()
    for each in (packet("a"), Packet(1, b"", [b"head", b"payload"])):
        small.add(each, None)
    small.finish()
    assert small.whole == small.whole_for("anybody") == b"aheadpayload"
    for _ in range(JOINED_BYTES // PACKET_COST + 1):
        large.add(packet("x"), None)
    large.finish()
    assert large.whole is large.whole_for("anybody") is None
    assert not small.is_open
    assert not large.is_open
