"""Rooms on a loop that stands still: one encoding, one write a turn, presence by the clock."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from catzilla._core import fanout as fanout_module
from catzilla._core.burst import unpacked
from catzilla._core.fanout import NO_ROOMS, Fanout, encode_frame
from catzilla._core.outbox import OnSlow, Outbox, Packet
from catzilla._core.publication import Kind, Position, Publication
from catzilla._core.timers import Timers
from tests.core.fakes import FakeLoop

DELAY = 3.0


class FakeRules:
    """A room's rules that keep which principals they were told of."""

    on_slow = OnSlow.DROP_OLDEST
    is_watched = True

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def joined(self, *who):
        self.told.append(("joined", who[-1]))

    def left(self, *who):
        self.told.append(("left", who[-1]))


class FakeMember:
    """A member whose every flush is kept, as the payloads that it brought."""

    encodings = 0

    def __init__(self, name, identity=None):
        self.id = name
        self.identity = name if identity is None else identity
        self.principal = identity
        self.rooms = NO_ROOMS
        self.burst = None
        self.writes = []
        self.breaks = False

    def encode(self, publication, room):
        type(self).encodings += 1
        return Packet(1, publication.payload, (publication.payload,), room)

    def flush(self):
        if self.breaks:
            raise RuntimeError("cannot write")
        burst, self.burst = self.burst, None
        self.writes.append([packet.payload for packet in unpacked(burst, self.id)])


class OtherMember(FakeMember):
    """Of another encoding."""

    encodings = 0


@pytest.fixture(autouse=True)
def no_encodings():
    FakeMember.encodings = OtherMember.encodings = 0


class Stage:
    def __init__(self, delay: float = DELAY) -> None:
        self.loop = FakeLoop()
        self.fanout = Fanout(self.loop, Timers(self.loop), delay)
        self.rules = FakeRules()
        self.offset = 0

    def members(self, *names, room="lobby", kind=FakeMember):
        members = [kind(name) for name in names]
        for member in members:
            self.fanout.join(member, room, self.rules)
        return members

    def publish(self, payload, exclude=None, room="lobby"):
        self.offset += 1
        publication = Publication(room, Kind.TEXT, payload, None, exclude, Position("e", self.offset), 0.0)
        self.fanout.posting(publication)
        self.fanout.deliver(publication)


@pytest.fixture
def stage():
    return Stage()


# Delivery.


def test_a_turn_is_one_write_for_each(stage):
    alice, bob = stage.members("alice", "bob")
    (carol,) = stage.members("carol", room="news")
    for payload in (b"1", b"2", b"3"):
        stage.publish(payload)
    stage.fanout.send(alice, Packet(1, b"direct", (b"direct",)))
    stage.publish(b"4")
    assert alice.writes == bob.writes == []
    assert stage.loop.turn() == 1, "one flush for all"
    assert alice.writes == [[b"1", b"2", b"3", b"direct", b"4"]]
    assert bob.writes == [[b"1", b"2", b"3", b"4"]]
    assert carol.writes == []
    stage.publish(b"5")
    stage.loop.turn()
    assert bob.writes[1:] == [[b"5"]]


def test_rooms_of_one_member_share_its_write(stage):
    (alice,) = stage.members("alice")
    stage.fanout.join(alice, "news", stage.rules)
    stage.publish(b"1")
    stage.publish(b"2", room="news")
    stage.publish(b"3")
    stage.loop.turn()
    assert alice.writes == [[b"1", b"2", b"3"]]


def test_each_encoding_is_made_once_and_shared(stage):
    plain = stage.members(*"abcdef")
    others = stage.members(*"uvw", kind=OtherMember)
    stage.publish(b"x")
    assert (FakeMember.encodings, OtherMember.encodings) == (1, 1)
    assert len({id(unpacked(member.burst, member.id)[0]) for member in plain}) == 1
    assert len({id(unpacked(member.burst, member.id)[0]) for member in plain + others}) == 2


def test_nothing_is_encoded_where_nobody_is(stage):
    stage.publish(b"x")
    assert FakeMember.encodings == 0
    assert stage.loop.turn() == 0


def test_the_excluded_one_gets_the_rest_of_the_turn(stage):
    alice, bob, carol = stage.members("alice", "bob", "carol")
    stage.publish(b"1", exclude="alice")
    stage.publish(b"2")
    stage.publish(b"3", exclude="bob")
    stage.publish(b"4", exclude="alice")
    stage.publish(b"5", exclude="nobody that is here")
    stage.loop.turn()
    assert alice.writes == [[b"2", b"3", b"5"]]
    assert bob.writes == [[b"1", b"2", b"4", b"5"]]
    assert carol.writes == [[b"1", b"2", b"3", b"4", b"5"]]


