"""From a connection's messages to its handler: in order, one at a time, on a thread that `turns.py` finds for them.

Two ways. A callback handler is a `Turn`: it holds a thread only while it has messages. A linear handler runs on a
thread of its own from the opening to its return, and takes messages with `receive`.

Who owns what. The loop appends to `inbox`, and the handler's thread takes the first out of it; each is one operation of
a list, so the two do not get in each other's way. The loop counts `received`, the handler's thread `handled`.
Everything else is the loop's, but for `_opened` and `_closed`, which belong to the turn while it is busy.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

from catzilla._core.clock import monotonic
from catzilla._core.codes import NORMAL
from catzilla._core.current import current
from catzilla._core.errors import Disconnected
from catzilla._core.turns import Turn, Turns
from catzilla._core.upgrade import SocketHandler
from catzilla._core.waits import Signal

if TYPE_CHECKING:
    from catzilla._core.ws_connection import WebSocketConnection

TURN = 0.0005  # seconds in which messages are begun in one turn, before others get theirs


class SocketHandling(Turn):
    """What becomes of one connection's messages."""

    __slots__ = (
        "_arrival",
        "_closed",
        "_connection",
        "_context",
        "_handler",
        "_opened",
        "_pace",
        "handled",
        "inbox",
        "received",
    )

    def __init__(
        self,
        connection: WebSocketConnection,
        handler: SocketHandler,
        context: contextvars.Context | None,
        turns: Turns,
    ) -> None:
        super().__init__(turns)
        self._connection = connection
        self._handler = handler
        self._pace = handler.pace
        self._context = context or contextvars.copy_context()
        self.inbox: list[str | bytes] | None = None  # none while there is nothing; short, so a list will do
        self.received = 0  # bytes, or characters
        self.handled = 0
        self._opened = False  # the handler was called
        self._closed = False  # all is said and done
        self._arrival: Signal | None = None  # that `receive` waits on

    @property
    def name(self) -> str:
        """What log lines call the handler."""
        return self._handler.name

    def start(self) -> bool:
        """Call the handler; False if there is no thread for it. [loop thread]"""
        if not self._handler.is_linear:
            self._handler.bind(self._connection)
            self.wake()
            return True
        if not self.turns.has_place:
            return False
        self._handler.bind(self._connection)
        self.inbox = []
        self._arrival = Signal()
        self._connection.waits.watch(self._arrival)
        self.turns.start_linear(self._run_linear)
        return True

    # On the loop.

    def arrived(self, messages: list[str | bytes]) -> bool:
        """Take what has arrived; False if no more should, until the handler has caught up. [loop thread]

        `messages` is given away.
        """
        self.received += len(messages[0]) if len(messages) == 1 else sum(map(len, messages))
        inbox = self.inbox
        if inbox is None:
            inbox = self.inbox = messages
        else:
            inbox.extend(messages)
        turns = self.turns
        if self._arrival is not None:
            turns.notify(self._arrival)
        elif not self.is_busy:
            self.is_busy = True
            turns.submit(self)
        limits = turns.limits
        return len(inbox) <= limits.socket_inbox_messages and self.received - self.handled <= limits.socket_inbox_bytes

    def _has_caught_up(self) -> bool:
        """Whether no more waits than half of what may."""
        limits = self.turns.limits
        inbox = self.inbox
        return self.received - self.handled <= limits.socket_inbox_bytes // 2 and (
            inbox is None or len(inbox) <= limits.socket_inbox_messages // 2
        )

    def ended(self) -> None:
        """The connection has ended; what has arrived is still handled, unless it was us who closed. [loop thread]"""
        self.pace = None  # that of messages; what comes now is the closing
        if not self._handler.is_linear:
            self.wake()

    def worked(self) -> None:
        """See `Turn`. [loop thread]"""
        if self._closed:
            self.inbox = None
            self._handler.release()
            return
        connection = self._connection
        if self.pace is None and connection.ended is None:
            self.pace = self._pace  # the opening is over; what comes now are messages
        if self.inbox or connection.ended is not None:
            self.wake()
        else:
            self.inbox = None
        if not connection.is_reading:
            self.caught_up()

    def caught_up(self) -> None:
        """Have the client read again if the handler has caught up. [loop thread]"""
        if not self._connection.is_reading and self._has_caught_up():
            self._connection.resume_reading()

    # On a worker, or on the thread that leads.

    def work(self) -> None:
        """See `Turn`. [worker thread, or the one that leads]"""
        current.waits = self._connection.waits
        self._context.run(self._work)

    def _work(self) -> None:
        """Handle what is there, but not for ever."""
        connection, handler = self._connection, self._handler
        has_ended = connection.ended is not None  # before the inbox is looked at: what came before is in it
        count = 0
        began = now = monotonic()
        try:
            if not self._opened:
                self._opened = True
                handler.opened()
                began = now = monotonic()
            inbox, received = self.inbox, handler.received
            while inbox and now < began + TURN:
                if connection.close_asked is not None:
                    inbox.clear()
                    break
                message = inbox.pop(0)
                count += 1
                try:
                    received(message)
                finally:
                    self.handled += len(message)
                    now = monotonic()
        except BaseException as error:
            self._fail(error)
        if count and now - began >= self._pace.notable:
            self._pace.record(now - began, count)
        if has_ended and not self.inbox and not self._closed:
            self._close()

    def _close(self) -> None:
        """Nothing more will come: tell the handler."""
        if current.lead is not None:
            return  # it has ended since this was found to be instant: the loop waits for us, so a worker is to close
        self._closed = True
        try:
            self._handler.ended(*(self._connection.ended or (NORMAL, "")))
        except BaseException as error:
            self._handler.failed(error)

    def _run_linear(self) -> None:
        current.waits = self._connection.waits
        self._context.run(self._call_linear)

    def _call_linear(self) -> None:
        connection, handler = self._connection, self._handler
        try:
            handler.opened()
        except BaseException as error:
            self._fail(error)
        else:
            connection.close(NORMAL, "")
        finally:
            handler.release()

    def _fail(self, error: BaseException) -> None:
        """Close with what the handler's failure means; the messages that wait are given up."""
        code, reason = self._handler.failed(error)
        if self.inbox is not None:
            self.inbox.clear()
        self._connection.close(code, reason)

    def receive(self, timeout: float | None) -> str | bytes:
        """The next message; what arrived before the end comes before the end. [the linear handler's thread]

        Raises `Disconnected` after the last one, `TimeoutError` after `timeout` seconds without one.
        """
        inbox, arrival, connection = self.inbox, self._arrival, self._connection
        if inbox is None or arrival is None:
            raise RuntimeError("a socket with callbacks gets its messages in on_message, not from receive()")
        if connection.close_asked is not None:
            raise Disconnected(*connection.close_asked)
        while True:
            try:
                message = inbox.pop(0)
            except IndexError:
                if not connection.waits.wait_watched(arrival, inbox.__len__, timeout):
                    raise TimeoutError(f"no message within {timeout:g} s") from None
            else:
                break
        if inbox or connection.waits.interrupted is not None:
            arrival.notify_all()  # another thread may receive as well
        self.handled += len(message)
        if not connection.is_reading and self._has_caught_up():
            self.turns.handle.post(self.caught_up)
        return message
