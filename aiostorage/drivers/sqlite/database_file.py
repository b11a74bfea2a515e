"""The file of a storage, watched while it is open: others can move, remove or replace it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from aiostorage.drivers.sqlite.lock_holders import lock_holders
from aiostorage.errors import BackendError

__all__ = ["DatabaseFile"]

Identity: TypeAlias = tuple[int, int]
"""The inode of a file, and the device that it is on."""

LOG_SUFFIXES: Final = ("-wal", "-shm")
"""What SQLite adds to a file's name for the write-ahead log and its index."""

OPENINGS: Final = 3
"""How often a file is opened that changes meanwhile, as a layered file system copies it then."""

ADVICE: Final = "Put the earlier file back, or close the storage and open it again"


class DatabaseFile:
    """A file that one storage has open.

    It is recognised by its inode. It is never opened here, since to close it again would drop every
    lock that SQLite has on it in this process (fcntl(2), close), and another process that closes
    its last connection would delete the log that this one writes to.

    Parameters
    ----------
    path
        An absolute path.
    """

    def __init__(self, path: Path) -> None:
        self.uri: str = f"{path.as_uri()}?mode=rw"
        self._path = path
        self._name = os.fsencode(path)
        self._known: Identity | None = None
        self._logs: tuple[str, ...] = ()
        self._known_logs: tuple[Identity | None, ...] = ()
        self._has_tables = False

    # ----------------------------------------------------------------------------- opening

    def before_opening(self) -> Identity:
        """Make the file if it was never open; return what a connection will open.

        Raises
        ------
        BackendError
            The path names another file than before, or none.
        """
        if self._known is None:
            _create(self._path)
            self._logs = tuple(os.path.realpath(self._path) + suffix for suffix in LOG_SUFFIXES)
        elif change := self.change() or self.change_of_log():
            raise BackendError(f"{change}; it was not opened again. {ADVICE}")
        else:
            return self._known
        found = _identity(self._name)
        if found is None:
            raise BackendError(f"{self._path} was removed while it was being opened")
        return found

    def is_opened(self, before: Identity) -> bool:
        """Return whether a connection that is open now has the file that was there `before`."""
        if _identity(self._name) != before:
            return False
        self._known = before
        return True

    def note_tables(self) -> None:
        """Note that the tables and the log are there: from now on they have to stay."""
        self._has_tables = True
        self.check_log()

    def check_log(self) -> None:
        """Note which log the connections use; refuse another one while some are open.

        Raises
        ------
        BackendError
            The log was removed or replaced.
        """
        if not self._has_tables:
            return
        if not self._known_logs:
            self._known_logs = tuple(map(_identity, self._logs))
        elif change := self.change_of_log():
            raise BackendError(f"{change}. Close the storage and open it again")

    def forget_log(self) -> None:
        """Forget the log: the next connection may make another one."""
        self._known_logs = ()

    # ---------------------------------------------------------------------------- watching

    def change(self) -> str | None:
        """Return what has become of the file, None if its path still names it."""
        try:
            found = os.stat(self._name)  # noqa: PTH116  half the time
        except FileNotFoundError:
            return f"{self._path} was removed or moved while it was open"
        except OSError as error:
            return f"{self._path}, which is open, cannot be found: {error.strerror}"
        if (found.st_ino, found.st_dev) != self._known:
            return f"{self._path} was replaced by another file while it was open"
        if not found.st_size and self._has_tables:
            return f"{self._path} was emptied while it was open"
        return None

    def change_of_log(self) -> str | None:
        """Return what has become of the log, None if its names are still those of its files."""
        for name, known in zip(self._logs, self._known_logs, strict=False):
            if _identity(name) != known:
                return f"{name}, which belongs to the database, was removed or replaced"
        return None

    def log_is_stray(self) -> bool:
        """Return whether the log lies where its file no longer is, and nobody else depends on it.

        Others do after a move, if one uses the file by its new name, with another log; or if one
        has taken the log for that of the file that has come to the path.
        """
        there = _identity(self._name)
        if not self._has_tables or there == self._known:
            return False
        index = self._known_logs[1] if self._known_logs else None
        holders = lock_holders()
        if holders is None:
            return True
        taken_over = _identity(self._logs[1]) == index and holders[there]
        return holders[self._known] <= holders[index] and not taken_over


def _identity(name: str | bytes) -> Identity | None:
    try:
        found = os.stat(name)  # noqa: PTH116  half the time
    except OSError:
        return None
    return found.st_ino, found.st_dev


_creating: Final = threading.Lock()


def _create(path: Path) -> None:
    """Create the file, for its owner alone, unless it exists."""
    target = os.path.realpath(path)  # a link may lead to a file that is missing
    with _creating, suppress(FileExistsError):
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
