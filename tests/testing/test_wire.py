"""The client's connection: limits on every wait, and the faults a test can inject."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest
import trustme

from catzilla.testing.errors import Frozen
from catzilla.testing.wire import Origin, Wire
from tests.promises.helpers import eventually


def read_exactly(wire: Wire, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += wire.receive()
    return data


def in_thread(function):
    """Runs `function` beside the test; gives a function that waits for what it returned or raised."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(10)
        assert outcome, "the thread is still waiting"
        return outcome[0]

    return result


def test_it_sends_and_receives(wire):
    def echo(peer):
        peer.say(peer.read_until(b"!"))

    client = wire(echo)
    assert client.send(b"hello!") is True
    assert read_exactly(client, 6) == b"hello!"
    assert client.receive() == b""
    assert client.received_bytes == 6


def test_silence_raises_and_says_what_was_waited_for(wire):
    client = wire(lambda peer: peer.read_to_end(), timeout=0.05)
    client.purpose = "GET /slow"

    with pytest.raises(TimeoutError, match=r"GET /slow: the server at 127\.0\.0\.1:\d+ kept it waiting for 0\.05 s"):
        client.receive()
    client.close()


def test_a_wait_can_have_its_own_limit(wire):
    client = wire(lambda peer: peer.read_to_end(), timeout=60)

    with pytest.raises(TimeoutError, match=r"0\.01 s, after 0 bytes"):
        client.receive(timeout=0.01)
    client.close()


def test_a_peer_that_does_not_read_does_not_hang_the_sender(wire):
    done = threading.Event()
    client = wire(lambda peer: done.wait(10), timeout=0.1)

    with pytest.raises(TimeoutError):
        while True:
            client.send(b"x" * 1_000_000)
    done.set()


def test_sending_stops_when_the_peer_answers_early(wire):
    done = threading.Event()

    def refuse(peer):
        peer.say(b"no")
        done.wait(10)

    client = wire(refuse)
    while client.send(b"x" * 1_000_000, until_answered=True):
        pass
    assert client.receive() == b"no"
    done.set()


def test_sending_to_a_peer_that_has_left_says_so(wire):
    left = threading.Event()

    def leave(peer):
        peer.connection.close()
        left.set()

    client = wire(leave)
    assert left.wait(10)
    with contextlib.suppress(ConnectionResetError):  # which of the two it is depends on what the kernel knows by then
        while client.send(b"x" * 1_000_000):
            pass


def test_a_repr_shows_the_state(wire):
    client = wire(lambda peer: peer.read_to_end())
    assert repr(client) == f"<Wire to {client.origin.authority}, open, 0 bytes received>"
    client.freeze()
    assert "frozen" in repr(client)
    client.close()
    assert "the test closed this connection" in repr(client)


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            Wire(Origin("127.0.0.1", unused.getsockname()[1]))


def test_half_close_ends_only_the_sending_side(wire):
    client = wire(lambda peer: peer.say(peer.read_to_end().upper()))
    client.send(b"abc")
    client.half_close()
    assert read_exactly(client, 3) == b"ABC"


def test_closing_twice_is_fine_and_reports_once(wire):
    closed = []
    client = wire(lambda peer: peer.read_to_end(), on_close=closed.append)
    client.close()
    client.close()
    assert closed == [client]
    with pytest.raises(ConnectionAbortedError, match="the test closed this connection"):
        client.receive()


def test_close_wakes_a_reader_in_another_thread(wire):
    client = wire(lambda peer: peer.read_to_end())
    result = in_thread(client.receive)
    client.close()
    assert isinstance(result(), ConnectionAbortedError)


def test_a_unix_socket(wire, tmp_path):
    client = wire(lambda peer: peer.say(b"hi"), family=socket.AF_UNIX, address=str(tmp_path / "socket"))
    assert read_exactly(client, 2) == b"hi"
    client.drop()
    assert client.closed


