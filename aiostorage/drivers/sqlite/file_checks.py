"""Checks of a path before SQLite opens it: whether its write-ahead log can work there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from aiostorage.errors import ConfigurationError, NotADatabaseError, PermissionDenied

__all__ = ["check_place", "filesystem_of", "not_a_database"]

MOUNTS: Final = Path("/proc/self/mountinfo")

_NAMES: Final = (
    "9p afs beegfs ceph cifs davfs fuse.ceph fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs "
    "glusterfs gpfs lustre ncpfs nfs nfs4 orangefs pvfs2 smb3 smbfs virtiofs"
)
NETWORK: Final = frozenset(_NAMES.split())
"""File systems whose clients do not share memory: the log's index lives in shared memory."""


def filesystem_of(path: Path, mountinfo: str) -> str | None:
    """Return the type of the file system that `path` is on, None if it is unknown.

    Parameters
    ----------
    path
        An absolute path without links.
    mountinfo
        The text of ``/proc/self/mountinfo``; see proc(5).
    """
    best, found = -1, None
    for line in mountinfo.splitlines():
        fields, _, types = line.partition(" - ")
        columns, kind = fields.split(" "), types.split(" ", 1)[0]
        if len(columns) < 5:
            continue
        point = Path(columns[4].encode().decode("unicode_escape"))
        # of two mounts on one point, the later one hides the other
        if (path == point or point in path.parents) and len(point.parts) >= best:
            best, found = len(point.parts), kind
    return found


def check_place(path: Path, mounts: Path = MOUNTS) -> None:
    """Refuse a path where the database cannot be, before anything is written.

    Raises
    ------
    ConfigurationError
        The directory is missing, the path is a directory, or the file system is a network one.
    PermissionDenied
        The file cannot be read or written, or its directory cannot be searched.
    """
    try:
        parent = path.parent.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(
            f"the directory {path.parent} does not exist; create it first"
        ) from None
    except PermissionError as error:
        raise PermissionDenied(f"cannot look into {path.parent}: {error.strerror}") from error
    if path.is_dir() or not parent.is_dir():
        wrong = path if path.is_dir() else path.parent
        raise ConfigurationError(
            f"{wrong} is {'a' if path.is_dir() else 'no'} directory; name a file"
        )
    try:
        kind = filesystem_of(parent, mounts.read_text())
    except OSError:
        kind = None  # not Linux: then the journal mode decides
    if kind in NETWORK:
        raise ConfigurationError(
            f"{path} is on a network file system ({kind}), where SQLite's write-ahead log corrupts "
            "data; put the file on a local disk, or use an engine made for many machines"
        )
    # without opening it: to close it again would drop SQLite's locks; see `connection._create`
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise PermissionDenied(f"cannot read and write {path}")


def not_a_database(path: Path) -> NotADatabaseError:
    """Return the error that says what a file is that SQLite refused."""
    with path.open("rb") as file:
        pickle = file.read(1) == b"\x80"
    looks = " (it looks like a pickle, such as Oríon's PickledDB)" if pickle else ""
    return NotADatabaseError(f"{path} is not a SQLite database{looks}; it was left as it is")
