"""Where storages come from: a URL, a type with options, or the configuration."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio.to_thread

from aiostorage._core.driver_options import (
    STORAGE_OPTIONS,
    STORE_SETTINGS,
    call_with_options,
    hide_credentials,
    taken_from_query,
)
from aiostorage._core.kinds import FLAG, MAPPING, URL, Kind, check_values, option, optional
from aiostorage._core.layout import LAYOUT
from aiostorage._core.named_store import (
    LEGACY,
    NamedStore,
    default_path,
    named_by,
    named_store,
    scheme_of,
)
from aiostorage._core.retry import RetryPolicy
from aiostorage._core.slow import said_when_slow
from aiostorage._core.state import MAX_INFLATED
from aiostorage._core.storage import Storage
from aiostorage._core.upgrade_steps import STEPS
from aiostorage.errors import AioStorageError, ConfigurationError, UnknownStorageType
from aiostorage.protocols import Driver, UpgradableDriver
from aiostorage.upgrades import UpgradeProgress, UpgradeReport

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints
    from pathlib import Path

    from aiostorage.trackers.protocol import Tracker

__all__ = [
    "ENTRY_POINTS",
    "StorageFactory",
    "configured_tracker",
    "open_storage",
    "setup_storage",
    "storage_factory",
    "storage_of",
    "upgrade_storage",
]

ENTRY_POINTS: Final = "aiostorage.drivers"
"""Entry point group of engines from other packages.

