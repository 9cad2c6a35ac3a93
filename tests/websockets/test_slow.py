"""Members that do not take what their room sends: the four policies, each with its counter, and nobody else concerned.

A client is frozen before anything is published, and has a small window. The server's kernel takes a few megabytes all
the same, so messages are large, and are published until the counter of the policy moves. What arrives in the end is
held against what was published and what was counted as lost: every message is one or the other.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from catzilla import Catzilla, SlowConsumer
from catzilla._core.fed_stream import FedStream
from catzilla._core.limits import MIB
from catzilla._core.ws_output import WRITE_BYTES
from catzilla.testing import ClientEvents, IncompleteBody, LiveServer
from tests.promises.helpers import PATIENCE, eventually, services_of
from tests.websockets.room_helpers import (
    Calls,
    Door,
    Peer,
    close_of,
    losses,
    on_loop,
    received,
)

SIZE = 64 * 1024
MOST = 600  # messages; 40 MB are more than any socket's buffers
OUTBOX = {"socket_outbox_messages": 8, "socket_outbox_bytes": 32 * MIB}
IN_BYTES = {"socket_outbox_messages": 10_000, "socket_outbox_bytes": 8 * SIZE}
POLICIES = ["disconnect", "drop_oldest", "conflate", "gap"]
KEEPING = ["drop_oldest", "conflate", "gap"]


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)
    app.room("calm", public=True)
    for policy in POLICIES:
        app.room(policy, public=True, on_slow=policy)

    @app.get("/events/{room}")
    def events(request, room):
        return app.room(room).stream(request)

    return app


@pytest.fixture
def door(app):
    return Door(app)


def number(n: int) -> str:
    return f"{n:08}".ljust(SIZE, ".")


def numbers(messages: list[Any]) -> list[int]:
    assert all(len(message) == SIZE for message in messages), "a message was torn"
    return [int(message[:8]) for message in messages]


def slow_member(door: Door, live: LiveServer, *rooms: str) -> Peer:
    peer = door.open(live, receive_buffer_bytes=4096)
    for room in rooms:
        peer.ws.join(room)
    live.freeze(peer.client)
    return peer


class Flood:
    """Publishes numbered messages, one a turn of the loop: a burst would be written as a whole."""

    def __init__(self, app: Catzilla, live: LiveServer, room: str) -> None:
        self.app, self.live, self.room = app, live, room
        self.published = 0
        self.before = losses()

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.app.room(self.room).publish(number(self.published))
            self.published += 1
            on_loop(self.live, lambda: None)  # it has been delivered
            on_loop(self.live, lambda: None)  # and the turn that brought it is over: it was written, or is held or lost

    def until_lost(self, count: int) -> None:
        """Publish until that many messages, or members, were lost."""
        while self.lost() < count:
            assert self.published < MOST, f"the policy was not applied: {losses()}"
            self.publish()

    def lost(self) -> int:
        """What the policy's counter has counted, and no other has."""
        now = {policy: count - self.before[policy] for policy, count in losses().items()}
        mine = now.pop(self.room)
        assert set(now.values()) == {0}, f"another counter has moved: {now}"
        return mine


# The policies, on sockets.


@pytest.mark.parametrize("limits", [OUTBOX, IN_BYTES], ids=["messages", "bytes"])
def test_disconnect_closes_with_4008_and_is_out_of_every_room(app, door, live_server, limits):
    live = live_server(app, **limits)
    slow = slow_member(door, live, "disconnect", "calm")
    flood = Flood(app, live, "disconnect")
    flood.until_lost(1)
    assert app.room("disconnect").count() == app.room("calm").count() == 0
    assert slow.ws.closed
    assert slow.ws.close_code == 4008
    flood.publish(20)
    assert flood.lost() == 1, "a member is disconnected once"
    live.thaw(slow.client)
    assert close_of(slow.client) == (4008, "too slow")
    assert door.closed.get(timeout=PATIENCE) == (slow.ws.id, 4008, "too slow")


def test_disconnect_in_the_middle_of_a_burst_counts_one_member(app, door, live_server):
    """The counter is of members, however many messages the burst had left for it."""
    live = live_server(app, **OUTBOX)
    slow = slow_member(door, live, "disconnect")
    flood = Flood(app, live, "disconnect")
    eventually(lambda: flood.publish() or slow.ws._connection.paused, "the client is behind")
    busy, release = threading.Event(), threading.Event()
    services_of(live).handle.post(lambda: busy.set() or release.wait(PATIENCE))
    assert busy.wait(PATIENCE)
    for _ in range(30):
        app.room("disconnect").publish(number(0))
    release.set()
    on_loop(live, lambda: None)
    eventually(lambda: slow.ws.close_code == 4008, "it was disconnected")
    assert flood.lost() == 1


