"""Cookies: reading `Cookie` and writing `Set-Cookie` (RFC 6265).

Decides how a value is quoted and which attributes are refused. Does not sign or encrypt anything.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, formatdate

from catzilla.headers import is_token

# cookie-octet (RFC 6265 section 4.1.1): printable ASCII without space, quote, comma, semicolon and backslash.
_PLAIN = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPE = re.compile(rb"\\([0-3][0-7][0-7]|.)", re.DOTALL)


def parse_cookies(header: str) -> dict[str, str]:
    """The cookies of a `Cookie` header, by name; of equal names the first, which is the most specific path's.

    Reads as RFC 6265 section 5.4 has user agents write it, and takes what others send: a pair without "=" is a value
    without a name, which nothing can ask for, so it is left out.
    """
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        name = name.strip(" \t")
        if equals and name and name not in cookies:
            cookies[name] = _unquote(value.strip(" \t"))
    return cookies


def format_set_cookie(
    name: str,
    value: str = "",
    max_age: int | timedelta | None = None,
    expires: datetime | float | str | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    httponly: bool = False,
    samesite: str | None = "lax",
) -> str:
    """A `Set-Cookie` value. `max_age` is in seconds, `expires` a date (naive means UTC) or seconds since 1970.

    Raises: `ValueError` for a name that is no token, control characters, and `SameSite=None` without `secure`.
    """
    if not is_token(name):
        raise ValueError(f"{name!r} is no cookie name: write letters, digits, - and _ only")
    parts = [f"{name}={_quote(name, value)}"]
    if expires is not None:
        parts.append(f"Expires={_date(expires)}")
    if max_age is not None:
        parts.append(f"Max-Age={int(max_age.total_seconds() if isinstance(max_age, timedelta) else max_age)}")
    for attribute, text in (("Domain", domain), ("Path", path)):
        if text is not None:
            if _CONTROL.search(text) or ";" in text:
                raise ValueError(f"cookie {name}: {attribute.lower()} {text!r} has a semicolon or a control character")
            parts.append(f"{attribute}={text}")
    if secure:
        parts.append("Secure")
    if httponly:
        parts.append("HttpOnly")
    if samesite is not None:
        parts.append(f"SameSite={_same_site(name, samesite, secure)}")
    return "; ".join(parts)


def _same_site(name: str, samesite: str, secure: bool) -> str:
    wanted = samesite.capitalize()
    if wanted not in ("Lax", "Strict", "None"):
        raise ValueError(f"cookie {name}: samesite is 'lax', 'strict', 'none' or None, not {samesite!r}")
    if wanted == "None" and not secure:
        raise ValueError(f"cookie {name}: browsers drop samesite='none' without secure=True; add it")
    return wanted


def _date(expires: datetime | float | str) -> str:
    if isinstance(expires, datetime):
        aware = expires if expires.tzinfo is not None else expires.replace(tzinfo=timezone.utc)
        return format_datetime(aware.astimezone(timezone.utc), usegmt=True)
    if isinstance(expires, str):
        if _CONTROL.search(expires) or ";" in expires:
            raise ValueError(f"expires {expires!r} has a semicolon or a control character")
        return expires
    return formatdate(expires, usegmt=True)


def _quote(name: str, value: str) -> str:
    """A value as it stands where it may, else quoted with octal escapes of its UTF-8, as most servers read it back."""
    if _PLAIN.fullmatch(value):
        return value
    bad = _CONTROL.search(value)
    if bad is not None:
        raise ValueError(f"cookie {name}: the value has a control character at position {bad.start()}; encode it first")
    escaped = "".join(
        chr(octet) if octet == 0x20 or _PLAIN.fullmatch(chr(octet)) else f"\\{octet:03o}" for octet in value.encode()
    )
    return f'"{escaped}"'


def _unquote(value: str) -> str:
    """Undo `_quote`; Latin-1 text in, because that is how header bytes were decoded."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return _utf8(value.encode("latin-1", "replace"))
    inner = value[1:-1].encode("latin-1", "replace")
    return _utf8(_ESCAPE.sub(_unescape, inner))


def _unescape(match: re.Match[bytes]) -> bytes:
    text = match.group(1)
    return bytes([int(text, 8)]) if len(text) == 3 else text


def _utf8(octets: bytes) -> str:
    """UTF-8 where it is that, else Latin-1: user agents send either."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")