An entry point's name is the type and the URL scheme. Its object is a callable that makes an
`aiostorage.protocols.Driver` of keyword options. For a URL it is called with the option `url`, the
whole URL, and with the options that were passed beside it.
"""


def open_storage(
    url: str,
    *,
    retry: RetryPolicy | None = None,
    lost_after: float = 120.0,
    lock_lease: float = 60.0,
    state_codec: str = "msgpack",
    max_inflated_state: int = MAX_INFLATED,
    nan: Literal["completed", "broken", "raise"] | None = None,
    fill_version: bool = True,
    tracker: str | Mapping[str, Any] | Tracker | None = None,
    objective: str | None = None,
    deliver_on_close: float = 5.0,
    history: str | int | None = None,
    telemetry: bool | None = None,
    **options: Any,
) -> Storage:
    """Make the storage that a URL names; use it with ``async with``.

    Parameters
    ----------
    url
        ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, ``memory://``, or the
        scheme of an installed engine. Options of the engine may be given in the query:
        ``sqlite:///tune.db?synchronous=NORMAL``.
    retry
        How often and how long to retry temporary errors.
    lost_after
        Seconds without a heartbeat after which a reserved trial counts as lost.
    lock_lease
        Seconds after which the algorithm lock of a dead holder is free.
    state_codec
        How algorithm state is written: ``msgpack`` or ``pickle``; see `Storage`.
    max_inflated_state
        Bytes that a compressed state may have when it is read; see `Storage`.
    nan
        What becomes of a trial whose objective is NaN: ``completed`` (the default, which warns),
        ``broken`` or ``raise``; see `Storage`.
    fill_version
        Whether an experiment without a version is version 1; see `Storage`.
    tracker
        A tracker that shows what the store has: ``mlflow+http://host:5000``,
        ``mlflow+sqlite:///mlflow.db``, ``comet://workspace/project``,
        ``comet+offline:///directory``, the URL of another installed tracker, a mapping with that
        ``url`` and options, or an `aiostorage.trackers.Tracker`. All storages on one store should
        have the same tracker.
    objective
        The metric that is the objective where scripts log metrics themselves: in a tracker, or in
        an engine that keeps such metrics; see `Storage`.
    deliver_on_close
        Seconds for which `Storage.aclose` keeps sending to the tracker, at most.
    history
        How long the changes of trials are kept: ``"30d"``, a number of them, or ``"off"``; a
        setting of the store, see `Storage`. None leaves it as it is, unless the query of the URL
        has one: ``sqlite:///tune.db?history=off``.
    telemetry
        Whether OpenTelemetry is told what the storage does; default: if a provider is set. See
        `Storage`.
    options
        Options of the engine; see its driver.

    Returns
    -------
    Storage
        Not opened yet: it reads and writes nothing before ``async with`` or the first call.

    Raises
    ------
    UnknownStorageType
        No engine has that scheme; the error lists those that there are.
    ConfigurationError
        The URL or an option cannot work.

    Examples
    --------
    >>> async with open_storage("sqlite:///tune.db") as storage:
    ...     experiment = await storage.create_experiment({"name": "tune"})
    """
    driver = _driver_of(url, options, objective)
    _, in_url = taken_from_query(url, STORE_SETTINGS)
    return _stored_in(
        driver,
        retry=retry,
        lost_after=lost_after,
        lock_lease=lock_lease,
        state_codec=state_codec,
        max_inflated_state=max_inflated_state,
        nan=nan,
        fill_version=fill_version,
        tracker=tracker,
        objective=objective,
        deliver_on_close=deliver_on_close,
        history=in_url.get("history") if history is None else history,
        telemetry=telemetry,
    )


def _stored_in(driver: Driver, *, tracker: Any = None, **settings: Any) -> Storage:
    """Make a storage; its tracker may be named in any form."""
    if tracker is None:
        return Storage(driver, **settings)
    from aiostorage.trackers.factory import tracker_of  # noqa: PLC0415  most storages need none

    return Storage(driver, tracker=tracker_of(tracker), **settings)


def configured_tracker(named: NamedStore) -> Any:
    """Return the tracker of a configuration, in any form; None if it has none."""
    options = dict(named.options)
    if "coordinator" not in options:
        return options.get("tracker")
    from aiostorage.trackers.factory import mirrored  # noqa: PLC0415  few have one

    settings = {name: options[name] for name in STORAGE_OPTIONS if name in options}
    options.pop("type", None)
    return mirrored(named.of_type, options, settings)["tracker"]


async def upgrade_storage(
    url: str | Mapping[str, Any] | None = None,
    *,
    backup: bool | str | os.PathLike[str] = True,
    dry_run: bool = False,
    progress: UpgradeProgress | None = None,
    **options: Any,
) -> UpgradeReport:
    """Upgrade a store that an older aiostorage has laid out; ``aiostorage upgrade`` does this.

    End all workers first, on every machine: workers of the older version would keep writing in the
    old layout. A SQLite file is upgraded in one transaction. A MongoDB database is upgraded step by
    step, and an upgrade that was interrupted continues when it is called again.

    Parameters
    ----------
    url
        As `storage` for `setup_storage`: a URL or a mapping; None for the storage that is
        configured.
    backup
        A SQLite file is copied first, unless this is False: into a file beside it, whose name ends
        with ``.layout-`` and the old version, or into the file that is named here. A file that
        exists is never overwritten. No backup is made of a MongoDB database; use ``mongodump``.
    dry_run
        Change nothing; report what would be done.
    progress
        Called with a short description of each step before it is done, from any thread.
    options
        Options of the engine; see its driver.

    Returns
    -------
    UpgradeReport
        What was done: nothing if the store has the current layout, or is in memory.

    Raises
    ------
    ConfigurationError
        There is no such store, the backup would overwrite a file, or the engine has no upgrade.
    NotADatabaseError
        Something else is there.
    SchemaVersionError
        A newer aiostorage has laid it out.
    TemporaryBackendError
        Another process has the SQLite file open.

    Examples
    --------
    >>> report = await upgrade_storage("sqlite:///tune.db")
    """
    given = {"url": url, "backup": backup, "dry_run": dry_run, "progress": progress}
    check_values("upgrade_storage", _UPGRADE, given)
    named = await anyio.to_thread.run_sync(named_store, url)  # it may read a file
    return await _upgrade_named(named, backup=backup, dry_run=dry_run, progress=progress, **options)


async def _upgrade_named(
    named: NamedStore,
    *,
    backup: bool | str | os.PathLike[str],
    dry_run: bool,
    progress: UpgradeProgress | None,
    **options: Any,
) -> UpgradeReport:
    """Upgrade the store that `named_store` has returned; see `upgrade_storage`."""
    try:
        there = named.without_tracker()
        engine = {k: v for k, v in there.options.items() if k not in ("type", *STORAGE_OPTIONS)}
        make = partial(storage_factory.driver, there.of_type, {**engine, **options})
        driver = await anyio.to_thread.run_sync(make)  # it may look for installed engines
        if not isinstance(driver, UpgradableDriver):
            raise ConfigurationError(f"the engine {driver.name} has no upgrade of its stores")
        with said_when_slow(driver):
            upgrade = partial(driver.upgrade, LAYOUT, STEPS, backup=backup, dry_run=dry_run)
            if progress is not None and "progress" in inspect.signature(upgrade).parameters:
                return await upgrade(progress=progress)
            return await upgrade()
    except AioStorageError as error:
        raise named_by(error, named.origin)  # noqa: B904  the same error


_STORE: Final = Kind(
    "a URL or a mapping",
    lambda value: isinstance(value, str | Mapping | None),
    error=ConfigurationError,
    secret=True,
)
_UPGRADE: Final = {
    "url": _STORE,
    "backup": option(
        Kind("a bool or a path", lambda value: isinstance(value, bool | str | os.PathLike))
    ),
    "dry_run": option(FLAG),
    "progress": option(Kind("a function", lambda value: value is None or callable(value))),
}


def _driver_of(url: str, options: Mapping[str, Any], objective: str | None = None) -> Driver:
    URL.check("open_storage", "url", url)
    return storage_factory.driver(scheme_of(url), {"url": url, **options}, objective)


class StorageFactory:
    """Makes storages of a type and its options, as Oríon's factory of that name does."""

    def create(self, of_type: str, **kwargs: Any) -> Storage:
        """Make a storage.

        Parameters
        ----------
        of_type
            ``sqlite`` (`path`), ``memory``, ``legacy`` (`database`, as Oríon configures it), or
            the name of an installed engine; in any case. Or the name of a tracker: ``mlflow``
            (`tracking_uri`), ``comet`` (`workspace` and `project`, or a `directory`) or that of an
            installed one (`url`), with a `coordinator`.
        kwargs
            Options of the engine, and those of `Storage`. A tracker is only shown what the
            `coordinator` has: the URL of a storage, or a mapping as for `setup_storage`.

        Raises
        ------
        UnknownStorageType
            No engine has that name; the error lists those that there are.
        ConfigurationError
            An option cannot work.
        """
        settings: dict[str, Any] = {n: kwargs.pop(n) for n in STORAGE_OPTIONS if n in kwargs}
        if isinstance(url := kwargs.get("url"), str):
            settings = taken_from_query(url, STORE_SETTINGS)[1] | settings
        if isinstance(settings.get("retry"), Mapping):
            settings["retry"] = call_with_options(RetryPolicy, "retry", settings["retry"])
        if "coordinator" in kwargs:
            from aiostorage.trackers.factory import mirrored  # noqa: PLC0415  few have one

            return setup_storage(mirrored(str(of_type).lower(), {**settings, **kwargs}, settings))
        objective = settings.get("objective")
        return _stored_in(self.driver(of_type, kwargs, objective), **settings)

    def driver(
        self, of_type: str, options: Mapping[str, Any], objective: str | None = None
    ) -> Driver:
        """Make the driver of a type; see `create`. It gets the `objective` if it takes one."""
        name = str(of_type).lower()
        make = self._maker(name)
        if objective is not None and "objective" in inspect.signature(make).parameters:
            options = {"objective": objective, **options}
        if isinstance(url := options.get("url"), str):
            options = {**options, "url": taken_from_query(url, STORE_SETTINGS)[0]}
        return call_with_options(make, name, options, beside=STORAGE_OPTIONS)

    def known(self) -> tuple[str, ...]:
        """Return the names of all types, sorted."""
        return tuple(sorted({LEGACY, *_BUILT_IN, *_entry_points().names}))

    def _maker(self, name: str) -> Callable[..., Driver]:
        """Return the function that makes a driver of a type from its options."""
        if name == LEGACY:
            return _orion_database
        if name in _BUILT_IN:
            return _BUILT_IN[name].load()
        for entry_point in _entry_points().select(name=name):
            make: Callable[..., Driver] = entry_point.load()
            return make
        from aiostorage.trackers.factory import known_trackers  # noqa: PLC0415  as above

        if name in known_trackers():
            raise ConfigurationError(
                f"{name} is a tracker, which only shows what another storage has; "
                'write open_storage("sqlite:///tune.db", tracker=…), or name that with '
                '`coordinator`, as coordinator="sqlite:///tune.db"'
            )
        raise UnknownStorageType(hide_credentials(name), self.known())


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415  15 ms that most runs never need

    return entry_points(group=ENTRY_POINTS)