@pytest.mark.parametrize("limits", [OUTBOX, IN_BYTES], ids=["messages", "bytes"])
def test_drop_oldest_keeps_the_newest_in_order(app, door, live_server, limits):
    live = live_server(app, **limits)
    slow = slow_member(door, live, "drop_oldest")
    flood = Flood(app, live, "drop_oldest")
    flood.until_lost(30)
    assert app.room("drop_oldest").count() == 1
    live.thaw(slow.client)
    got = numbers(received(slow))
    assert got == sorted(set(got))
    assert got[-1] == flood.published - 1
    assert len(got) + flood.lost() == flood.published
    kept = 7 if limits is OUTBOX else 5  # at least; a packet costs a little beside its payload
    assert got[-kept:] == list(range(flood.published - kept, flood.published)), "the newest are all there"
    flood.publish(3)
    assert numbers(received(slow)) == [flood.published - 3, flood.published - 2, flood.published - 1]


@pytest.mark.parametrize("limits", [OUTBOX, IN_BYTES], ids=["messages", "bytes"])
def test_conflate_keeps_the_newest(app, door, live_server, limits):
    live = live_server(app, **limits)
    slow = slow_member(door, live, "conflate")
    flood = Flood(app, live, "conflate")
    flood.until_lost(30)
    live.thaw(slow.client)
    got = numbers(received(slow))
    assert got == sorted(set(got))
    assert got[-1] == flood.published - 1
    assert len(got) + flood.lost() == flood.published
    flood.publish(3)
    assert numbers(received(slow)) == [flood.published - 3, flood.published - 2, flood.published - 1]


@pytest.mark.parametrize("limits", [OUTBOX, IN_BYTES], ids=["messages", "bytes"])
def test_gap_sends_nothing_until_it_has_caught_up(app, door, live_server, limits):
    live = live_server(app, **limits)
    slow = slow_member(door, live, "gap")
    flood = Flood(app, live, "gap")
    flood.until_lost(30)
    live.thaw(slow.client)
    got = numbers(received(slow))
    assert got == list(range(len(got))), "what came before the gap is whole"
    assert len(got) + flood.lost() == flood.published
    flood.publish(3)
    assert numbers(received(slow)) == [flood.published - 3, flood.published - 2, flood.published - 1], "live again"


def test_a_member_that_catches_up_and_falls_behind_again(app, door, live_server):
    live = live_server(app, **OUTBOX)
    slow = slow_member(door, live, "gap")
    flood = Flood(app, live, "gap")
    lost = 0
    for _ in range(3):
        flood.until_lost(lost + 5)
        start = flood.published
        live.thaw(slow.client)
        got = numbers(received(slow))
        flood.publish()
        assert numbers(received(slow)) == [start]
        lost = flood.lost()
        assert got == list(range(got[0], got[0] + len(got)))
        live.freeze(slow.client)


def test_each_room_has_its_own_policy_for_the_same_member(app, door, live_server):
    live = live_server(app, **OUTBOX)
    slow = slow_member(door, live, "conflate", "drop_oldest")
    before = losses()
    published = 0
    while losses()["conflate"] - before["conflate"] < 10 or losses()["drop_oldest"] - before["drop_oldest"] < 10:
        assert published < MOST
        app.room("conflate").publish("c" + number(published)[1:])
        app.room("drop_oldest").publish("d" + number(published)[1:])
        on_loop(live, lambda: None)
        published += 1
    live.thaw(slow.client)
    got = received(slow)
    for mark, policy in (("c", "conflate"), ("d", "drop_oldest")):
        mine = [int(message[1:8]) for message in got if message[0] == mark]
        assert mine == sorted(set(mine))
        assert len(mine) + losses()[policy] - before[policy] == published
    assert int(next(message for message in reversed(got) if message[0] == "c")[1:8]) == published - 1


def test_what_a_handler_sends_is_never_dropped(app, door, live_server):
    """Its sender waits instead, and is told when that takes too long."""
    live = live_server(app, send_timeout=0.2, **IN_BYTES)
    slow = slow_member(door, live, "drop_oldest", "conflate", "gap")
    sent = 0
    with pytest.raises(SlowConsumer):
        for sent in range(MOST):
            slow.ws.send(f"s{sent:07}".ljust(SIZE, "."))
            for room in KEEPING:
                app.room(room).publish(number(sent))
    live.thaw(slow.client)
    got = received(slow)
    assert [int(message[1:8]) for message in got if message[0] == "s"] == list(range(sent))
    assert losses()["disconnect"] == 0 or slow.ws.close_code is None