def test_tls_trusts_exactly_the_given_certificate(wire, tmp_path):
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("somewhere.example")
    for name, issued in (("ours.pem", certificate), ("other.pem", stranger.issue_cert("somewhere.example"))):
        issued.cert_chain_pems[0].write_to_path(tmp_path / name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def encrypted(peer):
        with context.wrap_socket(peer.connection, server_side=True) as connection:
            connection.sendall(connection.recv(100) * 10_000)

    def refused(peer):
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(peer.connection, server_side=True)

    client = wire(encrypted, certificate=str(tmp_path / "ours.pem"))
    client.send(b"0123456789", until_answered=True)
    assert read_exactly(client, 100_000) == b"0123456789" * 10_000
    with pytest.raises(ssl.SSLCertVerificationError):
        wire(refused, certificate=str(tmp_path / "other.pem"))


# --- freeze --------------------------------------------------------------------------------------------------------


def test_reading_in_the_thread_that_froze_raises(wire):
    client = wire(lambda peer: peer.say(b"data"))
    client.freeze()
    with pytest.raises(Frozen, match="is frozen and was read; thaw"):
        client.receive()
    client.thaw()
    assert read_exactly(client, 4) == b"data"


def test_a_reader_in_another_thread_waits_for_the_thaw(wire):
    go = threading.Event()

    def speak(peer):
        go.wait(10)
        peer.say(b"data")

    client = wire(speak)
    result = in_thread(lambda: read_exactly(client, 4))
    client.freeze()
    go.set()
    assert client.received_bytes == 0
    client.thaw()
    assert result() == b"data"


def test_a_reader_in_another_thread_does_not_wait_for_ever(wire):
    client = wire(lambda peer: peer.read_to_end(), timeout=0.05)
    client.freeze()
    assert isinstance(in_thread(client.receive)(), Frozen)
    client.close()


def test_a_small_receive_buffer_stalls_the_sender_soon(wire):
    """What a stalled client costs is decided by the server, so little of it may be hidden in the client's kernel."""
    accepted = []
    stalled = threading.Event()

    def pour(peer):
        peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                accepted.append(peer.connection.send(b"x" * 1024))
        stalled.set()

    client = wire(pour, receive_buffer_bytes=2048)
    client.freeze()
    assert stalled.wait(10)
    assert sum(accepted) < 256 * 1024


# --- throttle ------------------------------------------------------------------------------------------------------


def test_a_throttled_reader_takes_its_time(wire):
    client = wire(lambda peer: peer.say(b"x" * 2000))
    client.throttle(10_000)
    began = time.monotonic()
    assert len(read_exactly(client, 2000)) == 2000
    assert time.monotonic() - began > 0.1  # 2,000 bytes at 10,000 a second, but for the last read


def test_throttled_reads_are_small(wire):
    client = wire(lambda peer: peer.say(b"x" * 2000))
    client.throttle(2_000)
    assert 0 < len(client.receive()) <= 100


def test_a_throttle_can_be_lifted_while_it_waits(wire):
    client = wire(lambda peer: peer.say(b"x" * 100))
    client.throttle(0.001)
    assert client.receive() == b"x"
    result = in_thread(lambda: read_exactly(client, 99))
    client.throttle(None)
    assert result() == b"x" * 99


@pytest.mark.parametrize("rate", [0, -1])
def test_a_throttle_is_positive(wire, rate):
    client = wire(lambda peer: None)
    with pytest.raises(ValueError, match="positive number of bytes a second"):
        client.throttle(rate)


# --- drop ----------------------------------------------------------------------------------------------------------


def test_a_dropped_client_resets_the_connection(wire):
    def expect_reset(peer):
        with pytest.raises(ConnectionResetError):
            peer.read_to_end()

    client = wire(expect_reset)
    client.drop()
    assert client.closed
    with pytest.raises(ConnectionAbortedError, match="the test dropped this connection"):
        client.receive()


@pytest.mark.parametrize("end", ["drop", "close"])
def test_the_end_wakes_a_sender_in_another_thread(wire, end):
    ended, outcome = threading.Event(), []

    def take_nothing(peer):
        assert ended.wait(10)
        try:
            peer.read_to_end()
        except ConnectionResetError as error:
            outcome.append(error)

    client = wire(take_nothing, timeout=60)
    result = in_thread(lambda: client.send(bytes(64 << 20)))
    eventually(lambda: client._waiting, "the sender waits")
    getattr(client, end)()
    assert isinstance(result(), ConnectionAbortedError)
    ended.set()
    if end == "drop":
        eventually(lambda: outcome, "the server sees a reset")


def test_what_a_slow_peer_did_not_take_is_known(wire):
    go = threading.Event()
    received = []

    def take_late(peer):
        assert go.wait(10)
        received.extend(iter(lambda: peer.connection.recv(1 << 20), b""))

    client = wire(take_late, timeout=60)
    data = bytes(range(256)) * (1 << 17)
    with pytest.raises(TimeoutError):
        client.send(data, timeout=0.1)
    assert 0 < len(client.unsent) < len(data)
    go.set()
    client.send(client.unsent)
    client.half_close()
    assert client.receive() == b""
    assert b"".join(received) == data


def test_drop_wakes_a_reader_in_another_thread(wire):
    def expect_reset(peer):
        with pytest.raises(ConnectionResetError):
            peer.read_to_end()

    client = wire(expect_reset)
    result = in_thread(client.receive)
    client.drop()
    assert isinstance(result(), ConnectionAbortedError)
