"""Single WebSocket frames as a test sees them and makes them, the forbidden ones included (RFC 6455 section 5.2).

Opcodes are plain numbers: 0 continues a message, 1 is text, 2 binary, 8 close, 9 ping, 10 pong.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MASK = b"\xa5\x0f\x3c\x71"  # any four bytes do: the key of a test need not be secret (RFC 6455 section 10.3)


@dataclass(frozen=True)
class ReceivedFrame:
    """One frame as it came from the server; under compression its payload is already inflated."""

    opcode: int
    payload: bytes
    fin: bool = True


def raw_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    announced_bytes: int | None = None,
) -> bytes:
    """The bytes of one frame, right or wrong; send them, or a part of them, with `ClientWebSocket.send_raw`.

    `opcode` is from 0 to 15. `reserved` holds the three reserved bits (4 is RSV1). `announced_bytes` is a payload
    length that differs from that of `payload`, in bytes.
    """
    length = len(payload) if announced_bytes is None else announced_bytes
    first, mask_bit = fin << 7 | reserved << 4 | opcode, masked << 7
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not masked:
        return head + payload
    return head + _MASK + bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(payload))
