"""Where storages come from: a URL, a type with options, or the configuration."""

from __future__ import annotations

import inspect
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from aiostorage._core.retry import RetryPolicy
from aiostorage._core.storage import Storage
from aiostorage.errors import ConfigurationError, UnknownStorageType
from aiostorage.protocols import Driver

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["ENTRY_POINTS", "StorageFactory", "open_storage", "setup_storage", "storage_factory"]

ENTRY_POINTS: Final = "aiostorage.drivers"
"""Entry point group of other people's engines.

An entry point's name is the type and the URL scheme. It names a callable that makes a
`aiostorage.protocols.Driver` of keyword options; from a URL it is called with the option `url`,
the whole URL, and those that came beside it.
"""

_SETTINGS: Final = ("retry", "lost_after", "lock_lease", "state_codec")
"""Options of a storage whatever its engine."""


def open_storage(
    url: str,
    *,
    retry: RetryPolicy | None = None,
    lost_after: float = 120.0,
    lock_lease: float = 60.0,
    state_codec: str = "msgpack",
    **options: Any,
) -> Storage:
    """Make the storage that a URL names; use it with ``async with``.

    Parameters
    ----------
    url
        ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, ``memory://``, or the
        scheme of an installed engine. Options of the engine may stand in the query:
        ``sqlite:///tune.db?synchronous=NORMAL``.
    retry
        How often and how long to try what fails in a way that may pass.
    lost_after
        Seconds without a heartbeat after which a reserved trial counts as lost.
    lock_lease
        Seconds after which the algorithm lock of a dead holder is free.
    state_codec
        How algorithm state is written: ``msgpack`` or ``pickle``; see `Storage`.
    options
        Options of the engine; see its driver.

    Returns
    -------
    Storage
        Not opened yet: nothing is read or written before ``async with`` or the first call.

    Raises
    ------
    UnknownStorageType
        No engine has that scheme; lists those that there are.
    ConfigurationError
        The URL or an option cannot work.

    Examples
    --------
    >>> async with open_storage("sqlite:///tune.db") as storage:
    ...     experiment = await storage.create_experiment({"name": "tune"})
    """
    scheme, colon, _ = url.partition("://")
    if not colon:
        shown = _shown(url)
        raise ConfigurationError(
            f"{shown!r} is not a storage URL; write for example sqlite:///{shown or 'tune.db'}"
        )
    return Storage(
        storage_factory.driver(scheme, {"url": url, **options}),
        retry=retry,
        lost_after=lost_after,
        lock_lease=lock_lease,
        state_codec=state_codec,
    )


class StorageFactory:
    """Makes storages of a type and its options, as Oríon's factory of that name does."""

    def create(self, of_type: str, **kwargs: Any) -> Storage:
        """Make a storage.

        Parameters
        ----------
        of_type
            ``sqlite`` (`path`), ``memory``, ``legacy`` (`database`, as Oríon configures it), or
            the name of an installed engine; in any case.
        kwargs
            Options of the engine, and those of `Storage`.

        Raises
        ------
        UnknownStorageType
            No engine has that name; lists those that there are.
        ConfigurationError
            An option cannot work.
        """
        settings = {name: kwargs.pop(name) for name in _SETTINGS if name in kwargs}
        if isinstance(settings.get("retry"), Mapping):
            settings["retry"] = _called(RetryPolicy, "retry", settings["retry"])
        return Storage(self.driver(of_type, kwargs), **settings)

    def driver(self, of_type: str, options: Mapping[str, Any]) -> Driver:
        """Make the driver of a type; see `create`."""
        name = str(of_type).lower()
        make = _BUILT_IN.get(name) or self._installed(name)
        if make is None:
            raise UnknownStorageType(name, self.known())
        driver: Driver = _called(make, name, options)
        return driver

    def known(self) -> tuple[str, ...]:
        """Return the names of all types, sorted."""
        return tuple(sorted({*_BUILT_IN, *_entry_points().names}))

    @staticmethod
    def _installed(name: str) -> Callable[..., Driver] | None:
        for entry_point in _entry_points().select(name=name):
            made: Callable[..., Driver] = entry_point.load()
            return made
        return None


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415  15 ms that most runs never need

    return entry_points(group=ENTRY_POINTS)


storage_factory = StorageFactory()


def setup_storage(storage: Mapping[str, Any] | str | None = None, debug: bool = False) -> Storage:
    """Make the storage that is configured.

    Parameters
    ----------
    storage
        A URL, or a mapping with either ``url`` or ``type``, and options. Default: the URL in the
        environment's ``AIOSTORAGE_URL``, else the table ``[storage]`` of ``aiostorage.toml`` in
        the user's configuration directory, else a SQLite file in the user's data directory.
    debug
        Use an empty storage in memory, whatever is configured.

    Raises
    ------
    UnknownStorageType, ConfigurationError
        As for `open_storage`.
    """
    if debug:
        return storage_factory.create("memory")
    if storage is None:
        storage = os.environ.get("AIOSTORAGE_URL") or _from_file()
    if isinstance(storage, str):
        return open_storage(storage)
    options = dict(storage)
    of_type, url = options.pop("type", None), options.get("url")
    if of_type is None and url is not None:
        of_type = str(url).partition("://")[0]
    elif of_type is None and "database" in options:
        of_type = "legacy"
    if of_type is None:
        raise ConfigurationError(
            "a storage configuration needs a `url` or a `type` "
            f"({', '.join(storage_factory.known())}); it has {sorted(options) or 'nothing'}"
        )
    return storage_factory.create(of_type, **options)