# Nobody else is concerned.


@pytest.mark.parametrize("policy", POLICIES)
def test_a_slow_member_delays_neither_the_others_nor_the_publisher(app, door, live_server, policy):
    live = live_server(app, **OUTBOX)
    slow = slow_member(door, live, policy)
    fast = door.open(live)
    fast.ws.join(policy)
    flood = Flood(app, live, policy)
    while flood.lost() < 5 and not slow.ws.closed:
        assert flood.published < MOST
        flood.publish()
        assert numbers([fast.client.receive()]) == [flood.published - 1], "at once, and every one"
    assert fast.ws.rooms == {policy}
    assert app.room(policy).members().count(None) == (1 if policy == "disconnect" else 2)


@pytest.mark.parametrize("policy", KEEPING)
def test_what_is_held_for_slow_members_is_bounded(app, door, live_server, policy):
    live = live_server(app, **IN_BYTES)
    slow = [slow_member(door, live, policy) for _ in range(5)]
    bound = IN_BYTES["socket_outbox_bytes"] + WRITE_BYTES + 2 * SIZE

    def held() -> int:
        """The most that any of them holds."""
        return max(map(held_for, slow))

    flood = Flood(app, live, policy)
    while flood.lost() < 200:
        assert flood.published < MOST
        flood.publish()
        assert on_loop(live, held) <= bound
    assert on_loop(live, held) > 0
    for peer in slow:
        live.drop(peer.client)
        assert peer.ws.wait_closed(PATIENCE)
    assert on_loop(live, held) == 0, "nothing is kept for who is gone"


def held_for(peer: Peer) -> int:
    connection = peer.ws._connection
    waiting = 0 if connection._outbox is None else connection._outbox.size
    return waiting + connection._transport.get_write_buffer_size()


def test_a_burst_to_a_frozen_member_is_bounded_too(app, door, live_server):
    """All that the loop finds at once is not handed to the transport at once."""
    live = live_server(app, **IN_BYTES)
    slow = slow_member(door, live, "drop_oldest")
    flood = Flood(app, live, "drop_oldest")
    eventually(lambda: flood.publish() or slow.ws._connection.paused, "the client is behind")
    for _ in range(100):
        app.room("drop_oldest").publish(number(flood.published))
        flood.published += 1
    assert on_loop(live, lambda: held_for(slow)) <= IN_BYTES["socket_outbox_bytes"] + WRITE_BYTES + 2 * SIZE
    live.thaw(slow.client)
    got = numbers(received(slow))
    assert got[-1] == flood.published - 1
    assert len(got) + flood.lost() == flood.published


def test_a_throttled_member_gets_everything_when_it_may_be_behind_a_little(app, door, live_server):
    """Slow is not too slow: as long as what waits fits, nothing is lost."""
    live = live_server(app)
    peer = door.open(live, receive_buffer_bytes=4096)
    peer.ws.join("disconnect")
    live.throttle(peer.client, 2_000_000)
    flood = Flood(app, live, "disconnect")
    for _ in range(10):
        flood.publish()
    assert numbers(received(peer)) == list(range(10))
    assert flood.lost() == 0


def test_a_slow_member_that_leaves_its_room_still_gets_what_waits(app, door, live_server):
    live = live_server(app, **OUTBOX)
    slow = slow_member(door, live, "drop_oldest")
    flood = Flood(app, live, "drop_oldest")
    flood.until_lost(3)
    slow.ws.leave("drop_oldest")
    lost = flood.lost()
    flood.publish(5)
    assert flood.lost() == lost
    live.thaw(slow.client)
    got = numbers(received(slow))
    assert got[-1] == flood.published - 6
    assert len(got) + lost == flood.published - 5


def test_a_slow_member_that_is_closed_gets_the_rest_and_the_code(app, door, live_server):
    live = live_server(app, **OUTBOX)
    slow = slow_member(door, live, "drop_oldest")
    flood = Flood(app, live, "drop_oldest")
    flood.until_lost(3)
    slow.ws.close(4111, "enough")
    flood.publish(3)
    live.thaw(slow.client)
    messages = [slow.client.receive() for _ in range(flood.published - 3 - flood.lost())]
    assert numbers(messages)[-1] == flood.published - 4
    assert close_of(slow.client) == (4111, "enough")


