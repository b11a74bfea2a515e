"""The upgrade of a Track file: a copy first, then one replacement."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aiostorage._core.files.path_options import checked_path, not_there
from aiostorage._core.in_memory.steady_clock import BootClock
from aiostorage.drivers.track.data_file import DataFile
from aiostorage.drivers.track.store import TrackStore
from aiostorage.errors import ConfigurationError, PermissionDenied
from aiostorage.operations import Layout
from aiostorage.upgrades import UpgradeProgress, UpgradeReport, UpgradeStep, silent

__all__ = ["upgrade"]


def upgrade(
    path: Path,
    layout: Layout,
    steps: Sequence[UpgradeStep],
    clock: BootClock,
    timeout: float,
    *,
    backup: bool | str | os.PathLike[str],
    dry_run: bool,
    progress: UpgradeProgress = silent,
) -> UpgradeReport:
    """Upgrade a file; see `aiostorage.protocols.UpgradableDriver.upgrade`. It blocks."""
    file = DataFile(path)
    if not path.parent.exists() or not file.check():
        raise not_there(file.path)
    store = TrackStore(file, layout, clock, None, timeout)
    copy: list[Path] = []

    def make_copy(found: int, data: bytes) -> None:
        if backup is False or dry_run:
            return
        default = file.path.with_name(f"{file.path.name}.layout-{found}")
        target = default if backup is True else checked_path("the backup", backup)
        progress("copying the file")
        _write_new(target, data, file.mode)
        copy.append(target)

    progress("changing the documents")
    found, notes = store.upgrade(steps, make_copy, dry_run=dry_run)
    return UpgradeReport(
        str(file.path),
        found,
        layout.version,
        tuple(notes),
        copy[0] if copy else None,
        dry_run=dry_run,
    )


def _write_new(target: Path, data: bytes, mode: int) -> None:
    """Write a new file, which gets its name when it is complete."""
    refusal = f"{target} exists; a backup overwrites no file: move it away, or name another"
    if os.path.lexists(target):
        raise ConfigurationError(refusal)
    part = target.with_name(f"{target.name}.part")
    try:
        part.unlink(missing_ok=True)  # of a backup that was interrupted
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
    except PermissionError as error:
        raise PermissionDenied(f"cannot write {target}: {error.strerror}") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write {target}: {error.strerror}") from error
