"""The test client's WebSocket, against websockets' own server and against peers that follow a script."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from queue import Queue

import pytest
import trustme
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.protocol import SERVER, Protocol
from websockets.sync.server import ServerConnection, serve, unix_serve
from websockets.utils import accept_key

from catzilla.testing.errors import Frozen, HandshakeRefused, ProtocolViolation, WebSocketClosed
from catzilla.testing.raw_frames import ReceivedFrame, raw_frame
from catzilla.testing.websocket_client import ClientWebSocket
from catzilla.testing.wire import Origin, Wire
from tests.promises.helpers import eventually

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", **options) -> bytes:
    """A frame as a server sends it."""
    return raw_frame(opcode, payload, masked=False, **options)


def goodbye(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def upgrade(peer, *fields: bytes) -> str:
    """Accept the handshake on a scripted peer; gives the request."""
    request = peer.read_head().decode()
    key = next(line.split(": ")[1] for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    accept = b"Sec-WebSocket-Accept: %s\r\n" % accept_key(key).encode()
    peer.say(head + accept + b"".join(field + b"\r\n" for field in fields) + b"\r\n")
    return request


def saying(*pieces: bytes):
    """A script that accepts the handshake, says these pieces and ends when the client has closed its side."""

    def script(peer):
        upgrade(peer)
        peer.say(*pieces)
        peer.connection.shutdown(socket.SHUT_WR)
        peer.read_to_end()

    return script


class Serving:
    """websockets' threaded server, which runs `handler(connection)` for every connection, on a port or a path."""

    def __init__(self, handler: Callable[[ServerConnection], None], uds: str | None = None, **options) -> None:
        options.setdefault("compression", None)
        self._server = serve(handler, "127.0.0.1", 0, **options) if uds is None else unix_serve(handler, uds, **options)
        self.port = 0 if uds else self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(10)


@pytest.fixture
def websocket(scripted):
    """Factories of clients: `websocket.to(handler)` of websockets' server, `websocket.scripted(script)` of a peer."""
    started, clients = [], []

    class Factory:
        def open(self, at: Origin, path: str = "/", **options) -> ClientWebSocket:
            names = ("timeout", "receive_buffer_bytes")
            wire = Wire(at, **{name: options.pop(name) for name in names if name in options})
            clients.append(wire)
            return ClientWebSocket(wire, path, **options)

        def to(self, handler, path="/", *, server=None, uds=None, certificate=None, **options) -> ClientWebSocket:
            started.append(Serving(handler, uds, **(server or {})))
            return self.open(Origin("127.0.0.1", started[-1].port, uds, certificate), path, **options)

        def scripted(self, script, path="/", **options) -> ClientWebSocket:
            return self.open(scripted(script), path, **options)

    yield Factory()
    for wire in clients:
        wire.close()
    for server in started:
        server.stop()


def echo(connection):
    for message in connection:
        connection.send(message)


def hold(connection):
    """Waits until the client has gone."""
    with pytest.raises(ConnectionClosed):
        connection.recv()


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


# --- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", "hello", "été ☃", b"", b"\x00\xff", "x" * 200_000, bytes(200_000)])
def test_an_echo(websocket, message):
    client = websocket.to(echo)
    client.send(message)
    assert client.receive() == message


def test_bytes_like_objects_are_binary(websocket):
    client = websocket.to(echo)
    for given in (bytearray(b"ab"), memoryview(b"ab")):
        client.send(given)
        assert client.receive() == b"ab"


def test_json(websocket):
    client = websocket.to(echo)
    client.send_json({"a": [1, None, "é"]})
    assert client.receive_json() == {"a": [1, None, "é"]}
    client.send("no JSON")
    with pytest.raises(ValueError, match="Expecting value"):
        client.receive_json()


@pytest.mark.parametrize("message", [None, 1, {"a": 1}])
def test_what_is_no_message(websocket, message):
    client = websocket.to(echo)
    with pytest.raises(TypeError, match=r"takes str or bytes, not \w+; see send_json"):
        client.send(message)


