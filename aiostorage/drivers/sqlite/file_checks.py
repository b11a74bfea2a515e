"""Checks of a path before SQLite opens it: what is there, and whether a log can work there.

None opens the file: to close it again would drop the locks that SQLite has on it in this process.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from aiostorage._core.file_kinds import HEAD, SQLITE, kind_of
from aiostorage._core.file_options import not_there
from aiostorage._core.file_places import MOUNTS, NETWORK, filesystem_of, mounted
from aiostorage.drivers.sqlite.database_file import identity
from aiostorage.drivers.sqlite.lock_holders import LOCKS, lock_holders
from aiostorage.errors import (
    BackendError,
    ConfigurationError,
    NotADatabaseError,
    PermissionDenied,
)

__all__ = [
    "application_id",
    "check_log",
    "check_place",
    "is_sqlite",
    "not_a_database",
]

SMALLEST: Final = 16
"""Bytes that a database has at least, to be recognised."""

LOOKS: Final = 6
LOOK_INTERVAL: Final = 0.1
"""How often, and with how many seconds between, a process is seen with one lock of two."""


def check_place(path: Path, mounts: Path = MOUNTS) -> None:
    """Refuse a path where the database cannot be, before anything is written.

    Raises
    ------
    ConfigurationError
        The directory is missing; the path is a directory, a device or the like, or a new file with
        the name of a log; the file has several names, of which each would have a log of its own; or
        the file system is a network one.
    PermissionDenied
        The file cannot be read or written, or its directory cannot be searched.
    NotADatabaseError
        The file is too short for a database.
    """
    try:
        _check_directory(path)
        _check_mount(path.resolve(), mounts)
        if _is_there(path):
            _check_file(path)
        elif _named_part(path) is not None:
            raise ConfigurationError(
                f"{path} is the name of a log, which SQLite deletes or writes over as soon as a "
                "database of the rest of the name is opened; choose another name"
            )
    except PermissionError as error:
        raise PermissionDenied(f"cannot look into {path.parent}: {error.strerror}") from error
    except (OSError, RuntimeError) as error:  # a loop of links; RuntimeError until Python 3.12
        raise ConfigurationError(f"{path} leads to no file: {error}") from error


def _is_there(path: Path) -> bool:
    try:
        path.stat()  # `exists` hides a loop of links, from Python 3.12 on
    except FileNotFoundError:
        return False
    return True


def _check_directory(path: Path) -> None:
    target = path.resolve().parent  # elsewhere, if the path is a symbolic link
    for directory in (path.parent, target):
        try:
            parent = directory.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            raise not_there(directory, directory=True) from None
    if path.is_dir() or not parent.is_dir():
        wrong = path if path.is_dir() else directory
        raise ConfigurationError(
            f"{wrong} is {'' if path.is_dir() else 'not '}a directory; name a file"
        )


def _check_mount(target: Path, mounts: Path) -> None:
    try:
        mountinfo = mounts.read_text()
    except OSError:
        return  # not Linux: then the journal mode decides
    kind = filesystem_of(target.parent, mountinfo)
    if kind in NETWORK:  # the log's index lives in shared memory
        raise ConfigurationError(
            f"{target} is on a network file system ({kind}), where SQLite's write-ahead log "
            "corrupts data; put the file on a local disk, or use an engine made for many machines"
        )
    if any(point == target for point, _ in mounted(mountinfo)):
        raise ConfigurationError(
            f"{target} is mounted without its directory, so that SQLite's write-ahead log would "
            "lie elsewhere than for those who use the file itself; mount the directory"
        )


def _check_file(path: Path) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{path} is not a regular file; SQLite needs one")
    if _is_part(path):
        raise ConfigurationError(f"{path} is a part of another SQLite database; name its main file")
    if 0 < found.st_size < SMALLEST:  # SQLite would take a single byte for an empty database
        raise not_a_database(path)
    if found.st_nlink > 1:
        raise ConfigurationError(
            f"{path} has {found.st_nlink} names (hard links), and SQLite keeps a write-ahead log "
            "for each, which corrupts the file; remove the other names, or use symbolic links"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionDenied(f"cannot read and write {path}")


def check_log(path: Path, locks: Path = LOCKS) -> None:
    """Refuse a file and a log that processes use, but not together.

    That is so after a move, when the file is opened by its new name, or when another file has come
    to the path, while a process still uses the earlier file or the log of the earlier name.

    Raises
    ------
    BackendError
        A process uses one without the other.
    """
    index = f"{os.path.realpath(path)}-shm"
    seen: list[tuple[set[int], set[int]]] = []
    while True:
        if (holders := lock_holders(locks)) is None:
            return
        file, log = identity(path), identity(index)
        # who excludes others from the file needs no index
        without_log = holders.sharing[file] - holders.all[log]
        seen.append((holders.all[log] - holders.all[file], without_log))
        log_only, file_only = (set.intersection(*pids) for pids in zip(*seen, strict=True))
        if not log_only and not (file_only and _is_established(path)):
            return
        if len(seen) == LOOKS:
            break
        time.sleep(LOOK_INTERVAL)  # a process that is about to open the file has no log yet
    what, whose = (
        (f"the log beside {path}", "another file, which was there before")
        if log_only
        else (f"the file {path}", "another log, as it was opened by another name")
    )
    processes = ", ".join(map(str, sorted(log_only or file_only)))
    raise BackendError(
        f"{what} is in use with {whose}: by process {processes}. Nothing was opened or created; "
        "close the storage there, or end the process"
    )


def _is_established(path: Path) -> bool:
    """Return whether the tables are in the file itself, so that whoever uses it uses a log."""
    return application_id(path) not in (None, 0)


def not_a_database(path: Path, cause: BaseException | None = None) -> NotADatabaseError:
    """Return the error about a file that SQLite refused, with its error if there is one."""
    left = "and was left as it is"
    size = os.path.getsize(path) if os.path.exists(path) else 0  # noqa: PTH110, PTH202
    head = b"" if size >= SMALLEST and is_sqlite(path) else _head(path)
    if not head or head.startswith(SQLITE):
        return NotADatabaseError(
            f"{path} is a damaged SQLite database, {left}: {cause or 'it cannot be read'}. It has "
            f"{size:,} bytes; perhaps its end is missing, or it was copied while in use"
        )
    kind = kind_of(head)
    advice = {
        "a pickle": "; a PickledDB of Oríon's can be imported with `aiostorage import-orion`",
        "a Track file": f"; open it with track:///{path}",
    }.get(kind, "")
    return NotADatabaseError(f"{path} is not a SQLite database but {kind}, {left}{advice}")


def _head(path: Path) -> bytes:
    """Return the beginning of a file that is not a database; see `is_sqlite`."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def application_id(path: Path) -> int | None:
    """Return a file's ``PRAGMA application_id``, without its log; None if it is not a database.

    An empty file is a database for SQLite, with 0; so is, for us, a part of another database.
    """
    if _is_part(path):
        return 0
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            found: int = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        no_database = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN)
        return None if error.sqlite_errorcode & 0xFF in no_database else 0
    return found


def is_sqlite(path: Path) -> bool:
    """Return whether a file belongs to a SQLite database, so that only SQLite may open it."""
    return application_id(path) is not None


def _is_part(path: Path) -> bool:
    """Return whether a file is the log of a database, or belongs to the log."""
    database = _named_part(path)
    return database is not None and os.path.exists(database)  # noqa: PTH110


def _named_part(path: Path) -> str | None:
    """Return the database whose log has this name, whether it exists or not."""
    target = os.path.realpath(path)
    for suffix in ("-wal", "-shm", "-journal"):
        if target.endswith(suffix):
            return target.removesuffix(suffix)
    return None
