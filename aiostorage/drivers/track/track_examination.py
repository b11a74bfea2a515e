"""What may be wrong with a Track file, and what of it is repaired. Everything here blocks."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aiostorage._core.files.path_options import not_there
from aiostorage._core.files.places import (
    NETWORK,
    backup_findings,
    delete_unfinished,
    file_system,
    place_findings,
)
from aiostorage.drivers.track.contents import SECTION, TRIALS, Parts, parts_of
from aiostorage.drivers.track.data_file import DataFile
from aiostorage.drivers.track.file_lock import FileLock
from aiostorage.drivers.track.section import boot_of, version_of
from aiostorage.errors import (
    AioStorageError,
    NotADatabaseError,
    SchemaVersionError,
    TemporaryBackendError,
)
from aiostorage.findings import (
    COPY_COMMAND,
    NEWER_COMMAND,
    REPAIR_COMMAND,
    UPGRADE_COMMAND,
    EngineReport,
    Finding,
    Repair,
)
from aiostorage.operations import Layout

__all__ = ["examine_file", "repair_file"]

LEFTOVER_FILES: Final = "leftover-files"

STALE_FILE_AGE: Final = 60.0
"""Seconds after which the temporary file of a writer was left by one that was killed."""

LARGE_FILE_TRIALS: Final = 5000
"""Trials beyond which a file is slow, since each write writes them all."""


def examine_file(path: Path, layout: Layout) -> EngineReport:
    """Examine a file; see `aiostorage.protocols.ExaminableDriver.examine`."""
    path = path.absolute()
    file = DataFile(path)
    if not path.exists():
        raise not_there(path)
    facts: dict[str, str | int | float | None] = {
        "file system": file_system(path),
        "bytes": path.stat().st_size,
    }
    findings = list(_around(path, file))
    try:
        data = file.read()[0]
        parts = parts_of(data, path, repeats=True)
        facts["layout"] = version = version_of(parts.section.get("layout"), path, 0, layout.version)
        boot_of(parts.section.get("boot"), path)
    except (NotADatabaseError, SchemaVersionError) as error:
        newer = isinstance(error, SchemaVersionError)
        code = "newer-layout" if newer else "not-a-database"
        command = NEWER_COMMAND
        if not newer:
            command = f"python -m json.tool {shlex.quote(str(path))}"
        findings.append(Finding(code, "error", str(error), str(path), command))
        return EngineReport(tuple(findings), facts, readable=False)
    findings += _inside(path, parts, layout)
    if version is None:
        what = "another program made this file; aiostorage lays it out when it first writes to it"
        findings.append(Finding("no-layout", "note", what, str(path), "aiostorage list{storage}"))
    elif version < layout.version:
        what = (
            f"the file has layout {version}, this aiostorage needs {layout.version}; end all "
            "workers that use it first"
        )
        findings.append(Finding("old-layout", "error", what, str(path), UPGRADE_COMMAND))
    return EngineReport(tuple(findings), facts, readable=version in (None, layout.version))


def _around(path: Path, file: DataFile) -> Iterator[Finding]:
    try:
        file.check()
    except AioStorageError as error:
        command = f"ls -li {shlex.quote(str(path))}*"
        yield Finding("unfit-place", "error", str(error), str(path), command)
    if (kind := file_system(path)) in NETWORK:
        what = (
            f"{path} is on a network file system ({kind}): processes of one machine at a time may "
            "use it, since the clock of one machine decides who is alive"
        )
        yield Finding("network-file-system", "note", what, str(path), COPY_COMMAND)
    yield from place_findings(path)
    yield from backup_findings(path)
    left = [name for name in file.left_over() if _age(Path(name)) > STALE_FILE_AGE]
    if left:
        what = f"{len(left)} temporary files of writers that were killed lie beside {path}"
        where = str(path.parent)
        yield Finding(LEFTOVER_FILES, "warning", what, where, REPAIR_COMMAND, repairable=True)


def _age(path: Path) -> float:
    with suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _inside(path: Path, parts: Parts, layout: Layout) -> Iterator[Finding]:
    look = f"python -m json.tool {shlex.quote(str(path))}"
    uids = {raw["uid"] for _, raw, _ in parts.trials.values()}
    used = {home for home, _, _ in (*parts.groups.values(), *parts.trials.values())}
    for _, raw, _ in parts.groups.values():
        missing = [uid for uid in _texts(raw.get("trials")) if uid not in uids]
        if missing:
            what = f"the group {raw['uid']} lists {len(missing)} trials that are not in the file"
            yield Finding("missing-trials", "warning", what, str(raw["uid"]), look)
    for uid in parts.heads.keys() - used - {SECTION}:
        what = f"the project {uid} has neither trials nor groups"
        yield Finding("empty-project", "note", what, uid, look)
    known = {collection.name for collection in layout.collections}
    for name, records in parts.collections.items():
        foreign = sum(name not in known or not _is_record(raw) for raw in records.values())
        if foreign:
            what = f"{foreign} records of {name} are none that this aiostorage reads; they stay"
            yield Finding("foreign-records", "note", what, name, look)
    if len(parts.trials) > LARGE_FILE_TRIALS:
        what = f"the file has {len(parts.trials):,} trials, and each write writes them all"
        yield Finding("many-trials", "note", what, TRIALS, COPY_COMMAND)


def _texts(listed: Any) -> list[str]:
    return [uid for uid in listed if isinstance(uid, str)] if isinstance(listed, list) else []


def _is_record(raw: dict[str, Any]) -> bool:
    record = raw.get("record")
    return isinstance(record, dict) and "_id" in record


def repair_file(path: Path, busy_timeout: float, findings: Sequence[Finding]) -> list[Repair]:
    """Repair a file; see `aiostorage.protocols.ExaminableDriver.repair`."""
    file = DataFile(path.absolute())
    done = delete_unfinished(findings)
    for one in findings:
        if one.code != LEFTOVER_FILES:
            continue
        lock = FileLock(file.path)
        try:
            lock.acquire(busy_timeout, file.mode & 0o666)
        except TemporaryBackendError as error:
            done.append(Repair(one.code, str(error), one.where, done=False))
            continue
        try:
            done.append(Repair(one.code, f"{file.sweep()} were deleted", one.where))
        finally:
            lock.release()
    return done
