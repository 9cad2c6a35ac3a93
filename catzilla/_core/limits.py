"""Every default limit of the server, with its unit and its reason, in one place.

Decides nothing but numbers. The command line, the environment variables and the documentation are all derived from
these fields (see `catzilla/settings.py`), so a limit is declared here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KIB = 1024
MIB = 1024 * KIB


def limit(default: Any, *, unit: str, why: str) -> Any:
    """A dataclass field that carries its unit and the reason for its default."""
    return field(default=default, metadata={"unit": unit, "help": why})


@dataclass(frozen=True)
class Limits:
    """The bounds of one server; immutable, so any thread may read them."""

    max_head_bytes: int = limit(16 * KIB, unit="bytes", why="largest request head; more is answered 431")
    max_headers: int = limit(100, unit="headers", why="most headers in a request; more is answered 431")
    max_target_bytes: int = limit(8 * KIB, unit="bytes", why="longest request target; more is answered 414")
    head_timeout: float = limit(10.0, unit="seconds", why="time for a request head to arrive, else 408")
    max_body_bytes: int = limit(16 * MIB, unit="bytes", why="largest request body; more is answered 413")
    body_timeout: float = limit(30.0, unit="seconds", why="how long a request body may fall behind, else 408")
    min_body_rate: int = limit(256, unit="bytes", why="least bytes a second of a request body, else 408")
    body_buffer_bytes: int = limit(64 * KIB, unit="bytes", why="unread body held before the socket is paused")
    max_form_memory_bytes: int = limit(1 * MIB, unit="bytes", why="a form is streamed to disk above this size")
    keep_alive_timeout: float = limit(75.0, unit="seconds", why="an idle connection is closed after this")
    write_stall_timeout: float = limit(
        30.0, unit="seconds", why="a client that accepts no byte for this long is cut and its generator closed"
    )
    head_grace: float = limit(
        0.1, unit="seconds", why="a stream's head leaves alone if its first item takes longer than this"
    )
    stream_buffer_bytes: int = limit(
        2 * MIB, unit="bytes", why="most bytes held for one stream while its client keeps up"
    )
    stream_buffer_start_bytes: int = limit(
        64 * KIB, unit="bytes", why="bytes held for a stream at first and for one whose client stalls"
    )
    stream_buffer_extra_bytes: int = limit(
        16 * MIB, unit="bytes", why="what all streams together may hold above their first buffers"
    )
    heartbeat_interval: float = limit(
        15.0, unit="seconds", why="silence on an event stream before a comment is sent, so that proxies keep it open"
    )
    max_requests: int = limit(64, unit="requests", why="handlers running on a thread at once; more is answered 503")
    max_streams: int = limit(1000, unit="streams", why="streams running on a thread at once; more is answered 503")
    max_sockets: int = limit(
        1000, unit="sockets", why="linear WebSocket handlers running on a thread at once; more is answered 503"
    )
    max_callbacks: int = limit(1000, unit="callbacks", why="WebSocket callbacks running at once; others wait, unread")
    home_threads: int = limit(
        2, unit="threads", why="streams of handlers that have proven quick share this many threads"
    )
    idle_thread_timeout: float = limit(
        30.0, unit="seconds", why="an idle worker thread without streams ends after this"
    )
    shutdown_grace: float = limit(5.0, unit="seconds", why="time for open responses to finish when the server stops")

    max_message_bytes: int = limit(
        1 * MIB, unit="bytes", why="largest WebSocket message, decompressed; more is closed with 1009"
    )
    max_message_fragments: int = limit(
        1024, unit="frames", why="most frames of one WebSocket message; more is closed with 1009"
    )
    ping_interval: float = limit(20.0, unit="seconds", why="a WebSocket client is pinged this often")
    pong_timeout: float = limit(
        20.0, unit="seconds", why="a WebSocket client that sends nothing for this long after a ping is cut"
    )
    close_timeout: float = limit(
        10.0, unit="seconds", why="time for a WebSocket client to take what is left and answer a close, else it is cut"
    )
    socket_inbox_messages: int = limit(
        16, unit="messages", why="messages that wait for a WebSocket handler before its client is no longer read"
    )
    socket_inbox_bytes: int = limit(256 * KIB, unit="bytes", why="the same in bytes: what arrived and was not handled")
    socket_outbox_messages: int = limit(
        1024,
        unit="messages",
        why="messages of rooms that wait for a slow WebSocket client before a room's on_slow applies",
    )
    socket_outbox_bytes: int = limit(
        1 * MIB,
        unit="bytes",
        why="the same in bytes; and, beside it, what `send` puts ahead of a client before it blocks",
    )
    send_timeout: float = limit(
        10.0, unit="seconds", why="how long `send` waits for a slow WebSocket client before it raises SlowConsumer"
    )
    max_rooms: int = limit(100, unit="rooms", why="most rooms that one WebSocket connection may be in")
    presence_delay: float = limit(
        3.0, unit="seconds", why="a member who is away for less than this has not left, as far as on_leave is concerned"
    )
    message_rate: float = limit(
        0.0,
        unit="messages",
        why="most messages a second from a WebSocket client, with bursts of 5 s; 0 is any",
    )
    join_rate: float = limit(
        0.0,
        unit="joins",
        why="most rooms a second that a WebSocket joins, with bursts of 5 s; 0 is any",
    )
    connect_rate: float = limit(
        0.0,
        unit="sockets",
        why="most WebSockets a second from one address, with bursts of 5 s; 0 is any. Behind a proxy all clients have "
        "its address, and those of a Unix socket have none and are not limited",
    )

    @property
    def max_threads(self) -> int:
        """The most worker threads for requests and streams: each budget's worth of blocked handlers."""
        return self.max_requests + self.max_streams