def test_compression_is_offered_on_demand(websocket):
    client = websocket.to(echo, server={"compression": "deflate"}, compression=True)
    assert "permessage-deflate" in client.headers["sec-websocket-extensions"]
    client.send("x" * 100_000)
    assert client.receive() == "x" * 100_000
    assert client.wire.received_bytes < 10_000
    assert "sec-websocket-extensions" not in websocket.to(echo, server={"compression": "deflate"}).headers


def test_a_message_in_fragments_with_a_ping_inside(websocket):
    pieces = frame(TEXT, b"a", fin=False), frame(0, b"b", fin=False), frame(PING, b"?"), frame(0, b"\xc3", fin=False)
    client = websocket.scripted(saying(*pieces, frame(0, b"\xa9"), frame(BINARY, b"next"), goodbye(1000)))
    assert [client.receive(), client.receive()] == ["abé", b"next"]


def test_a_message_byte_by_byte(websocket):
    data = frame(TEXT, b"one") + frame(TEXT, b"two") + goodbye(1000)
    client = websocket.scripted(saying(*(data[at : at + 1] for at in range(len(data)))))
    assert list(client) == ["one", "two"]


def test_a_message_that_comes_with_the_head(websocket):
    """Whether it does is for the kernel to decide, so the server sends both at once."""

    def script(peer):
        sent = []
        peer.say, say = (lambda *data: sent.extend(data)), peer.say
        upgrade(peer)
        say(b"".join(sent) + frame(TEXT, b"early"))
        peer.read_to_end()

    client = websocket.scripted(script)
    assert client.wire.received_bytes < 200  # the head alone
    assert client.receive() == "early"
    client.wire.close()


# --- the handshake -------------------------------------------------------------------------------------------------


@pytest.fixture
def request_of(websocket):
    """A factory: opens a WebSocket and gives its request line and its fields by name as the server saw them."""

    def ask(path: str = "/", **options) -> tuple[str, dict[str, str]]:
        seen = Queue()

        def script(peer):
            seen.put(upgrade(peer))
            peer.read_to_end()

        websocket.scripted(script, path, **options).wire.close()
        line, *lines = seen.get(timeout=10).split("\r\n")[:-2]
        fields = dict(line.split(": ", 1) for line in lines)
        assert len({name.lower() for name in fields}) == len(lines), "a field came twice"
        return line, fields

    return ask


def test_the_request(request_of):
    line, fields = request_of("/a?b=c")
    assert line == "GET /a?b=c HTTP/1.1"
    assert fields.pop("Host").startswith("127.0.0.1:")
    assert len(fields.pop("Sec-WebSocket-Key")) == 24
    assert fields == {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


def test_a_path_is_percent_encoded_where_it_must_be(request_of):
    assert request_of("/chat/a b/é%20?q=ü")[0] == "GET /chat/a%20b/%C3%A9%20?q=%C3%BC HTTP/1.1"


def test_origin_subprotocols_and_compression_are_asked_for(websocket, request_of):
    with pytest.raises(TypeError, match=r"takes a list of names: write \['chat'\]"):
        websocket.to(echo, subprotocols="chat")
    _, fields = request_of(origin="https://there.example", compression=True)
    assert fields["Origin"] == "https://there.example"
    assert fields["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


def test_a_header_of_the_test_replaces_the_usual_one(request_of):
    _, fields = request_of(headers={"sec-websocket-version": "12", "HOST": "other.example", "X-Test": "1"})
    assert {name.lower() for name in fields} > {"host", "x-test", "sec-websocket-version"}
    assert len(fields) == 6
    assert (fields["sec-websocket-version"], fields["HOST"], fields["X-Test"]) == ("12", "other.example", "1")


def test_the_response(websocket):
    client = websocket.to(echo, server={"subprotocols": ["b", "c"]}, subprotocols=["a", "b"])
    assert client.subprotocol == "b"
    assert client.headers["UPGRADE"] == "websocket"
    assert websocket.to(echo).subprotocol is None


def test_a_refusal_has_all_of_the_response(websocket):
    def refuse(connection, request):
        return connection.respond(403, "not you")

    with pytest.raises(HandshakeRefused, match="the WebSocket /x was refused: 403 Forbidden: not you") as raised:
        websocket.to(echo, "/x", server={"process_request": refuse})
    assert raised.value.status_code == 403
    assert raised.value.headers["content-type"] == "text/plain; charset=utf-8"
    assert (raised.value.body, raised.value.text) == (b"not you", "not you")
    assert raised.value.response.reason == "Forbidden"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 4\r\n", b"body"),
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
        (b"Connection: close\r\n", b"body"),
    ],
)
def test_a_refusal_is_read_to_its_end_however_it_is_framed(websocket, head, body):
    def refuse(peer):
        peer.read_head()
        peer.say(b"HTTP/1.1 503 Later\r\nRetry-After: 7\r\n" + head + b"\r\n", body)

    with pytest.raises(HandshakeRefused) as raised:
        websocket.scripted(refuse)
    assert (raised.value.body, raised.value.headers["retry-after"]) == (b"body", "7")


