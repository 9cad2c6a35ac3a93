"""JSON text as catzilla sends it: compact, UTF-8, and only what every JSON reader takes.

Decides which objects beyond JSON's own have an obvious text, and the message for those that have none.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID


def _default(value: object) -> object:
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} is not JSON: make it a dict, list, str, number, bool, "
        "None, date, UUID, Decimal or dataclass first"
    )


# One encoder for all: json.dumps builds a new one a call as soon as an option differs from its defaults. NaN and
# infinity are refused because they are not JSON (RFC 8259 section 6) and break JSON.parse in browsers.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default).encode


def to_json(value: object) -> str:
    """`value` as one line of JSON. [any thread]

    Dates become ISO 8601, `UUID` and `Decimal` strings, dataclasses objects.

    Raises: `TypeError` for an object that has no JSON form, `ValueError` for NaN, infinity and circular references.
    """
    return _encode(value)
