"""The settings of one server: each declared once, with its help, unit, flag and environment variable.

Decides how flags and variables become values, and which values are refused. The command line, `--help` and the
documentation read `options()`; the limits among the settings are declared in `_core/limits.py`. Reads no environment
and no command line itself.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin, get_type_hints

from catzilla._core.limits import Limits
from catzilla.errors import SettingsError

ENV_PREFIX = "CATZILLA_"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
# The limits for which nothing at all is a meaning; every other one must be positive.
_MAY_BE_ZERO = {
    "head_grace",
    "shutdown_grace",
    "stream_buffer_extra_bytes",
    "presence_delay",
    "message_rate",
    "join_rate",
    "connect_rate",
}


def setting(default: Any, why: str, unit: str = "") -> Any:
    """A dataclass field that carries its help text and its unit."""
    return field(default=default, metadata={"help": why, "unit": unit})


@dataclass(frozen=True)
class Option:
    """One setting as the outside names it. `type` is `str`, `int`, `float` or `bool`; `optional` ones may be None."""

    name: str
    flag: str
    env: str
    type: type
    optional: bool
    default: Any
    help: str
    unit: str

    def parse(self, text: str, label: str) -> Any:
        """A value from its text; `label` is what the message calls it. Sizes take k, M and G (1024 and its powers).

        Raises: `SettingsError` saying what to write instead.
        """
        text = text.strip()
        try:
            if self.type is bool:
                return _WORDS[text.lower()]
            if self.unit == "bytes":
                return _parse_size(text)
            return self.type(text)
        except (KeyError, ValueError):
            raise SettingsError(f"{label}={text!r}: write {self.expected}") from None

    @property
    def expected(self) -> str:
        """What a value looks like, for messages and help."""
        if self.unit == "bytes":
            return "a size in bytes such as 65536, 64k or 1M"
        kind = {bool: "1 or 0", int: "a whole number", float: "a number", str: "a text"}[self.type]
        return f"{kind} of {self.unit}" if self.unit else kind

    def check(self, value: Any, label: str) -> None:
        """Refuse a value of another type. Raises: `SettingsError`."""
        if value is None and self.optional:
            return
        fits = isinstance(value, (int, float) if self.type is float else self.type)
        if not fits or (isinstance(value, bool) and self.type is not bool):
            raise SettingsError(f"{label}={value!r}: write {self.expected}")


@dataclass(frozen=True)
class Settings:
    """How one server runs; immutable. Raises: `SettingsError` for values that make no sense, alone or together."""

    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = setting(8000, "TCP port to listen on; 0 takes any free one")
    uds: str | None = setting(None, "Unix socket to listen on, in place of host and port")
    workers: int = setting(1, "processes that share the address", unit="processes")
    reload: bool = setting(False, "start again when a source file changes; for development")
    ssl_certfile: str | None = setting(None, "certificate chain in PEM format; turns on TLS")
    ssl_keyfile: str | None = setting(None, "private key in PEM format, unless the certificate file has it")
    access_log: bool | None = setting(None, "log a line a response; by default in development only")
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not isinstance(self.limits, Limits):
            raise SettingsError(f"limits={self.limits!r}: write limits=Limits(...)")
        values = {option.name: getattr(self, option.name, None) for option in _SERVER_OPTIONS.values()}
        _check(values | dataclasses.asdict(self.limits), lambda name: name)

    @classmethod
    def load(cls, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        """Settings from flags by option name (None is one that was not given) and environment variables.

        A flag beats a variable, a variable beats the default; an empty variable counts as absent. Text is parsed,
        other values are taken as they are.

        Raises: `SettingsError` naming the flag or variable, its value and what to write instead.
        """
        given: dict[str, Any] = {}
        labels: dict[str, str] = {}
        known = {option.name: option for option in options()}
        for name in flags:
            if name not in known:
                raise SettingsError(f"there is no setting {name!r}{_suggest(name, known)}")
        for name, option in known.items():
            raw, labels[name] = flags.get(name), option.flag
            if raw is None and environ.get(option.env, "").strip():
                raw, labels[name] = environ[option.env], option.env
            if raw is not None:
                given[name] = option.parse(raw, labels[name]) if isinstance(raw, str) else raw
        _refuse_two_addresses(given, labels)
        _check({name: given.get(name, option.default) for name, option in known.items()}, labels.__getitem__)
        limits = Limits(**{name: value for name, value in given.items() if name not in _SERVER_OPTIONS})
        return cls(**{name: value for name, value in given.items() if name in _SERVER_OPTIONS}, limits=limits)


def options() -> tuple[Option, ...]:
    """Every option there is: those of the server first, then the limits, each in the order of declaration."""
    return (*_SERVER_OPTIONS.values(), *_LIMIT_OPTIONS.values())


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """The `CATZILLA_*` variables that no option reads, each with a guess at what was meant."""
    known = {option.env: option for option in options()}
    return [
        name + _suggest(name, known) for name in sorted(environ) if name.startswith(ENV_PREFIX) and name not in known
    ]


def _options_of(declared: type) -> dict[str, Option]:
    """The options of a dataclass: every field that has a help text."""
    hints = get_type_hints(declared)
    found = {}
    for item in dataclasses.fields(declared):
        if "help" in item.metadata:
            hint = hints[item.name]
            union = get_origin(hint) in (Union, types.UnionType)
            base = next(arg for arg in get_args(hint) if arg is not type(None)) if union else hint
            found[item.name] = Option(
                name=item.name,
                flag="--" + item.name.replace("_", "-"),
                env=ENV_PREFIX + item.name.upper(),
                type=base,
                optional=union,
                default=item.default,
                help=item.metadata["help"],
                unit=item.metadata["unit"],
            )
    return found


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * _FACTORS[match[2].lower()])


def _suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _refuse_two_addresses(given: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """A Unix socket and a TCP address at once, unless a flag for the socket overrides a variable for the address."""
    if "uds" not in given:
        return
    for name in ("host", "port"):
        is_overridden = labels["uds"].startswith("--") and not labels[name].startswith("--")
        if name in given and not is_overridden:
            raise SettingsError(
                f"{labels['uds']}={given['uds']!r} and {labels[name]}={given[name]!r}: a server listens on one or the "
                "other; leave one out"
            )


def _check(values: Mapping[str, Any], label: Callable[[str], str]) -> None:
    """Refuse what makes no sense; `values` holds every option, `label` says what a message calls one."""

    def refuse(name: str, remedy: str) -> None:
        raise SettingsError(f"{label(name)}={values[name]!r}: {remedy}")

    for option in options():
        option.check(values[option.name], label(option.name))
    for name in ("host", "uds", "ssl_certfile", "ssl_keyfile"):
        if values[name] is not None and not values[name].strip():
            refuse(name, "write a value, or leave it out")
    if not 0 <= values["port"] <= 65535:
        refuse("port", "write a port from 0 to 65535")
    if values["workers"] < 1:
        refuse("workers", "write 1 or more")
    if values["reload"] and values["workers"] > 1:
        refuse("workers", f"{label('reload')} runs one process; leave one of the two out")
    if values["ssl_keyfile"] is not None and values["ssl_certfile"] is None:
        refuse("ssl_keyfile", f"a key needs its certificate; write {label('ssl_certfile')} too")
    for name, option in _LIMIT_OPTIONS.items():
        value = values[name]
        if not math.isfinite(value) or value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
            refuse(name, f"write {option.expected}{'' if name in _MAY_BE_ZERO else ' above 0'}")
    if values["stream_buffer_start_bytes"] > values["stream_buffer_bytes"]:
        most = f"{label('stream_buffer_bytes')}={values['stream_buffer_bytes']}"
        refuse("stream_buffer_start_bytes", f"a stream's first buffer is at most its largest; {most}")


_SERVER_OPTIONS = _options_of(Settings)
_LIMIT_OPTIONS = _options_of(Limits)