def answering(head: bytes):
    def script(peer):
        peer.read_head()
        peer.say(head)

    return script


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (SWITCHING + b"\r\n", "missing Sec-WebSocket-Accept header"),
        (SWITCHING + b"Sec-WebSocket-Accept: x\r\n\r\n", "invalid Sec-WebSocket-Accept header: x"),
        (SWITCHING.replace(b"websocket", b"h2c") + b"\r\n", "invalid Upgrade header: h2c"),
        (b"HTTP/2 200\r\n\r\n", "did not receive a valid HTTP response: invalid HTTP status line"),
    ],
)
def test_an_answer_that_is_no_handshake(websocket, head, problem):
    with pytest.raises(ProtocolViolation, match=f"the WebSocket / was not opened: {problem}"):
        websocket.scripted(answering(head))


@pytest.mark.parametrize("field", [b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Extensions: permessage-deflate"])
def test_an_answer_that_was_not_asked_for(websocket, field):
    with pytest.raises(ProtocolViolation, match=r"was not opened: no (subprotocols|extensions) supported"):
        websocket.scripted(lambda peer: upgrade(peer, field))


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 10", SWITCHING])
def test_no_response(websocket, head):
    with pytest.raises(ConnectionResetError, match="the WebSocket /: the server closed the connection, no response"):
        websocket.scripted(answering(head))


def test_silence_instead_of_a_response(websocket):
    with pytest.raises(TimeoutError, match=r"the WebSocket /: no response within 0\.05 s"):
        websocket.scripted(lambda peer: peer.read_to_end(), timeout=0.05)


# --- waiting -------------------------------------------------------------------------------------------------------


def test_silence(websocket):
    client = websocket.to(hold, "/quiet")
    with pytest.raises(TimeoutError, match=r"the WebSocket /quiet: no message within 0\.02 s"):
        client.receive(timeout=0.02)
    with pytest.raises(TimeoutError, match="no frame within 0 s"):
        client.receive_frame(timeout=0)
    with pytest.raises(TimeoutError, match="no message within 0 s"):
        client.receive_json(timeout=0)


def test_the_limit_of_the_connection_is_the_one_of_every_wait(websocket):
    client = websocket.to(hold, timeout=0.3)
    with pytest.raises(TimeoutError, match=r"no message within 0\.3 s"):
        next(client)


def test_a_message_after_silence_is_received_whole(websocket):
    go = threading.Event()

    def script(peer):
        upgrade(peer)
        peer.say(frame(TEXT, b"half", fin=False))
        go.wait(10)
        peer.say(frame(0, b" whole"))
        peer.read_to_end()

    client = websocket.scripted(script)
    with pytest.raises(TimeoutError):
        client.receive(timeout=0.05)
    go.set()
    assert client.receive() == "half whole"
    client.wire.close()


def test_pings_are_answered_but_are_no_message(websocket):
    """A server that pings for ever does not keep `receive` waiting for ever."""
    pongs = []

    def script(peer):
        upgrade(peer)
        try:
            while True:
                peer.say(frame(PING, b"again"))
                pongs.append(peer.connection.recv(100))
                time.sleep(0.01)  # the distance of the pings, and nothing that the test waits for
        except OSError:
            pass

    client = websocket.scripted(script)
    with pytest.raises(TimeoutError, match="no message within"):
        client.receive(timeout=0.2)
    client.wire.close()
    assert raw_frame(PONG, b"again")[:2] == pongs[0][:2]


def test_a_long_message_may_take_longer_than_the_limit(websocket):
    """The limit is for silence: as long as a message goes on arriving, it is waited for."""
    client = websocket.scripted(saying(frame(BINARY, bytes(4000)), goodbye(1000)))
    client.wire.throttle(10_000)
    began = time.monotonic()
    assert client.receive(timeout=0.2) == bytes(4000)
    assert time.monotonic() - began > 0.3


def test_nothing_is_read_while_nobody_waits(websocket):
    """So the server's ping is answered by the next `receive`, and not before."""
    answered, heard = threading.Event(), threading.Event()

    def handler(connection):
        pong = connection.ping()
        connection.send("first")
        if pong.wait(0.2):
            answered.set()
        heard.set()
        assert pong.wait(10)
        connection.send("second")

    client = websocket.to(handler)
    assert heard.wait(10)
    assert not answered.is_set()
    assert list(client) == ["first", "second"]


# --- pings ---------------------------------------------------------------------------------------------------------


def test_a_ping_waits_for_its_pong_and_keeps_the_messages(websocket):
    client = websocket.scripted(
        saying(frame(PONG, b"unasked"), frame(TEXT, b"one"), frame(PONG, b"mine"), frame(TEXT, b"two"), goodbye(1000))
    )
    assert 0 <= client.ping(b"mine") < 10
    assert list(client) == ["one", "two"]


def test_a_ping_of_a_real_server(websocket):
    client = websocket.to(echo)
    client.send("before")
    client.ping()
    client.ping(b"x" * 125, timeout=5)
    assert client.receive() == "before"
    with pytest.raises(ValueError, match="at most 125 bytes"):
        client.ping(b"x" * 126)


def test_a_ping_without_a_pong(websocket):
    client = websocket.scripted(lambda peer: [upgrade(peer), peer.read_to_end()])
    with pytest.raises(TimeoutError, match=r"no pong within 0\.05 s"):
        client.ping(timeout=0.05)
    client.wire.close()


def test_a_ping_of_a_server_that_goes(websocket):
    client = websocket.scripted(saying(frame(TEXT, b"last"), goodbye(1001)))
    with pytest.raises(WebSocketClosed) as raised:
        client.ping()
    assert raised.value.code == 1001
    assert client.receive() == "last"


# --- the server's end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001])
def test_an_iteration_ends_when_the_server_closes(websocket, code):
    def handler(connection):
        connection.send("one")
        connection.send(b"two")
        connection.close(code, "enough")

    client = websocket.to(handler)
    assert (client.close_code, client.close_reason) == (None, None)
    assert list(client) == ["one", b"two"]
    assert (client.close_code, client.close_reason) == (code, "enough")
    assert client.wire.closed
    with pytest.raises(WebSocketClosed, match=f"the WebSocket / is over: closed with {code}: enough") as raised:
        client.receive()
    assert (raised.value.code, raised.value.reason) == (code, "enough")


def test_an_iteration_does_not_hide_an_error(websocket):
    def handler(connection):
        connection.send("one")
        raise KeyError("of the handler")

    client = websocket.to(handler)
    assert next(client) == "one"
    with pytest.raises(WebSocketClosed) as raised:
        next(client)
    assert (raised.value.code, client.close_code) == (1011, 1011)


def test_a_close_frame_without_a_code(websocket):
    client = websocket.scripted(saying(frame(CLOSE)))
    assert list(client) == []
    assert client.close_code == 1005


@pytest.mark.parametrize("last", [b"", frame(TEXT, b"half", fin=False), frame(TEXT, b"half")[:3]])
def test_an_end_without_a_close_frame(websocket, last):
    client = websocket.scripted(saying(frame(TEXT, b"one"), last))
    assert client.receive() == "one"
    with pytest.raises(WebSocketClosed, match="the connection ended without a close frame") as raised:
        next(client)
    assert (raised.value.code, raised.value.reason, client.close_code) == (1006, "", 1006)


def test_a_reset(websocket):
    sent = threading.Event()

    def script(peer):
        upgrade(peer)
        peer.say(frame(TEXT, b"one"))
        assert sent.wait(10)
        peer.reset()

    client = websocket.scripted(script)
    assert client.receive() == "one"
    sent.set()
    with pytest.raises(WebSocketClosed, match=r"without a close frame: .*reset") as raised:
        client.receive()
    assert raised.value.code == 1006


def test_the_close_frame_is_answered(websocket):
    answers = []

    def script(peer):
        upgrade(peer)
        peer.say(goodbye(4008, b"slow"))
        answers.append(peer.connection.recv(100))

    client = websocket.scripted(script)
    with pytest.raises(WebSocketClosed):
        client.receive()
    assert answers[0][:2] == bytes([0x80 | CLOSE, 0x80 | 6])


def test_a_server_that_closes_must_also_end_the_connection(websocket):
    """RFC 6455 section 7.1.1: it is the server that goes first."""

    def script(peer):
        upgrade(peer)
        peer.say(goodbye(1000))
        peer.read_to_end()

    client = websocket.scripted(script)
    with pytest.raises(TimeoutError, match="the server sent its close frame and left the connection open"):
        client.receive(timeout=0.1)
    with pytest.raises(WebSocketClosed):
        client.send("too late")
    client.wire.close()


def test_sending_to_a_server_that_has_gone_tells_its_code(websocket):
    """Its close frame is in the client's kernel by then, unread."""

    def handler(connection):
        connection.send("kept")
        connection.close(4001, "go away")

    client = websocket.to(handler, server={"close_timeout": 0.1})
    with pytest.raises(WebSocketClosed) as raised:
        while True:
            client.send("x" * 10_000)
    assert (raised.value.code, raised.value.reason) == (4001, "go away")
    assert client.receive() == "kept"
    with pytest.raises(WebSocketClosed):
        client.send("again")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (raw_frame(TEXT, b"masked"), "incorrect masking"),
        (frame(3), "invalid opcode"),
        (frame(TEXT, b"x", reserved=4), "reserved bits must be 0"),
        (frame(0, b"x"), "unexpected continuation frame"),
        (goodbye(1005), "invalid status code"),
        (frame(TEXT, b"caf\xe9"), "a text that is not UTF-8"),
    ],
)
def test_a_server_that_breaks_the_protocol(websocket, data, problem):
    answers = []

    def script(peer):
        upgrade(peer)
        peer.say(frame(TEXT, b"fine") + data)
        answers.append(peer.read_to_end())

    client = websocket.scripted(script)
    assert client.receive() == "fine"
    for _ in range(2):
        with pytest.raises(ProtocolViolation, match=f"the WebSocket /: .*{problem}"):
            client.receive()
    assert client.wire.closed
    with pytest.raises(WebSocketClosed):
        client.send("more")


