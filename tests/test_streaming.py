"""What may be streamed, what is refused and how, and what a handler can ask of the stream it feeds."""

from __future__ import annotations

import queue
import threading

import pytest

from catzilla import StreamingResponse, current_stream, sleep
from catzilla._core.current import current
from catzilla._core.errors import Disconnected
from catzilla._core.messages import Source
from catzilla._core.waits import Waits
from catzilla.streaming import CurrentStream, stream_of
from tests.requests_made import make_head


def source(response: StreamingResponse) -> Source:
    body = response.reply(make_head()).body
    assert isinstance(body, Source)
    return body


def items(content: object) -> list[object]:
    return list(source(StreamingResponse(content)).items)


# Content.


def numbers():
    yield "1"
    yield b"2"


class Rows:
    def __iter__(self):
        return iter(["row"])


class Old:
    """The sequence protocol of before iterators."""

    def __getitem__(self, index):
        if index > 1:
            raise IndexError
        return str(index)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        ([], []),
        (Rows(), ["row"]),
        (Old(), ["0", "1"]),
        ("text", ["text"]),
        (b"bytes", [b"bytes"]),
        (bytearray(b"x"), [bytearray(b"x")]),
        (numbers, ["1", b"2"]),
        (lambda: ["a"], ["a"]),
        (lambda: "text", ["text"]),
        (lambda: None, []),
        (None, []),
    ],
)
def test_what_may_be_streamed(content, expected):
    assert items(content) == expected


def test_a_generator_is_handed_on_as_it_is():
    generator = numbers()
    assert source(StreamingResponse(generator)).items is generator


def test_a_function_is_called_when_the_response_is_sent_and_not_before():
    called = []
    response = StreamingResponse(lambda: called.append(1) or ["a"])
    assert called == []
    source(response)
    assert called == [1]


async def coroutine():
    pass


async def async_generator():
    yield "x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (42, "content is 42 of type int; it may be a generator"),
        ({"a": 1}, "content is a dict: return it from the handler as it is, or JSONResponse"),
        (coroutine, "asynchronous .*: write a plain generator, def with yield"),
        (async_generator, "an async generator function: write plain def with yield"),
        (3.5, "of type float"),
    ],
)
def test_what_may_not_says_what_to_write(content, message):
    with pytest.raises(TypeError, match=message):
        StreamingResponse(content)


def test_async_objects_are_refused_too():
    with pytest.raises(TypeError, match="asynchronous"):
        StreamingResponse(async_generator())
    running = coroutine()
    with pytest.raises(TypeError, match="asynchronous"):
        StreamingResponse(running)
    running.close()


def test_what_a_function_returns_is_held_to_the_same():
    def wrong():
        return 42

    with pytest.raises(TypeError, match=r"the function .*wrong returned 42 of type int"):
        source(StreamingResponse(wrong))


def test_a_function_that_returns_a_function_is_one_too_many():
    with pytest.raises(TypeError, match="returned a function"):
        source(StreamingResponse(lambda: numbers))


# The response around it.


def test_its_defaults():
    response = StreamingResponse(["a"])
    assert response.status_code == 200
    assert response.content_type == "text/plain; charset=utf-8"
    reply = response.reply(make_head())
    assert reply.body.encode is None
    assert not reply.body.event_stream
    assert reply.body.heartbeat is None


def test_an_event_stream_by_its_content_type_is_kept_from_caches():
    response = StreamingResponse(["data: x\n\n"], "text/event-stream", headers={"Cache-Control": "private"})
    reply = response.reply(make_head())
    assert reply.body.event_stream
    assert response.get_header("X-Accel-Buffering") == "no"
    assert response.get_header("Cache-Control") == "private", "the handler's own word stands"


def test_there_is_no_body_to_set_or_to_collect():
    response = StreamingResponse(["a"])
    assert response.body == b""
    with pytest.raises(ValueError, match="pass content, or write to"):
        response.body = b"x"


def test_middleware_may_wrap_the_stream():
    response = StreamingResponse(["a", "b"])
    response.wrap_stream(lambda inner: (item.upper() for item in inner))
    response.wrap_stream(lambda inner: (f"<{item}>" for item in inner))
    assert list(source(response).items) == ["<A>", "<B>"]


def test_what_is_written_to_cannot_be_wrapped():
    response = StreamingResponse()
    response.writer()
    with pytest.raises(ValueError, match="there are no items to wrap"):
        response.wrap_stream(iter)