def test_who_joins_in_the_middle_of_a_turn_gets_what_follows(stage):
    (alice,) = stage.members("alice")
    stage.publish(b"before")
    (bob,) = stage.members("bob")
    stage.publish(b"between")
    stage.fanout.leave(alice, "lobby")
    stage.publish(b"after")
    (carol,) = stage.members("carol")
    stage.fanout.leave(bob, "lobby")
    stage.fanout.join(bob, "lobby", stage.rules)
    stage.publish(b"again")
    stage.loop.turn()
    assert alice.writes == [[b"before", b"between"]]
    assert bob.writes == [[b"between", b"after", b"again"]]
    assert carol.writes == [[b"again"]]


def test_random_turns_keep_the_order_of_each_member(stage):
    """Members of several rooms, direct messages, joins and leaves, against the plainest of models."""
    chance = Random(7)
    members = [FakeMember(str(i)) if i % 2 else OtherMember(str(i)) for i in range(6)]
    inside: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}
    expected: dict[str, list[bytes]] = {member.id: [] for member in members}
    for n in range(3000):
        member, room, payload = chance.choice(members), chance.choice("abc"), b"%d" % n
        match chance.choice(["join", "leave", "publish", "publish", "publish", "send", "exclude", "turn"]):
            case "join":
                stage.fanout.join(member, room, stage.rules)
                inside[room].add(member.id)
            case "leave":
                stage.fanout.leave(member, room)
                inside[room].discard(member.id)
            case "send":
                stage.fanout.send(member, Packet(1, payload, (payload,)))
                expected[member.id].append(payload)
            case "turn":
                stage.loop.turn()
            case what:
                exclude = member.id if what == "exclude" else None
                stage.publish(payload, exclude, room)
                for name in inside[room] - {exclude}:
                    expected[name].append(payload)
    stage.loop.turn()
    for member in members:
        assert [payload for write in member.writes for payload in write] == expected[member.id]


def test_a_member_that_cannot_write_spares_the_others(stage, caplog):
    alice, bob, carol = stage.members("alice", "bob", "carol")
    bob.breaks = True
    stage.publish(b"x")
    with caplog.at_level(logging.ERROR, logger="catzilla"):
        stage.loop.turn()
    assert alice.writes == carol.writes == [[b"x"]]
    assert "writing failed" in caplog.text


def test_what_a_flush_brings_leaves_in_the_next_turn(stage):
    alice, bob = stage.members("alice", "bob")
    flush = alice.flush

    def flush_and_send():
        flush()
        if len(alice.writes) == 1:
            stage.fanout.send(bob, Packet(1, b"more", (b"more",)))

    alice.flush = flush_and_send
    stage.publish(b"x")
    stage.loop.turn()
    stage.loop.turn()
    assert bob.writes in ([[b"x"], [b"more"]], [[b"x", b"more"]])


def test_leaving_keeps_what_came_before(stage):
    (alice,) = stage.members("alice")
    stage.publish(b"before")
    stage.fanout.leave(alice, "lobby")
    stage.publish(b"after")
    stage.loop.turn()
    assert alice.writes == [[b"before"]]


@pytest.mark.parametrize(
    ("kind", "expected"), [(Kind.TEXT, b"\x81\x02hi"), (Kind.BINARY, b"\x82\x02hi"), (Kind.JSON, b"\x81\x02hi")]
)
def test_a_raw_socket_gets_a_frame(kind, expected):
    publication = Publication("lobby", kind, b"hi", None, None, Position("e", 1), 0.0)
    packet = encode_frame(publication, None)
    assert b"".join(packet.frame) == expected
    assert packet.payload == b"hi"


# Membership.


def test_joining_and_leaving_twice_are_fine(stage):
    (alice,) = stage.members("alice")
    stage.fanout.join(alice, "lobby", stage.rules)
    stage.publish(b"once")
    stage.loop.turn()
    assert alice.writes == [[b"once"]]
    stage.fanout.leave(alice, "lobby")
    stage.fanout.leave(alice, "lobby")
    stage.fanout.leave(alice, "never")
    assert alice.rooms is NO_ROOMS


def test_who_is_gone_is_in_no_room_and_never_again(stage):
    (alice,) = stage.members("alice")
    stage.fanout.join(alice, "news", stage.rules)
    stage.fanout.gone(alice)
    stage.fanout.gone(alice)
    stage.fanout.join(alice, "lobby", stage.rules)
    stage.fanout.leave(alice, "lobby")
    assert alice.rooms is None
    stage.loop.advance(DELAY)
    assert stage.fanout.rooms == {}


def test_a_room_is_forgotten_with_its_last_presence(stage):
    alice, bob = stage.members("alice", "bob")
    stage.fanout.leave(alice, "lobby")
    stage.loop.advance(DELAY)
    assert set(stage.fanout.rooms) == {"lobby"}
    stage.fanout.gone(bob)
    assert stage.fanout.principals("lobby") == []
    stage.loop.advance(DELAY)
    assert stage.fanout.rooms == {}


