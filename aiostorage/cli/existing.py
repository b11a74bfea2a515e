"""Opening a storage that exists already, without creating a file or a database."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage._core.file_options import not_there
from aiostorage._core.named_store import LEGACY, NamedStore, named_by
from aiostorage.errors import AioStorageError, ConfigurationError, NotADatabaseError
from aiostorage.factory import storage_of

__all__ = ["check_lasts", "open_existing"]


def open_existing(named: NamedStore, **settings: Any) -> Storage:
    """Return the storage that is meant, to read what is there already; no tracker is told.

    A MongoDB database is checked when the storage is opened, which then raises the same errors.

    Parameters
    ----------
    named
        What `aiostorage._core.named_store.named_store` returned.
    settings
        Those of `open_storage`.

    Raises
    ------
    ConfigurationError
        There is no such file, or the URL is that of a storage in memory.
    NotADatabaseError
        The file is not a database of aiostorage.
    """
    named = NamedStore(named.without_tracker().options, named.origin)  # which makes no directory
    if named.engine in ("mongodb", "mongodb+srv"):
        if named.of_type == LEGACY:
            named = NamedStore({"type": "mongodb", **named.options["database"]}, named.origin)
        return storage_of(named, read_only=True, **settings)
    storage = storage_of(named, **settings)
    try:
        match storage._gateway.driver.name:  # noqa: SLF001  as an adapter of this package
            case "memory":
                raise ConfigurationError(
                    "a storage in memory ends with its process: nothing to read"
                )
            case "sqlite":
                _check_file(Path(storage.location))
            case "track":
                _check_track_file(Path(storage.location))
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
    """Refuse a file that opening would make; of all others, the engine says what they are."""
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