def test_a_broken_text_as_the_very_last_thing(websocket):
    client = websocket.scripted(saying(frame(TEXT, b"caf\xe9") + goodbye(1000)))
    with pytest.raises(WebSocketClosed):
        client.ping()  # reads all of it
    with pytest.raises(ProtocolViolation, match="not UTF-8"):
        client.receive()


# --- the client's end ----------------------------------------------------------------------------------------------


def test_closing_performs_the_handshake(websocket):
    ends = Queue()

    def handler(connection):
        with pytest.raises(ConnectionClosed) as raised:
            connection.recv()
        ends.put(raised.value.rcvd)

    client = websocket.to(handler)
    client.close(4321, "that was it")
    assert ends.get(timeout=10) == Close(4321, "that was it")
    assert (client.close_code, client.close_reason) == (4321, "that was it")  # echoed
    assert client.wire.closed
    client.close()
    with pytest.raises(WebSocketClosed):
        client.send("more")


def test_what_came_before_the_answer_can_be_received_after_closing(websocket):
    """So that a test can say: this client got these messages and no other."""
    client = websocket.scripted(saying(frame(TEXT, b"one"), frame(TEXT, b"two"), goodbye(1000)))
    client.close()
    assert list(client) == ["one", "two"]


@pytest.mark.parametrize(("code", "reason"), [(999, ""), (1005, ""), (1006, ""), (5000, ""), (1000, "x" * 124)])
def test_a_close_frame_that_nobody_may_send(websocket, code, reason):
    client = websocket.to(echo)
    with pytest.raises(ValueError, match=r"close\(.*send_raw"):
        client.close(code, reason)
    assert client.wire.closed


