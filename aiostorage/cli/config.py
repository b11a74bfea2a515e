"""``aiostorage config``: which storage is configured, and where each value comes from."""

from __future__ import annotations

import inspect
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import click
from rich.table import Table
from rich.text import Text

import aiostorage
from aiostorage import RetryPolicy, Storage
from aiostorage._core.driver_options import (
    STORAGE_OPTIONS,
    STORE_SETTINGS,
    hide_credentials,
    taken_from_query,
)
from aiostorage._core.named_store import (
    NamedStore,
    configuration_file,
    default_path,
    named_store,
)
from aiostorage.cli.escapes import printable
from aiostorage.cli.options import debug_option, json_option, one_url, storage_option
from aiostorage.cli.terminal import Terminal, echo, echo_json
from aiostorage.factory import configured_tracker, storage_of
from aiostorage.protocols import Driver

__all__ = ["Setting", "config", "settings_of"]

DISTRIBUTION: Final = "aiostorage-orion"
DEFAULT: Final = "default"
QUERY: Final = "query of the URL"

SECRET: Final = frozenset({"username", "password"})

NOT_CONFIGURED: Final = frozenset({"self", "url", "path", "clock", "read_only"})
"""Parameters of engines that are not configured by these names."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that applies, and its origin.

    Attributes
    ----------
    name
        The option, or another name.
    value
        Its value; a secret is hidden.
    origin
        Where it comes from: ``argument``, the query of the URL, a variable of the environment, the
        path of a file, or ``default``.
    """

    name: str
    value: Any
    origin: str


@click.command
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@json_option
@debug_option
def config(*, place: str | None, url: str | None, as_json: bool) -> None:
    """Show which storage is configured, and where each value comes from.

    Values come from the URL that is passed and its query, from the environment variables
    AIOSTORAGE_URL and AIOSTORAGE_TRACKER, from the table [storage] of aiostorage.toml in the user's
    configuration directory, or they are defaults. Passwords are hidden. Nothing is opened, and no
    file is made.
    """
    url = one_url(place, url)
    named = named_store(url)
    found = {
        "storage": settings_of(named, argument=url is not None),
        "files": _files(),
        "versions": _versions(named.engine),
    }
    if as_json:
        echo_json({part: list(map(asdict, settings)) for part, settings in found.items()})
        return
    console = Terminal()
    for part, settings in found.items():
        if console.is_terminal:
            _print_table(console, part, settings)
        else:
            for one in settings:
                cells = (part, one.name, _shown(one.value), one.origin)
                echo("\t".join(map(printable, cells)))


def settings_of(named: NamedStore, *, argument: bool) -> list[Setting]:
    """Return the settings that apply to a storage.

    Parameters
    ----------
    argument
        Whether the caller has named the storage.

    Raises
    ------
    ConfigurationError
        An option is invalid.
    """
    there = NamedStore(named.without_tracker().options, named.origin)  # makes no directory
    driver = storage_of(there)._gateway.driver  # noqa: SLF001  as an adapter of this package
    origin = "argument" if argument else _origin(named)
    options = dict(there.options)
    url = options.pop("url", None)
    settings = [
        Setting("engine", driver.name, origin),
        Setting("location", driver.location, origin),
    ]
    if url is not None:
        settings.insert(0, Setting("url", hide_credentials(str(url)), origin))
    tracker = os.environ.get("AIOSTORAGE_TRACKER") if not argument else None
    settings.append(_tracker(named, tracker, origin))
    settings += _engine_options(driver, options, str(url or ""), origin)
    settings += _storage_options(options, str(url or ""), origin)
    return settings


def _origin(named: NamedStore) -> str:
    if named.is_default:
        return DEFAULT
    return "AIOSTORAGE_URL" if os.environ.get("AIOSTORAGE_URL") else str(configuration_file())