storage_factory: Final[StorageFactory] = StorageFactory()


_SETUP: Final = {
    "storage": _STORE,
    "debug": option(FLAG),
}


def setup_storage(storage: Mapping[str, Any] | str | None = None, debug: bool = False) -> Storage:
    """Make the storage that is configured.

    Parameters
    ----------
    storage
        A URL, or a mapping with either ``url`` or ``type``, and options. Default: the URL in the
        environment's ``AIOSTORAGE_URL``, else the table ``[storage]`` of ``aiostorage.toml`` in
        the user's configuration directory, else a SQLite file in the user's data directory; with
        the tracker whose URL is in ``AIOSTORAGE_TRACKER``, if there is one. All commands follow the
        same rule.
    debug
        Use an empty storage in memory, whatever is configured.

    Raises
    ------
    UnknownStorageType, ConfigurationError
        As for `open_storage`. These errors, and errors when the storage is opened, say where the
        configuration comes from, unless it was passed.
    """
    check_values("setup_storage", _SETUP, {"storage": storage, "debug": debug})
    if debug:
        return storage_factory.create("memory")
    return storage_of(named_store(storage))


def storage_of(named: NamedStore, **more: Any) -> Storage:
    """Make the storage that `named_store` has returned; `more` are options and settings beside it.

    Raises
    ------
    UnknownStorageType, ConfigurationError
        As for `open_storage`; the message says who named the storage, unless an argument did.
    """
    options = {**named.options, **more}
    try:
        of_type = options.pop("type", None) or named.of_type
        storage = storage_factory.create(of_type, **options)
    except ConfigurationError as error:
        raise named_by(error, named.origin)  # noqa: B904  the same error
    if named.is_default:
        _made_default_path()
    storage._gateway.origin = named.origin  # noqa: SLF001  for errors when it is opened
    return storage


