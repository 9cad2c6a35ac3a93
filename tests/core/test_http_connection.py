"""A connection at each hand-over: requests in, replies out, and every way in which either side ends it."""

from __future__ import annotations

from typing import ClassVar

import pytest

from catzilla._core.dispatch import OVERLOADED
from catzilla._core.errors import BodyTooLarge, Disconnected, LocalProtocolError, Overloaded, RemoteProtocolError
from catzilla._core.http1 import LAST_CHUNK
from catzilla._core.http_connection import EVENTS_A_TURN, PIPELINE_BYTES
from catzilla._core.http_responses import JOIN_BELOW
from catzilla._core.limits import Limits
from catzilla._core.messages import Feed, FileSpan, Reply, Source
from catzilla._core.pulled_stream import Pause
from catzilla._core.stream import State
from catzilla._core.wire import LINGER, Wire
from tests.core.fake_wire import Line
from tests.core.fakes import Tracked

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
HEAD_REQUEST = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
LIMITS = Limits(body_buffer_bytes=10, max_body_bytes=100)

OK = Reply(200, [(b"X-Mine", b"yes")], b"hello")
OK_SENT = b"HTTP/1.1 200 OK\r\nX-Mine: yes\r\ndate: today\r\nserver: catzilla\r\ncontent-length: 5\r\n\r\nhello"
OK_CLOSE = OK_SENT.replace(b"length: 5\r\n", b"length: 5\r\nconnection: close\r\n")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ndate: today\r\nserver: catzilla\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def line(bench):
    return Line(bench)


@pytest.fixture
def uploads(bench):
    return Line(bench, limits=LIMITS)


def stream(*items, **source) -> Reply:
    return Reply(200, [], Source(Tracked().items(*items), **source))


def feed() -> Reply:
    """A room's event stream, as far as a connection is concerned."""
    return Reply(200, [], Feed(start=lambda stream: b"opening", encode=lambda publication: b"", gap=b"", heartbeat=0))


def gone(line: Line) -> bool:
    line.turn()
    return line.connection.gone and line.services.connections == set()


# One request after the other.


def test_a_request_and_its_answer(line):
    line.receive(GET)
    line.run(OK)
    assert line.sent == OK_SENT
    assert line.connection.is_idle
    assert not line.transport.closing
    (record,) = line.log.records
    assert record[:8] == (1, "192.0.2.9:4711", "GET", "/", "1.1", 200, 5, 0.0)
    assert record.complete
    assert line.services.requests == 1


def test_the_connection_is_kept_and_its_parser_is_not(line):
    for _ in range(3):
        line.receive(GET)
        line.run(OK)
        assert line.sent == OK_SENT
        assert line.connection._parser is None
    assert line.services.accepted == 1
    assert line.armed == [line.services.limits.keep_alive_timeout]


def test_a_head_that_comes_byte_by_byte(line):
    line.receive(*[GET[n : n + 1] for n in range(len(GET))])
    line.run(OK)
    assert line.sent == OK_SENT


def test_pipelined_requests_are_answered_in_order_one_at_a_time(line):
    line.receive(GET + GET.replace(b"GET /", b"GET /second") + GET[:10])
    first = line.request()
    assert line.bench.workers.submitted == []
    line.connection.send_reply(first, OK)
    second = line.request()
    assert second.target == "/second"
    line.connection.send_reply(second, OK)
    assert line.sent == OK_SENT * 2
    assert not line.connection.is_idle
    line.receive(GET[10:])
    line.run(OK)
    assert line.connection.is_idle


