"""The live server and its clients against catzilla itself."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import trustme

from catzilla import Catzilla, StreamingResponse
from catzilla.testing import Frozen, LeakError, LiveServer


@pytest.fixture
def app():
    app = Catzilla(production=True, show_banner=False)

    @app.get("/hello")
    def hello(request):
        return {"name": request.query_params.get("name", "nobody"), "header": request.get_header("x-test")}

    @app.post("/echo")
    def echo(request):
        return StreamingResponse([request.body], content_type=request.content_type)

    @app.get("/three")
    def three():
        return StreamingResponse(iter(["a", "b", "c"]))

    @app.get("/events")
    def events(request):
        seen = request.get_header("last-event-id") or "nothing"
        return StreamingResponse([f"id: 1\ndata: after {seen}\n\n"], content_type="text/event-stream")

    return app


@pytest.fixture
def endless(app):
    """Adds `/endless`, a generator that never ends by itself; gives the event that its `finally` sets."""
    closed = threading.Event()

    @app.get("/endless")
    def endless():
        def chunks():
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                closed.set()

        return StreamingResponse(chunks(), content_type="application/octet-stream")

    return closed


def test_requests(app, live_server):
    live = live_server(app)
    assert live.get("/hello", headers={"X-Test": "1"}).json() == {"name": "nobody", "header": "1"}
    assert live.get("/hello?name=me").json()["name"] == "me"
    response = live.post("/echo", data=b"body", headers={"Content-Type": "application/x"})
    assert (response.status_code, response.body, response.headers["Content-Type"]) == (200, b"body", "application/x")
    assert live.request("DELETE", "/hello").status_code == 405
    assert live.get("/nowhere").status_code == 404


def test_addresses(app, live_server):
    live = live_server(app)
    assert live.url == f"http://127.0.0.1:{live.port}"
    assert live.ws_url == f"ws://127.0.0.1:{live.port}"
    assert repr(live) == f"<LiveServer {live.url}, running>"
    assert live.server.port == live.port


def test_it_is_up_quickly(app, live_server):
    def seconds_to_first_response() -> float:
        began = time.perf_counter()
        assert live_server(app).get("/hello").status_code == 200
        return time.perf_counter() - began

    assert min(seconds_to_first_response() for _ in range(5)) < 0.1


def test_several_servers_in_one_test(app, live_server):
    one, two = live_server(app), live_server(Catzilla(show_banner=False))
    assert one.port != two.port
    assert one.get("/hello").status_code == 200
    assert two.get("/hello").status_code == 404


def test_a_connection_carries_several_requests(app, live_server):
    with live_server(app).connect() as connection:
        assert [connection.get("/hello").status_code for _ in range(3)] == [200, 200, 200]


def test_a_stream_arrives_piece_by_piece(app, live_server):
    """The generator gives the second chunk only when the test has seen the first."""
    seen = threading.Event()

    @app.get("/slow")
    def slow():
        def chunks():
            yield "first"
            assert seen.wait(10)
            yield "second"

        return StreamingResponse(chunks())

    with live_server(app).stream("/slow") as stream:
        assert (stream.status_code, stream.headers["transfer-encoding"]) == (200, "chunked")
        assert next(stream) == b"first"
        seen.set()
        assert stream.read_all() == b"second"
        assert len(stream.arrivals) == 2


def test_events(app, live_server):
    live = live_server(app)
    (first,) = live.events("/events", headers={"X-Test": "1"})
    (again,) = live.events("/events", last_event_id="1")
    assert (first.id, first.event, first.data) == ("1", "message", "after nothing")
    assert again.data == "after 1"


def test_settings_go_to_the_server(app, live_server):
    assert live_server(app, max_body_bytes=3).post("/echo", data=b"four").status_code == 413


def test_a_unix_socket(app, live_server, tmp_path):
    live = live_server(app, uds=str(tmp_path / "catzilla.sock"))
    assert live.get("/hello").status_code == 200


def test_tls(app, live_server, tmp_path):
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    live = live_server(app, ssl_certfile=str(tmp_path / "server.pem"))
    assert live.url.startswith("https://")
    assert live.get("/hello").status_code == 200
    assert live.stream("/three").read_all() == b"abc"


# --- faults --------------------------------------------------------------------------------------------------------


def test_a_frozen_client_pauses_the_generator(app, live_server):
    made = threading.Semaphore(0)
    stopped = threading.Event()

    @app.get("/counted")
    def counted():
        def chunks():
            while not stopped.is_set():
                made.release()
                yield b"x" * 65_536

        return StreamingResponse(chunks())

    live = live_server(app)
    stream = live.stream("/counted", receive_buffer_bytes=4096)
    live.freeze(stream)
    chunks = 0
    while made.acquire(timeout=0.5):  # until the generator has not run for that long
        chunks += 1
    with pytest.raises(Frozen):
        next(stream)

    stopped.set()
    live.thaw(stream)
    received = len(stream.read_all())
    assert received == chunks * 65_536
    assert chunks * 65_536 < 32 * 1024 * 1024


def test_a_throttled_client_gets_everything_slowly(app, live_server):
    @app.get("/some")
    def some():
        return StreamingResponse([b"x" * 4000])

    live = live_server(app)
    stream = live.stream("/some")
    live.throttle(stream, 40_000)
    began = time.monotonic()
    assert len(stream.read_all()) == 4000
    assert time.monotonic() - began > 0.02
    assert len(stream.arrivals) > 1


@pytest.mark.parametrize("leave", ["drop", "close", "stop"])
def test_a_client_that_goes_closes_the_generator(app, endless, live_server, leave):
    live = live_server(app)
    stream = live.stream("/endless")
    next(stream)
    {"drop": lambda: live.drop(stream), "close": stream.close, "stop": live.stop}[leave]()
    assert endless.wait(10)


def test_a_restart_keeps_the_port_and_ends_the_streams(app, endless, live_server):
    live = live_server(app, shutdown_grace=0.1)
    port, stream = live.port, live.stream("/endless")
    next(stream)
    live.restart()
    assert endless.wait(10)
    assert live.port == port
    assert live.get("/hello").status_code == 200
    with pytest.raises(EOFError):
        stream.read_all()


# --- the end -------------------------------------------------------------------------------------------------------


def test_a_stopped_server_refuses_connections_and_says_so(app, live_server):
    live = live_server(app)
    live.stop()
    live.stop()
    with pytest.raises(ConnectionRefusedError):
        live.get("/hello")
    with pytest.raises(RuntimeError, match="this live server is stopped; restart"):
        _ = live.server
    assert repr(live) == f"<LiveServer {live.url}, stopped>"


def test_a_port_in_use_is_an_os_error(app, live_server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            live_server(app, port=taken.getsockname()[1])


@pytest.fixture
def stuck(app):
    """Adds `/stuck`, a handler that waits for the end of the test; gives the event that says it runs."""
    running, release = threading.Event(), threading.Event()
    threads = []

    @app.get("/stuck")
    def stuck_handler():
        threads.append(threading.current_thread())
        running.set()
        release.wait(20)
        return ""

    yield running
    release.set()
    for thread in threads:
        thread.join(10)


def ask_for(live: LiveServer, path: str, running: threading.Event) -> None:
    live.connect().send_raw(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    assert running.wait(10)


def test_a_leaked_thread_is_an_error_outside_pytest_too(app, stuck):
    leak = pytest.raises(LeakError, match=r"the thread catzilla-\S+ still runs `.*stuck_handler`")
    with leak as raised, LiveServer(app, shutdown_grace=0.1) as live:
        ask_for(live, "/stuck", stuck)
    assert "release.wait(20)" in str(raised.value)


def test_leaks_can_be_allowed(app, stuck):
    with LiveServer(app, shutdown_grace=0.1, allow_leaks=True) as live:
        ask_for(live, "/stuck", stuck)


def test_what_the_test_itself_raises_comes_first(app, stuck):
    with pytest.raises(KeyError), LiveServer(app, shutdown_grace=0.1) as live:
        ask_for(live, "/stuck", stuck)
        raise KeyError("of the test")
