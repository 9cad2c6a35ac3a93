"""The application: registrations that are checked, and what runs it."""

from __future__ import annotations

import pytest

from catzilla import App, Catzilla, RouterGroup
from catzilla import app as app_module
from catzilla.brokers import MemoryBroker
from catzilla.errors import RouteError, SettingsError


@pytest.fixture
def app():
    return Catzilla()


def named(request):
    return "x"


def test_it_shows_itself(app):
    assert repr(app) == "<Catzilla routes=0 serving=False>"
    app.get("/")(named)
    app.servers.append(object())
    assert repr(app) == "<Catzilla routes=1 serving=True>"
    assert App is Catzilla


def test_routes_are_listed_in_the_order_of_registration(app):
    app.get("/b")(named)
    app.post("/a/{x:int}")(lambda request, x: "x")
    assert [(method, path) for method, path, _ in app.routes()] == [("GET", "/b"), ("POST", "/a/{x:int}")]
    assert app.routes()[0][2].endswith("named")


def test_a_group_is_mounted(app):
    group = RouterGroup("/api")
    group.get("/users")(named)
    group.post("/users")(named)
    app.include_routes(group)
    assert [(method, path) for method, path, _ in app.routes()] == [("GET", "/api/users"), ("POST", "/api/users")]


@pytest.mark.parametrize(
    ("path", "handler", "message"),
    [
        ("/", lambda request, missing: "x", "missing"),
        ("no-slash", named, "no-slash"),
        ("/{x:nothing}", lambda request, x: "x", "nothing"),
    ],
)
def test_a_route_that_cannot_work_is_refused_at_registration(app, path, handler, message):
    with pytest.raises(RouteError, match=message):
        app.get(path)(handler)
    assert app.routes() == []


def test_the_same_route_twice(app):
    app.get("/")(named)
    with pytest.raises(RouteError):
        app.get("/")(named)
    assert len(app.routes()) == 1


def test_middleware_with_and_without_arguments(app):
    def first(request):
        pass

    def second(request):
        pass

    assert app.middleware(first) is first
    assert app.middleware(priority=90, name="second")(second) is second
    app.get("/")(named)
    assert [function for function, _ in app.pipeline.middleware.chain(()).pre] == [second, first]


@pytest.mark.parametrize("kind", [ValueError("instance"), "ValueError", 404, BaseException, KeyboardInterrupt])
def test_exception_handlers_take_an_exception_class(app, kind):
    with pytest.raises(RouteError, match="takes an exception class first, not"):
        app.set_exception_handler(kind, lambda request, error: "x")


def test_hooks_are_kept_and_returned(app):
    def hook():
        pass

    assert app.on_startup(hook) is hook
    assert app.on_shutdown(hook) is hook
    assert app.startup_hooks == app.shutdown_hooks == [hook]


def test_listen_runs_with_its_settings(app, monkeypatch):
    ran = []
    monkeypatch.setattr(app_module, "runner", lambda app, settings: ran.append((app, settings)))
    app.listen(1234, "0.0.0.0", workers=2, max_requests=5)
    ((running, settings),) = ran
    assert running is app
    assert (settings.port, settings.host, settings.workers) == (1234, "0.0.0.0", 2)
    assert settings.limits.max_requests == 5


def test_listen_refuses_settings_that_are_none(app, monkeypatch):
    monkeypatch.setattr(app_module, "runner", lambda app, settings: pytest.fail("it must not run"))
    with pytest.raises(SettingsError, match="there is no setting 'prot'; did you mean port"):
        app.listen(prot=8000)


def test_stop_asks_every_server(app):
    asked = []

    class Server:
        def request_stop(self):
            asked.append(self)
            app.servers.remove(self)

    app.servers += [Server(), Server()]
    app.stop()
    assert len(asked) == 2


def test_a_broker_of_ones_own_is_used():
    broker = MemoryBroker()
    assert Catzilla(broker=broker).rooms.broker is broker


@pytest.mark.parametrize(
    ("broker", "message"),
    [
        ("redis://:secret@cache", r"broker is of type str, .* an instance of a subclass of catzilla\.brokers\.Broker"),
        ("", "broker is of type str"),
        (0, "broker is of type int, which is no Broker"),
        (MemoryBroker, r"the class MemoryBroker: write an instance, Catzilla\(broker=MemoryBroker\(\.\.\.\)\)"),
        (dict, "broker is the class dict, which is no Broker"),
    ],
)
def test_a_broker_that_is_none_is_refused_at_once_and_its_text_is_not_shown(broker, message):
    with pytest.raises(TypeError, match=message) as refused:
        Catzilla(broker=broker)
    assert "secret" not in str(refused.value)


def test_production_is_the_pipelines_too():
    assert Catzilla(production=True).pipeline.production
    assert not Catzilla().pipeline.production