def test_a_flood_behind_a_response_is_not_read(line):
    line.receive(GET)
    line.receive(GET * (PIPELINE_BYTES // len(GET) + 1))
    assert not line.transport.reading
    line.run(OK)
    assert line.transport.reading


def test_a_flood_behind_a_stream_is_cut(line):
    """A stream may never end; while its socket is not read, nobody would notice that the client leaves."""
    tracked = Tracked()
    line.receive(GET)
    line.run(Reply(200, [], Source(tracked.items(b"x", Pause(1000)))))
    line.receive(GET * (PIPELINE_BYTES // len(GET) + 1))
    assert gone(line)
    line.bench.finish()
    assert tracked.closed == 1


def test_many_small_pieces_do_not_keep_the_loop(line):
    """Each is an event of the parser; the rest waits for the next turn, and the socket with it."""
    pieces = b"1\r\nx\r\n" * (EVENTS_A_TURN * 2)
    line.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n" + GET)
    assert line.bench.workers.submitted == []
    assert not line.transport.reading
    for _ in range(3):
        line.turn()
    line.run(lambda exchange: Reply(200, [], exchange.body.read()))
    assert line.sent.endswith(b"x" * (EVENTS_A_TURN * 2))
    assert line.transport.reading
    line.run(OK)


def test_a_client_that_leaves_between_two_turns_of_many_pieces(line):
    pieces = b"1\r\nx\r\n" * (EVENTS_A_TURN * 2)
    line.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces)
    line.transport.abort()
    line.turn()
    line.turn()
    assert line.connection.gone
    assert line.bench.workers.submitted == []


def test_close_is_close(line):
    line.receive(CLOSE)
    line.run(OK)
    assert line.sent == OK_CLOSE
    assert gone(line)


def test_http_1_0(line):
    line.receive(OLD)
    line.run(OK)
    assert line.sent == OK_CLOSE
    assert gone(line)
    assert line.log.records[0].http_version == "1.0"


def test_http_1_0_that_asks_to_be_kept(line):
    line.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    line.run(OK)
    assert b"connection: keep-alive" in line.sent
    assert not line.transport.closing


def test_head_gets_the_head_alone(line):
    line.receive(HEAD_REQUEST)
    line.run(OK)
    assert line.sent == OK_SENT.removesuffix(b"hello")
    assert line.log.records[0].sent_bytes == 0


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(line, status):
    line.receive(GET)
    line.run(Reply(status, [], b"ignored"))
    sent = line.sent
    assert sent.endswith(b"\r\n\r\n")
    assert b"content-length" not in sent


def test_a_large_body_is_not_copied_into_its_head(line):
    line.receive(GET)
    line.run(Reply(200, [], b"x" * JOIN_BELOW))
    assert line.sent.endswith(b"\r\n\r\n" + b"x" * JOIN_BELOW)
    assert line.transport.writes == 1


def test_the_next_request_waits_until_the_answer_has_left(line):
    line.receive(GET + GET)
    line.transport.blocked = True
    line.run(OK)
    assert line.bench.workers.submitted == []
    assert line.log.records == []
    line.transport.unblock(3)
    assert line.bench.workers.submitted == []
    line.transport.unblock()
    line.request()
    assert len(line.log.records) == 1


def test_a_full_budget_is_an_answer(line):
    line.receive(GET)
    line.request().refuse()
    sent = line.sent
    assert sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1" in sent
    assert not line.transport.closing


def test_a_unix_socket_has_no_addresses(bench):
    line = Line(bench, unix=True)
    line.receive(GET)
    assert line.application.plans[0].client is None
    assert line.application.plans[0].server is None
    line.run(OK)
    assert line.log.records[0].client == "unix"


def test_without_an_access_log(line):
    line.services.access_log = None
    line.receive(GET)
    line.run(OK)
    assert line.sent == OK_SENT


def test_it_shows_its_state(line):
    assert repr(line.connection) == "<HTTPConnection 1 open idle>"
    line.receive(GET)
    assert repr(line.connection) == "<HTTPConnection 1 open <Exchange GET / status=->>"
    line.transport.blocked = True
    line.run(OK)
    assert " paused " in repr(line.connection)
    line.transport.abort()
    line.turn()
    assert repr(line.connection) == "<HTTPConnection 1 gone idle>"


# Request bodies.


def test_a_request_is_handed_on_when_its_body_is_whole(uploads):
    line = uploads
    line.receive(POST, b"he")
    assert line.bench.workers.submitted == []
    line.receive(b"llo")
    line.run(lambda exchange: Reply(200, [], exchange.body.read()))
    assert line.sent.endswith(b"hello")
    assert not line.transport.closing


def test_a_large_body_is_handed_on_when_there_is_enough_and_read_at_the_handlers_pace(uploads):
    line = uploads
    line.receive(POST.replace(b"5", b"30"), b"x" * 10)
    exchange = line.request()
    assert not line.transport.reading
    chunks = exchange.body.chunks()
    assert next(chunks) == b"x" * 10
    line.bench.settle()
    assert line.transport.reading
    line.receive(b"y" * 10)
    assert not line.transport.reading
    assert next(chunks) == b"y" * 10
    line.bench.settle()
    line.receive(b"z" * 10)
    assert next(chunks) == b"z" * 10
    line.bench.settle()
    assert next(chunks, None) is None
    line.connection.send_reply(exchange, OK)
    assert line.sent == OK_SENT
    assert not line.transport.closing


def test_a_request_behind_a_body_in_one_piece(uploads):
    line = uploads
    line.receive(POST + b"hello" + GET)
    line.run(lambda exchange: Reply(200, [], exchange.body.read()))
    assert line.sent.endswith(b"hello")
    line.request()


def test_an_answer_before_the_body_is_read_ends_the_connection_and_lets_the_client_read_it(uploads):
    line = uploads
    line.receive(POST.replace(b"5", b"50"), b"x" * 10)
    line.connection.send_reply(line.request(), OK)
    assert line.sent == OK_CLOSE
    assert line.transport.eof
    assert line.transport.reading
    assert not line.transport.closing
    line.receive(b"x" * 1000)  # thrown away
    assert line.armed == [LINGER]
    line.bench.loop.advance(LINGER)
    assert line.transport.aborted
    assert gone(line)


def test_a_body_whose_client_stops_sending_is_refused(uploads):
    line = uploads
    line.receive(POST, b"he")
    line.bench.loop.advance(line.services.limits.body_timeout)
    assert line.sent.startswith(b"HTTP/1.1 408 ")
    assert line.transport.eof
    assert line.bench.workers.submitted == []
    assert [record.status for record in line.log.records] == [408]


def test_a_slow_upload_that_goes_on_is_served(bench):
    line = Line(bench)
    limits = line.services.limits
    share = int(limits.min_body_rate * limits.body_timeout) + 1
    line.receive(POST.replace(b"5", b"%d" % (5 * share)))
    for _ in range(5):
        line.bench.loop.advance(limits.body_timeout - 1)
        line.receive(b"x" * share)
    line.request()


def test_an_upload_that_trickles_in_is_refused(bench):
    """A byte now and then keeps a connection for hours, if only silence is looked at."""
    line = Line(bench)
    line.receive(POST.replace(b"5", b"5000"))
    for _ in range(10):
        line.bench.loop.advance(line.services.limits.body_timeout / 2)
        line.receive(b"x")
    assert line.sent.startswith(b"HTTP/1.1 408 ")


def test_a_handler_that_takes_its_time_with_a_full_body_is_no_slow_client(uploads):
    line = uploads
    line.receive(POST.replace(b"5", b"30"), b"x" * 10)
    line.bench.loop.advance(1000)
    assert line.sent == b""
    assert not line.transport.closing


def test_a_reader_whose_client_stops_gets_the_error(uploads):
    line = uploads
    line.receive(POST.replace(b"5", b"30"), b"x" * 10)
    exchange = line.request()
    chunks = exchange.body.chunks()
    next(chunks)
    line.bench.settle()
    line.bench.loop.advance(line.services.limits.body_timeout)
    with pytest.raises(RemoteProtocolError) as caught:
        next(chunks)
    assert caught.value.status == 408
    line.connection.send_reply(exchange, Reply(408, [], b"late"))
    assert b"connection: close" in line.sent
    assert line.transport.eof


def test_a_reader_of_a_body_that_grows_too_large_gets_the_error(uploads):
    line = uploads
    line.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"a\r\n" + b"x" * 10 + b"\r\n")
    exchange = line.request()
    chunks = exchange.body.chunks()
    next(chunks)
    line.bench.settle()
    line.receive(b"64\r\n" + b"x" * 100 + b"\r\n")
    with pytest.raises(BodyTooLarge):
        while True:
            next(chunks)
            line.bench.settle()


def test_a_stream_whose_handler_did_not_read_the_body_throws_it_away(uploads):
    """Else the socket would not be read, and nobody would notice that the client leaves."""
    line = uploads
    line.receive(POST.replace(b"5", b"50"), b"x" * 10)
    exchange = line.request()
    body = exchange.body
    line.application.answer = stream(b"x", Pause(1000))
    exchange.run(line.bench.worker)
    line.bench.settle()
    assert line.transport.reading
    line.receive(b"x" * 40)
    with pytest.raises(LocalProtocolError, match="was not read before the response began"):
        list(body.chunks())
    line.bench.loop.advance(1000)
    line.bench.finish()
    assert b"connection: close" in line.sent
    assert line.transport.eof


def test_a_malformed_body_before_the_handler_runs_is_refused(uploads):
    line = uploads
    line.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"nonsense\r\n")
    assert line.sent.startswith(b"HTTP/1.1 400 ")
    assert line.bench.workers.submitted == []
    assert (line.log.records[0].method, line.log.records[0].status) == ("POST", 400)


def test_the_body_is_waited_for_while_a_response_is_written(uploads):
    """The client reads slowly for a moment and then sends no more of its body: that is noticed all the same."""
    line = uploads
    line.receive(POST.replace(b"5", b"30"), b"x" * 10)
    exchange = line.request()
    chunks = exchange.body.chunks()
    next(chunks)
    line.bench.settle()
    live = exchange.start_live(Reply(200, [], Source(())))
    live.write(b"echo")
    line.transport.blocked = True
    line.bench.settle()
    line.transport.unblock()
    assert line.armed == [line.services.limits.body_timeout]
    line.bench.loop.advance(line.services.limits.body_timeout)
    with pytest.raises(RemoteProtocolError):
        next(chunks)
    assert not line.transport.closing, "the answer is under way: the handler decides"


# Expect: 100-continue.


def test_continue_is_sent_when_the_handler_reads(uploads):
    line = uploads
    line.receive(EXPECT)
    exchange = line.request()
    line.bench.settle()
    assert line.sent == b""
    chunks = exchange.body.chunks()
    line.receive(b"he")  # the client may also not wait
    assert next(chunks) == b"he"
    line.bench.settle()
    assert line.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.receive(b"llo")
    assert next(chunks) == b"llo"
    line.connection.send_reply(exchange, OK)
    assert line.sent == OK_SENT
    assert not line.transport.closing


def test_a_handler_that_does_not_read_spares_the_upload(uploads):
    line = uploads
    line.receive(EXPECT)
    line.run(OK)
    assert line.sent == OK_CLOSE
    assert line.transport.eof


def test_continue_is_not_sent_to_a_client_that_has_left(uploads):
    line = uploads
    line.receive(EXPECT)
    exchange = line.request()
    exchange.body.chunks()
    line.transport.abort()
    line.turn()
    line.connection._resume_body()
    assert line.sent == b""


# Refusals.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"505 "),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"414 "),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n", b"413 "),
    ],
)
def test_what_is_malformed_is_answered_and_never_reaches_a_handler(line, data, status):
    line.receive(data)
    sent = line.sent
    assert sent.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in sent
    assert line.bench.workers.submitted == []
    assert line.transport.eof
    assert (line.log.records[0].method, line.log.records[0].target) == ("-", "-")
    line.receive(GET)
    assert line.sent == b""
    line.bench.loop.advance(LINGER)
    assert gone(line)


