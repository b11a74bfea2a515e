"""Opening a storage that exists already, without creating a file or a database."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from aiostorage import Storage
from aiostorage.errors import ConfigurationError, NotADatabaseError
from aiostorage.factory import open_storage

__all__ = ["open_existing"]


def open_existing(url: str, **settings: Any) -> Storage:
    """Return the storage of a URL, to read what is there already.

    A MongoDB database is checked when the storage is opened, which then raises the same errors.

    Parameters
    ----------
    settings
        Those of `open_storage`.

    Raises
    ------
    ConfigurationError
        There is no such file, or the URL is that of a storage in memory.
    NotADatabaseError
        The file is not a database of aiostorage.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in ("mongodb", "mongodb+srv"):
        return open_storage(url, read_only=True, **settings)
    storage = open_storage(url, **settings)
    if scheme == "memory":
        raise ConfigurationError("a storage in memory ends with its process: nothing to read")
    if scheme == "sqlite":
        _check_file(Path(storage.location))
    elif scheme == "track":
        _check_track_file(Path(storage.location))
    return storage


def _check_track_file(path: Path) -> None:
    """Refuse a file that opening would make; of all others, the engine says what they are."""
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"there is no file {path}") from None
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
        raise ConfigurationError(f"there is no file {path}") from None
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
