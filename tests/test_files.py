"""Files as responses: what describes them, which part goes out, and that no file stays open."""

from __future__ import annotations

import os

import pytest

from catzilla import files
from catzilla._core.messages import FileSpan, Reply
from catzilla.errors import HTTPError
from catzilla.files import FileResponse, guess_content_type
from catzilla.headers import Headers
from tests.requests_made import make_head

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "data.bin"
    file.write_bytes(CONTENT)
    os.utime(file, ns=(0, 1_700_000_000_750_000_000))
    return file


@pytest.fixture
def opened(monkeypatch):
    """Every file that the module opens."""
    seen = []

    def watching(*arguments, **named):
        seen.append(open(*arguments, **named))  # noqa: SIM115
        return seen[-1]

    monkeypatch.setattr(files, "open", watching, raising=False)
    yield seen
    for file in seen:
        file.close()


def answer(response: FileResponse, headers: dict[str, str] | None = None, method: str = "GET"):
    """Status, header fields and content of a reply; closes its file like the server."""
    reply = response.reply(make_head(method, headers=headers))
    return reply.status, Headers(reply.headers), content(reply)


def content(reply: Reply) -> bytes:
    if isinstance(reply.body, FileSpan):
        with reply.body.file as file:
            file.seek(reply.body.offset)
            data = file.read(reply.body.length)
            assert len(data) == reply.body.length
            return data
    assert isinstance(reply.body, bytes)
    return reply.body


def test_a_whole_file(path):
    status, headers, body = answer(FileResponse(path))
    assert (status, body) == (200, CONTENT)
    assert dict(headers) == {
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        "etag": f'"{1_700_000_000_750_000_000:x}-400"',
        "last-modified": "Tue, 14 Nov 2023 22:13:20 GMT",
    }


def test_the_head_is_known_before_the_reply_so_that_middleware_sees_it(path):
    response = FileResponse(str(path), headers={"Cache-Control": "no-store"})
    assert response.headers["etag"] == answer(response)[1]["etag"]
    assert response.headers["cache-control"] == "no-store"


def test_head_has_the_length_of_the_file(path):
    reply = FileResponse(path).reply(make_head("HEAD", headers={"Range": "bytes=0-1"}))
    assert (reply.status, reply.body.length) == (200, len(CONTENT))
    reply.body.file.close()


def test_a_part(path):
    status, headers, body = answer(FileResponse(path), {"Range": "bytes=10-19"})
    assert (status, headers["content-range"], body) == (206, "bytes 10-19/1024", CONTENT[10:20])


def test_a_part_that_is_not_there(path, opened):
    status, headers, body = answer(FileResponse(path), {"Range": "bytes=5000-"})
    assert (status, headers["content-range"], body) == (416, "bytes */1024", b"")
    assert "content-type" not in headers
    assert opened[0].closed


def test_several_parts_are_answered_with_the_whole(path):
    status, headers, body = answer(FileResponse(path), {"Range": "bytes=0-1,5-6"})
    assert (status, body) == (200, CONTENT)
    assert "content-range" not in headers


def test_not_modified_says_only_what_a_cache_needs(path, opened):
    response = FileResponse(path, filename="x.bin", headers={"Cache-Control": "max-age=5"})
    status, headers, body = answer(response, {"If-None-Match": response.headers["etag"]})
    assert (status, body) == (304, b"")
    assert set(headers) == {"accept-ranges", "etag", "last-modified", "cache-control"}
    assert opened[0].closed
    assert answer(response, {"If-Modified-Since": response.headers["last-modified"]})[0] == 304
    assert answer(response)[0] == 200


def test_a_failed_precondition(path):
    assert answer(FileResponse(path), {"If-Match": '"other"'})[0] == 412


def test_an_etag_of_ones_own_is_what_is_compared(path):
    response = FileResponse(path, headers={"ETag": '"mine"'})
    assert answer(response, {"If-None-Match": '"mine"'})[0] == 304


def test_another_status_knows_no_conditions(path):
    response = FileResponse(path, status_code=404)
    status, _, body = answer(response, {"If-None-Match": "*", "Range": "bytes=0-1"})
    assert (status, body) == (404, CONTENT)


def test_a_file_replaced_before_the_reply_is_described_as_it_is_now(path):
    response = FileResponse(path)
    path.write_bytes(b"new")
    os.utime(path, (1_800_000_000, 1_800_000_000))
    status, headers, body = answer(response, {"If-None-Match": response.headers["etag"]})
    assert (status, body) == (200, b"new")
    assert headers["etag"] != response.headers["etag"]
    assert headers["last-modified"] == "Fri, 15 Jan 2027 08:00:00 GMT"


def test_the_content_type_is_guessed_or_given(tmp_path):
    for name in ("page.html", "noname"):
        (tmp_path / name).write_text("x")
    assert FileResponse(tmp_path / "page.html").content_type == "text/html; charset=utf-8"
    assert FileResponse(tmp_path / "page.html", "image/png").content_type == "image/png"
    assert FileResponse(tmp_path / "noname").content_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.csv", "text/csv"),
        ("a.tar.gz", "application/gzip"),
        ("a.json", "application/json"),
        ("a", "application/octet-stream"),
    ],
)
def test_guesses(name, content_type):
    assert guess_content_type(name) == content_type


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({}, None),
        ({"filename": "é.bin"}, "attachment; filename=\"?.bin\"; filename*=UTF-8''%C3%A9.bin"),
        ({"attachment": True}, 'attachment; filename="data.bin"'),
        ({"filename": "x.bin", "attachment": False}, 'inline; filename="x.bin"'),
    ],
)
def test_downloads_have_names(path, arguments, value):
    assert FileResponse(path, **arguments).get_header("Content-Disposition") == value


@pytest.mark.parametrize("name", ["none", "data.bin/below", "nul\0"])
def test_no_file_is_a_404_that_does_not_show_the_path(path, name):
    with pytest.raises(HTTPError) as error:
        FileResponse(path.parent / name)
    assert (error.value.status_code, error.value.detail) == (404, "no such file")


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(HTTPError, match="404"):
        FileResponse(tmp_path)


def test_a_file_that_is_gone_at_the_reply_is_a_404(path):
    response = FileResponse(path)
    path.unlink()
    with pytest.raises(HTTPError, match="404"):
        response.reply(make_head())


def test_a_file_that_became_something_else_is_a_404_and_closed(path, opened, monkeypatch):
    response = FileResponse(path)
    directory = os.stat(path.parent)
    monkeypatch.setattr(files.os, "fstat", lambda descriptor: directory)
    with pytest.raises(HTTPError, match="404"):
        response.reply(make_head())
    assert opened[0].closed