def test_a_good_request_before_a_malformed_one_is_answered_first(line):
    line.receive(GET + b"nonsense\r\n\r\n")
    line.run(OK)
    sent = line.sent
    assert sent.startswith(OK_SENT)
    assert b"HTTP/1.1 400 " in sent


def test_a_refusal_that_the_client_does_not_read_at_once_is_not_waited_for_for_ever(line):
    line.transport.blocked = True
    line.receive(b"nonsense\r\n\r\n")
    line.bench.loop.advance(1)
    line.transport.unblock()
    assert line.armed, "the connection would stay for as long as the client likes"
    line.bench.loop.advance(LINGER)
    assert line.transport.aborted


def test_lingering_needs_a_transport_that_can(bench):
    line = Line(bench)
    line.transport.can_eof = False
    line.receive(b"nonsense\r\n\r\n")
    assert line.transport.closing
    assert gone(line)


# Deadlines.


def test_a_head_that_does_not_come_in_time_is_refused(line):
    line.receive(GET[:-2])
    line.bench.loop.advance(line.services.limits.head_timeout)
    assert line.sent.startswith(b"HTTP/1.1 408 ")


def test_a_head_that_trickles_in_is_no_excuse(line):
    line.receive(GET[:1])
    for n in range(1, 20):
        line.bench.loop.advance(line.services.limits.head_timeout / 10)
        line.receive(GET[n : n + 1])
    assert line.sent.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_asks_nothing_is_closed_without_a_word(line):
    line.bench.loop.advance(line.services.limits.head_timeout)
    assert gone(line)
    assert line.transport.sent == b""
    assert line.log.records == []


