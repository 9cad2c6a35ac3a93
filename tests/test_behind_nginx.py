"""Behind nginx, with the configuration that README.md recommends: what is streamed, uploaded and cut comes through.

`SITE` is that configuration, word for word but for the addresses. A real nginx serves it here, as this user, on
loopback, with everything it writes in the test's own directory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from string import Template

import pytest
from websockets.sync.client import connect

from catzilla import Catzilla, EventStream, FileResponse, StreamingResponse, sleep
from catzilla.testing import LiveServer
from catzilla.testing.errors import IncompleteBody
from catzilla.testing.event_client import ClientEvents
from catzilla.testing.http_client import HttpConnection
from catzilla.testing.wire import Origin
from tests.promises.helpers import eventually, services_of, streams_of, wait_stalled

MIB = 1024 * 1024

SITE = """\
map $http_upgrade $connection_upgrade {     # WebSockets are let through
    default upgrade;
    '' '';                                  # and anything else keeps the connection to catzilla open
}

upstream catzilla {
    server unix:/run/catzilla/web.sock;     # catzilla run web:app --uds /run/catzilla/web.sock
    keepalive 32;                           # connections to catzilla that are used again
}

server {
    listen 80;
    client_max_body_size 16m;               # catzilla's own limit: --max-body-bytes

    location / {
        proxy_pass http://catzilla;
        proxy_http_version 1.1;             # in 1.0 a response that was cut could look whole
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_buffering off;                # every chunk at once, and at the client's pace
        proxy_read_timeout 75s;             # event streams send a heartbeat every 15 s
    }
}
"""

MAIN = Template("""\
daemon off;
master_process off;
pid $directory/nginx.pid;
error_log $directory/error.log info;
events {}
http {
    access_log off;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    include $directory/site.conf;
}
""")


class Proxy:
    """A running nginx in front of a live server."""

    def __init__(self, program: str, directory: Path, site: str) -> None:
        self.directory = directory
        self.port = free_port()
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        (directory / "site.conf").write_text(site)
        (directory / "nginx.conf").write_text(MAIN.substitute(directory=directory))
        command = [program, "-p", str(directory), "-c", "nginx.conf", "-e", str(directory / "error.log")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.connections: list[HttpConnection] = []

    def wait(self) -> None:
        """Return once it takes connections."""

        def answers() -> bool:
            assert self.process.poll() is None, f"nginx ended: {self.process.stderr.read().decode()}{self.log()}"
            try:
                socket.create_connection(("127.0.0.1", self.port), 10).close()
            except ConnectionRefusedError:
                return False
            return True

        eventually(answers, "nginx takes connections")

    def connect(self, receive_buffer_bytes: int | None = None) -> HttpConnection:
        origin = Origin("127.0.0.1", self.port)
        self.connections.append(HttpConnection(origin, receive_buffer_bytes=receive_buffer_bytes))
        return self.connections[-1]

    def events(self, path: str) -> ClientEvents:
        return ClientEvents(self.connect().open("GET", path))

    def log(self) -> str:
        return (self.directory / "error.log").read_text()

    def stop(self) -> None:
        for connection in self.connections:
            connection.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()


def free_port() -> int:
    """A port that nobody listens on. nginx takes no port 0; it tries again for a while if somebody was quicker."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def nginx():
    """The path of the program."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")  # where Debian puts it
    if found is None:
        pytest.skip("NO NGINX: it is not installed; on Debian: apt-get install nginx")
    return found


@pytest.fixture
def app():
    return Catzilla(production=True, show_banner=False)


@pytest.fixture(params=["unix", "tcp"])
def upstream(request):
    """How nginx reaches catzilla."""
    return request.param


@pytest.fixture
def serve(app, live_server, nginx, upstream, tmp_path):
    """`serve(edit=None, **settings)` gives the live server and the nginx in front of it.

    `edit` is a pair of texts: the first one in `SITE` is replaced by the second.
    """
    proxies: list[Proxy] = []

    def start(edit: tuple[str, str] | None = None, **settings) -> tuple[LiveServer, Proxy]:
        path = tmp_path / "web.sock"
        live = live_server(app, **({"uds": str(path)} if upstream == "unix" else {}), **settings)
        address = f"unix:{path}" if upstream == "unix" else f"127.0.0.1:{live.port}"
        site = SITE.replace("unix:/run/catzilla/web.sock", address)
        if edit is not None:
            assert edit[0] in site
            site = site.replace(*edit)
        proxies.append(Proxy(nginx, tmp_path, site))
        proxies[-1].wait()
        return live, proxies[-1]

    yield start
    for proxy in proxies:
        proxy.stop()


# The program that skips when nginx is missing must not skip for another reason.


def test_requests_share_connections_to_the_server(app, serve):
    app.get("/")(lambda: "hello")
    live, proxy = serve()
    before = services_of(live).requests
    for _ in range(10):
        with proxy.connect() as client:  # each a connection of its own, to nginx
            assert client.get("/").text == "hello"
    assert services_of(live).requests == before + 10
    assert len(services_of(live).connections) == 1, "one connection from nginx serves them all"


def test_websockets_come_through(app, serve):
    @app.websocket("/echo")
    class Echo:
        def on_message(self, ws, message):
            ws.send(message)

    _, proxy = serve()
    with connect(f"ws://127.0.0.1:{proxy.port}/echo", compression=None) as client:
        client.send("there and back")
        assert client.recv(timeout=10) == "there and back"


def test_what_the_handler_is_told_about_the_client(app, serve):
    @app.get("/told")
    def told(request):
        return {name: request.get_header(name) for name in ("host", "x-forwarded-for", "x-forwarded-proto")}

    _, proxy = serve()
    assert proxy.connect().get("/told?q=1").json() == {
        "host": f"127.0.0.1:{proxy.port}",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
    }


def one_by_one(app):
    """An event stream that goes on when the test has seen what was sent so far."""
    import threading

    seen = threading.Semaphore(0)

    @app.get("/events")
    def events():
        def items():
            for number in range(5):
                yield f"event {number}"
                assert seen.acquire(timeout=10), "nginx keeps the events back"

        return EventStream(items())

    return seen


@pytest.mark.parametrize("buffering", ["off", "on"])
def test_events_arrive_one_by_one(app, serve, buffering):
    """Also where somebody has left buffering on: `X-Accel-Buffering: no` turns it off for event streams."""
    seen = one_by_one(app)
    _, proxy = serve(("proxy_buffering off", f"proxy_buffering {buffering}"))
    events = proxy.events("/events")
    for number in range(5):
        assert next(events).data == f"event {number}"
        seen.release()
    with pytest.raises(StopIteration):
        next(events)


def test_plain_chunks_arrive_one_by_one(app, serve):
    import threading

    seen = threading.Semaphore(0)

    @app.get("/tokens")
    def tokens():
        def items():
            for number in range(5):
                yield f"{number} "
                assert seen.acquire(timeout=10), "nginx keeps the chunks back"

        return StreamingResponse(items())

    _, proxy = serve()
    stream = proxy.connect().open("GET", "/tokens")
    for number in range(5):
        assert next(stream) == b"%d " % number
        seen.release()
    assert stream.read_all() == b""


def test_a_heartbeat_keeps_a_silent_stream_open(app, serve):
    """nginx gives up what is silent for `proxy_read_timeout`."""

    @app.get("/events")
    def events():
        def items():
            yield "before"
            yield sleep(2.5)
            yield "after"

        return EventStream(items(), heartbeat=0.3)

    _, proxy = serve(("proxy_read_timeout 75s", "proxy_read_timeout 1s"))
    assert [event.data for event in proxy.events("/events")] == ["before", "after"]


def test_a_big_download_is_whole(app, serve):
    pieces = [os.urandom(8192) for _ in range(8)]

    @app.get("/big")
    def big():
        return StreamingResponse(pieces[number % 8] for number in range(2048))  # 16 MiB

    _, proxy = serve()
    body = proxy.connect().get("/big").body
    assert len(body) == 16 * MIB
    assert hashlib.sha256(body).digest() == hashlib.sha256(b"".join(pieces) * 256).digest()


def test_a_file_is_whole_and_so_is_a_part_of_it(app, serve, tmp_path):
    content = os.urandom(4 * MIB + 17)
    (tmp_path / "data.bin").write_bytes(content)
    app.get("/file")(lambda: FileResponse(tmp_path / "data.bin"))
    _, proxy = serve()
    client = proxy.connect()
    assert client.get("/file").body == content
    part = client.get("/file", headers={"Range": "bytes=1000000-1999999"})
    assert (part.status_code, part.body) == (206, content[1000000:2000000])


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_an_upload_arrives_whole(app, serve, chunked, buffering):
    """nginx collects uploads by itself, so that a slow one holds no worker; without that they stream."""

    @app.post("/sum")
    def checksum(request):
        return {"length": len(request.body), "sum": hashlib.sha256(request.body).hexdigest()}

    body = os.urandom(5 * MIB)
    _, proxy = serve(("proxy_buffering off;", f"proxy_buffering off; proxy_request_buffering {buffering};"))
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    answer = proxy.connect().post("/sum", data=pieces if chunked else body)
    assert answer.json() == {"length": len(body), "sum": hashlib.sha256(body).hexdigest()}


def test_an_upload_that_is_too_large_is_refused_by_either(app, serve):
    app.post("/")(lambda request: str(len(request.body)))
    _, proxy = serve(("client_max_body_size 16m", "client_max_body_size 2m"), max_body_bytes=MIB)
    assert proxy.connect().post("/", data=b"x" * (3 * MIB)).status_code == 413  # by nginx
    assert proxy.connect().post("/", data=b"x" * (3 * MIB // 2)).status_code == 413  # by catzilla


def test_a_stream_that_fails_is_seen_to_fail(app, serve):
    @app.get("/failing")
    def failing():
        def items():
            yield "begun"
            yield sleep(0.1)
            raise ValueError("secret")

        return StreamingResponse(items())

    _, proxy = serve()
    stream = proxy.connect().open("GET", "/failing")
    assert stream.status_code == 200
    with pytest.raises(IncompleteBody):
        assert stream.read_all() == b""
    assert "prematurely closed" in proxy.log()


def test_an_error_before_the_first_byte_is_an_error(app, serve):
    @app.get("/failing")
    def failing():
        def items():
            raise ValueError("secret")
            yield

        return StreamingResponse(items())

    _, proxy = serve()
    assert proxy.connect().get("/failing").status_code == 500


@pytest.mark.parametrize("path", ["/events", "/endless"])
def test_a_client_that_leaves_closes_the_generator(app, serve, path):
    closed = []

    def noting(items):
        try:
            yield from items
        finally:
            closed.append(path)

    def events():
        yield "hello"
        yield sleep(60)

    def endless():
        while True:
            yield b"x" * 65536

    app.get("/events")(lambda: EventStream(noting(events())))
    app.get("/endless")(lambda: StreamingResponse(noting(endless())))
    live, proxy = serve()
    client = proxy.connect()
    assert next(client.open("GET", path))
    client.close()
    eventually(lambda: closed, "the generator is closed")
    eventually(lambda: not streams_of(live), "the stream is gone")


def test_a_client_that_stalls_pauses_the_generator(app, serve):
    """With buffering nginx would take up to a gigabyte to its disk instead."""
    produced = []

    @app.get("/endless")
    def endless():
        def items():
            while True:
                produced.append(True)
                yield b"x" * 65536

        return StreamingResponse(items())

    live, proxy = serve()
    client = proxy.connect(receive_buffer_bytes=4096)
    assert next(client.open("GET", "/endless"))
    wait_stalled(live)
    assert len(produced) < 400, "what waits for the client is bounded"


def test_a_server_that_is_not_there_is_a_bad_gateway(app, serve):
    app.get("/")(lambda: "hello")
    live, proxy = serve()
    assert proxy.connect().get("/").text == "hello"
    live.stop()
    assert proxy.connect().get("/").status_code == 502
