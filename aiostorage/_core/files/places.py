"""Where a file is: its file system, the room on it, and the backups beside it."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiostorage.findings import COPY_COMMAND, REPAIR_COMMAND, Finding, Repair

__all__ = [
    "MOUNTS",
    "NETWORK",
    "UNFINISHED_BACKUP",
    "backup_findings",
    "delete_unfinished",
    "file_system",
    "filesystem_of",
    "literal_pattern",
    "mounted",
    "place_findings",
]

MOUNTS: Final = Path("/proc/self/mountinfo")

_NAMES: Final = (
    "9p afs beegfs ceph cifs davfs fuse.ceph fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs "
    "glusterfs gpfs lustre ncpfs nfs nfs4 orangefs pvfs2 smb3 smbfs virtiofs"
)

NETWORK: Final = frozenset(_NAMES.split())
"""File systems whose clients do not share memory."""

VOLATILE: Final = frozenset({"tmpfs", "ramfs"})

MIN_FREE_BYTES: Final = 64 * 2**20
"""Bytes that have to be free beside a file, at least."""

STALE_BACKUP_AGE: Final = 3600.0
"""Seconds after which a backup that is not finished was interrupted."""

UNFINISHED_BACKUP: Final = "unfinished-backup"


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
    for point, kind in mounted(mountinfo):
        # of two mounts on one point, the later one hides the other
        if (path == point or point in path.parents) and len(point.parts) >= best:
            best, found = len(point.parts), kind
    return found


def mounted(mountinfo: str) -> Iterator[tuple[Path, str]]:
    """Yield where something is mounted, and the type of its file system."""
    for line in mountinfo.splitlines():
        fields, _, types = line.partition(" - ")
        columns, kind = fields.split(" "), types.split(" ", 1)[0]
        if len(columns) >= 5:
            yield Path(columns[4].encode().decode("unicode_escape")), kind


def file_system(path: Path) -> str | None:
    """Return the type of the file system of a file; None if it is unknown."""
    try:
        return filesystem_of(path.resolve().parent, MOUNTS.read_text())
    except OSError:
        return None


def place_findings(path: Path) -> Iterator[Finding]:
    """Yield what is wrong with the place of any file that is a store; it blocks."""
    kind = file_system(path)
    if kind in VOLATILE:
        what = f"{path} is in memory ({kind}), and gone when the machine stops"
        yield Finding("volatile-file-system", "note", what, str(path), COPY_COMMAND)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return
    needed = max(MIN_FREE_BYTES, path.stat().st_size)
    if free < needed:
        what = f"{free:,} bytes are free beside {path}; a copy of it may need {needed:,}"
        command = f"df -h {shlex.quote(str(path.parent))}"
        yield Finding("low-space", "warning", what, str(path.parent), command)


def backup_findings(path: Path) -> Iterator[Finding]:
    """Yield the backups of upgrades beside a file, and those that were interrupted."""
    for other in sorted(path.parent.glob(f"{literal_pattern(path.name)}.layout-*")):
        where, size = str(other), other.stat().st_size
        if not other.name.endswith(".part"):
            what = f"{other} is the backup of an upgrade, of {size:,} bytes"
            yield Finding("old-backup", "note", what, where, f"rm {shlex.quote(where)}")
        elif time.time() - other.stat().st_mtime > STALE_BACKUP_AGE:
            what = f"{other} is a backup that was interrupted, of {size:,} bytes"
            yield Finding(
                UNFINISHED_BACKUP, "warning", what, where, REPAIR_COMMAND, repairable=True
            )


def delete_unfinished(findings: Sequence[Finding]) -> list[Repair]:
    """Delete the backups that were interrupted, of these findings; it blocks."""
    done: list[Repair] = []
    for one in findings:
        if one.code == UNFINISHED_BACKUP:
            with suppress(FileNotFoundError):
                os.unlink(one.where)  # noqa: PTH108  the name is a text
                done.append(Repair(one.code, "it was deleted", one.where))
    return done


def literal_pattern(name: str) -> str:
    """Return the pattern of a glob that a name alone matches."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