def test_an_idle_connection_is_closed_after_its_time(line):
    line.receive(GET)
    line.run(OK)
    line.bench.loop.advance(line.services.limits.keep_alive_timeout - 1)
    assert not line.transport.closing
    line.bench.loop.advance(1)
    assert gone(line)
    assert line.sent == OK_SENT


def test_a_handler_may_take_as_long_as_it_likes(line):
    line.receive(GET)
    line.bench.loop.advance(10_000)
    line.run(OK)
    assert line.sent == OK_SENT


def test_a_client_that_takes_nothing_is_cut(line):
    line.receive(GET)
    line.transport.blocked = True
    line.run(OK)
    limit = line.services.limits.write_stall_timeout
    line.bench.loop.advance(limit * 0.9)
    assert not line.transport.closing
    line.bench.loop.advance(limit * 0.5)
    assert line.transport.aborted
    assert gone(line)
    assert not line.log.records[0].complete


def test_a_client_that_takes_a_little_is_served(line):
    line.receive(GET)
    line.transport.blocked = True
    line.run(OK)
    limit = line.services.limits.write_stall_timeout
    for _ in range(20):
        line.bench.loop.advance(limit / 2)
        line.transport.unblock(2)
    assert not line.transport.aborted
    line.transport.unblock()
    assert line.sent == OK_SENT


def test_a_stalled_stream_is_cut_and_closed(line):
    tracked = Tracked()
    line.receive(GET)
    line.transport.blocked = True
    line.run(Reply(200, [], Source(tracked.items(*[b"x" * 70_000] * 3))))
    limit = line.services.limits.write_stall_timeout
    line.bench.loop.advance(limit * 1.5)
    assert gone(line)
    line.bench.finish()
    assert tracked.seen == ["GeneratorExit"]
    assert line.bench.bridge.client_disconnects == 1


def test_a_deadline_after_the_end_is_nothing(line):
    line.transport.abort()
    line.turn()
    line.connection._expired()
    line.connection.cut()
    line.connection._finish()
    assert line.sent == b""


