"""A copy of a file, made by SQLite itself, which never takes the place of another file."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiostorage._core.files.path_options import checked_path, not_there
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.errors import ConfigurationError
from aiostorage.upgrades import UpgradeProgress, silent

__all__ = ["back_up", "check_backup"]

PAGES_PER_REPORT: Final = 4096
"""Pages that are copied between two reports of the progress."""


def check_backup(copy: Path) -> None:
    """Refuse a place where no backup can be made.

    Raises
    ------
    ConfigurationError
        A file is there, there is no such directory, or no file can have that name.
    """
    checked_path("the backup", copy, beside=len(".part"))
    if os.path.lexists(copy):
        raise ConfigurationError(
            f"{copy} exists already, and a backup overwrites nothing: move it away, or name another"
        )
    if not copy.parent.is_dir():
        raise not_there(copy.parent, directory=True)


def back_up(
    connection: Connection, path: Path, copy: Path, progress: UpgradeProgress = silent
) -> None:
    """Copy the database of a connection to a new file, which gets its name when it is complete.

    Raises
    ------
    ConfigurationError
        As for `check_backup`.
    """
    check_backup(copy)

    def tell(_: int, remaining: int, total: int) -> None:
        progress(f"copying the file: {100 * (total - remaining) // max(total, 1)} %")

    part = copy.with_name(f"{copy.name}.part")
    part.unlink(missing_ok=True)  # of a backup that was interrupted
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        target = sqlite3.connect(part)
        try:
            connection.backup(target, pages=PAGES_PER_REPORT, progress=tell)
        finally:
            target.close()
        part.chmod(stat.S_IMODE(path.stat().st_mode))
        _write_through(part)
        _name(part, copy)
        _write_through(copy.parent)
    finally:
        part.unlink(missing_ok=True)


def _name(part: Path, copy: Path) -> None:
    """Give a file its name, unless another file has it by now."""
    try:
        os.link(part, copy)
    except FileExistsError:
        check_backup(copy)
        raise
    except OSError:  # a file system without links
        check_backup(copy)
        part.rename(copy)


def _write_through(path: Path) -> None:
    """Wait until a file or a directory is on the disk."""
    with suppress(PermissionError):  # a directory need not be readable
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
