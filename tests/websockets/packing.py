"""The client's side of permessage-deflate by hand, and how much memory a test has cost."""

from __future__ import annotations

import tracemalloc
import zlib


class Packer:
    """The client's side of permessage-deflate (RFC 7692), by hand."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(9, wbits=-12)

    def pack(self, data: bytes) -> bytes:
        return (self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


class traced_peak:
    """`with traced_peak() as peak:`, and then `peak()` is the most memory in bytes that Python held within."""

    def __enter__(self):
        tracemalloc.start()
        return lambda: self.peak

    def __exit__(self, *exc):
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