def test_a_server_that_does_not_answer_the_close_frame(websocket):
    client = websocket.scripted(lambda peer: [upgrade(peer), peer.read_to_end()])
    with pytest.raises(TimeoutError, match=r"no answer to the close frame within 0\.05 s"):
        client.close(timeout=0.05)
    assert client.wire.closed
    assert client.close_code is None


def test_a_server_that_talks_on_does_not_prolong_the_closing(websocket):
    def script(peer):
        upgrade(peer)
        with pytest.raises(OSError):
            while True:
                peer.say(frame(TEXT, b"more"))

    client = websocket.scripted(script)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.close(timeout=0.1)
    assert time.monotonic() - began < 5


def test_a_violation_while_closing_is_not_hidden(websocket):
    client = websocket.scripted(saying(frame(3)))
    with pytest.raises(ProtocolViolation, match="invalid opcode"):
        client.close()


def test_closing_after_the_server_is_gone_is_fine(websocket):
    client = websocket.scripted(saying())
    client.close()
    assert client.close_code == 1006


def test_a_with_block_closes_politely(websocket):
    ends = Queue()

    def handler(connection):
        with pytest.raises(ConnectionClosed) as raised:
            connection.recv()
        ends.put(raised.value.rcvd)

    with websocket.to(handler) as client:
        assert not client.wire.closed
    assert client.wire.closed
    assert ends.get(timeout=10) == Close(1000, "")


