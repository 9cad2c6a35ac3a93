"""The opening handshake over real connections: what is accepted, what is refused, and what the connection is then."""

from __future__ import annotations

import json
import socket
import ssl
import threading

import pytest
import trustme

from catzilla import HTTPError, JSONResponse, RouterGroup
from catzilla.testing import HandshakeRefused, LiveServer, raw_frame
from tests.promises.helpers import PATIENCE, RawClient, eventually, get, services_of
from tests.websockets.helpers import (
    ACCEPT,
    CLOSE,
    PING,
    TEXT,
    closed_with,
    handshake,
    socket_of,
    sockets_of,
    wait_forgotten,
)


@pytest.fixture
def app(app):
    @app.websocket("/echo")
    class Echo:
        def on_message(self, ws, message):
            ws.send(message)

    @app.websocket("/linear")
    def linear(ws):
        for message in ws:
            ws.send(message)

    app.get("/hello")(lambda: "hello")
    return app


def refusal(live: LiveServer, path: str = "/echo", **fields: str | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case and body of the answer to a handshake, which leaves the connection usable."""
    client = RawClient(live, handshake(path, **fields))
    status, headers, body = read_response(client)
    client.send(get("/hello"))
    assert read_response(client)[2] == b"hello", "the connection is an ordinary one after a refusal"
    return status, headers, body


def read_response(client: RawClient) -> tuple[int, dict[str, str], bytes]:
    head, _, body = client.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += client.socket.recv(65536)
    return int(status.split()[1]), headers, body


def read_upgrade(client: RawClient) -> tuple[list[str], bytes]:
    """The lines of the answer to an accepted handshake, and the frames that came along."""
    head, _, rest = client.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status == "HTTP/1.1 101 Switching Protocols"
    return [line.lower() if "accept" not in line else line for line in lines], rest


def read_frames(client: RawClient, expected: bytes, begun: bytes = b"") -> None:
    received = begun
    while len(received) < len(expected):
        data = client.socket.recv(65536)
        assert data, f"the server closed; it sent {received!r}"
        received += data
    assert received == expected


def server_frame(opcode: int, payload: bytes = b"") -> bytes:
    return raw_frame(opcode, payload, masked=False)


# Accepted.


@pytest.mark.parametrize("path", ["/echo", "/linear"])
def test_accepted(app, live_server, path):
    live = live_server(app)
    client = RawClient(live, handshake(path))
    lines, rest = read_upgrade(client)
    assert rest == b""
    assert f"sec-websocket-accept: {ACCEPT}" in lines
    assert "upgrade: websocket" in lines
    assert "connection: upgrade" in lines
    names = {line.partition(":")[0] for line in lines}
    assert not names & {"content-length", "transfer-encoding", "sec-websocket-protocol", "sec-websocket-extensions"}
    client.send(raw_frame(TEXT, b"hello"))
    read_frames(client, server_frame(TEXT, b"hello"))


@pytest.mark.parametrize(
    "fields",
    [
        {"upgrade": "WebSocket"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
        {"sec_websocket_version": " 13 "},
    ],
)
def test_headers_are_read_as_http_says(app, live_server, fields):
    client = RawClient(live_server(app), handshake("/echo", **fields))
    read_upgrade(client)


def test_a_route_of_a_group(app, live_server):
    group = RouterGroup(prefix="/api")

    @group.websocket("/{name}")
    def greet(ws, name):
        ws.send(f"hello {name}")

    app.include_routes(group)
    with live_server(app).websocket("/api/alice") as client:
        assert client.receive() == "hello alice"
    assert ("WEBSOCKET", "/api/{name}") in [(kind, path) for kind, path, _ in app.routes()]


def test_the_handshake_is_the_request_of_the_socket(app, live_server):
    @app.websocket("/who/{name}")
    def who(ws, name):
        ws.send_json([ws.request.path, ws.request.query_params["q"], ws.request.get_header("x-here"), ws.path_params])

    with live_server(app).websocket("/who/me?q=1", headers={"X-Here": "yes"}) as client:
        assert client.receive_json() == ["/who/me", "1", "yes", {"name": "me"}]


def test_ids_are_unique_and_all_is_forgotten_in_the_end(app, live_server):
    app.websocket("/id")(lambda ws: ws.send(ws.id))
    live = live_server(app)
    ids = set()
    for _ in range(20):
        with live.websocket("/id") as client:
            ids.add(client.receive())
    assert len(ids) == 20
    wait_forgotten(live)


# Refused.


@pytest.mark.parametrize("version", ["0", "8", "14", "013", "thirteen", ""])
def test_a_wrong_version_is_told_the_right_one(app, live_server, version):
    status, headers, _ = refusal(live_server(app), sec_websocket_version=version)
    assert status == 426
    assert headers["sec-websocket-version"] == "13"
    assert headers["upgrade"].lower() == "websocket"
    assert "upgrade" in headers["connection"].lower(), "RFC 9110 section 7.8: who sends Upgrade sends this too"


def test_a_plain_get_is_told_to_upgrade(app, live_server):
    client = RawClient(live_server(app), get("/echo"))
    status, headers, _ = read_response(client)
    assert status == 426
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"
    assert headers["sec-websocket-version"] == "13"
    client.send(get("/hello"))
    assert read_response(client)[2] == b"hello"


@pytest.mark.parametrize(
    "fields",
    [
        {"sec_websocket_key": None},
        {"sec_websocket_key": ""},
        {"sec_websocket_key": "not base64!"},
        {"sec_websocket_key": "c2hvcnQ="},
        {"sec_websocket_key": "dGhpcyBpcyBmYXIgdG9vIGxvbmcgZm9yIGEga2V5"},
        {"sec_websocket_version": None},
        {"sec_websocket_extensions": "permessage-deflate; ="},
        {"sec_websocket_protocol": "a b"},
    ],
    ids=str,
)
def test_a_malformed_handshake(app, live_server, fields):
    app.websocket("/all", subprotocols=["chat"], compression=True)(lambda ws: None)
    status, headers, _ = refusal(live_server(app), "/all", **fields)
    assert status == 400
    assert "sec-websocket-accept" not in headers


def test_two_keys(app, live_server):
    data = handshake("/echo").replace(b"\r\n\r\n", f"\r\nSec-WebSocket-Key: {KEY_OF_ANOTHER}\r\n\r\n".encode())
    status, *_ = read_response(RawClient(live_server(app), data))
    assert status == 400


KEY_OF_ANOTHER = "AAAAAAAAAAAAAAAAAAAAAA=="


@pytest.mark.parametrize("fields", [{"connection": None}, {"connection": "keep-alive"}, {"upgrade": "h2c"}], ids=str)
def test_a_request_that_asks_for_no_websocket(app, live_server, fields):
    status, headers, _ = refusal(live_server(app), **fields)
    assert status == 426
    assert headers["upgrade"].lower() == "websocket"


def test_another_method(app, live_server):
    status, *_ = refusal(live_server(app), method="POST", content_length="0")
    assert status == 400


def test_http_1_0(app, live_server):
    status, *_ = read_response(RawClient(live_server(app), handshake("/echo", http="1.0")))
    assert status == 400


def test_nothing_there(app, live_server):
    status, *_ = refusal(live_server(app), "/nothing")
    assert status == 404
    with pytest.raises(HandshakeRefused) as refused:
        live_server(app).websocket("/nothing")
    assert refused.value.status_code == 404


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_is_not_taken_for_frames(app, live_server, chunked):
    """What a proxy takes for a body must not be taken for frames here, nor the other way round."""
    frame = raw_frame(TEXT, b"hello")
    if chunked:
        data = handshake("/echo", transfer_encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(frame), frame)
    else:
        data = handshake("/echo", content_length=str(len(frame))) + frame
    status, *_ = read_response(RawClient(live_server(app), data))
    assert status == 400


def test_a_plain_route_on_the_same_path(app, live_server):
    app.get("/echo")(lambda: "by http")
    app.post("/echo")(lambda request: request.text())
    live = live_server(app)
    assert live.get("/echo").text == "by http"
    assert live.post("/echo", data=b"posted").text == "posted"
    with live.websocket("/echo") as client:
        client.send("by websocket")
        assert client.receive() == "by websocket"


def test_a_plain_route_ignores_an_upgrade(app, live_server):
    client = RawClient(live_server(app), handshake("/hello"))
    assert read_response(client)[::2] == (200, b"hello")
    client.send(get("/hello"))
    assert read_response(client)[::2] == (200, b"hello")


# Subprotocols.


@pytest.fixture
def chat(app):
    @app.websocket("/chat", subprotocols=["chat.v2", "chat.v1"])
    def chat(ws):
        ws.send_json(ws.subprotocol)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["chat.v1"], "chat.v1"),
        (["chat.v1", "chat.v2"], "chat.v2"),
        (["other", "chat.v1"], "chat.v1"),
        (["CHAT.v1"], None),
        (["other"], None),
        ([], None),
    ],
    ids=str,
)
def test_subprotocols_the_server_prefers(app, chat, live_server, offered, chosen):
    with live_server(app).websocket("/chat", subprotocols=offered) as client:
        assert client.subprotocol == chosen
        assert client.receive_json() == chosen
        assert ("sec-websocket-protocol" in client.headers) == (chosen is not None)


def test_a_route_without_subprotocols_chooses_none(app, live_server):
    with live_server(app).websocket("/echo", subprotocols=["chat.v1"]) as client:
        assert client.subprotocol is None


# Compression.


def test_compression_is_off_unless_it_is_asked_for(app, live_server):
    app.websocket("/packed", compression=True)(lambda ws: ws.send("x" * 1000))
    live = live_server(app)
    with live.websocket("/echo", compression=True) as client:
        assert "sec-websocket-extensions" not in client.headers
        client.send("hello")
        assert client.receive() == "hello"
    with live.websocket("/packed") as client:
        assert "sec-websocket-extensions" not in client.headers
        assert client.receive() == "x" * 1000


def test_compression_agreed_on(app, live_server):
    app.websocket("/packed", compression=True)(lambda ws: ws.send("x" * 1000))
    with live_server(app).websocket("/packed", compression=True) as client:
        agreed = client.headers["sec-websocket-extensions"]
        assert agreed.startswith("permessage-deflate")
        assert "server_max_window_bits=12" in agreed.replace(" ", "")
        received = client.wire.received_bytes
        assert client.receive() == "x" * 1000
        assert client.wire.received_bytes - received < 100


def test_an_unknown_extension_is_not_agreed_on(app, live_server):
    app.websocket("/packed", compression=True)(lambda ws: None)
    client = RawClient(live_server(app), handshake("/packed", sec_websocket_extensions="x-unheard-of; a=1"))
    lines, _ = read_upgrade(client)
    assert not any(line.startswith("sec-websocket-extensions") for line in lines)


# What comes along, before and after.


@pytest.mark.parametrize("path", ["/echo", "/linear"])
def test_frames_that_arrive_together_with_the_handshake(app, live_server, path):
    frames = raw_frame(TEXT, b"one") + raw_frame(PING, b"p") + raw_frame(TEXT, b"two")
    client = RawClient(live_server(app), handshake(path) + frames)
    _, rest = read_upgrade(client)
    received = rest
    while len(received) < len(server_frame(10, b"p") + server_frame(TEXT, b"one") + server_frame(TEXT, b"two")):
        received += client.socket.recv(65536)
    received = received.replace(server_frame(10, b"p"), b"")  # the pong need not wait for the handler
    assert received == server_frame(TEXT, b"one") + server_frame(TEXT, b"two")


def test_a_handshake_byte_by_byte(app, live_server):
    client = RawClient(live_server(app))
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in handshake("/echo") + raw_frame(TEXT, b"slow"):
        client.send(bytes([byte]))
    _, rest = read_upgrade(client)
    read_frames(client, server_frame(TEXT, b"slow"), rest)


def test_a_close_that_arrives_together_with_the_handshake(app, live_server, notes, quiet):
    @app.websocket("/noting")
    class Noting:
        def on_open(self, ws):
            notes.add("open")

        def on_message(self, ws, message):
            notes.add(message)

        def on_close(self, ws, code, reason):
            notes.add(code, reason)

    live = live_server(app)
    goodbye = (4000).to_bytes(2, "big") + b"bye"
    client = RawClient(live, handshake("/noting") + raw_frame(TEXT, b"one") + raw_frame(CLOSE, goodbye))
    _, rest = read_upgrade(client)
    assert rest + client.read_to_end() == server_frame(CLOSE, goodbye)
    assert notes.take(3) == ["open", "one", (4000, "bye")]
    wait_forgotten(live)


def test_a_bad_frame_that_arrives_together_with_the_handshake(app, live_server, quiet):
    live = live_server(app)
    client = RawClient(live, handshake("/echo") + raw_frame(3, b"bad"))
    _, rest = read_upgrade(client)
    received = rest + client.read_to_end()
    assert received[:1] == bytes([0x80 | CLOSE])
    assert received[2:4] == (1002).to_bytes(2, "big")
    client.close()
    wait_forgotten(live)


def test_more_than_the_inbox_holds_arrives_together_with_the_handshake(app, live_server, gate, notes):
    """The inbox is full before the connection has read a byte by itself: it must not read on all the same."""

    @app.websocket("/held")
    class Held:
        def on_message(self, ws, message):
            gate.wait()
            notes.add(message)

    live = live_server(app, socket_inbox_messages=4)
    count, later = 8, 8
    frames = [raw_frame(TEXT, str(number).encode()) for number in range(count + later)]
    client = RawClient(live, handshake("/held") + b"".join(frames[:count]))
    read_upgrade(client)
    gate.wait_arrived()
    connection = socket_of(live)
    assert not connection.is_reading
    for frame in frames[count:]:
        client.send(frame)
    live.get("/hello")  # the loop has been through its sockets at least once since
    live.get("/hello")
    inbox = connection._handling.inbox
    assert inbox is not None
    assert len(inbox) < count, "it was read although its inbox is full"
    gate.open()
    assert notes.take(count + later) == [str(number) for number in range(count + later)]


def test_after_an_earlier_request_on_the_same_connection(app, live_server):
    client = RawClient(live_server(app), get("/hello"))
    assert read_response(client)[2] == b"hello"
    client.send(handshake("/nothing"))
    assert read_response(client)[0] == 404
    client.send(handshake("/echo"))
    _, rest = read_upgrade(client)
    client.send(raw_frame(TEXT, b"hi"))
    read_frames(client, server_frame(TEXT, b"hi"), rest)


def test_pipelined_behind_a_request(app, live_server):
    client = RawClient(live_server(app), get("/hello") + handshake("/echo") + raw_frame(TEXT, b"behind"))
    received = client.read_until(b"behind")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.index(b"hello") < received.index(b"HTTP/1.1 101 ")
    assert received.endswith(server_frame(TEXT, b"behind"))


# Middleware, errors and authentication before the upgrade.


def test_middleware_may_refuse(app, live_server):
    ran = []

    @app.middleware(priority=80)
    def check(request):
        if request.get_header("x-key") != "secret":
            return JSONResponse({"refused": True}, status_code=403)
        request.context["key"] = "seen"
        return None

    def of_route(request):
        request.context["route"] = "too"

    @app.websocket("/checked", middleware=[of_route])
    def checked(ws):
        ran.append(True)
        ws.send_json(dict(ws.request.context))

    live = live_server(app)
    with pytest.raises(HandshakeRefused) as refused:
        live.websocket("/checked")
    assert refused.value.status_code == 403
    assert json.loads(refused.value.body) == {"refused": True}
    assert ran == []
    with live.websocket("/checked", headers={"X-Key": "secret"}) as client:
        assert client.receive_json() == {"key": "seen", "route": "too"}


def test_middleware_that_fails_is_an_error_page(app, live_server, caplog):
    @app.middleware
    def fail(request):
        if request.path == "/echo":
            raise ValueError("secret")

    with pytest.raises(HandshakeRefused) as refused:
        live_server(app).websocket("/echo")
    assert refused.value.status_code == 500
    assert "secret" not in refused.value.text
    assert sum("failed" in record.getMessage() for record in caplog.records) == 1


def test_post_route_middleware_sees_refusals(app, live_server):
    @app.middleware(pre_route=False, post_route=True)
    def mark(request, response):
        response.headers["X-Marked"] = "yes"

    live = live_server(app)
    with pytest.raises(HandshakeRefused) as refused:
        live.websocket("/echo", headers={"Sec-WebSocket-Version": "8"})
    assert refused.value.headers["x-marked"] == "yes"
    live.websocket("/echo").close()


def test_an_error_of_auth_goes_through_the_apps_handlers(app, live_server):
    def auth(request):
        raise HTTPError(401, "who are you?", {"WWW-Authenticate": "Bearer"})

    app.websocket("/mine", auth=auth)(lambda ws: None)
    app.set_exception_handler(
        HTTPError,
        lambda request, error: JSONResponse({"mine": error.detail}, status_code=error.status_code),
    )
    with pytest.raises(HandshakeRefused) as refused:
        live_server(app).websocket("/mine")
    assert refused.value.status_code == 401
    assert json.loads(refused.value.body) == {"mine": "who are you?"}


def test_headers_of_an_error_of_auth(app, live_server):
    def auth(request):
        raise HTTPError(401, "who are you?", {"WWW-Authenticate": "Bearer"})

    app.websocket("/mine", auth=auth)(lambda ws: None)
    status, headers, body = refusal(live_server(app), "/mine")
    assert status == 401
    assert headers["www-authenticate"] == "Bearer"
    assert b"who are you?" in body


def test_a_client_that_leaves_while_it_is_authenticated(app, live_server, gate, quiet):
    opened = threading.Event()

    def auth(request):
        gate.wait()
        return "alice"

    @app.websocket("/slow", auth=auth)
    class Slow:
        def on_open(self, ws):
            opened.set()

    live = live_server(app)
    client = RawClient(live, handshake("/slow"))
    gate.wait_arrived()
    client.reset()
    eventually(lambda: not services_of(live).connections, "the connection is forgotten")
    gate.open()
    eventually(lambda: services_of(live).workers.statistics().requests == 0, "the handshake is through")
    live.get("/hello")
    assert sockets_of(live) == []
    assert not opened.is_set()
    wait_forgotten(live)


# Other transports.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(params=["tls", "uds"])
def elsewhere(request, app, live_server, certificate, tmp_path):
    if request.param == "tls":
        return live_server(app, ssl_certfile=certificate)
    return live_server(app, uds=str(tmp_path / "web.sock"))


def test_over_tls_and_over_a_unix_socket(elsewhere, quiet):
    for path in ("/echo", "/linear"):
        with elsewhere.websocket(path) as client:
            for message in ("hello", b"\0" * 300_000, ""):
                client.send(message)
                assert client.receive() == message
            client.close(4000, "bye")
            assert client.close_code == 4000
    wait_forgotten(elsewhere)


def test_closed_by_the_server_over_tls_and_over_a_unix_socket(app, elsewhere, quiet):
    client = elsewhere.websocket("/echo")
    client.send_raw(raw_frame(3))
    assert closed_with(client)[0] == 1002
    wait_forgotten(elsewhere)


def test_a_drop_over_tls_and_over_a_unix_socket(elsewhere, quiet):
    client = elsewhere.websocket("/linear")
    client.send("hello")
    assert client.receive() == "hello"
    elsewhere.drop(client)
    wait_forgotten(elsewhere)


def test_frames_that_arrive_together_with_a_handshake_over_tls(app, live_server, certificate):
    live = live_server(app, ssl_certfile=certificate)
    context = ssl.create_default_context(cafile=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    plain = socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(handshake("/echo") + raw_frame(TEXT, b"one"))
        received = b""
        while not received.endswith(server_frame(TEXT, b"one")):
            data = client.recv(65536)
            assert data
            received += data
        assert received.startswith(b"HTTP/1.1 101 ")
