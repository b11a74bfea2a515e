"""Opening a storage that exists already, without creating a file or a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from aiostorage import Storage
from aiostorage.errors import ConfigurationError, NotADatabaseError
from aiostorage.factory import open_storage

__all__ = ["open_existing"]

SQLITE_MAGIC: Final = b"SQLite format 3\0"

APPLICATION_ID: Final = b"aios"
"""Stands at `APPLICATION_ID_AT` in the header of our SQLite files."""

APPLICATION_ID_AT: Final = slice(68, 72)

HEADER_BYTES: Final = 100
"""The length of a SQLite file's header."""


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
    return storage


def _check_file(path: Path) -> None:
    """Refuse a file that opening would turn into a new database."""
    if path.is_dir():
        return  # the engine has an error message of its own for it
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"there is no file {path}") from None
    except OSError:
        return  # likewise
    log = path.with_name(f"{path.name}-wal")
    is_sqlite = header.startswith(SQLITE_MAGIC)
    # the first transaction of a new database may still be in its write-ahead log only
    is_new = is_sqlite and log.exists() and log.stat().st_size > 0
    if not header or (is_sqlite and header[APPLICATION_ID_AT] != APPLICATION_ID and not is_new):
        raise NotADatabaseError(f"{path} is not a database of aiostorage")