# Streams.


def test_a_stream_is_the_answer_and_the_connection_is_kept(line):
    line.receive(GET)
    line.run(stream(b"one", b"two"))
    assert line.sent == STREAM_HEAD + b"6\r\nonetwo\r\n" + LAST_CHUNK
    assert line.connection.is_idle
    assert line.log.records[0].sent_bytes == 6
    line.receive(GET)
    line.run(OK)
    assert line.sent == OK_SENT


def test_a_parked_stream_keeps_little(line):
    line.receive(GET)
    line.run(stream(b"x", Pause(1000)))
    connection = line.connection
    assert (connection._parser, connection._exchange.head, connection._exchange.context) == (None, None, None)
    assert line.armed == []


def test_a_request_behind_a_stream_waits_for_its_end(line):
    line.receive(GET)
    line.run(stream(b"x", Pause(1)))
    line.receive(GET[:5], GET[5:])
    assert line.bench.workers.submitted == []
    line.bench.loop.advance(1)
    line.bench.finish()
    assert line.sent == STREAM_HEAD + b"1\r\nx\r\n" + LAST_CHUNK
    line.run(OK)
    assert line.sent == OK_SENT


def test_a_stream_to_http_1_0_ends_with_the_connection(line):
    line.receive(OLD)
    line.run(stream(b"one"))
    assert line.sent == STREAM_HEAD.replace(b"transfer-encoding: chunked", b"connection: close") + b"one"
    assert gone(line)
    assert not line.transport.aborted


def test_a_failing_stream_is_cut_and_no_client_takes_it_for_whole(line):
    line.receive(GET)
    line.run(stream(b"one", ValueError("secret")))
    assert line.sent == STREAM_HEAD + b"3\r\none\r\n"
    assert gone(line)
    assert not line.log.records[0].complete


def test_a_failing_stream_to_http_1_0_is_reset(line):
    # An orderly end would look like the whole body.
    line.receive(OLD)
    line.run(stream(b"one", ValueError("secret")))
    assert line.transport.aborted


def test_an_early_failure_is_replaced(line):
    line.receive(GET)
    line.run(stream(ValueError("early"), fail_early=lambda error: Reply(500, [], b"oops")))
    sent = line.sent
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert sent.endswith(b"oops")
    assert not line.transport.closing
    assert line.log.records[0].status == 500


def test_a_client_that_leaves_closes_the_stream(line):
    tracked = Tracked()
    line.receive(GET)
    line.run(Reply(200, [], Source(tracked.items(b"one", Pause(1000)))))
    line.transport.abort()
    line.turn()
    line.bench.finish()
    assert tracked.closed == 1
    assert line.bench.bridge.client_disconnects == 1
    record = line.log.records[0]
    assert (record.complete, record.sent_bytes) == (False, 3)


def test_a_client_that_leaves_before_the_stream_begins(line):
    tracked = Tracked()
    line.receive(GET)
    exchange = line.request()
    line.transport.abort()
    line.turn()
    line.application.answer = Reply(200, [], Source(tracked.items(b"x")))
    exchange.run(line.bench.worker)
    line.bench.finish()
    assert tracked.closed == tracked.started
    assert line.bench.workers.released == [line.bench.worker]
    assert line.sent == b""


def test_head_closes_the_generator_unstarted(line):
    tracked = Tracked()
    line.receive(HEAD_REQUEST)
    line.run(Reply(200, [(b"Content-Length", b"7")], Source(tracked.items(b"x"))))
    assert tracked.started == 0
    assert b"content-length: 7\r\n" in line.sent
    assert line.connection.is_idle


def test_head_of_what_cannot_be_closed(line):
    line.receive(HEAD_REQUEST)
    line.run(Reply(200, [], Source([b"x"])))
    assert line.connection.is_idle


def test_head_of_a_client_that_has_left(line):
    line.receive(HEAD_REQUEST)
    exchange = line.request()
    line.transport.abort()
    line.turn()
    line.connection.send_head(exchange, stream(b"x"))
    line.connection.send_reply(exchange, OK)
    assert line.sent == b""


def test_a_budget_of_streams_that_is_full(line):
    tracked = Tracked()
    line.bench.workers.adopts = False
    line.receive(GET)
    line.run(Reply(200, [], Source(tracked.items(b"x"))))
    assert line.sent.startswith(b"HTTP/1.1 503 ")
    assert tracked.started == 0


def test_a_list_needs_no_home(line):
    line.bench.workers.adopts = False
    line.receive(GET)
    line.run(Reply(200, [], Source([b"one", b"two"])))
    assert line.sent == STREAM_HEAD + b"6\r\nonetwo\r\n" + LAST_CHUNK


# The client closes its side.