def test_a_returned_iterator_is_a_stream():
    assert isinstance(stream_of(numbers()), StreamingResponse)
    assert isinstance(stream_of(iter([1])), StreamingResponse)
    assert stream_of([1]) is None
    assert stream_of(42) is None


def test_sleep_must_not_be_negative():
    assert repr(sleep(1)) == "sleep(1.0)"
    with pytest.raises(ValueError, match="cannot sleep for -1 seconds"):
        sleep(-1)


# The current stream.


@pytest.fixture
def waits():
    waits = Waits()
    current.waits = waits
    yield waits
    current.waits = None


def test_outside_of_a_request_the_client_never_leaves():
    stream = current_stream()
    assert stream.is_connected
    assert repr(stream) == "<CurrentStream connected>"
    stream.sleep(0)


def test_it_knows_when_the_client_has_left(waits):
    stream = current_stream()
    assert stream.is_connected
    waits.interrupt(Disconnected())
    assert not stream.is_connected
    assert repr(stream) == "<CurrentStream disconnected>"


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_sleeping_for_no_time_that_is(seconds):
    with pytest.raises(ValueError, match="write a number that is not negative"):
        current_stream().sleep(seconds)


def interrupted(waits: Waits, call) -> BaseException | None:
    """What `call` raises when the client leaves while it blocks."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not waits._conditions:
        thread.join(0.0005)
        assert thread.is_alive(), "it did not block"
    waits.interrupt(Disconnected(1001, "the server is stopping"))
    thread.join(10)
    assert not thread.is_alive()
    return caught[0]


@pytest.mark.parametrize("what", ["sleep", "wait", "get"])
def test_every_wait_ends_when_the_client_leaves(waits, what):
    stream = current_stream()
    call = {
        "sleep": lambda: stream.sleep(3600),
        "wait": lambda: stream.wait(threading.Event()),
        "get": lambda: stream.get(queue.Queue()),
    }[what]
    error = interrupted(waits, call)
    assert isinstance(error, Disconnected)
    assert error.code == 1001


def test_waiting_for_an_event():
    stream, event = CurrentStream(Waits()), threading.Event()
    assert stream.wait(event, 0.001) is False
    event.set()
    assert stream.wait(event) is True
    event.clear()
    threading.Timer(0.001, event.set).start()
    assert stream.wait(event, 10) is True


def test_waiting_for_something_else():
    with pytest.raises(TypeError, match=r"wait\(\) takes a threading.Event, not Lock|not lock"):
        current_stream().wait(threading.Lock())


def test_getting_from_a_queue():
    stream, source_ = CurrentStream(Waits()), queue.Queue()
    source_.put("first")
    assert stream.get(source_) == "first"
    with pytest.raises(queue.Empty):
        stream.get(source_, 0.001)
    threading.Timer(0.001, source_.put, ["late"]).start()
    assert stream.get(source_, 10) == "late"


def test_getting_an_item_makes_room_for_the_next():
    stream, source_ = CurrentStream(Waits()), queue.Queue(maxsize=1)
    source_.put("one")
    putter = threading.Thread(target=source_.put, args=("two",))
    putter.start()
    assert [stream.get(source_, 10), stream.get(source_, 10)] == ["one", "two"]
    putter.join(10)
    assert not putter.is_alive()


@pytest.mark.parametrize(("kind", "expected"), [(queue.PriorityQueue, [1, 2, 3]), (queue.LifoQueue, [1, 3, 2])])
def test_other_queues_of_its_kind(kind, expected):
    made = kind()
    for number in (2, 3, 1):
        made.put(number)
    assert [current_stream().get(made) for _ in range(3)] == expected


def test_getting_from_something_else():
    with pytest.raises(TypeError, match=r"get\(\) takes a queue.Queue, not SimpleQueue"):
        current_stream().get(queue.SimpleQueue())


def test_a_queue_that_is_shut_down_ends_the_wait():
    """`queue.Queue.shutdown` is Python 3.13's; what it does to a waiting `get` is done by hand for the others."""

    class Closing(queue.Queue):
        is_shutdown = False

        def get_nowait(self):
            if self.is_shutdown:
                raise LookupError("shut down")
            return super().get_nowait()

    source = Closing()
    closer = threading.Timer(0.05, lambda: shut(source))
    closer.start()
    with pytest.raises(LookupError, match="shut down"):
        current_stream().get(source, timeout=10)
    closer.join()


def shut(source) -> None:
    with source.mutex:
        source.is_shutdown = True
        source.not_empty.notify_all()
