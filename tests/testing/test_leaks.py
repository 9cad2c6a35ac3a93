"""What a stopped server left behind, as a test that failed would read it."""

from __future__ import annotations

import threading

import pytest

from catzilla.testing import leaks


@pytest.fixture
def held():
    """A factory of threads that wait inside a function called `stuck_handler` until the test is over."""
    release, threads = threading.Event(), []

    def hold(name: str) -> threading.Thread:
        running = threading.Event()

        def stuck_handler():
            running.set()
            release.wait(10)

        threads.append(threading.Thread(target=stuck_handler, name=name, daemon=True))
        threads[-1].start()
        running.wait(10)
        return threads[-1]

    yield hold
    release.set()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("pool", ["catzilla-worker", "catzilla-socket"])
def test_only_threads_of_a_server_that_were_not_there_before_are_leaks(held, pool):
    held("somebody-else")
    held(f"{pool}-1")
    known = leaks.server_threads()
    leaked = held(f"{pool}-2")
    assert leaks.leaked_threads(known, timeout=0.01) == [leaked]


def test_a_thread_that_ends_in_time_is_no_leak():
    known = leaks.server_threads()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(10,), name="catzilla-worker-1", daemon=True)
    thread.start()
    threading.Timer(0.02, release.set).start()
    assert leaks.leaked_threads(known, timeout=10) == []
    assert not thread.is_alive()


def test_a_leaked_thread_is_described_by_its_handler_and_its_stack(held):
    text = leaks.describe([held("catzilla-worker-1")], [])
    assert "the thread catzilla-worker-1 still runs `" in text
    assert "stuck_handler` (" in text
    assert __file__ in text
    assert "release.wait(10)" in text


def test_a_thread_without_a_handler_is_the_servers_own():
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(10,), name="catzilla-worker-1", daemon=True)
    thread.start()
    text = leaks.describe([thread], [])
    release.set()
    thread.join(10)
    assert "still runs no handler: it belongs to the server itself" in text


def test_an_unclosed_generator_is_named():
    assert leaks.describe([], ["app.rows"]) == "the generator of app.rows was not closed"


def test_nothing_is_nothing():
    assert leaks.describe([], []) == ""