def test_a_with_block_does_not_wait_long_for_a_server_that_does_not_answer(websocket):
    began = time.monotonic()
    with websocket.scripted(lambda peer: [upgrade(peer), peer.read_to_end()], timeout=30) as client:
        pass
    assert client.wire.closed
    assert 0.9 < time.monotonic() - began < 10


def test_a_with_block_that_fails_hangs_up_at_once(websocket):
    seen = []

    def script(peer):
        upgrade(peer)
        seen.append(peer.read_to_end())

    client = websocket.scripted(script, timeout=30)
    with pytest.raises(KeyError), client:
        raise KeyError("of the test")
    assert client.wire.closed


# --- single frames and bytes ---------------------------------------------------------------------------------------


def test_single_frames(websocket):
    client = websocket.scripted(
        saying(frame(TEXT, b"a", fin=False), frame(PING, b"?"), frame(0, b"b"), frame(TEXT, b"c"), goodbye(1000))
    )
    assert client.receive_frame() == ReceivedFrame(TEXT, b"a", fin=False)
    assert client.receive_frame() == ReceivedFrame(PING, b"?")
    assert client.receive() == "c"  # what continues a message whose start was taken is passed over
    assert client.receive_frame() == ReceivedFrame(CLOSE, b"\x03\xe8")
    with pytest.raises(WebSocketClosed):
        client.receive_frame()


def test_raw_bytes(websocket):
    """A partial frame, its rest, and one that is not masked."""
    client = websocket.to(echo)
    whole = raw_frame(TEXT, b"in two")
    client.send_raw(whole[:5])
    with pytest.raises(TimeoutError):
        client.receive(timeout=0.05)
    client.send_raw(whole[5:])
    assert client.receive() == "in two"
    client.send_raw(raw_frame(TEXT, b"bare", masked=False))
    with pytest.raises(WebSocketClosed) as raised:
        client.receive()
    assert (raised.value.code, raised.value.reason) == (1002, "incorrect masking")


