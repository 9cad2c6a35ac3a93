"""Connects, joins, leaves, publishes, kills and ends in any order: members get everything, nobody else anything, and
when all are gone every room is empty again.

Hypothesis drives one real server over real sockets. A model says who is in which room. Publishing is followed by a mark
to every socket: what came before the mark is all that it got. An event stream cannot be sent a mark, so each of its
events is held against the model, and one that it should not have would turn up before the next one that it should.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from catzilla import Catzilla
from catzilla.testing import ClientEvents, LiveServer
from tests.promises.helpers import eventually, services_of
from tests.websockets.room_helpers import Calls, Door, Peer, close_of, holds_no_thread, on_loop, received, wait_empty

ROOMS = ["lobby", "news", "ticker"]
NAMES = ["alice", "bob", ""]  # "" is anonymous

SETTINGS = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False
)


@dataclass(eq=False)
class Socket:
    peer: Peer
    name: str
    rooms: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Reader:
    events: ClientEvents
    name: str
    room: str


class Schedule(RuleBasedStateMachine):
    """`app`, `live`, `doors` and `hooks` are the test's, the same for all examples."""

    app: Catzilla
    live: LiveServer
    doors: list[Door]
    hooks: Calls

    sockets: Bundle[Socket] = Bundle("sockets")
    readers: Bundle[Reader] = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.open: list[Socket] = []
        self.reading: list[Reader] = []
        self.hooks_before = len(self.hooks.so_far)

    # Coming.

    @initialize(target=sockets)
    def somebody(self):
        return self.connect(0, "alice", {"lobby"})

    @rule(target=sockets, door=st.integers(0, 1), name=st.sampled_from(NAMES), rooms=st.sets(st.sampled_from(ROOMS)))
    def connect(self, door, name, rooms):
        path = self.doors[door].path.replace("{name}", name or "-")
        socket = Socket(self.doors[door].open(self.live, path), name)
        self.open.append(socket)
        for room in rooms:
            self.join(socket, room)
        return socket

    @rule(target=readers, room=st.sampled_from(ROOMS), name=st.sampled_from(NAMES))
    def read_events(self, room, name):
        reader = Reader(self.live.events(f"/events/{room}/{name or '-'}"), name, room)  # is a member before its head
        self.reading.append(reader)
        return reader

    @rule(socket=sockets, room=st.sampled_from(ROOMS))
    def join(self, socket, room):
        socket.peer.ws.join(room)
        socket.rooms.add(room)

    @rule(socket=sockets, which=st.integers(0, len(ROOMS) - 1))
    def leave(self, socket, which):
        """Leave a room, mostly one that it is in."""
        room = sorted(socket.rooms or ROOMS)[which % len(socket.rooms or ROOMS)]
        socket.peer.ws.leave(room)
        socket.rooms.discard(room)

    # Publishing.

    @rule(count=st.integers(1, 3), size=st.sampled_from([0, 10, 70_000]))
    def publish(self, count, size):
        for room in ROOMS:
            self.check(room, [f"{next(self.numbers)}:" + "x" * size for _ in range(count)], None)

    @rule(socket=sockets)
    def publish_to_the_others(self, socket):
        for room in ROOMS:
            self.check(room, [f"{next(self.numbers)}"], socket)

    def check(self, room, messages, excluded):
        """Publish, and see that everybody who is a member gets it, and nobody else."""
        for message in messages:
            self.app.room(room).publish(message, exclude=None if excluded is None else excluded.peer.ws)
        for socket in self.open:
            expected = messages if room in socket.rooms and socket is not excluded else []
            assert received(socket.peer) == expected
        for reader in self.reading:
            if reader.room == room:
                assert [next(reader.events).data for _ in messages] == messages

    @rule(room=st.sampled_from(ROOMS))
    def ask_who_is_there(self, room):
        named = {each.name for each in self.open if room in each.rooms} | {
            each.name for each in self.reading if each.room == room
        }
        anonymous = sum(not each.name and room in each.rooms for each in self.open)
        anonymous += sum(not each.name and each.room == room for each in self.reading)
        expected = sorted([*(named - {""}), *[""] * anonymous])
        members = []

        def agrees():
            members[:] = sorted(each or "" for each in self.app.room(room).members())
            return members == expected

        eventually(agrees, f"{room} has the members {expected}; it has {members}")  # who was killed is soon found out

    # Going.

    @rule(socket=consumes(sockets))
    def close(self, socket):
        self.open.remove(socket)
        socket.peer.client.close(4000, "bye")

    @rule(socket=consumes(sockets))
    def kill(self, socket):
        self.open.remove(socket)
        self.live.drop(socket.peer.client)

    @rule(socket=consumes(sockets), room=st.sampled_from(ROOMS))
    def join_and_kill(self, socket, room):
        """The join may come to the loop before the end or after it."""
        self.open.remove(socket)
        self.live.drop(socket.peer.client)
        try:
            socket.peer.ws.join(room)
        except ConnectionError:
            pass

    @rule(socket=consumes(sockets), room=st.sampled_from(ROOMS))
    def publish_and_close_from_the_server(self, socket, room):
        """What was published before the close arrives before it."""
        self.open.remove(socket)
        message = str(next(self.numbers))
        self.app.room(room).publish(message)
        socket.peer.ws.close(4321, "out")
        if room in socket.rooms:
            assert socket.peer.client.receive() == message
        assert close_of(socket.peer.client) == (4321, "out")
        for each in self.open:
            assert received(each.peer) == ([message] if room in each.rooms else [])
        for reader in self.reading:
            if reader.room == room:
                assert next(reader.events).data == message

    @rule(socket=consumes(sockets))
    def close_from_both_sides(self, socket):
        self.open.remove(socket)
        socket.peer.ws.close()
        socket.peer.client.close()

    @rule(reader=consumes(readers), clean=st.booleans())
    def stop_reading(self, reader, clean):
        self.reading.remove(reader)
        if clean:
            reader.events.close()
        else:
            self.live.drop(reader.events)

    @rule(target=sockets, sockets=st.lists(consumes(sockets), max_size=4))
    def kill_many(self, sockets):
        for socket in sockets:
            self.kill(socket)
        return multiple()

    # The end.

    def teardown(self):
        """The last word to everybody; then all go, and nothing is left of them."""
        services = services_of(self.live)
        for room in ROOMS:
            self.check(room, ["the end"], None)
        for n, socket in enumerate(list(self.open)):
            (self.kill, self.close, self.close_from_both_sides)[n % 3](socket)
        for n, reader in enumerate(list(self.reading)):
            self.stop_reading(reader, bool(n % 2))
        wait_empty(self.live)
        eventually(lambda: holds_no_thread(self.live), "every handler and hook has returned")
        eventually(lambda: not services.connections, "every connection is gone")
        assert on_loop(self.live, lambda: (services.fanout._lag, services.fanout._lag_bytes)) == (0, 0)
        self.check_hooks()

    def check_hooks(self):
        """Whoever was told of as there was told of as gone, in turns."""

        def told():
            return self.hooks.so_far[self.hooks_before :]

        def count(what):
            return sum(each[0] == what for each in told())

        eventually(lambda: count("join") == count("leave"), "who has joined has left")
        for room in ROOMS:
            for name in filter(None, NAMES):
                mine = [what for what, *who in told() if who == [room, name]]
                assert mine == ["join", "leave"] * (len(mine) // 2), (room, name)


def test_after_any_schedule_every_room_is_empty_again(app, live_server):
    hooks = Calls()
    for name in ROOMS:
        room = app.room(name, public=True)
        room.on_join(lambda principal, name=name: hooks(("join", name, principal or "")))
        room.on_leave(lambda principal, name=name: hooks(("leave", name, principal or "")))

    def who(request):
        name = request.path_params["name"]
        return Anonymous() if name == "-" else name

    @app.get("/events/{room}/{name}")
    def events(request, room, name):
        return app.room(room).stream(request, principal=None if name == "-" else name)

    doors = [Door(app, "/callbacks/{name}", auth=who), Door(app, "/linear/{name}", linear=True, auth=who)]
    live = live_server(app, presence_delay=0.005)

    class OnThisServer(Schedule):
        pass

    OnThisServer.app, OnThisServer.live, OnThisServer.doors, OnThisServer.hooks = app, live, doors, hooks
    run_state_machine_as_test(OnThisServer, settings=SETTINGS)


class Anonymous:
    """A principal without an id, and as good as none: false."""

    def __bool__(self) -> bool:
        return False