def _tracker(named: NamedStore, variable: str | None, origin: str) -> Setting:
    found = configured_tracker(named)
    if found is None:
        return Setting("tracker", None, DEFAULT)
    if isinstance(found, Mapping):
        found = found.get("url")
    where = "AIOSTORAGE_TRACKER" if variable else origin
    return Setting("tracker", hide_credentials(str(found)), where)


def _engine_options(
    driver: Driver, options: Mapping[str, Any], url: str, origin: str
) -> Iterator[Setting]:
    """Yield the options of an engine: what its class takes, and what was passed beside."""
    given = {name: (value, origin) for name, value in options.items()}
    given |= {name: (value, QUERY) for name, value in parse_qsl(urlsplit(url).query)}
    known = inspect.signature(type(driver)).parameters.values()
    defaults = {p.name: p.default for p in known if p.name not in NOT_CONFIGURED}
    for name in dict.fromkeys((*defaults, *given)):
        if name in STORAGE_OPTIONS or name in ("type", "path", "database", "host", "port", "name"):
            continue
        value, where = given.get(name, (defaults.get(name), DEFAULT))
        if name in SECRET or (name not in defaults and where == QUERY):
            hidden = hide_credentials(f"?{name}={value}").partition("=")[2]
            value = None if value is None else ("***" if name in SECRET else hidden)
        yield Setting(name, value, where)


def _storage_options(options: Mapping[str, Any], url: str, origin: str) -> Iterator[Setting]:
    _, in_url = taken_from_query(url, STORE_SETTINGS)
    for parameter in inspect.signature(Storage).parameters.values():
        name = parameter.name
        if name in ("driver", "tracker"):
            continue
        if name == "retry":
            retry = options.get("retry")
            own = dict(retry) if isinstance(retry, Mapping) else {}
            for field in fields(RetryPolicy):
                where = origin if field.name in own else DEFAULT
                yield Setting(f"retry.{field.name}", own.get(field.name, field.default), where)
        elif name in options:
            yield Setting(name, options[name], origin)
        elif name in in_url:
            yield Setting(name, in_url[name], QUERY)
        else:
            yield Setting(name, parameter.default, DEFAULT)


def _files() -> list[Setting]:
    file = configuration_file()
    return [
        Setting("configuration file", str(file), "it exists" if file.exists() else "it is missing"),
        Setting(
            "default storage",
            str(path := default_path()),
            "it exists" if path.exists() else "it is missing",
        ),
    ]


def _versions(engine: str) -> list[Setting]:
    versions = [
        Setting("aiostorage", aiostorage.__version__, DISTRIBUTION),
        Setting("Python", platform.python_version(), platform.python_implementation()),
    ]
    if engine == "sqlite":
        from aiostorage.drivers.sqlite.sqlite_options import (  # noqa: PLC0415  as the engine
            LIBRARY_VERSION,
        )

        versions.append(Setting("SQLite", LIBRARY_VERSION, "sqlite3"))
    for name in _libraries():
        try:
            versions.append(Setting(name, version(name), "installed"))
        except PackageNotFoundError:
            versions.append(Setting(name, None, "not installed"))
    return versions


def _libraries() -> list[str]:
    """Return the libraries that aiostorage uses, including those of extras."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # it runs from a folder
        wanted = ["aiosqlite", "anyio", "click", "filelock", "motor", "msgpack", "rich", "tenacity"]
    names = {found[0] for text in wanted if (found := re.match(r"[\w.-]+", text))}
    return sorted(names - {DISTRIBUTION, "setuptools"}, key=str.lower)


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _print_table(console: Terminal, part: str, settings: list[Setting]) -> None:
    table = Table(title=part, title_justify="left", title_style="dim", header_style="bold")
    for heading in ("name", "value", "from"):
        table.add_column(heading, overflow="fold")
    for one in settings:
        table.add_row(*(Text(printable(x)) for x in (one.name, _shown(one.value), one.origin)))
    console.print(table)
