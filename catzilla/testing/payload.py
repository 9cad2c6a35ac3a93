"""How the test client writes a request body: JSON, a form, a form with files (RFC 7578), or bytes as they are."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from json import dumps
from typing import Any
from urllib.parse import urlencode

FileSpec = bytes | str | tuple[str, bytes | str] | tuple[str, bytes | str, str]
"""A file to upload: its content, `(filename, content)` or `(filename, content, content type)`."""

Data = bytes | str | Mapping[str, Any] | Iterable[bytes]
"""A body: bytes, text, form fields, or pieces that are sent one by one in chunks."""

Body = bytes | Iterable[bytes]
"""An encoded body: whole, or in pieces that are sent one by one (RFC 9112 section 7.1)."""


def encode(data: Data | None, json: Any, files: Mapping[str, FileSpec] | None) -> tuple[str | None, Body]:
    """The content type, None if the body has none of its own, and the body.

    Raises: `TypeError` for a combination that means two bodies.
    """
    if json is not None and (data is not None or files is not None):
        raise TypeError("json= is a whole body: give it without data= and files=")
    if files is not None:
        if not isinstance(data, Mapping | None):
            raise TypeError("with files=, data= is a mapping of form fields")
        return _multipart(data or {}, files)
    if json is not None:
        return "application/json", dumps(json).encode()
    if isinstance(data, Mapping):
        return "application/x-www-form-urlencoded", urlencode(data, doseq=True).encode()
    if isinstance(data, str):
        return "text/plain; charset=utf-8", data.encode()
    return None, b"" if data is None else data


def _multipart(fields: Mapping[str, Any], files: Mapping[str, FileSpec]) -> tuple[str, bytes]:
    boundary = secrets.token_hex(16)
    parts = [(f'name="{name}"', "", str(value).encode()) for name, value in fields.items()]
    for name, spec in files.items():
        filename, content, *rest = (name, spec) if isinstance(spec, bytes | str) else spec
        content_type = rest[0] if rest else "application/octet-stream"
        disposition = f'name="{name}"; filename="{filename}"'
        parts.append((disposition, f"Content-Type: {content_type}\r\n", _bytes(content)))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{extra}\r\n".encode() + content + b"\r\n"
        for disposition, extra, content in parts
    )
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content