def test_a_half_closed_client_gets_its_answer(line):
    line.receive(GET)
    exchange = line.request()
    assert line.connection.eof_received() is True
    assert exchange.waits.interrupted is not None
    line.connection.send_reply(exchange, OK)
    assert line.sent.endswith(b"hello")
    assert gone(line), "there is nobody to linger for"


def test_a_half_closed_client_gets_all_its_answers(line):
    line.receive(GET + GET)
    line.connection.eof_received()
    line.connection.send_reply(line.request(), OK)
    assert not line.transport.closing
    line.connection.send_reply(line.request(), OK)
    assert line.sent.count(b"hello") == 2
    assert gone(line)


@pytest.mark.parametrize("data", [b"", GET[:10], POST + b"he"])
def test_a_half_closed_client_that_waits_for_nothing_is_gone(line, data):
    line.receive(data) if data else None
    assert line.connection.eof_received() is False


def test_a_half_closed_client_has_left_its_stream(line):
    line.receive(GET)
    line.run(stream(b"x", Pause(1000)))
    assert line.connection.eof_received() is False


def test_a_half_closed_client_gets_no_stream(line):
    tracked = Tracked()
    line.receive(GET)
    exchange = line.request()
    line.connection.eof_received()
    line.application.answer = Reply(200, [], Source(tracked.items(b"x")))
    exchange.run(line.bench.worker)
    line.bench.finish()
    assert gone(line)
    assert tracked.closed == tracked.started


def test_the_end_inside_a_body_is_told_to_its_reader(uploads):
    line = uploads
    line.receive(POST.replace(b"5", b"30"), b"x" * 10)
    exchange = line.request()
    assert line.connection.eof_received() is True
    chunks = exchange.body.chunks()
    assert next(chunks) == b"x" * 10
    with pytest.raises(Disconnected, match="inside its request body"):
        next(chunks)


def test_a_client_that_vanishes_inside_its_body(uploads):
    line = uploads
    line.receive(POST.replace(b"5", b"30"), b"x" * 10)
    exchange = line.request()
    line.transport.abort()
    line.turn()
    chunks = exchange.body.chunks()
    next(chunks)
    with pytest.raises(Disconnected):
        next(chunks)
    assert not line.log.records[0].complete


# TLS.


def test_tls_is_https_and_never_lingers(bench):
    line = Line(bench, secure=True)
    line.receive(GET)
    assert line.application.plans[0].scheme == "https"
    assert not line.connection.can_send_files
    assert line.connection.eof_received() is False
    line.run(OK)
    assert line.sent == OK_SENT
    line.receive(b"nonsense\r\n\r\n")
    assert not line.transport.eof
    assert gone(line)


def test_the_transport_pauses_as_soon_as_it_holds_a_byte(bench):
    assert Line(bench).transport.marks == {"high": 0, "low": 0}
    assert Line(bench, secure=True).transport.marks == {"high": 1, "low": 0}


# Files.


class FakeSender:
    """A file sender that a test drives."""

    made: ClassVar[list[FakeSender]] = []

    def __init__(self, loop, descriptor, span, done) -> None:
        self.span, self.done, self.left = span, done, span.length
        FakeSender.made.append(self)

    def stop(self) -> None:
        self.span.file.close()

    def send(self, count: int) -> None:
        self.left -= count
        if not self.left:
            self.stop()
            self.done()


class Socket:
    def fileno(self) -> int:
        return 99

    def setsockopt(self, *option) -> None:
        pass


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as opened:
        yield opened


@pytest.fixture
def senders(monkeypatch):
    monkeypatch.setattr("catzilla._core.wire.FileSender", FakeSender)
    FakeSender.made = []
    return FakeSender.made


@pytest.fixture
def files(bench, senders):
    line = Line(bench)
    line.transport.extra["socket"] = Socket()
    return line


def test_a_file_follows_its_head(files, file, senders):
    files.receive(GET)
    files.run(Reply(200, [], FileSpan(file, 2, 5)))
    assert b"content-length: 5\r\n" in files.sent
    (sender,) = senders
    sender.send(5)
    assert files.connection.is_idle
    assert files.log.records[0].sent_bytes == 5
    assert file.closed


def test_a_file_waits_until_its_head_has_left(files, file, senders):
    files.receive(GET)
    files.transport.blocked = True
    files.run(Reply(200, [], FileSpan(file, 0, 10)))
    assert senders == []
    files.transport.unblock()
    assert len(senders) == 1


def test_a_client_that_leaves_while_the_file_waits_for_its_head(files, file, senders):
    files.receive(GET)
    files.transport.blocked = True
    files.run(Reply(200, [], FileSpan(file, 0, 10)))
    files.transport.abort()
    files.turn()
    assert senders == []
    assert file.closed


def test_a_client_that_leaves_in_the_middle_of_a_file(files, file, senders):
    files.receive(GET)
    files.run(Reply(200, [], FileSpan(file, 0, 10)))
    senders[0].send(4)
    files.transport.abort()
    files.turn()
    assert file.closed
    assert not files.log.records[0].complete