def test_a_raw_close_frame_and_what_comes_after_it(websocket):
    """The way to go on receiving once the close frame is sent."""

    def script(peer):
        upgrade(peer)
        peer.read_until(raw_frame(CLOSE, b"\x03\xe8"))
        peer.say(frame(TEXT, b"last"), goodbye(1000))

    client = websocket.scripted(script)
    client.send_raw(raw_frame(CLOSE, b"\x03\xe8"))
    assert list(client) == ["last"]
    assert client.close_code == 1000


# --- faults --------------------------------------------------------------------------------------------------------


def test_a_frozen_client_receives_nothing(websocket):
    client = websocket.scripted(saying(frame(TEXT, b"one") + frame(TEXT, b"two"), goodbye(1000)))
    assert client.receive() == "one"
    client.wire.freeze()
    for read in (client.receive, client.receive_frame, client.ping, client.__next__):
        with pytest.raises(Frozen, match="the WebSocket / is frozen and was read; thaw"):
            read()
    client.wire.thaw()
    assert list(client) == ["two"]


def test_a_frozen_client_can_send_and_closes_at_once(websocket):
    received = Queue()

    def handler(connection):
        received.put(connection.recv())

    with websocket.to(handler, timeout=30) as client:
        client.wire.freeze()
        client.send("hello")
    assert client.wire.closed
    other = websocket.to(hold, timeout=30)
    other.wire.freeze()
    other.close()
    assert other.wire.closed
    assert received.get(timeout=10) == "hello"


def test_a_reader_in_another_thread_waits_for_the_thaw(websocket):
    go = threading.Event()

    def handler(connection):
        go.wait(10)
        connection.send("late")

    client = websocket.to(handler)
    client.wire.freeze()
    result = in_thread(client.receive)
    go.set()
    client.wire.thaw()
    assert result() == "late"
    client.wire.freeze()
    assert isinstance(in_thread(lambda: client.receive(timeout=0.05))(), Frozen)


@pytest.mark.parametrize("end", ["drop", "close"])
def test_what_the_test_ended_says_so(websocket, end):
    client = websocket.to(hold)
    result = in_thread(client.receive)
    getattr(client.wire, end)()
    assert isinstance(result(), ConnectionAbortedError)
    for use in (client.receive, client.ping, lambda: client.send("x"), lambda: next(client)):
        with pytest.raises(ConnectionAbortedError, match=r"the test (dropped|closed) this connection"):
            use()
    client.close()


def test_a_dropped_client_is_a_reset_for_the_server(websocket):
    ended = threading.Event()

    def script(peer):
        upgrade(peer)
        with pytest.raises(ConnectionResetError):
            peer.read_to_end()
        ended.set()

    websocket.scripted(script).wire.drop()
    assert ended.wait(10)


def frames_of(data: bytes) -> list[tuple[int, int]]:
    """Opcode and length of the frames that a client has sent."""
    server = Protocol(SERVER, max_size=None)
    server.receive_data(data)
    assert server.parser_exc is None
    return [(one.opcode, len(one.data)) for one in server.events_received()]


def fill(client: ClientWebSocket) -> int:
    """Send messages of 300,000 bytes until the server takes no more; gives their number."""
    sent, client.wire.timeout = 0, 0.2
    with pytest.raises(TimeoutError):
        while True:
            sent += 1
            client.send(bytes(300_000))
    return sent