# ---------------------------------------------------------------------------------- engines


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    """An engine of this package, imported when it is asked for."""

    module: str
    needs: str | None = None
    """The library that it needs beside this package."""
    extra: str | None = None
    """The extra of this package that brings it."""

    def load(self) -> Callable[..., Driver]:
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if self.needs is None:
                raise
            raise ConfigurationError(
                f"this engine needs {self.needs}, which is not installed (there is no module "
                f"{error.name}): pip install 'aiostorage-orion[{self.extra}]'"
            ) from error
        make: Callable[..., Driver] = module.driver_from_options
        return make


_MONGODB: Final = _BuiltIn("aiostorage.drivers.mongodb.mongodb_options", "motor", "mongodb")

_BUILT_IN: Final[dict[str, _BuiltIn]] = {
    "memory": _BuiltIn("aiostorage.drivers.memory"),
    "mongodb": _MONGODB,
    "mongodb+srv": _MONGODB,
    "sqlite": _BuiltIn("aiostorage.drivers.sqlite.sqlite_options"),
    "track": _BuiltIn("aiostorage.drivers.track.track_options"),
}
"""The engines of this package by type and URL scheme; each makes its driver of options."""


def _orion_database(*, url: str | None = None, database: Mapping[str, Any] | None = None) -> Driver:
    """Make the driver that takes the place of one of Oríon's databases: the type ``legacy``."""
    if url is not None:
        raise ConfigurationError("`legacy` is not a URL scheme; it is a type with a `database`")
    option(replace(optional(MAPPING), secret=True)).check("legacy", "database", database)
    options = dict(database or {})
    of_type = str(options.pop("type", "pickleddb")).lower()
    match of_type:
        case "ephemeraldb":
            return storage_factory.driver("memory", {})
        case "pickleddb":
            return storage_factory.driver(
                "sqlite", {"path": options.get("host") or _made_default_path()}
            )
        case "mongodb":
            return storage_factory.driver("mongodb", options)
    raise UnknownStorageType(hide_credentials(of_type), ("ephemeraldb", "mongodb", "pickleddb"))


def _made_default_path() -> Path:
    path = default_path()
    with suppress(OSError):  # opening the file says what is wrong
        path.parent.mkdir(parents=True, exist_ok=True)
    return path
