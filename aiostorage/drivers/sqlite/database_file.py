"""The file of a storage, watched while it is open: others can move, remove or replace it."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from aiostorage.drivers.sqlite.lock_holders import lock_holders
from aiostorage.errors import BackendError, NotADatabaseError

__all__ = ["LOG_CHECK_INTERVAL", "MAX_CHECK_AGE", "MAX_OPENINGS", "DatabaseFile", "identity"]

Identity: TypeAlias = tuple[int, int]
"""The inode of a file, and the device that it is on."""

LOG_SUFFIXES: Final = ("-wal", "-shm")
"""What SQLite adds to a file's name for the write-ahead log and its index."""

MAX_OPENINGS: Final = 3
"""How often a file is opened, at most, if it changes meanwhile: a layered file system copies it."""

LOG_CHECK_INTERVAL: Final = 0.1
"""Seconds between two checks of the names of the log."""

MAX_CHECK_AGE: Final = 0.005
"""Seconds for which an answer relies on the check of the file before the commit."""

CHECKPOINT_TIMEOUT: Final = 0.2
"""Seconds that emptying the log may wait for other processes."""

ADVICE: Final = "Put the earlier file back, or close the storage and open it again"


class DatabaseFile:
    """A file that one storage has open.

    It is recognised by its inode. It is never opened here, since to close it again would drop every
    lock that SQLite has on it in this process (fcntl(2), close), and another process that closes
    its last connection would delete the log that this one writes to.

    When it has moved or was replaced, its log is emptied into it, wherever it is, so that SQLite
    cannot take this log for that of the file that has come to the path.

    Parameters
    ----------
    path
        An absolute path.
    creates
        Whether the first opening may make the file.
    query
        How SQLite opens it, as the query of a URI.

    Attributes
    ----------
    uri
        What SQLite opens; it does not create the file.
    name
        The path, in the form that is found fastest.
    known
        The identity of the file, once it is open.
    extent
        The bytes that it has at least, since SQLite reuses free pages; and the number of the schema
        at that time, which changes with VACUUM, the exception. None: it is not known.
    logs
        The names of the log and of its index, with their identities, while they are in use.
    """

    def __init__(self, path: Path, creates: bool = True, query: str = "mode=rw") -> None:
        self.uri: str = f"{path.as_uri()}?{query}"
        self.name: bytes = os.fsencode(path)
        self.known: Identity | None = None
        self._path = path
        self._creates = creates
        self.extent: tuple[int, int | None] = 0, None
        self.logs: tuple[tuple[str, Identity | None], ...] = ()
        self._has_tables = False

    # ----------------------------------------------------------------------------- opening

    def before_opening(self) -> Identity:
        """Make the file if it was never open; return what a connection will open.

        Raises
        ------
        BackendError
            The path names another file than before, or none; or its log is another one.
        """
        if self.known is None:
            if self._creates:
                _create(self._path)
        elif change := self._change() or self._change_of_log():
            raise BackendError(f"{change}; it was not opened again. {ADVICE}")
        else:
            return self.known
        found = identity(self.name)
        if found is None:
            raise BackendError(
                f"{self._path} does not exist any more; it was there when this storage was opened "
                "or copied, and is not made again"
            )
        return found

    def is_opened(self, before: Identity) -> bool:
        """Return whether a connection that is open now has the file that was there `before`."""
        if identity(self.name) != before:
            return False
        self.known = before
        return True

    def note_tables(self, connection: sqlite3.Connection) -> None:
        """Note that the tables are there: from now on they have to stay, and their log."""
        self._has_tables = True
        self.extent = 1, None
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 0:
            self.extent = self._path.stat().st_size, _schema(connection)
        self.note_log(connection)

    def note_log(self, connection: sqlite3.Connection) -> None:
        """Note which log the connections use; a file without tables has none yet."""
        if self._has_tables:
            connection.execute("PRAGMA schema_version").fetchall()  # opens the log
            names = [os.path.realpath(self._path) + suffix for suffix in LOG_SUFFIXES]
            self.logs = tuple((name, identity(name)) for name in names)

    @property
    def lacks_log(self) -> bool:
        """Whether the file has no write-ahead log: another program has set it so."""
        return bool(self.logs) and self.logs[0][1] is None

    def open_log(self) -> int:
        """Open the log, for whoever waits until it is on disk; return the descriptor.

        SQLite has no locks on it that would be dropped when that is closed.

        Raises
        ------
        BackendError
            It was removed or replaced.
        """
        (name, known), _ = self.logs
        with suppress(FileNotFoundError):
            log = os.open(name, os.O_RDWR)
            found = os.fstat(log)
            if (found.st_ino, found.st_dev) == known:
                return log
            os.close(log)
        raise BackendError(f"{name}, which belongs to the database, was removed or replaced")

    def discard_log(self) -> None:
        """Discard what is known of the log: the next connection may make another one."""
        self.logs = ()

    # ---------------------------------------------------------------------------- watching

    def check(self, connection: sqlite3.Connection, outcome: str) -> None:
        """Refuse to go on if the path does not name the file any more, or not its log.

        Raises
        ------
        BackendError
            It does not; the message ends with the outcome of the call.
        """
        if change := self._change(connection):
            self.leave(connection)
            raise BackendError(f"{change}; {outcome}. {ADVICE}")
        if change := self._change_of_log():
            _empty_log(connection)  # what is in it would be lost
            raise BackendError(f"{change} while it was in use. Close the storage and open it again")

    def explain(self, connection: sqlite3.Connection, error: Exception) -> None:
        """Raise another error if the file has moved or was replaced: that is the cause, then.

        Raise one that names the file, if SQLite finds it damaged.
        """
        if isinstance(error, BackendError):
            return
        try:
            self.check(connection, "nothing was done")
        except BackendError as cause:
            raise cause from error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise NotADatabaseError(f"{self._path} is damaged: {error}") from error

    def leave(self, connection: sqlite3.Connection) -> None:
        """Empty the log if the file has moved or was replaced; roll back before."""
        if self._log_is_stray():
            _empty_log(connection)

    def _change(self, connection: sqlite3.Connection | None = None) -> str | None:
        """Return what has happened to the file; None if its path still names it."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return f"{self._path} was removed or moved while it was open"
        except OSError as error:
            return f"{self._path}, which is open, cannot be found: {error.strerror}"
        if (found.st_ino, found.st_dev) != self.known:
            return f"{self._path} was replaced by another file while it was open"
        size, schema = self.extent
        if found.st_size < size and (connection is not None or not found.st_size):
            present = _schema(connection) if found.st_size and connection is not None else None
            if present in (None, schema):
                return f"{self._path} was emptied, cut or overwritten while it was open"
            self.extent = found.st_size, present
        return None

    def _change_of_log(self) -> str | None:
        for name, known in self.logs:
            if identity(name) != known:
                return f"{name}, which belongs to the database, was removed or replaced"
        return None

    def _log_is_stray(self) -> bool:
        """Return whether the log lies where its file no longer is, and no other process needs it.

        Others do after a move, if one uses the file by its new name, with another log; or if one
        has taken the log for that of the file that has come to the path.
        """
        there = identity(self.name)
        if not self.logs or there == self.known:
            return False
        name, index = self.logs[1]
        holders = lock_holders()
        if holders is None:
            return True
        taken_over = identity(name) == index and holders.all[there]
        return holders.all[self.known] <= holders.all[index] and not taken_over


def _schema(connection: sqlite3.Connection) -> int | None:
    """Return the number that VACUUM increments, and each change of the tables."""
    try:
        found: int = connection.execute("PRAGMA schema_version").fetchone()[0]
    except sqlite3.Error:
        return None
    return found


def _empty_log(connection: sqlite3.Connection) -> None:
    """Write what the log has into its own file, wherever that is, and truncate the log."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    with suppress(sqlite3.Error):
        wait = connection.execute("PRAGMA busy_timeout").fetchone()[0]
        connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_TIMEOUT * 1000:.0f}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute(f"PRAGMA busy_timeout = {wait}")


def identity(name: str | bytes | Path) -> Identity | None:
    """Return the inode and the device of the file that a path names, None if it names none."""
    try:
        found = os.stat(name)  # noqa: PTH116  takes bytes, too
    except OSError:
        return None
    return found.st_ino, found.st_dev


_creating: Final = threading.Lock()


def _create(path: Path) -> None:
    """Create the file, for its owner alone, unless it exists."""
    target = os.path.realpath(path)  # a link may lead to a file that is missing
    with _creating, suppress(FileExistsError):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
