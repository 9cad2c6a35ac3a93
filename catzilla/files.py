"""A file as a response: validators, ranges, downloads.

Decides which header fields describe a file and which part of it goes out. Does not read it: the server sends a
`FileSpan`, with sendfile where it can. Which answer a conditional request gets is `conditional.py`.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import stat
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO

from catzilla._core.messages import FileSpan, Reply, RequestHead
from catzilla.conditional import evaluate
from catzilla.errors import HTTPError
from catzilla.headers import Headers, ResponseHeaders, content_disposition
from catzilla.response import HeaderFields, Response

# What mimetypes says of a compressed file is the type of what is inside, which would have browsers unpack it.
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


class FileResponse(Response):
    """A file from disk, with ranges, `ETag` and `Last-Modified`, answering conditional requests.

    `content_type` is guessed from the name if left out. `filename` makes it a download under that name; `attachment`
    says so explicitly: True downloads under the file's own name, False has the browser show it. An `ETag` among
    `headers` takes the place of the one made from size and modification time.

    Conditions and ranges apply to a response with status 200 only.

    Raises: `HTTPError` 404 when there is no such file, or it is no regular one; `PermissionError` when it may not be
    read. A path made from what a client sent must be checked by the caller: `..` is followed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        content_type: str | None = None,
        filename: str | None = None,
        status_code: int = 200,
        headers: HeaderFields | None = None,
        attachment: bool | None = None,
    ) -> None:
        self.path = Path(path)
        try:
            self._seen = _regular(os.stat(self.path))
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the path
            raise HTTPError(404, "no such file") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise HTTPError(404, "no such file") from error
            raise
        super().__init__(status_code, content_type or guess_content_type(self.path.name), "", headers)
        self.headers.setdefault("Accept-Ranges", "bytes")
        self.headers.setdefault("ETag", _etag(self._seen))
        self.headers.setdefault("Last-Modified", _http_date(self._seen))
        if filename is not None or attachment is not None:
            kind = "inline" if attachment is False else "attachment"
            self.headers.setdefault("Content-Disposition", content_disposition(filename or self.path.name, kind))

    def reply(self, head: RequestHead) -> Reply:
        """Open the file and say which part of it goes out; the server closes it.

        Raises: `HTTPError` 404 when it has gone since, `PermissionError` when it may not be read.
        """
        try:
            file = open(self.path, "rb")  # noqa: SIM115  the server closes it
        except FileNotFoundError as error:
            raise HTTPError(404, "no such file") from error
        try:
            reply = self._answer(head, file, _regular(os.fstat(file.fileno())))
        except BaseException:
            file.close()
            raise
        if not isinstance(reply.body, FileSpan):
            file.close()
        return reply

    def _answer(self, head: RequestHead, file: BinaryIO, now: os.stat_result) -> Reply:
        """Decide with the open file's own size and time: the one that was looked at before may have been replaced."""
        headers = ResponseHeaders(self._raw.copy())
        if _etag(now) != _etag(self._seen):
            _replace(headers, "ETag", _etag(self._seen), _etag(now))
            _replace(headers, "Last-Modified", _http_date(self._seen), _http_date(now))
        if self.status_code != 200:
            return Reply(self.status_code, headers.raw, FileSpan(file, 0, now.st_size))
        etag = headers.get("etag", "")
        answer = evaluate(head.method, Headers(head.headers), etag, now.st_mtime, now.st_size)
        if answer.status in (200, 206):
            if answer.status == 206:
                last = answer.offset + answer.length - 1
                headers["Content-Range"] = f"bytes {answer.offset}-{last}/{now.st_size}"
            return Reply(answer.status, headers.raw, FileSpan(file, answer.offset, answer.length))
        # Without content there is nothing for these to describe (RFC 9110 section 15.4.5).
        headers.pop("content-type")
        headers.pop("content-disposition")
        if answer.status == 416:
            headers["Content-Range"] = f"bytes */{now.st_size}"
        return Reply(answer.status, headers.raw, b"")


def guess_content_type(name: str) -> str:
    """The content type of a file by its name, `application/octet-stream` when the name does not tell."""
    guessed, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    return guessed or "application/octet-stream"


def _regular(status: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise HTTPError(404, "no such file")
    return status


def _etag(status: os.stat_result) -> str:
    """A strong validator: nanoseconds and size change with every write that matters (RFC 9110 section 8.8.1)."""
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def _http_date(status: os.stat_result) -> str:
    return formatdate(int(status.st_mtime), usegmt=True)


def _replace(headers: ResponseHeaders, name: str, old: str, new: str) -> None:
    """Change our own value of a header, not one that the user has put in its place."""
    if headers.get(name) == old:
        headers[name] = new