def test_a_server_that_takes_nothing_and_then_does(websocket):
    """What was cut by the time limit goes on where it was, so the server gets whole messages."""
    go, received = threading.Event(), []

    def script(peer):
        upgrade(peer)
        assert go.wait(10)
        received.extend(iter(lambda: peer.connection.recv(1 << 20), b""))

    client = websocket.scripted(script)
    sent = fill(client)
    with pytest.raises(TimeoutError):  # behind the rest of the one before it
        client.send(bytes(16 << 20))
    client.wire.timeout = 10
    go.set()
    client.send("last")
    client.wire.half_close()
    with pytest.raises(WebSocketClosed):
        client.receive()
    assert frames_of(b"".join(received)) == [(BINARY, 300_000)] * sent + [(BINARY, 16 << 20), (TEXT, 4)]


def test_a_reader_is_not_held_up_by_a_pong_that_does_not_go_through(websocket):
    """The server takes nothing before the client has received what it says; the pong follows when it can."""
    go, said, received = threading.Event(), threading.Event(), []

    def script(peer):
        upgrade(peer)
        peer.say(frame(PING, b"?"), frame(TEXT, b"one"))
        said.set()
        assert go.wait(10)
        received.append(peer.read_to_end())
        peer.say(goodbye(1000))

    client = websocket.scripted(script)
    sent = fill(client)
    client.wire.timeout = 10
    assert said.wait(10)
    assert client.receive() == "one"
    go.set()
    client.send("last")
    client.wire.half_close()
    assert list(client) == []
    assert frames_of(received[0]) == [(BINARY, 300_000)] * sent + [(PONG, 1), (TEXT, 4)]


# --- threads -------------------------------------------------------------------------------------------------------


def test_one_thread_receives_while_others_send(websocket):
    client = websocket.to(echo)
    received = in_thread(lambda: [client.receive() for _ in range(600)])

    def send(name: str) -> Callable[[], None]:
        return lambda: [client.send(f"{name}{number}") for number in range(200)] and None

    senders = [in_thread(send(name)) for name in "abc"]
    assert [sender() for sender in senders] == [None] * 3
    messages = received()
    for name in "abc":
        assert [message for message in messages if message[0] == name] == [f"{name}{number}" for number in range(200)]


def test_closing_ends_the_iteration_of_another_thread(websocket):
    client, received = websocket.to(echo), Queue()
    result = in_thread(lambda: [received.put(message) for message in client])
    client.send("one")
    assert received.get(timeout=10) == "one"
    client.close()
    assert result() == [None]


def test_closing_does_not_wait_for_the_thread_that_receives(websocket):
    client = websocket.scripted(lambda peer: [upgrade(peer), peer.read_to_end()])
    result = in_thread(client.receive)
    with pytest.raises(TimeoutError, match="no answer to the close frame"):
        client.close(timeout=0.05)
    assert isinstance(result(), ConnectionAbortedError)


def test_closing_does_not_wait_for_the_thread_that_sends(websocket):
    closed = threading.Event()
    client = websocket.scripted(lambda peer: [upgrade(peer), closed.wait(10)])
    result = in_thread(lambda: client.send(bytes(64 << 20)))
    eventually(lambda: client.wire._waiting, "the sender waits")
    with pytest.raises(TimeoutError, match=r"another thread has been sending for 0\.05 s"):
        client.close(timeout=0.05)
    assert isinstance(result(), ConnectionAbortedError)
    closed.set()


# --- where ---------------------------------------------------------------------------------------------------------


def test_a_unix_socket(websocket, tmp_path):
    client = websocket.to(echo, uds=str(tmp_path / "socket"))
    client.send("hello")
    assert client.receive() == "hello"
    client.close()


def test_tls(websocket, tmp_path):
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    client = websocket.to(echo, server={"ssl": context}, certificate=str(tmp_path / "server.pem"))
    for message in ("hello", bytes(100_000)):
        client.send(message)
        assert client.receive() == message
    client.close()
    assert client.close_code == 1000


def test_a_repr_shows_the_state(websocket):
    client = websocket.scripted(saying(frame(TEXT, b"one") + goodbye(4000)), "/chat")
    assert repr(client) == "<ClientWebSocket the WebSocket /chat: open, frames to be received: 0>"
    client.receive()
    with pytest.raises(WebSocketClosed):
        client.receive()
    assert "closed with 4000" in repr(client)
