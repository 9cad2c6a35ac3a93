"""What is said at the start: one line with where it listens, in which mode, and how to stop it."""

from __future__ import annotations

import pytest

from catzilla import Catzilla
from catzilla.banner import banner
from catzilla.settings import Settings


def with_routes(count: int, **options: bool) -> Catzilla:
    app = Catzilla(**options)
    for number in range(count):
        app.get(f"/{number}")(lambda: "hello")
    return app


def test_where_it_listens_comes_first():
    said = banner(with_routes(2), ["http://127.0.0.1:8000"], Settings())
    assert said == "catzilla is listening on http://127.0.0.1:8000 (development, 2 routes); Ctrl-C stops it"


def test_every_address_is_named():
    assert "on https://[::1]:443, unix:/run/web.sock (" in banner(
        with_routes(0), ["https://[::1]:443", "unix:/run/web.sock"], Settings()
    )


@pytest.mark.parametrize(("count", "shown"), [(0, "0 routes"), (1, "1 route"), (2, "2 routes")])
def test_routes_are_counted(count, shown):
    assert f"(production, {shown});" in banner(with_routes(count, production=True), ["u"], Settings())


def test_processes_are_counted_when_there_are_several():
    assert "process" not in banner(with_routes(1), ["u"], Settings())
    assert "(development, 1 route, 4 processes);" in banner(with_routes(1), ["u"], Settings(workers=4))
