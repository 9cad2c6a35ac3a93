"""An app behind TLS: the same promises, whatever a client does to the handshake."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl

import pytest
import trustme

from catzilla import Catzilla, EventStream, FileResponse, StreamingResponse, sleep
from catzilla.testing.errors import IncompleteBody
from tests.commands import commands, write_module
from tests.promises.helpers import eventually, services_of, wait_stalled

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority, tmp_path_factory):
    """A PEM file with a private key and its certificate for 127.0.0.1."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)
    app.get("/hello")(lambda request: f"hello over {request.url.partition(':')[0]}")
    return app


@pytest.fixture
def serve(app, live_server, certificate):
    """`serve(**settings)` serves `app` over TLS."""
    return lambda **settings: live_server(app, ssl_certfile=certificate, **settings)


# Serving.


def test_requests_one_after_the_other_on_one_connection(serve):
    live = serve()
    assert live.url.startswith("https://127.0.0.1:")
    with live.connect() as connection:
        for _ in range(3):
            assert connection.get("/hello").text == "hello over https"


def test_a_client_that_checks_the_name_and_the_authority(serve, authority):
    live = serve()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        assert client.version() in ("TLSv1.2", "TLSv1.3")
        assert client.selected_alpn_protocol() == "http/1.1"
        client.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    assert answer.endswith(b"hello over https")


def test_old_versions_are_refused(serve, authority):
    live = serve()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname="localhost")
    assert live.get("/hello").status_code == 200


def test_an_upload(app, serve):
    app.post("/sum")(lambda request: hashlib.sha256(request.body).hexdigest())
    body = os.urandom(5 * MIB)
    assert serve().post("/sum", data=body).text == hashlib.sha256(body).hexdigest()


def test_events_arrive_one_by_one(app, serve):
    @app.get("/events")
    def events():
        def items():
            yield "first"
            yield sleep(0.2)
            yield "second"

        return EventStream(items())

    with serve().events("/events") as stream:
        assert [event.data for event in stream] == ["first", "second"]
    assert stream.arrivals[1] - stream.arrivals[0] > 0.1


def test_a_slow_reader_pauses_the_generator_and_gets_everything(app, serve):
    produced: list[int] = []
    count = 400  # of 64 KiB: far more than all buffers hold

    @app.get("/chunks")
    def chunks():
        def items():
            for number in range(count):
                produced.append(number)
                yield bytes([number % 256]) * 65536

        return StreamingResponse(items())

    live = serve()
    with live.stream("/chunks", receive_buffer_bytes=4096) as stream:
        wait_stalled(live)
        held = len(produced)
        assert held < count / 4, f"{held} chunks were pulled for a client that reads nothing"
        digest = hashlib.sha256()
        for piece in stream:
            digest.update(piece)
    assert len(produced) == count
    assert digest.digest() == hashlib.sha256(b"".join(bytes([n % 256]) * 65536 for n in range(count))).digest()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_closes_the_generator(app, serve, how):
    closed = []

    @app.get("/chunks")
    def chunks():
        def items():
            try:
                while True:
                    yield b"x" * 65536
            finally:
                closed.append(True)

        return StreamingResponse(items())

    live = serve()
    stream = live.stream("/chunks")
    wait_stalled(live)
    live.drop(stream) if how == "reset" else stream.close()
    eventually(lambda: closed, "the generator is closed")
    eventually(lambda: not services_of(live).connections, "the connection is forgotten")
    assert closed == [True]


def test_a_stream_that_fails_is_seen_to_fail(app, serve):
    @app.get("/failing")
    def failing():
        def items():
            yield "begun"
            raise ValueError("secret")

        return StreamingResponse(items())

    with serve().stream("/failing") as stream, pytest.raises(IncompleteBody):
        while piece := next(stream):
            assert b"secret" not in piece


def test_a_file_goes_through_the_encryption_and_not_around_it(app, serve, tmp_path, monkeypatch):
    """`os.sendfile` would send it as it is, in the middle of an encrypted connection."""

    def sendfile(*arguments):
        raise AssertionError("os.sendfile on a TLS connection")

    monkeypatch.setattr(os, "sendfile", sendfile)
    content = os.urandom(3 * MIB + 17)
    (tmp_path / "data.bin").write_bytes(content)
    app.get("/file")(lambda: FileResponse(tmp_path / "data.bin"))
    live = serve()
    with live.connect() as connection:
        assert connection.get("/file").body == content
        part = connection.get("/file", headers={"Range": "bytes=1000000-1000009"})
        assert (part.status_code, part.body) == (206, content[1000000:1000010])
        assert connection.head("/file").headers["content-length"] == str(len(content))
        assert connection.get("/hello").status_code == 200


# Handshakes that fail.


@pytest.fixture
def quiet(caplog):
    """Nothing that anybody could do from outside may fill the log."""
    yield
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_a_client_that_does_not_trust_the_certificate(serve, quiet):
    live = serve()
    context = ssl.create_default_context()  # knows other authorities
    with (
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")
    assert live.get("/hello").status_code == 200
    eventually(lambda: not services_of(live).connections, "the connection is forgotten")


@pytest.mark.parametrize(
    "said", [b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\xff" * 600, b"\x00"]
)
def test_what_is_no_handshake(serve, quiet, said):
    live = serve(head_timeout=0.5)
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as client:
        client.sendall(said)
        answer = b""
        try:
            while data := client.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    assert b"HTTP/" not in answer
    assert live.get("/hello").status_code == 200


def test_a_client_that_says_nothing_is_closed(serve, quiet):
    live = serve(head_timeout=0.3)
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
    assert live.get("/hello").status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_handshake(serve, quiet):
    live = serve()
    for said in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00"):
        with socket.create_connection(("127.0.0.1", live.port), timeout=10) as client:
            client.sendall(said)
    assert live.get("/hello").status_code == 200


def test_stopping_does_not_wait_for_a_handshake(serve, quiet):
    live = serve(shutdown_grace=0.2)
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01")
        assert live.get("/hello").status_code == 200
        live.server.request_stop()
        assert live.server.wait(0.2 + 1.0 + 2.0), "the handshake keeps the server"
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass


# Certificates that cannot be used.


@pytest.mark.parametrize("flags", [[], ["--workers=2"]], ids=["one process", "two processes"])
@pytest.mark.parametrize("content", [None, "not a certificate"], ids=["missing", "garbage"])
def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path, content, flags):
    write_module(tmp_path, "")
    if content is not None:
        (tmp_path / "server.pem").write_text(content)
    with commands(tmp_path) as start:
        command = start("-m", "catzilla", "run", "web:app", "--port=0", "--ssl-certfile=server.pem", *flags)
        assert command.end() == 2
    assert re.fullmatch(rb"catzilla: cannot use the certificate server\.pem: .+\n", command.errors)


def test_a_key_of_another_certificate_is_one_line(tmp_path, certificate, authority):
    write_module(tmp_path, "")
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(tmp_path / "other.key"))
    with commands(tmp_path) as start:
        command = start(
            "-m", "catzilla", "run", "web:app", "--port=0", f"--ssl-certfile={certificate}", "--ssl-keyfile=other.key"
        )
        assert command.end() == 2
    assert re.fullmatch(rb"catzilla: cannot use the certificate .*\n", command.errors)


def test_a_certificate_from_the_command_line(tmp_path, certificate):
    write_module(tmp_path, '    app.get("/")(lambda: "hello")\n')
    with commands(tmp_path) as start:
        command = start("-m", "catzilla", "run", "web:app", "--port=0", f"--ssl-certfile={certificate}")
        assert command.expect(rb"listening on https://127\.0\.0\.1:\d+")
