"""Listening sockets: an address in use is an error at once, and a stale socket file is none."""

from __future__ import annotations

import errno
import os
import socket
import stat

import pytest

from catzilla._core.sockets import bind_tcp, bind_unix, describe


@pytest.fixture
def closing():
    """`closing(sock)` closes it at the end of the test."""
    made: list[socket.socket] = []

    def keep(sock):
        made.append(sock)
        return sock

    yield keep
    for sock in made:
        sock.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_free_port_is_taken_and_listened_on(closing):
    sock = closing(bind_tcp("127.0.0.1", 0))
    host, port = sock.getsockname()
    assert host == "127.0.0.1"
    assert port > 0
    assert not sock.getblocking()
    with socket.create_connection((host, port), timeout=10):
        pass
    assert describe(sock, secure=False) == f"http://127.0.0.1:{port}"
    assert describe(sock, secure=True) == f"https://127.0.0.1:{port}"


@pytest.mark.platform_only
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6(closing):
    sock = closing(bind_tcp("::1", 0))
    assert describe(sock, secure=False) == f"http://[::1]:{sock.getsockname()[1]}"


def test_a_port_in_use_is_named(closing):
    port = closing(bind_tcp("127.0.0.1", 0)).getsockname()[1]
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*in use") as caught:
        bind_tcp("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_that_is_not_ours_is_named():
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.77:0"):
        bind_tcp("192.0.2.77", 0)


def test_a_unix_socket(closing, tmp_path):
    path = str(tmp_path / "sock")
    sock = closing(bind_unix(path))
    assert describe(sock, secure=False) == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_stale_socket_file_is_replaced(closing, tmp_path):
    path = str(tmp_path / "sock")
    bind_unix(path).close()
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    closing(bind_unix(path))


def test_a_socket_that_somebody_listens_on_is_not(closing, tmp_path):
    path = str(tmp_path / "sock")
    closing(bind_unix(path))
    with pytest.raises(OSError, match=r"cannot listen on .*sock: .*in use"):
        bind_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="there is a file that is not a socket"):
        bind_unix(str(path))
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match=r"cannot listen on .*nowhere/sock"):
        bind_unix(str(tmp_path / "nowhere" / "sock"))
