"""What RFC 6455 forbids a client: each gets its close code, the handler learns of it, and nobody else does."""

from __future__ import annotations

import pytest

from catzilla import Disconnected
from catzilla.testing import raw_frame
from tests.websockets.helpers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    closed_with,
    wait_forgotten,
)


@pytest.fixture
def app(app, notes):
    @app.websocket("/callbacks", compression=True)
    class Callbacks:
        def on_message(self, ws, message):
            notes.add(message)

        def on_close(self, ws, code, reason):
            notes.add(code)

    @app.websocket("/linear", compression=True)
    def linear(ws):
        try:
            while True:
                notes.add(ws.receive())
        except Disconnected as end:
            notes.add(end.code)

    app.get("/hello")(lambda: "hello")
    return app


def goodbye(code: int, reason: bytes = b"") -> bytes:
    return raw_frame(CLOSE, code.to_bytes(2, "big") + reason)


BROKEN = {
    "unmasked": raw_frame(TEXT, b"x", masked=False),
    "unmasked control": raw_frame(PING, masked=False),
    **{f"opcode {opcode}": raw_frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"reserved {bits:03b}": raw_frame(TEXT, b"x", reserved=bits) for bits in (1, 2, 3, 4, 5, 6, 7)},
    "reserved in a control frame": raw_frame(PING, b"x", reserved=4),
    "reserved in a continuation": raw_frame(TEXT, b"x", fin=False) + raw_frame(CONTINUATION, b"x", reserved=2),
    "long ping": raw_frame(PING, bytes(126)),
    "long pong": raw_frame(PONG, bytes(126)),
    "long close": goodbye(1000, b"x" * 124),
    "ping with a long head": raw_frame(PING, bytes(65536)),
    "fragmented ping": raw_frame(PING, b"x", fin=False),
    "fragmented close": raw_frame(CLOSE, b"\x03\xe8", fin=False),
    "continuation of nothing": raw_frame(CONTINUATION, b"x"),
    "continuation after the end": raw_frame(TEXT, b"x") + raw_frame(CONTINUATION, b"x"),
    "text within a text": raw_frame(TEXT, b"x", fin=False) + raw_frame(TEXT, b"x"),
    "binary within a text": raw_frame(TEXT, b"x", fin=False) + raw_frame(BINARY, b"x", fin=False),
    "close of one byte": raw_frame(CLOSE, b"\x03"),
    **{
        f"close with {code}": goodbye(code)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("path", ["/callbacks", "/linear"])
@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_protocol_is_closed_with_1002(app, live_server, notes, quiet, path, name):
    live = live_server(app)
    with live.websocket(path) as other:
        client = live.websocket(path)
        client.send("before")
        client.send_raw(BROKEN[name] + raw_frame(TEXT, b"after"))
        code, _ = closed_with(client)
        assert code == 1002
        heard = [notes.next()]
        while heard[-1] != 1002:
            heard.append(notes.next())
        assert heard[0] == "before"
        assert "after" not in heard
        other.send("fine")
        assert notes.next() == "fine"
    wait_forgotten(live)


NOT_UTF8 = {
    "a lone continuation byte": b"\x80",
    "0xff": b"hello \xff",
    "overlong": b"\xc0\xaf",
    "overlong in three": b"\xe0\x80\xaf",
    "half a surrogate pair": b"\xed\xa0\x80",
    "beyond unicode": b"\xf4\x90\x80\x80",
    "cut in the middle": b"hello \xf0\x9f\x90",
}


@pytest.mark.parametrize("path", ["/callbacks", "/linear"])
@pytest.mark.parametrize("name", NOT_UTF8)
def test_text_that_is_not_utf8_is_closed_with_1007(app, live_server, notes, quiet, path, name):
    live = live_server(app)
    client = live.websocket(path)
    client.send_raw(raw_frame(TEXT, NOT_UTF8[name]))
    assert closed_with(client)[0] == 1007
    assert notes.next() == 1007
    wait_forgotten(live)


@pytest.mark.parametrize("name", [name for name in NOT_UTF8 if name != "cut in the middle"])
def test_it_is_closed_before_the_rest_of_the_message_has_come(app, live_server, quiet, name):
    client = live_server(app).websocket("/callbacks")
    client.send_raw(raw_frame(TEXT, b"good", fin=False) + raw_frame(CONTINUATION, NOT_UTF8[name], fin=False))
    assert closed_with(client)[0] == 1007


def test_it_is_closed_when_fragments_do_not_fit_together(app, live_server, quiet):
    client = live_server(app).websocket("/callbacks")
    client.send_raw(raw_frame(TEXT, "ü".encode()[:1], fin=False) + raw_frame(CONTINUATION, b"u", fin=False))
    assert closed_with(client)[0] == 1007


def test_it_is_closed_when_the_last_fragment_ends_within_a_character(app, live_server, quiet):
    client = live_server(app).websocket("/callbacks")
    client.send_raw(raw_frame(TEXT, b"good", fin=False) + raw_frame(CONTINUATION, "ü".encode()[:1]))
    assert closed_with(client)[0] == 1007


def test_bytes_need_not_be_utf8(app, live_server, notes):
    with live_server(app).websocket("/callbacks") as client:
        client.send(b"\xff\x80")
        assert notes.next() == b"\xff\x80"


def test_a_close_reason_that_is_not_utf8(app, live_server, quiet):
    live = live_server(app)
    client = live.websocket("/callbacks")
    client.send_raw(goodbye(1000, b"\xff"))
    assert closed_with(client)[0] == 1007
    wait_forgotten(live)


PACKED_WRONGLY = {
    "garbage": raw_frame(TEXT, b"\xff\xff\xff\xff", reserved=4),
    "a ping": raw_frame(PING, b"x", reserved=4),
    "a continuation": raw_frame(TEXT, b"", fin=False) + raw_frame(CONTINUATION, b"x", reserved=4),
    "another reserved bit": raw_frame(TEXT, b"x", reserved=6),
}


@pytest.mark.parametrize("name", PACKED_WRONGLY)
def test_what_is_compressed_wrongly(app, live_server, notes, quiet, name):
    live = live_server(app)
    client = live.websocket("/callbacks", compression=True)
    client.send_raw(PACKED_WRONGLY[name])
    assert closed_with(client)[0] in (1002, 1007)
    assert notes.next() in (1002, 1007)
    wait_forgotten(live)


def test_messages_before_the_bad_frame_are_handled_and_those_after_are_not(app, live_server, notes):
    client = live_server(app).websocket("/callbacks")
    before = b"".join(raw_frame(TEXT, str(number).encode()) for number in range(10))
    client.send_raw(before + raw_frame(3) + raw_frame(TEXT, b"after") * 3)
    assert closed_with(client)[0] == 1002
    assert notes.take(11) == [*map(str, range(10)), 1002]
    assert notes.rest() == []


def test_a_bad_frame_to_a_handler_that_only_sends(app, live_server, notes, quiet):
    @app.websocket("/sending")
    def sending(ws):
        try:
            while True:
                ws.send("x")
                notes.add("sent")
        except Disconnected as end:
            notes.add(end.code)

    client = live_server(app).websocket("/sending")
    client.receive()
    client.send_raw(raw_frame(3))
    assert closed_with(client)[0] == 1002
    while (note := notes.next()) == "sent":
        pass
    assert note == 1002


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0" * 2000, b"\xff" * 2000, b"\x16\x03\x01" + b"\xff" * 600],
    ids=["http", "zeros", "ones", "tls"],
)
def test_what_is_no_frame_at_all(app, live_server, quiet, data):
    live = live_server(app)
    client = live.websocket("/linear")
    client.send_raw(data)
    assert closed_with(client)[0] in (1002, 1009)
    assert live.get("/hello").status_code == 200
    wait_forgotten(live)