def test_a_joiner_in_the_delay_finds_the_same_room(stage):
    (alice,) = stage.members("alice")
    stage.fanout.gone(alice)
    stage.members("bob")
    stage.loop.advance(DELAY)
    assert stage.rules.told == [("joined", None), ("joined", None), ("left", None)]
    assert set(stage.fanout.rooms) == {"lobby"}


# Presence.


def test_one_identity_joins_once_and_leaves_after_the_delay(stage):
    tabs = [FakeMember(name, "alice") for name in "abc"]
    for tab in tabs:
        stage.fanout.join(tab, "lobby", stage.rules)
    assert stage.fanout.principals("lobby") == ["alice"]
    stage.fanout.leave(tabs[0], "lobby")
    stage.fanout.gone(tabs[1])
    stage.loop.advance(10 * DELAY)
    assert stage.rules.told == [("joined", "alice")]
    stage.fanout.gone(tabs[2])
    stage.loop.advance(DELAY - 0.01)
    assert stage.rules.told == [("joined", "alice")]
    stage.loop.advance(0.02)
    assert stage.rules.told == [("joined", "alice"), ("left", "alice")]


def test_coming_back_in_time_stops_the_clock(stage):
    for _ in range(5):
        tab = FakeMember("tab", "alice")
        stage.fanout.join(tab, "lobby", stage.rules)
        stage.fanout.gone(tab)
        stage.loop.advance(DELAY - 0.01)
    assert stage.rules.told == [("joined", "alice")]
    stage.loop.advance(0.02)
    assert stage.rules.told == [("joined", "alice"), ("left", "alice")]
    assert stage.loop.armed() == []


@pytest.mark.parametrize(("delay", "is_watched"), [(0.0, True), (DELAY, False)])
def test_without_a_delay_or_anybody_to_tell_it_is_over_at_once(delay, is_watched):
    stage = Stage(delay)
    stage.rules.is_watched = is_watched
    (alice,) = stage.members("alice")
    stage.fanout.leave(alice, "lobby")
    assert stage.fanout.rooms == {}
    assert stage.loop.armed() == []


def test_at_the_stop_whoever_has_left_has_left(stage):
    alice, bob, _ = stage.members("alice", "bob", "carol")
    for member in (alice, bob):
        member_presence = stage.fanout.rooms["lobby"].presence[member.identity]
        member_presence.principal = member.id
        stage.fanout.gone(member)
    stage.fanout.depart_now()
    assert stage.rules.told[3:] == [("left", "alice"), ("left", "bob")]
    stage.fanout.depart_now()
    stage.loop.advance(DELAY)
    assert len(stage.rules.told) == 5, "nobody leaves twice"


# What is on its way, and what was lost.


def test_losses_are_added_up_and_collected(stage):
    outbox = Outbox(1, 1_000_000)
    (room,) = [stage.fanout.rooms["lobby"] for _ in stage.members("alice")][:1]
    assert stage.fanout.hold(outbox, [Packet(1, b"x", (b"x",), room) for _ in range(3)])
    assert stage.fanout.hold(outbox, [])
    assert stage.fanout.losses[OnSlow.DROP_OLDEST] == 2
    assert outbox.losses == {}


def test_a_publisher_waits_while_too_much_is_on_its_way(stage, monkeypatch):
    monkeypatch.setattr(fanout_module, "MAX_LAG", 4)
    publications = [Publication("r", Kind.TEXT, b"x", None, None, Position("e", i), 0.0) for i in range(4)]
    for publication in publications[:3]:
        stage.fanout.posting(publication)
    assert stage.fanout.wait_for_loop(0)
    stage.fanout.posting(publications[3])
    assert not stage.fanout.wait_for_loop(0)
    stage.fanout.deliver(publications[0])
    assert stage.fanout.wait_for_loop(0), "below the mark nobody begins to wait"
    stage.fanout.posting(publications[0])
    began = threading.Event()

    def wait():
        began.set()
        return stage.fanout.wait_for_loop(10)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        assert began.wait(10)
        for publication in publications:
            stage.fanout.deliver(publication)
        assert waiting.result(10)
    assert (stage.fanout._lag, stage.fanout._lag_bytes) == (0, 0)


def test_bytes_count_too(stage):
    publication = Publication("r", Kind.BINARY, bytes(fanout_module.MAX_LAG_BYTES), None, None, Position("e", 1), 0.0)
    stage.fanout.posting(publication)
    assert not stage.fanout.wait_for_loop(0)
    stage.fanout.deliver(publication)
    assert stage.fanout.wait_for_loop(0)