def test_a_file_that_ends_too_soon_is_cut(files, file, senders):
    files.receive(GET)
    files.run(Reply(200, [], FileSpan(file, 0, 10)))
    senders[0].send(4)
    senders[0].done()
    assert files.transport.aborted
    files.turn()
    assert files.log.records[0].sent_bytes == 4


def test_a_file_that_does_not_move_is_cut(files, file, senders):
    files.receive(GET)
    files.run(Reply(200, [], FileSpan(file, 0, 10)))
    limit = files.services.limits.write_stall_timeout
    for _ in range(5):
        files.bench.loop.advance(limit * 0.7)
        assert not files.transport.aborted
        senders[0].send(1)
    files.bench.loop.advance(limit * 1.6)
    assert files.transport.aborted


def test_a_file_for_a_client_that_has_left_is_closed(files, file):
    files.receive(GET)
    exchange = files.request()
    files.transport.abort()
    files.turn()
    files.connection.send_reply(exchange, Reply(200, [], FileSpan(file, 0, 10)))
    assert file.closed


@pytest.mark.parametrize(("request_", "length"), [(HEAD_REQUEST, 10), (GET, 0)])
def test_a_file_of_which_nothing_is_sent(files, file, senders, request_, length):
    files.receive(request_)
    files.run(Reply(200, [], FileSpan(file, 0, length)))
    assert b"content-length: %d\r\n" % length in files.sent
    assert file.closed
    assert senders == []
    assert files.connection.is_idle


def test_a_file_over_tls_is_a_stream(bench, file):
    line = Line(bench, secure=True)
    line.receive(GET)
    line.run(Reply(200, [], FileSpan(file, 2, 5)))
    sent = line.sent
    assert b"content-length: 5\r\n" in sent
    assert sent.endswith(b"\r\n\r\n23456")
    assert file.closed


# Stopping.


def test_an_idle_connection_ends_at_once(line):
    line.connection.stop()
    assert gone(line)


def test_a_request_under_way_is_answered_and_the_connection_ends(line):
    line.receive(GET)
    line.services.stopping = True
    line.connection.stop()
    assert not line.transport.closing
    line.run(OK)
    assert line.sent == OK_CLOSE
    assert gone(line)


def test_a_stream_may_finish_and_an_event_stream_is_cut(line):
    line.receive(GET)
    line.run(stream(b"x", Pause(1)))
    line.connection.stop()
    assert not line.transport.closing
    other = Line(line.bench)
    other.receive(GET)
    other.run(stream(b"x", Pause(1), event_stream=True))
    other.connection.stop()
    assert other.transport.aborted


def test_an_event_stream_that_begins_while_stopping_is_cut(line):
    line.receive(GET)
    line.services.stopping = True
    line.run(stream(b"x", Pause(1), event_stream=True))
    assert line.transport.aborted


FED = b"7\r\nopening\r\n"


def test_the_event_stream_of_a_room_ends_as_a_whole_response(line):
    line.receive(GET)
    line.run(feed())
    assert line.sent == STREAM_HEAD + FED
    line.services.stopping = True
    line.connection.stop()
    line.bench.settle()
    assert line.sent == LAST_CHUNK
    assert gone(line)
    assert not line.transport.aborted
    assert line.log.records[0].complete
    assert line.bench.bridge.streams == set()


def test_the_event_stream_of_a_room_that_begins_while_stopping_ends_at_once(line):
    line.receive(GET)
    line.services.stopping = True
    line.run(feed())
    assert line.sent == STREAM_HEAD.replace(b"chunked\r\n", b"chunked\r\nconnection: close\r\n") + FED + LAST_CHUNK
    assert gone(line)
    assert not line.transport.aborted


def test_the_event_stream_of_a_room_to_http_1_0_ends_with_the_connection(line):
    line.receive(OLD)
    line.run(feed())
    line.services.stopping = True
    line.connection.stop()
    line.bench.settle()
    assert line.sent.endswith(b"\r\n\r\nopening")
    assert gone(line)
    assert not line.transport.aborted, "by a reset it would look like a failure"


def test_head_of_the_event_stream_of_a_room(line):
    line.receive(HEAD_REQUEST)
    line.run(feed())
    assert line.sent.endswith(b"\r\n\r\n")
    line.connection.stop()
    assert gone(line)
    assert not line.transport.aborted


@pytest.mark.parametrize("reads", [True, False])
def test_the_event_stream_of_a_room_waits_for_its_client_until_there_is_no_more_time(line, reads):
    line.receive(GET)
    line.transport.blocked = True
    line.run(feed())
    line.services.stopping = True
    line.connection.stop()
    line.bench.settle()
    assert not line.transport.closing
    if reads:
        line.transport.unblock()
        line.bench.settle()
        assert line.sent == STREAM_HEAD + FED + LAST_CHUNK
    else:
        line.connection.stop_now()
    assert gone(line)
    assert line.transport.aborted is not reads
    assert line.log.records[0].complete is reads
    assert line.bench.bridge.streams == set()


