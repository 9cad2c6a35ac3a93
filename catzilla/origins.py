"""Which web pages may open a WebSocket, or an event stream that a cookie opens.

A browser sends cookies along with every handshake, whoever's page asks for it, and applies no CORS to WebSockets. The
`Origin` header (RFC 6454) is the only thing that tells our page from a stranger's (RFC 6455 section 10.2). Pure
functions; what becomes of a refusal is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import AddressValueError, IPv6Address

from catzilla.errors import RouteError

# host [":" port] (RFC 3986 section 3.2), without the comma, which joins header lines.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+;=]+)(?::([0-9]{0,5}))?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_EXAMPLE = '"https://app.example"'


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str] | None) -> bool:
    """Whether a request with these `Origin` and `Host` headers may go on. [any thread]

    No `Origin` at all is allowed: whoever sends none is no browser, and could send any. The rest is up to `allowed`:

    - None, the default: the page must come from this server. Its host and port equal those of `Host`. The scheme is not
      compared, because behind a proxy that ends TLS the page is https while what arrives here is http; for the same
      reason the ports 80 and 443 count as no port, as which of them a proxy passes on says nothing.
    - origins: the page's origin is one of them: scheme, host and port. They stand in place of the default, which
      believes `Host`. So this server's own must be among them, and a name that a stranger has made to point here (DNS
      rebinding) is kept out.
    - "*": any.

    `null` is the origin of sandboxed frames and local files, whoever made them (RFC 6454 section 6.1), and is refused
    unless everything is allowed.
    """
    if origin is None or allowed == "*":
        return True
    page = _split(origin)
    if page is None:
        return False
    if allowed is not None:
        return page in [_split(one) for one in allowed]
    scheme, name, port = page
    if scheme not in _DEFAULT_PORTS:  # an extension or an app whose name may be anything
        return False
    ours = _authority(host or "")
    return ours is not None and (name, _plain(port)) == (ours[0], _plain(ours[1]))


def check_origins(value: object) -> Collection[str] | None:
    """The `origins` of a registration, checked: None, "*", or a tuple of origins in lower case, without default ports.

    Raises: `RouteError` that says what to write instead.
    """
    if value is None or value == "*":
        return value if value is None else "*"
    if isinstance(value, str):
        raise RouteError(f'origins is a list, None or "*": write origins=[{_suggestion(value)}], not {value!r}')
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise RouteError(f'origins is a list, None or "*", not {type(value).__name__}: write origins=[{_EXAMPLE}]')
    return tuple(_check_origin(one) for one in value)


def _check_origin(value: object) -> str:
    if not isinstance(value, str):
        raise RouteError(f"an origin is a str such as {_EXAMPLE}, not {type(value).__name__}")
    if value == "*":
        raise RouteError('"*" stands alone: write origins="*" to allow every page')
    if value == "null":
        raise RouteError(
            'the origin "null" is what any sandboxed page sends, so it cannot be allowed by itself: '
            'leave it out, or write origins="*" to allow every page'
        )
    if "*" in value:
        raise RouteError(f"the origin {value!r} has a wildcard: write one origin for each name, such as {_EXAMPLE}")
    if not value.isascii():
        raise RouteError(f"the origin {value!r} is not ASCII: write it as browsers send it, with the xn-- form")
    page = _split(value)
    if page is None:
        raise RouteError(f"{value!r} is no origin: write {_suggestion(value)}")
    scheme, name, port = page
    if scheme in ("ws", "wss"):
        raise RouteError(f"an origin is that of the page, not of the socket: write {_suggestion(value)}, not {value!r}")
    return f"{scheme}://{name}" if port is None else f"{scheme}://{name}:{port}"


def _suggestion(value: str) -> str:
    """What was meant, in quotes, as far as it can be told."""
    scheme, mark, rest = value.strip().partition("://")
    if not mark:
        rest = value.strip().lstrip("/")
        scheme = "http" if rest.startswith(("localhost", "127.")) else "https"
    scheme = {"ws": "http", "wss": "https"}.get(scheme.lower(), scheme.lower())
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    candidate = f"{scheme}://{authority}"
    return _EXAMPLE if _split(candidate) is None else f'"{candidate}"'


def _split(origin: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of an origin (RFC 6454 section 6.2); no port if it is the scheme's own. None if it is no
    origin, as `null` and a list of several are not."""
    scheme, mark, rest = origin.partition("://")
    authority = _authority(rest)
    if not mark or authority is None or not _SCHEME.fullmatch(scheme):
        return None
    name, port = authority
    scheme = scheme.lower()
    return scheme, name, None if port == _DEFAULT_PORTS.get(scheme, -1) else port


def _authority(text: str) -> tuple[str, int | None] | None:
    """Host, in lower case and an IPv6 address in its shortest form, and port, if there is one; None for anything
    else."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    name, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and not 0 < port < 65536:
        return None
    if name.startswith("["):
        try:
            name = f"[{IPv6Address(name[1:-1]).compressed}]"
        except AddressValueError:
            return None
    return name.lower(), port


def _plain(port: int | None) -> int | None:
    return None if port in _DEFAULT_PORTS.values() else port
