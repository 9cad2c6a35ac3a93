"""How much may be held for one stream: a window that grows while the client keeps up, like a TCP window.

Pure arithmetic, no clock and no thread. The loop owns every object here; a producer only reads `size`.
"""

from __future__ import annotations

from catzilla._core.limits import Limits

GROW_AFTER = 8  # windows that must have passed before it doubles: more than what sockets on both sides absorb
STALL = 0.1  # seconds without room that make a client a stalled one


class Allowance:
    """What all windows together may hold above their start, in bytes. [loop thread]

    Without it a thousand clients that read well and then stall at once would each leave a full window behind.
    """

    __slots__ = ("left",)

    def __init__(self, limits: Limits) -> None:
        self.left = limits.stream_buffer_extra_bytes

    def take(self, size: int) -> bool:
        """Whether `size` more bytes may be held; they are then taken."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give_back(self, size: int) -> None:
        self.left += size


class Window:
    """The bound on what one stream holds, in bytes, between `stream_buffer_start_bytes` and `stream_buffer_bytes`.

    It doubles when the producer has filled it, the client has emptied it at once, and `GROW_AFTER` windows have gone
    through since it last changed. It falls back to the start when the client stalls.
    """

    __slots__ = ("_passed", "size")

    def __init__(self, limits: Limits) -> None:
        self.size = limits.stream_buffer_start_bytes
        self._passed = 0

    def passed(self, size: int) -> None:
        """`size` bytes have been taken by the client."""
        self._passed += size

    def emptied(self, waited: float, limits: Limits, allowance: Allowance) -> None:
        """The client has made room in a full window after `waited` seconds."""
        start = limits.stream_buffer_start_bytes
        if waited > STALL:
            self.shrink(limits, allowance)
        elif self._passed >= GROW_AFTER * self.size and self.size < limits.stream_buffer_bytes:
            larger = min(self.size * 2, limits.stream_buffer_bytes)
            if allowance.take(larger - max(self.size, start)):
                self.size = larger
                self._passed = 0

    def shrink(self, limits: Limits, allowance: Allowance) -> None:
        """Back to the start; also what a closing stream does with its share of the allowance."""
        start = limits.stream_buffer_start_bytes
        allowance.give_back(self.size - start)
        self.size = start
        self._passed = 0