def _from_file() -> Mapping[str, Any]:
    import platformdirs  # noqa: PLC0415  a URL needs no configuration directory

    file = platformdirs.user_config_path("aiostorage") / "aiostorage.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("storage")
    except FileNotFoundError:
        return {"type": "sqlite", "path": _default_path()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigurationError(f"{file} needs a table [storage], with a `url` or a `type`")
    return table


def _default_path() -> Path:
    import platformdirs  # noqa: PLC0415  as above

    return platformdirs.user_data_path("aiostorage", ensure_exists=True) / "aiostorage.db"


def _called(make: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Any:
    """Call with options, and say which ones there are when one does not fit."""
    signature = inspect.signature(make)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = [
            p.name
            for p in signature.parameters.values()
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        raise ConfigurationError(f"{name}: {error}; its options are {', '.join(known)}") from None
    return make(**options)


def _shown(url: str) -> str:
    """Hide the name and the password that may stand in a URL, even in a mistyped one."""
    return re.sub(r"[^/@]*@", "***@", url)


# ---------------------------------------------------------------------------------- engines


def _sqlite(
    *,
    url: str | None = None,
    path: str | os.PathLike[str] | None = None,
    synchronous: str | None = None,
    busy_timeout: float | str | None = None,
) -> Driver:
    from aiostorage.drivers.sqlite.driver import SQLiteDriver  # noqa: PLC0415  no engine before it is asked for

    options: dict[str, Any] = {}
    if url is not None:
        where, options = _split(url, ("synchronous", "busy_timeout"))
        if path is not None:
            raise ConfigurationError("sqlite: pass a URL or a path, not both")
        path = where
    if path is None or not str(path):
        raise ConfigurationError("sqlite: which file? write sqlite:///tune.db, or pass a path")
    if synchronous is not None:
        options["synchronous"] = synchronous
    if busy_timeout is not None:
        options["busy_timeout"] = busy_timeout
    if "synchronous" in options:
        options["synchronous"] = str(options["synchronous"]).upper()
    if "busy_timeout" in options:
        try:
            options["busy_timeout"] = float(options["busy_timeout"])
        except ValueError:
            raise ConfigurationError(
                f"sqlite: busy_timeout is a number of seconds, not {options['busy_timeout']!r}"
            ) from None
    return SQLiteDriver(path, **options)


def _split(url: str, known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Take the file and the options out of a URL without a host."""
    parts, shown = urlsplit(url), _shown(url)
    if parts.netloc:
        host = _shown(parts.netloc)
        raise ConfigurationError(
            f"{shown!r} has {host!r} where a host would stand; a relative path has three "
            f"slashes ({parts.scheme}:///{host}{parts.path}), an absolute one four"
        )
    if parts.fragment:
        raise ConfigurationError(f"{shown!r}: write %23 for a # in a path")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigurationError(
            f"{shown!r}: unknown {', '.join(unknown)}; the options are {', '.join(known)}"
        )
    return unquote(parts.path[1:]), dict(options)


def _memory(*, url: str | None = None) -> Driver:
    from aiostorage.drivers.memory import MemoryDriver  # noqa: PLC0415  no engine before it is asked for

    if url not in (None, "memory://", "memory:///"):
        raise ConfigurationError(f"a storage in memory has no name and no options: {_shown(url)!r}")
    return MemoryDriver()


def _mongodb(
    *,
    url: str | None = None,
    host: str | None = None,
    port: int | str | None = None,
    name: str | None = None,
    client: str | None = None,
    **options: Any,
) -> Driver:
    """Make the MongoDB engine of a URL, or of what Oríon says of one: host, port and name."""
    if url is None:
        host = host or "localhost"
        where = host if "://" in host else f"mongodb://{host}"
        url = f"{where}:{port}" if port and where is not host else where
    elif host or port:
        raise ConfigurationError("mongodb: pass a URL or a host and port, not both")
    url, given = _without_options(url, ("client", "timeout"))
    options = {**given, **options}
    if client is not None:
        options["client"] = client
    if name is not None:
        options.setdefault("database", name)
    if "timeout" in options:
        try:
            options["timeout"] = float(options["timeout"])
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"mongodb: timeout is a number of seconds, not {options['timeout']!r}"
            ) from None
    try:
        from aiostorage.drivers.mongodb.driver import MongoDBDriver  # noqa: PLC0415  as above
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"mongodb needs {error.name}, which is not installed: pip install 'aiostorage[mongodb]'"
        ) from error
    driver: Driver = _called(MongoDBDriver, "mongodb", {"url": url, **options})
    return driver


def _without_options(url: str, ours: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Take our own options out of the query of a URL, which is otherwise left as it is."""
    place, mark, query = url.partition("?")
    parts = [part for part in query.split("&") if part]
    taken = {k: unquote(v) for k, _, v in (p.partition("=") for p in parts) if k in ours}
    left = "&".join(part for part in parts if part.partition("=")[0] not in ours)
    return (f"{place}?{left}" if mark and left else place), taken


def _legacy(*, url: str | None = None, database: Mapping[str, Any] | None = None) -> Driver:
    """Make the engine that stands for one of Oríon's databases."""
    if url is not None:
        raise ConfigurationError("`legacy` is no URL scheme; it is a type with a `database`")
    options = dict(database or {})
    of_type = str(options.pop("type", "pickleddb")).lower()
    match of_type:
        case "ephemeraldb":
            return _memory()
        case "pickleddb":
            return _sqlite(path=options.get("host") or _default_path())
        case "mongodb":
            return _called(_mongodb, "mongodb", options)  # type: ignore[no-any-return]
    raise UnknownStorageType(of_type, ("ephemeraldb", "mongodb", "pickleddb"))


_BUILT_IN: Final[dict[str, Callable[..., Driver]]] = {
    "legacy": _legacy,
    "memory": _memory,
    "mongodb": _mongodb,
    "mongodb+srv": _mongodb,
    "sqlite": _sqlite,
}
