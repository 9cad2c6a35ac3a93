"""Every option is declared once and whole; flags beat variables beat defaults; what is wrong says what to write."""

from __future__ import annotations

import dataclasses

import pytest

from catzilla._core.limits import Limits
from catzilla.errors import SettingsError
from catzilla.settings import Settings, options, unknown_variables

BY_NAME = {option.name: option for option in options()}


def test_there_is_an_option_for_every_field_and_nothing_else():
    fields = [field.name for field in (*dataclasses.fields(Settings), *dataclasses.fields(Limits))]
    fields.remove("limits")
    assert [option.name for option in options()] == fields


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_every_option_is_whole(option):
    assert option.help
    assert option.type in (str, int, float, bool)
    assert option.flag == "--" + option.name.replace("_", "-")
    assert option.env == "CATZILLA_" + option.name.upper()
    option.check(option.default, option.name)
    if isinstance(option.default, (int, float)) and option.name != "port" and option.type is not bool:
        assert option.unit


def test_what_an_option_looks_like():
    option = BY_NAME["stream_buffer_bytes"]
    assert (option.flag, option.env) == ("--stream-buffer-bytes", "CATZILLA_STREAM_BUFFER_BYTES")
    assert (option.type, option.default, option.unit) == (int, 2 * 1024 * 1024, "bytes")
    assert (BY_NAME["uds"].type, BY_NAME["uds"].optional) == (str, True)
    assert (BY_NAME["access_log"].type, BY_NAME["access_log"].optional) == (bool, True)


def test_defaults():
    assert Settings.load({}, {}) == Settings() == Settings("127.0.0.1", 8000)


def test_a_flag_beats_a_variable_beats_the_default():
    environ = {"CATZILLA_PORT": "1", "CATZILLA_WORKERS": "2", "CATZILLA_HEAD_TIMEOUT": "0.5", "PORT": "9"}
    settings = Settings.load({"port": 3, "host": None, "shutdown_grace": "7"}, environ)
    assert (settings.port, settings.workers, settings.host) == (3, 2, "127.0.0.1")
    assert settings.limits == Limits(head_timeout=0.5, shutdown_grace=7.0)


def test_an_empty_variable_counts_as_absent():
    assert Settings.load({}, {"CATZILLA_PORT": "", "CATZILLA_UDS": " "}) == Settings()


@pytest.mark.parametrize("option", options(), ids=lambda option: option.name)
def test_every_option_can_be_a_flag_and_a_variable(option):
    text = {str: "text", int: "70000", float: "2.5", bool: "no"}[option.type]
    text = "1" if option.name in ("port", "workers") else text
    with_certificate = {"ssl_certfile": "c"} if option.name == "ssl_keyfile" else {}
    by_flag = Settings.load({option.name: text} | with_certificate, {})
    assert by_flag == Settings.load(with_certificate, {option.env: text})
    value = getattr(by_flag, option.name, None) if hasattr(Settings, option.name) else None
    if value is None:
        value = getattr(by_flag.limits, option.name)
    assert value == option.parse(text, "x")
    assert type(value) is option.type


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("64k", 65536),
        ("64K", 65536),
        ("64 KiB", 65536),
        ("1M", 1 << 20),
        ("1.5m", 3 << 19),
        ("1gb", 1 << 30),
    ],
)
def test_sizes_may_have_units(text, size):
    assert Settings.load({"max_body_bytes": text}, {}).limits.max_body_bytes == size


@pytest.mark.parametrize(("text", "value"), [("1", True), ("YES", True), ("on", True), ("false", False), ("0", False)])
def test_switches_have_words(text, value):
    assert Settings.load({}, {"CATZILLA_ACCESS_LOG": text}).access_log is value


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        ({"port": "eighty"}, {}, "--port='eighty': write a whole number"),
        ({}, {"CATZILLA_PORT": "70000"}, "CATZILLA_PORT=70000: write a port from 0 to 65535"),
        ({"port": -1}, {}, "--port=-1: write a port"),
        ({"workers": "0"}, {}, "--workers=0: write 1 or more"),
        ({"workers": 1.5}, {}, "--workers=1.5: write a whole number of processes"),
        ({"reload": "maybe"}, {}, "--reload='maybe': write 1 or 0"),
        ({"reload": True, "workers": 2}, {}, "--workers=2: --reload runs one process"),
        ({"host": ""}, {}, "--host='': write a value"),
        ({"ssl_keyfile": "k"}, {}, "--ssl-keyfile='k': a key needs its certificate; write --ssl-certfile too"),
        ({"uds": "/s", "port": 1}, {}, "--uds='/s' and --port=1: a server listens on one or the other"),
        ({}, {"CATZILLA_UDS": "/s", "CATZILLA_HOST": "h"}, "CATZILLA_UDS='/s' and CATZILLA_HOST='h'"),
        ({"host": "h"}, {"CATZILLA_UDS": "/s"}, "CATZILLA_UDS='/s' and --host='h'"),
        ({"max_body_bytes": "big"}, {}, "--max-body-bytes='big': write a size in bytes such as 65536, 64k or 1M"),
        ({"max_body_bytes": "0"}, {}, "--max-body-bytes=0: write a size in bytes such as 65536, 64k or 1M above 0"),
        ({"head_timeout": "nan"}, {}, "--head-timeout=nan: write a number of seconds above 0"),
        ({"head_timeout": "inf"}, {}, "--head-timeout=inf"),
        ({"shutdown_grace": "-1"}, {}, "--shutdown-grace=-1.0: write a number of seconds"),
        (
            {"stream_buffer_bytes": "32k"},
            {},
            "--stream-buffer-start-bytes=65536: a stream's first buffer is at most its largest; --stream-buffer-bytes=",
        ),
        ({"prot": 1}, {}, "no setting 'prot'; did you mean port?"),
    ],
)
def test_what_is_wrong_says_what_to_write(flags, environ, message):
    with pytest.raises(SettingsError) as refused:
        Settings.load(flags, environ)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": "8000"}, "port='8000': write a whole number"),
        ({"port": True}, "port=True"),
        ({"port": 65536}, "port=65536: write a port"),
        ({"workers": None}, "workers=None"),
        ({"reload": 1}, "reload=1: write 1 or 0"),
        ({"limits": None}, "limits=None: write limits=Limits(...)"),
        ({"limits": Limits(max_requests=0)}, "max_requests=0: write a whole number of requests above 0"),
        ({"ssl_keyfile": "k"}, "write ssl_certfile too"),
    ],
)
def test_settings_made_by_hand_are_checked_too(arguments, message):
    with pytest.raises(SettingsError) as refused:
        Settings(**arguments)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["head_grace", "shutdown_grace", "stream_buffer_extra_bytes"])
def test_some_limits_may_be_nothing(name):
    assert getattr(Settings.load({name: "0"}, {}).limits, name) == 0


def test_a_socket_flag_overrides_address_variables():
    settings = Settings.load({"uds": "/s"}, {"CATZILLA_PORT": "1"})
    assert settings.uds == "/s"


def test_variables_that_nothing_reads_are_told():
    environ = {"CATZILLA_PROT": "1", "CATZILLA_PORT": "1", "PATH": "x", "CATZILLA_XYZZY": "1"}
    assert unknown_variables(environ) == ["CATZILLA_PROT; did you mean CATZILLA_PORT?", "CATZILLA_XYZZY"]
