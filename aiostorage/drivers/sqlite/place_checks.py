"""What may be wrong around a file: its place, and the files beside it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aiostorage._core.files.places import NETWORK, backup_findings, file_system, place_findings
from aiostorage.drivers.sqlite.file_checks import check_log, check_place
from aiostorage.errors import AioStorageError
from aiostorage.findings import COPY_COMMAND, REPAIR_COMMAND, Finding

__all__ = ["LARGE_LOG", "outer_findings"]

LARGE_LOG: Final = "large-log"

MIN_LARGE_LOG: Final = 64 * 2**20
"""Bytes from which a log is large, if it is also larger than its file."""


def outer_findings(path: Path) -> list[Finding]:
    """Return the findings about the place of an existing file; it blocks."""
    return [*_fitness(path), *place_findings(path), *_logs(path), *backup_findings(path)]


def _fitness(path: Path) -> Iterator[Finding]:
    kind = file_system(path)
    if kind in NETWORK:
        what = (
            f"{path} is on a network file system ({kind}), where SQLite's write-ahead log "
            "corrupts data; put the file on a local disk"
        )
        yield Finding("network-file-system", "error", what, str(path), COPY_COMMAND)
        return
    try:
        check_place(path)
        check_log(path)
    except AioStorageError as error:
        command = f"ls -li {shlex.quote(str(path))}*"
        yield Finding("unfit-place", "error", str(error), str(path), command)


def _logs(path: Path) -> Iterator[Finding]:
    log = Path(f"{os.path.realpath(path)}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > max(MIN_LARGE_LOG, path.stat().st_size):
        what = (
            f"the write-ahead log {log} has {size:,} bytes: a reader keeps it from being "
            "emptied, or the last process was killed"
        )
        yield Finding(LARGE_LOG, "warning", what, str(log), REPAIR_COMMAND, repairable=True)
    journal = Path(f"{os.path.realpath(path)}-journal")
    if journal.exists() and journal.stat().st_size:
        what = f"{journal} has a transaction that was not finished; the next opening takes it back"
        command = "aiostorage list{storage}"
        yield Finding("unfinished-transaction", "note", what, str(journal), command)