def test_stopping_now_interrupts_whoever_waits(line):
    line.receive(GET)
    exchange = line.request()
    line.connection.stop_now()
    assert exchange.waits.interrupted.code == 1001
    assert line.transport.aborted
    assert gone(line)


def test_stopping_now_in_the_middle_of_a_head(line):
    line.receive(GET[:5])
    line.connection.stop()
    assert not line.transport.closing
    line.connection.stop_now()
    assert line.transport.aborted


def test_stopping_now_closes_a_stream(line):
    tracked = Tracked()
    line.receive(GET)
    line.run(Reply(200, [], Source(tracked.items(b"x", Pause(1000)))))
    line.connection.stop_now()
    line.turn()
    line.bench.finish()
    assert tracked.closed == 1


# Handlers that break the rules.


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError("a fault of ours")])
def test_a_handler_that_cannot_be_answered_for_still_gets_an_answer(line, error):
    def handle(exchange):
        raise error

    line.application.answer = handle
    line.receive(GET)
    with pytest.raises(type(error)):  # the worker logs it
        line.request().run(line.bench.worker)
    line.bench.settle()
    assert line.sent.startswith(b"HTTP/1.1 500 ")
    assert line.connection.is_idle


def test_a_handler_that_cannot_be_answered_for_after_it_has_written(line):
    def handle(exchange):
        exchange.start_live(Reply(200, [], Source(()))).write(b"part")
        raise SystemExit

    line.application.answer = handle
    line.receive(GET)
    with pytest.raises(SystemExit):
        line.request().run(line.bench.worker)
    line.bench.settle()
    assert line.sent == STREAM_HEAD + b"4\r\npart\r\n"
    assert line.transport.closing


# Writing to a response.


def test_a_response_that_is_written_to(line):
    line.receive(GET)
    exchange = line.request()
    live = exchange.start_live(Reply(200, [], Source(())))
    live.write(b"one")
    line.bench.settle()
    assert line.sent == STREAM_HEAD + b"3\r\none\r\n"
    live.end()
    line.bench.settle()
    assert line.sent == LAST_CHUNK
    assert line.connection.is_idle


def test_writing_has_the_budget_of_streams(line):
    line.receive(GET)
    line.bench.workers.adopts = False

    def handle(exchange):
        with pytest.raises(Overloaded):
            exchange.start_live(Reply(200, [], Source(())))
        return OK

    line.run(handle)
    assert line.sent == OK_SENT


def test_a_handler_that_has_written_answers_nothing_more(line):
    line.receive(GET)

    def handle(exchange):
        exchange.start_live(Reply(200, [], Source(()))).end()
        return OK

    line.run(handle)
    assert line.sent == STREAM_HEAD + LAST_CHUNK


def test_writing_to_a_client_that_has_left(line):
    line.receive(GET)
    exchange = line.request()
    line.transport.abort()
    line.turn()
    with pytest.raises(Disconnected):
        exchange.start_live(Reply(200, [], Source(())))


def test_writing_to_a_client_that_leaves_before_the_head_goes(line):
    line.receive(GET)
    exchange = line.request()
    live = exchange.start_live(Reply(200, [], Source(())))
    line.transport.abort()
    line.turn()
    line.bench.settle()
    assert live.state is State.CLOSED
    with pytest.raises(Disconnected):
        live.write(b"x")


def test_a_generator_that_fails_while_closed_unstarted_is_logged(line, caplog):
    class Items:
        def __iter__(self):
            return iter(())

        def close(self):
            raise OSError("cannot close")

    line.receive(HEAD_REQUEST)
    line.run(Reply(200, [], Source(Items())))
    assert "failed while it was being closed unstarted" in caplog.text
    assert line.connection.is_idle


def test_heartbeats_are_the_servers_or_the_streams(line):
    for reply, expected in [
        (stream(b"x"), None),
        (stream(b"x", event_stream=True), line.services.limits.heartbeat_interval),
        (stream(b"x", event_stream=True, heartbeat=0.0), 0.0),
        (stream(b"x", event_stream=True, heartbeat=3.0), 3.0),
    ]:
        line.receive(GET)
        exchange = line.request()
        assert exchange._heartbeat(reply.body) == expected
        line.connection.send_reply(exchange, OK)


def test_the_overload_reply_is_plain():
    assert OVERLOADED.status == 503
    assert isinstance(OVERLOADED.body, bytes)


def test_a_wire_alone_speaks_nothing(bench):
    wire = Wire(Line(bench).services, secure=False)
    for name in ("_drained", "_deadline_passed", "stop", "stop_now"):
        with pytest.raises(NotImplementedError):
            getattr(wire, name)()
