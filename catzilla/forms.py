"""Forms: urlencoded and multipart bodies read as they arrive, with files that go to disk when they are large.

Decides how much memory a form may take, how many parts it may have, and which errors are the client's. The multipart
syntax is python-multipart's. Does not know requests or sockets: the body is an iterator of bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from catzilla.errors import HTTPError
from catzilla.multimap import MultiMap

# More than a form for people has, and few enough that making an object of each costs little.
MAX_FORM_FIELDS = 1000
# Each may be an open file on disk, and a process has 1,024 of those on many systems.
MAX_FORM_FILES = 100
# The header lines of one part; they hold a field name, a file name and a content type.
MAX_PART_HEAD_BYTES = 8 * 1024
# RFC 2046 section 5.1.1.
MAX_BOUNDARY_BYTES = 70


class UploadedFile:
    """One uploaded file; readable like a file through `file`, which stands at its start.

    `filename` is the client's word without any directory, "" when the user chose no file. `content_type` is the
    client's word too. `size` is in bytes.
    """

    __slots__ = ("content_type", "file", "filename", "size")

    def __init__(self, filename: str, content_type: str, file: SpooledTemporaryFile[bytes]) -> None:
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, or all that is left."""
        return self.file.read(size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole file to `path`, over what was there; where it has been read to does not matter.

        Never join a directory with `filename` alone without checking it: two users may send the same name.
        """
        position = self.file.tell()
        self.file.seek(0)
        with open(path, "wb") as target:
            shutil.copyfileobj(self.file, target, 1024 * 1024)
        self.file.seek(position)

    def close(self) -> None:
        """Give up the file, also on disk."""
        self.file.close()

    def __repr__(self) -> str:
        return f"<UploadedFile {self.filename!r} {self.content_type!r} {self.size} bytes>"


@dataclass(frozen=True)
class FormData:
    """A parsed form."""

    fields: MultiMap[str] = field(default_factory=MultiMap)
    files: MultiMap[UploadedFile] = field(default_factory=MultiMap)

    def close(self) -> None:
        """Close every file."""
        for _, file in self.files.multi_items():
            file.close()

    def __del__(self) -> None:
        self.close()  # a streamed response may outlive its request; the last to let go closes


def header_options(value: str) -> tuple[str, dict[str, str]]:
    """A value such as `text/plain; charset=utf-8` as its lower-case essence and its options."""
    essence, options = parse_options_header(value)
    return essence.decode("latin-1"), {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in options.items()}


def parse_form(content_type: str, chunks: Callable[[], Iterable[bytes]], max_memory_bytes: int) -> FormData:
    """Read a form; `chunks` is called only if there is one, so that any other body stays unread. [worker thread]

    Fields together take at most `max_memory_bytes`; so do files, and those that exceed it go to disk.

    Raises: `HTTPError` 400 for a malformed form, 413 for too much of it, and whatever `chunks` raises.
    """
    essence, options = header_options(content_type)
    if essence == "application/x-www-form-urlencoded":
        return _parse_urlencoded(chunks(), max_memory_bytes)
    if essence == "multipart/form-data":
        return _MultipartReader(options.get("boundary", ""), max_memory_bytes).read(chunks())
    return FormData()


def _parse_urlencoded(chunks: Iterable[bytes], max_memory_bytes: int) -> FormData:
    # Not python-multipart's parser, which takes ";" for a separator too: WHATWG URL section 5.1 has "&" alone.
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_memory_bytes:
            raise HTTPError(413, f"the form is larger than {max_memory_bytes} bytes")
    if body.count(b"&") >= MAX_FORM_FIELDS:
        raise HTTPError(413, f"the form has more than {MAX_FORM_FIELDS} fields")
    try:
        text = body.decode("ascii")
        return FormData(MultiMap(parse_qsl(text, keep_blank_values=True, errors="strict")))
    except UnicodeDecodeError:
        raise HTTPError(400, "the form is not urlencoded UTF-8") from None


class _MultipartReader:
    """Reads one multipart form (RFC 7578). The parser calls back with slices; this puts parts together from them."""

    def __init__(self, boundary: str, max_memory_bytes: int) -> None:
        if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
            raise HTTPError(400, f"the form has no boundary of 1 to {MAX_BOUNDARY_BYTES} bytes in its Content-Type")
        self._max_memory_bytes = max_memory_bytes
        self._fields: list[tuple[str, str]] = []
        self._files: list[tuple[str, UploadedFile]] = []
        self._field_bytes = 0
        self._file_bytes = 0  # of the files that are in memory
        self._in_memory = False  # the current file is
        self._complete = False
        self._file: UploadedFile | None = None
        self._start_part()
        callbacks: Any = {
            "on_part_begin": self._start_part,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_head,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary.encode("latin-1"), callbacks)
        except FormParserError as error:
            raise HTTPError(400, f"the form is malformed: {error}") from None

    def read(self, chunks: Iterable[bytes]) -> FormData:
        try:
            for chunk in chunks:
                self._parser.write(chunk)
            if not self._complete:  # the parser does not mind; half a form must not pass for a whole one
                raise HTTPError(400, "the form ends before its last boundary")
            for _, file in self._files:
                file.file.seek(0)
            return FormData(MultiMap(self._fields), MultiMap(self._files))
        except BaseException as error:
            for _, file in self._files:
                file.close()
            if isinstance(error, FormParserError):
                raise HTTPError(400, f"the form is malformed: {error}") from None
            raise

    def _start_part(self) -> None:
        self._name = ""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._value = bytearray()
        self._file = None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._add_to_head(self._header[0], data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._add_to_head(self._header[1], data[start:end])

    def _add_to_head(self, to: bytearray, data: bytes) -> None:
        to += data
        self._head_bytes += len(data)
        if self._head_bytes > MAX_PART_HEAD_BYTES:
            raise HTTPError(413, f"a part of the form has more than {MAX_PART_HEAD_BYTES} bytes of headers")

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_head(self) -> None:
        """The head of a part is there: a part with a file name is a file, any other a field (RFC 7578 section 4.2)."""
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise HTTPError(400, "a part of the form has no Content-Disposition with a name")
        self._name = options[b"name"].decode("utf-8", "replace")
        if b"filename" not in options:
            if len(self._fields) >= MAX_FORM_FIELDS:
                raise HTTPError(413, f"the form has more than {MAX_FORM_FIELDS} fields")
            return
        if len(self._files) >= MAX_FORM_FILES:
            raise HTTPError(413, f"the form has more than {MAX_FORM_FILES} files")
        # Without directories, in either style: the name must not lead out of wherever it is saved.
        filename = options[b"filename"].decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        content_type = self._headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
        self._file = UploadedFile(filename, content_type, SpooledTemporaryFile())  # noqa: SIM115  closed with the form
        self._in_memory = True
        self._files.append((self._name, self._file))

    def _data(self, data: bytes, start: int, end: int) -> None:
        size = end - start
        upload = self._file
        if upload is None:
            self._field_bytes += size
            if self._field_bytes > self._max_memory_bytes:
                raise HTTPError(413, f"the fields of the form are larger than {self._max_memory_bytes} bytes")
            self._value += data[start:end]
            return
        upload.file.write(data[start:end])
        upload.size += size
        if self._in_memory:
            self._file_bytes += size
            if self._file_bytes > self._max_memory_bytes:
                # The limit is for all files together: the one that exceeds it leaves memory, and makes room in it.
                upload.file.rollover()
                self._in_memory = False
                self._file_bytes -= upload.size

    def _end_part(self) -> None:
        if self._file is None:
            try:
                self._fields.append((self._name, self._value.decode("utf-8")))
            except UnicodeDecodeError:
                raise HTTPError(400, f"the form field {self._name!r} is not UTF-8") from None

    def _end(self) -> None:
        self._complete = True
