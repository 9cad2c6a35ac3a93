"""Request heads and bodies made by hand, for the tests of modules that never see a socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from catzilla._core.messages import RequestHead


def make_head(
    method: str = "GET",
    target: str = "/",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    *,
    path: str | None = None,
    scheme: str = "http",
    client: tuple[str, int] | None = ("203.0.113.7", 50000),
    server: tuple[str, int] | None = ("192.0.2.1", 8000),
) -> RequestHead:
    pairs = headers.items() if isinstance(headers, dict) else headers or []
    raw = [(name.lower().encode(), value.encode("utf-8")) for name, value in pairs]
    before, _, query = target.partition("?")
    return RequestHead(method, target, before if path is None else path, query, raw, "1.1", scheme, client, server)


class Body:
    """A request body of given chunks, which can be had once, like the server's."""

    def __init__(self, chunks: bytes | Iterable[bytes] = b"", error: Exception | None = None) -> None:
        self._chunks = [chunks] if isinstance(chunks, bytes) else list(chunks)
        self._error = error
        self.reads = 0
        self.disconnected = False

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        self.reads += 1
        assert self.reads == 1, "the body was read twice"
        yield from self._chunks
        if self._error is not None:
            raise self._error
