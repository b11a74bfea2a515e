"""Opening a storage that exists already, without creating a file or a database."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiostorage import RetryPolicy, Storage
from aiostorage._core.files.path_options import not_there
from aiostorage._core.named_store import LEGACY, NamedStore, named_by, named_store
from aiostorage.cli.options import DEFAULT_TIMEOUT
from aiostorage.errors import AioStorageError, ConfigurationError, NotADatabaseError
from aiostorage.factory import storage_of

__all__ = ["check_lasts", "connecting", "open_existing", "open_named"]

_MONGODB: Final = ("mongodb", "mongodb+srv")
"""The types of MongoDB."""


def open_named(
    url: str | None, timeout: float | None = None, *, writing: bool = False, **settings: Any
) -> AbstractAsyncContextManager[Storage]:
    """Return the existing storage that a command uses; ``async with`` opens it.

    Parameters
    ----------
    url
        The value of ``--storage``; None for the storage that is configured.
    timeout
        The value of ``--timeout``: seconds that the storage may take to answer.
    writing
        Whether the command changes something; if so, changes are sent to the configured tracker.
        If not, a MongoDB database may be one that aiostorage did not create.
    settings
        Settings of `open_storage`; those that are None are left out.

    Raises
    ------
    ConfigurationError, NotADatabaseError
        As for `open_existing`.
    """
    named = named_store(url).with_own_options()
    given = {name: value for name, value in settings.items() if value is not None}
    given |= _bounds(named, timeout)
    existing = open_existing(named, **given)
    return _writable(existing, _never_created(storage_of(named, **given))) if writing else existing


def _never_created(storage: Storage) -> Storage:
    """Have the opening fail, and not make a new file, if its file is removed before."""
    driver = storage._gateway.driver  # noqa: SLF001  as an adapter of this package
    if driver.name in {"sqlite", "track"}:
        driver.creates = False  # type: ignore[attr-defined]  # of these two
    return storage


@asynccontextmanager
async def _writable(existing: Storage, storage: Storage) -> AsyncIterator[Storage]:
    """Open a storage for writing after checking that it exists: opening would create it."""
    async with existing:
        pass
    async with storage:
        yield storage


def _bounds(named: NamedStore, timeout: float | None) -> dict[str, Any]:
    """Return the settings with which a storage answers in time or fails."""
    options = named.without_tracker().options
    query = str(options.get("url", "")).partition("?")[2]
    if timeout is None and ("timeout" in options or "timeout=" in query or "retry" in options):
        return {}
    seconds = DEFAULT_TIMEOUT if timeout is None else timeout
    if named.engine not in _MONGODB:
        return {"retry": RetryPolicy(total=seconds, attempt_timeout=seconds)}
    # its client gives up first, since it can say why
    outer = seconds + 1
    return {"timeout": seconds, "retry": RetryPolicy(total=outer, attempt_timeout=outer)}


def connecting(named: NamedStore) -> dict[str, float]:
    """Return the connection timeout of a command for MongoDB; no option for a file.

    It is for commands whose single operations may take long. The URL or the configuration may say
    something else.
    """
    options = named.without_tracker().options
    query = str(options.get("url", "")).partition("?")[2]
    said = "connect_timeout" in options or "connect_timeout=" in query
    if said or named.engine not in _MONGODB or named.of_type == LEGACY:  # which takes no options
        return {}
    return {"connect_timeout": DEFAULT_TIMEOUT}


def open_existing(named: NamedStore, **settings: Any) -> Storage:
    """Return an existing storage for reading: without a tracker, and with its own history setting.

    A MongoDB database is checked when the storage is opened, which then raises the same errors.

    Parameters
    ----------
    named
        The result of `aiostorage._core.named_store.named_store`.
    settings
        Those of `open_storage`.

    Raises
    ------
    ConfigurationError
        There is no such file, or the URL is that of a storage in memory.
    NotADatabaseError
        The file is not a database of aiostorage.
    """
    named = NamedStore(named.for_reading().options, named.origin)  # which makes no directory
    if named.engine in _MONGODB:
        return storage_of(named.with_own_options(), read_only=True, **settings)
    storage = storage_of(named, **settings)
    try:
        match storage._gateway.driver.name:  # noqa: SLF001  as an adapter of this package
            case "memory":
                raise ConfigurationError(
                    "a storage in memory ends with its process: nothing to read"
                )
            case "sqlite":
                _check_file(Path(_never_created(storage).location))
            case "track":
                _check_track_file(Path(_never_created(storage).location))
    except AioStorageError as error:
        raise named_by(error, named.origin)  # noqa: B904  the same error
    return storage


def check_lasts(named: NamedStore) -> None:
    """Refuse a storage in memory as the destination of a copy."""
    if named.engine == "memory":
        error = ConfigurationError(
            "a storage in memory ends with its process: nothing would be left"
        )
        raise named_by(error, named.origin)


def _check_track_file(path: Path) -> None:
    """Refuse a file that does not exist or is empty; the engine checks all others."""
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise not_there(path) from None
    except OSError:
        return
    if stat.S_ISREG(there.st_mode) and not there.st_size:
        raise NotADatabaseError(f"{path} is empty, and no Track file")


def _check_file(path: Path) -> None:
    """Refuse a file that opening would turn into a new database."""
    from aiostorage.drivers.sqlite.file_checks import application_id  # noqa: PLC0415  as the engine
    from aiostorage.drivers.sqlite.tables import APPLICATION_ID  # noqa: PLC0415

    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise not_there(path) from None
    except OSError:
        return  # the engine has an error message of its own for it
    if not stat.S_ISREG(there.st_mode):
        return  # likewise
    found = application_id(path) if there.st_size else 0
    if found is None:
        return  # likewise
    log = path.with_name(f"{path.name}-wal")
    # the first transaction of a new database may still be in its write-ahead log only
    is_new = there.st_size and log.exists() and log.stat().st_size > 0
    if found != APPLICATION_ID and not is_new:
        raise NotADatabaseError(f"{path} is not a database of aiostorage")
