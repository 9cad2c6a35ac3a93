"""The close codes of WebSocket connections, in one place (RFC 6455 section 7.4).

4000 to 4499 invite the client to come back, 4500 to 4999 tell it not to.
"""

from __future__ import annotations

NORMAL = 1000
GOING_AWAY = 1001  # the server is stopping
PROTOCOL_ERROR = 1002
INVALID_DATA = 1007  # text that is not UTF-8, or not the JSON that the handler asked for
TOO_BIG = 1009
ABNORMAL = 1006  # never sent: the connection ended without a close frame
INTERNAL_ERROR = 1011  # the handler raised

SLOW = 4008  # the client does not take what it is sent
RATE_LIMITED = 4013
UNAUTHENTICATED = 4501  # what the client authenticated with has expired
FORBIDDEN = 4503

MAX_REASON_BYTES = 123  # RFC 6455 section 5.5: a control frame's payload is at most 125 bytes

# What an application may send: those that say something about the connection, and the private ranges.
_SENDABLE = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


def check_close(code: int, reason: str) -> None:
    """Refuse what no close frame may hold. Raises: `TypeError`, `ValueError` saying what to write instead."""
    given: object = code
    if not isinstance(given, int) or not (given in _SENDABLE or 3000 <= given <= 4999):
        raise ValueError(f"close code {code!r} may not be sent: write 1000, or one of your own from 4000 to 4999")
    text: object = reason
    if not isinstance(text, str):
        raise TypeError(f"a close reason is a str, not {type(text).__name__}: write close({code}, 'why'), or no reason")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(
            f"a close reason is sent as UTF-8, which {text[:40]!r} is not: write other characters"
        ) from None
    if size > MAX_REASON_BYTES:
        raise ValueError(
            f"a close reason has at most {MAX_REASON_BYTES} bytes, this one has {size}: write a shorter one"
        )