def test_a_slow_member_that_never_answers_the_close_is_cut(app, door, live_server):
    live = live_server(app, close_timeout=0.1, **OUTBOX)
    slow = slow_member(door, live, "disconnect")
    Flood(app, live, "disconnect").until_lost(1)
    assert slow.ws.wait_closed(PATIENCE)
    eventually(lambda: services_of(live).websockets == 0, "it is forgotten")


# Event streams.


def slow_reader(live: LiveServer, room: str) -> ClientEvents:
    events = live.events(f"/events/{room}", receive_buffer_bytes=4096)
    live.freeze(events)
    return events


def events_until(events: ClientEvents, last: int) -> list[Any]:
    """Every event up to that number, that one included."""
    got = []
    for event in events:
        got.append(event)
        if event.event == "message" and int(event.data[:8]) == last:
            return got
    raise AssertionError("the stream has ended")


@pytest.mark.parametrize("policy", KEEPING)
def test_a_slow_reader_of_events_meets_the_policy_of_the_room(app, live_server, policy):
    live = live_server(app, **OUTBOX)
    reader = slow_reader(live, policy)
    flood = Flood(app, live, policy)
    flood.until_lost(30)
    live.thaw(reader)
    if policy == "gap":  # live again only once it has caught up
        waiting = Calls()
        thread = threading.Thread(target=lambda: waiting([next(reader) for _ in range(flood.published - flood.lost())]))
        thread.start()
        (got,) = waiting.wait(1)
        thread.join(PATIENCE)
        assert numbers([event.data for event in got]) == list(range(len(got)))
        gap = next(reader)
        assert (gap.event, gap.data) == ("gap", '{"why": "slow"}') or gap.data == '{"why":"slow"}'
        flood.publish()
        live_again = next(reader)
        assert numbers([live_again.data]) == [flood.published - 1]
        assert live_again.id == str(app.room(policy).position())
        return
    got = numbers([event.data for event in events_until(reader, flood.published - 1)])
    assert got == sorted(set(got))
    assert len(got) + flood.lost() == flood.published
    flood.publish()
    assert numbers([next(reader).data]) == [flood.published - 1]


def test_a_slow_reader_of_events_is_disconnected_and_comes_back(app, live_server):
    app.room("disconnect", history=MOST)
    live = live_server(app, **OUTBOX)
    reader = slow_reader(live, "disconnect")
    flood = Flood(app, live, "disconnect")
    flood.until_lost(1)
    assert app.room("disconnect").count() == 0
    flood.publish(5)
    assert flood.lost() == 1
    live.thaw(reader)
    got = []
    with pytest.raises((IncompleteBody, ConnectionError)):
        got.extend(iter(reader.__next__, None))
    eventually(lambda: not services_of(live).bridge.streams, "the stream is closed")


@pytest.mark.parametrize("policy", KEEPING)
def test_what_is_held_for_slow_readers_of_events_is_bounded(app, live_server, policy):
    live = live_server(app, **IN_BYTES)
    slow_reader(live, policy)
    eventually(lambda: services_of(live).bridge.streams, "the stream is open")
    (stream,) = services_of(live).bridge.streams
    assert isinstance(stream, FedStream)
    flood = Flood(app, live, policy)

    def held() -> int:
        waiting = 0 if stream._outbox is None else stream._outbox.size
        return waiting + stream.pending

    while flood.lost() < 100:
        assert flood.published < MOST
        flood.publish()
        assert on_loop(live, held) <= IN_BYTES["socket_outbox_bytes"] + WRITE_BYTES + 2 * SIZE


def test_readers_and_sockets_of_one_room_meet_its_policy_each_by_itself(app, door, live_server):
    live = live_server(app, **OUTBOX)
    slow, reader = slow_member(door, live, "drop_oldest"), slow_reader(live, "drop_oldest")
    fast, fast_reader = door.open(live), live.events("/events/drop_oldest")
    fast.ws.join("drop_oldest")
    flood = Flood(app, live, "drop_oldest")
    while flood.lost() < 40:
        assert flood.published < MOST
        flood.publish()
        assert numbers([fast.client.receive(), next(fast_reader).data]) == [flood.published - 1] * 2
    live.thaw(slow.client)
    live.thaw(reader)
    of_socket = numbers(received(slow))
    of_reader = numbers([event.data for event in events_until(reader, flood.published - 1)])
    assert of_socket[-1] == of_reader[-1] == flood.published - 1
    assert len(of_socket) + len(of_reader) + flood.lost() == 2 * flood.published
