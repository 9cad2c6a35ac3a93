"""Header fields: looking them up, and refusing those that must not be sent (RFC 9110 section 5).

Decides what a header name and value may hold and how they become bytes. Does not know what any header means, except
for `Content-Disposition`, whose file names need an encoding of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote

from catzilla._core.messages import RawHeaders

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# A field value is visible characters, spaces and tabs (RFC 9110 section 5.5). CR, LF and NUL are the dangerous ones
# (they split responses); the other control characters are refused with them because recipients may treat them alike.
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What RFC 8187 section 3.2.1 lets stand in an extended value without percent-encoding, beyond letters and digits.
_ATTR_CHAR = "!#$&+-.^_`|~"


def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 section 5.6.2): what header, cookie and method names are made of."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=512)
def encode_name(name: str) -> bytes:
    """A header name as bytes. Raises: `ValueError` when it is no token."""
    if not is_token(name):
        raise ValueError(f"{name!r} is no header name: write letters, digits and - only")
    return name.encode("ascii")


def encode_value(name: str, value: object) -> bytes:
    """A header value as Latin-1 bytes, without surrounding white space; `name` is for the message.

    Raises: `ValueError` for a control character or one outside Latin-1, `TypeError` for anything but `str` and `int`.
    """
    if not isinstance(value, str):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"header {name}: the value must be a str or an int, not {type(value).__name__}")
        value = str(value)
    bad = _FORBIDDEN.search(value)
    if bad is not None:
        what = {"\r": "CR", "\n": "LF", "\x00": "NUL"}.get(bad.group(), "a control character")
        raise ValueError(f"header {name}: the value has {what} at position {bad.start()}, which no header may hold")
    try:
        return value.strip(" \t").encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"header {name}: {value[error.start]!r} at position {error.start} is not Latin-1; "
            "percent-encode it with urllib.parse.quote"
        ) from None


def encode_header(name: str, value: object) -> tuple[bytes, bytes]:
    """One header field as bytes. Raises as `encode_name` and `encode_value` do."""
    return encode_name(name), encode_value(name, value)


class Headers(Mapping[str, str]):
    """The header fields of a request: case-insensitive, in order, read only. [any thread]

    `headers["accept"]` is the first value; `getlist` gives all of them. Names come out in lower case.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1", "replace")
        for key, value in self._raw:
            # Request names arrive in lower case, so the cheap comparison decides nearly always.
            if key == wanted or key.lower() == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(name.lower() == key for key, _ in self.multi_items())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self.multi_items()))

    def __len__(self) -> int:
        return len({key.lower() for key, _ in self._raw})

    @property
    def raw(self) -> RawHeaders:
        """The fields as bytes: the very list, not a copy."""
        return self._raw

    def getlist(self, name: str) -> list[str]:
        """Every value of a header, in the order in which they were sent; empty when there is none."""
        return [value for key, value in self.multi_items() if key == name.lower()]

    def multi_items(self) -> list[tuple[str, str]]:
        """Every field as (lower-case name, value), in order, repeated names included."""
        return [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in self._raw]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"


class ResponseHeaders(Headers):
    """The header fields of a response: as `Headers`, and writable; names are sent as they were written.

    A view: it changes the response that it belongs to. Every way in raises `ValueError` for what must not be sent.
    """

    __slots__ = ()

    def __setitem__(self, name: str, value: str | int) -> None:
        """Set a header to one value in place of those it had."""
        field = encode_header(name, value)
        self._discard(name)
        self._raw.append(field)

    def __delitem__(self, name: str) -> None:
        if not self._discard(name):
            raise KeyError(name)

    def add(self, name: str, value: str | int) -> None:
        """Add a value beside those that the header already has (`Set-Cookie`, `Link`, `Vary`)."""
        self._raw.append(encode_header(name, value))

    def setdefault(self, name: str, value: str | int) -> None:
        """Set a header unless it is there already."""
        if name not in self:
            self._raw.append(encode_header(name, value))

    def pop(self, name: str, default: str | None = None) -> str | None:
        """Remove a header and return its first value."""
        value = self.get(name, default)
        self._discard(name)
        return value

    def update(self, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Replace the headers named in `fields` by the values they have there; repeated pairs are all kept."""
        pairs = list(fields.items() if isinstance(fields, Mapping) else fields)
        encoded = [encode_header(name, value) for name, value in pairs]  # all or nothing
        for name, _ in pairs:
            self._discard(name)
        self._raw.extend(encoded)

    def _discard(self, name: str) -> bool:
        wanted = name.lower().encode("latin-1", "replace")
        kept = [field for field in self._raw if field[0].lower() != wanted]
        found = len(kept) != len(self._raw)
        self._raw[:] = kept
        return found


def content_disposition(filename: str, kind: str = "attachment") -> str:
    """A `Content-Disposition` value for a download called `filename` (RFC 6266 section 4).

    A name outside ASCII is sent twice, as section 4.3 advises: a readable ASCII one, and `filename*` with the truth.

    Raises: `ValueError` for a control character in the name.
    """
    if _FORBIDDEN.search(filename) or "\t" in filename:
        raise ValueError(f"the file name {filename!r} has a control character, which no header may hold")
    plain = filename.encode("ascii", "replace").decode("ascii").replace("\\", "\\\\").replace('"', '\\"')
    value = f'{kind}; filename="{plain}"'
    # "%" is sent encoded too: some user agents decode it in the plain form (RFC 6266 appendix D).
    if not filename.isascii() or "%" in filename:
        value += f"; filename*=UTF-8''{quote(filename, safe=_ATTR_CHAR, errors='replace')}"
    return value
