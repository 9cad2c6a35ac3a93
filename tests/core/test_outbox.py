"""What waits for a slow peer, held against random traffic: bounds, order, and every packet accounted for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catzilla._core.outbox import PACKET_COST, OnSlow, Outbox, Packet


class Room:
    """Where packets come from, as far as an outbox knows it."""

    def __init__(self, on_slow: OnSlow) -> None:
        self.on_slow = on_slow

    def __repr__(self) -> str:
        return f"<Room {self.on_slow.value}>"


def packet(size: int = 10, origin: Room | None = None) -> Packet:
    """A packet that weighs `size` beside its cost."""
    return Packet(1, b"", (b"x" * size,), origin)


def take_all(outbox: Outbox) -> list[Packet]:
    taken = []
    while len(outbox):
        taken += outbox.take(1)
    return taken


# Each policy by itself.


def test_what_fits_waits_in_order():
    outbox = Outbox(10, 1_000_000)
    packets = [packet(i, Room(policy)) for i, policy in enumerate(OnSlow)] + [packet(7)]
    assert all(outbox.add(each) for each in packets)
    assert len(outbox) == 5
    assert outbox.size == sum(each.size for each in packets[:4]), "what rooms have sent"
    assert take_all(outbox) == packets
    assert outbox.size == 0
    assert outbox.losses == {}


def test_disconnect_says_so_and_counts_one():
    outbox, room = Outbox(2, 1_000_000), Room(OnSlow.DISCONNECT)
    kept = [packet(origin=room) for _ in range(2)]
    assert [outbox.add(each) for each in kept] == [True, True]
    assert outbox.add(packet(origin=room)) is False
    assert outbox.losses == {OnSlow.DISCONNECT: 1}
    assert take_all(outbox) == kept


def test_drop_oldest_drops_as_many_as_it_takes_and_only_its_own():
    mine, other = Room(OnSlow.DROP_OLDEST), Room(OnSlow.DROP_OLDEST)
    outbox = Outbox(100, 5 * (100 + PACKET_COST))
    small = [packet(100, room) for room in (mine, other, mine, other, mine)]
    for each in small:
        outbox.add(each)
    large = packet(200 + PACKET_COST, mine)
    assert outbox.add(large)
    assert take_all(outbox) == [small[1], small[3], small[4], large]
    assert outbox.losses == {OnSlow.DROP_OLDEST: 2}


def test_drop_oldest_gives_up_what_can_never_fit():
    room = Room(OnSlow.DROP_OLDEST)
    outbox = Outbox(100, 1000)
    assert outbox.add(packet(2000, room))
    assert len(outbox) == outbox.size == 0
    assert outbox.losses == {OnSlow.DROP_OLDEST: 1}


def test_conflate_keeps_the_newest_alone():
    mine, other = Room(OnSlow.CONFLATE), Room(OnSlow.CONFLATE)
    outbox = Outbox(3, 1_000_000)
    first, second, third, newest = packet(1, mine), packet(2, other), packet(3, mine), packet(4, mine)
    for each in (first, second, third, newest):
        assert outbox.add(each)
    assert take_all(outbox) == [second, newest]
    assert outbox.losses == {OnSlow.CONFLATE: 2}


def test_gap_leaves_out_everything_until_it_has_been_caught_up():
    mine, other = Room(OnSlow.GAP), Room(OnSlow.DROP_OLDEST)
    outbox = Outbox(2, 1_000_000)
    first, second, later = packet(1, mine), packet(2, mine), packet(3, other)
    for each in (first, second, packet(4, mine)):
        assert outbox.add(each)
    assert outbox.gapped == {mine}
    assert outbox.take(1) == [first]
    assert outbox.add(packet(5, mine)), "there is room again, but it has not caught up"
    assert outbox.add(later), "another room is not concerned"
    assert take_all(outbox) == [second, later]
    assert outbox.losses == {OnSlow.GAP: 2}


def test_what_has_no_room_is_never_dropped():
    outbox = Outbox(1, 1)
    packets = [packet(100) for _ in range(20)]
    assert all(outbox.add(each) for each in packets)
    assert take_all(outbox) == packets
    assert outbox.losses == {}


@pytest.mark.parametrize("policy", OnSlow)
def test_what_has_no_room_brings_no_policy_upon_a_room(policy):
    """A handler that sends many messages is ahead of its client by more than a room's bound: that is not the room's."""
    outbox, room = Outbox(2, 1000), Room(policy)
    own = [packet(100) for _ in range(20)]
    assert all(outbox.add(each) for each in own)
    told = [packet(1, room), packet(2, room)]
    assert all(outbox.add(each) for each in told)
    assert outbox.losses == {}
    assert outbox.take(1) == own[:1]
    assert take_all(outbox) == own[1:] + told
    assert outbox.size == 0


def test_taking_stops_at_the_bytes_and_takes_one_at_least():
    outbox = Outbox(100, 1_000_000)
    packets = [packet(1000) for _ in range(10)]
    for each in packets:
        outbox.add(each)
    assert outbox.take(0) == []
    assert outbox.take(1) == packets[:1]
    assert outbox.take(2 * (1000 + PACKET_COST)) == packets[1:3]
    assert outbox.take(10**9) == packets[3:]
    assert outbox.take(10**9) == []


def test_clearing_gives_up_everything():
    outbox, room = Outbox(1, 1_000_000), Room(OnSlow.GAP)
    for _ in range(3):
        outbox.add(packet(origin=room))
    outbox.clear()
    assert (len(outbox), outbox.size, outbox.gapped) == (0, 0, set())


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (Packet(1, b"payload", ()), 7),
        (Packet(1, b"payload", (b"frame",)), 5),
        (Packet(1, b"", (b"head", b"large payload")), 13),
    ],
)
def test_a_packet_weighs_what_it_holds(given, size):
    assert given.size == size + PACKET_COST


# Random traffic.

MAX_PACKETS, MAX_BYTES = 6, 4000
ROOMS = [Room(policy) for policy in OnSlow] * 2 + [Room(OnSlow.DROP_OLDEST), Room(OnSlow.CONFLATE)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([None, *ROOMS]), st.sampled_from([0, 1, 200, 700, 3000, 5000])),
        st.integers(1, 3000),  # bytes that the peer takes
    ),
    max_size=80,
)


@given(STEPS)
def test_bounds_hold_order_is_kept_and_every_packet_is_accounted_for(steps):
    outbox = Outbox(MAX_PACKETS, MAX_BYTES)
    offered: list[Packet] = []
    taken: list[Packet] = []
    refused = 0
    for step in steps:
        if isinstance(step, int):
            taken += outbox.take(step)
        else:
            before = (from_rooms(outbox), outbox.size)
            each = packet(step[1], step[0])
            offered.append(each)
            refused += not outbox.add(each)
            check_growth(outbox, each, before)
        waiting = list(outbox._packets)
        assert outbox.size == sum(each.size for each in waiting if each.origin is not None)
        assert len(offered) == len(taken) + len(waiting) + sum(outbox.losses.values())
        assert outbox.losses.get(OnSlow.DISCONNECT, 0) == refused
    left = take_all(outbox)
    check_fate(offered, taken + left, outbox)


def from_rooms(outbox: Outbox) -> int:
    return sum(each.origin is not None for each in outbox._packets)


def check_growth(outbox: Outbox, added: Packet, before: tuple[int, int]) -> None:
    """Beyond the bounds goes only the one newest of a room that conflates; what has no room is bounded elsewhere."""
    if from_rooms(outbox) <= MAX_PACKETS and outbox.size <= MAX_BYTES:
        return
    conflating = Counter(each.origin for each in outbox._packets if each.origin is not None)
    if from_rooms(outbox) > before[0] or outbox.size > before[1]:
        assert added.origin is not None
        assert added.origin.on_slow is OnSlow.CONFLATE
        assert conflating[added.origin] == 1


def check_fate(offered: list[Packet], arrived: list[Packet], outbox: Outbox) -> None:
    order = {id(each): n for n, each in enumerate(offered)}
    numbers = [order[id(each)] for each in arrived]
    assert numbers == sorted(set(numbers)), "what arrives does so in the order of sending, once"
    there = set(numbers)
    lost = Counter(each.origin.on_slow for n, each in enumerate(offered) if n not in there)
    assert lost == Counter(outbox.losses)
    assert all(n in there for n, each in enumerate(offered) if each.origin is None)
    for room in ROOMS:
        mine = [n for n, each in enumerate(offered) if each.origin is room]
        if mine and room.on_slow is OnSlow.CONFLATE:
            assert mine[-1] in there, "the newest is there"
