"""The examination of a file, and its repair."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread

from aiostorage._core.cancellation import shielded
from aiostorage._core.files.path_options import not_there
from aiostorage._core.files.places import UNFINISHED_BACKUP, delete_unfinished, file_system
from aiostorage.drivers.sqlite.clock import BOOT_TABLE, StoreClock
from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread
from aiostorage.drivers.sqlite.content_checks import (
    BOOT_NUMBER,
    DAMAGED_INDEX,
    MISSING_TICKS,
    Difference,
    differences,
    highest_boot,
    inner_findings,
)
from aiostorage.drivers.sqlite.database_file import DatabaseFile, identity
from aiostorage.drivers.sqlite.file_checks import check_log, check_place
from aiostorage.drivers.sqlite.file_upgrade import FileUpgrade
from aiostorage.drivers.sqlite.lock_holders import lock_holders
from aiostorage.drivers.sqlite.place_checks import LARGE_LOG, outer_findings
from aiostorage.drivers.sqlite.read_only_file import SQLiteReader
from aiostorage.drivers.sqlite.schema_changes import Schema, schema_of
from aiostorage.drivers.sqlite.schema_sql import quoted
from aiostorage.drivers.sqlite.tables import fill_ticks, layout_of, wanted_schema
from aiostorage.errors import NotADatabaseError, SchemaVersionError
from aiostorage.findings import (
    NEWER_COMMAND,
    REPAIR_COMMAND,
    UPGRADE_COMMAND,
    EngineReport,
    Finding,
    Repair,
)
from aiostorage.operations import Layout

__all__ = ["FileExamination"]

NO_LOG: Final = "no-write-ahead-log"


class FileExamination:
    """The examination of one file.

    Parameters
    ----------
    path
        The file, absolute.
    busy_timeout
        Seconds that one attempt waits for other processes.
    wall
        Returns the time of day.
    """

    def __init__(self, path: Path, busy_timeout: float, wall: Callable[[], datetime]) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._wall = wall

    # --------------------------------------------------------------------------- examination

    async def examine(self, layout: Layout) -> EngineReport:
        """See `aiostorage.protocols.ExaminableDriver.examine`."""
        findings = await anyio.to_thread.run_sync(self._around)
        facts = await anyio.to_thread.run_sync(self._facts)
        reader = SQLiteReader(self._path, self._busy_timeout, self._wall)
        try:
            await reader.open(layout)
            inner, version, mode = await reader.call(partial(self._inside, layout))
        except (NotADatabaseError, SchemaVersionError) as error:
            findings.append(self._unreadable(error))
            return EngineReport(tuple(findings), facts, readable=False)
        finally:
            await reader.aclose()
        facts["layout"] = version
        mode = mode or await anyio.to_thread.run_sync(partial(_mode_in_header, self._path))
        facts["journal mode"] = mode
        if mode != "wal":
            what = (
                f"the file has the journal mode {mode}, in which readers and writers wait for each "
                "other; aiostorage uses a write-ahead log"
            )
            where = str(self._path)
            findings.append(
                Finding(NO_LOG, "warning", what, where, REPAIR_COMMAND, repairable=True)
            )
        damaged = any(one.code in ("damaged-file", "old-layout") for one in inner)
        return EngineReport((*findings, *inner), facts, readable=not damaged)

    def _around(self) -> list[Finding]:
        if not self._path.exists():
            raise not_there(self._path)
        return outer_findings(self._path)

    def _facts(self) -> dict[str, str | int | float | None]:
        facts: dict[str, str | int | float | None] = {
            "sqlite": sqlite3.sqlite_version,
            "file system": file_system(self._path),
            "bytes": self._path.stat().st_size,
        }
        if (holders := lock_holders()) is not None:
            using = sorted(holders.all[identity(self._path)] - {os.getpid()})
            facts["used by processes"] = ", ".join(map(str, using)) or "none"
        return facts

    def _inside(
        self, layout: Layout, connection: Connection
    ) -> tuple[list[Finding], int | None, str | None]:
        """Return the findings inside, the layout, and the journal mode if SQLite knows it."""
        version = layout_of(connection, self._path, layout.version)
        if version is None:
            raise NotADatabaseError(f"{self._path} is not a database of aiostorage")
        shown = shlex.quote(str(self._path))
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        known = mode if mode == "wal" else None  # a file that is read without locks has no other
        if version == layout.version:
            return inner_findings(connection, layout, shown), version, known
        what = (
            f"the file has layout {version}, this aiostorage needs {layout.version}; end all "
            "workers that use it first"
        )
        return (
            [Finding("old-layout", "error", what, str(self._path), UPGRADE_COMMAND)],
            version,
            known,
        )

    def _unreadable(self, error: NotADatabaseError | SchemaVersionError) -> Finding:
        shown = shlex.quote(str(self._path))
        if isinstance(error, SchemaVersionError):
            command = NEWER_COMMAND
            return Finding("newer-layout", "error", str(error), str(self._path), command)
        command = f"sqlite3 {shown} .recover | sqlite3 RECOVERED.db"
        return Finding("not-a-database", "error", str(error), str(self._path), command)

    # -------------------------------------------------------------------------------- repair

    async def repair(self, layout: Layout, findings: Sequence[Finding]) -> list[Repair]:
        """See `aiostorage.protocols.ExaminableDriver.repair`."""
        ours = [one for one in findings if one.repairable]
        done = await anyio.to_thread.run_sync(delete_unfinished, ours)
        inner = {one.code for one in ours} - {UNFINISHED_BACKUP}
        if not inner:
            return done
        await anyio.to_thread.run_sync(check_place, self._path)
        await anyio.to_thread.run_sync(check_log, self._path)
        file = DatabaseFile(self._path, creates=False)
        thread = ConnectionThread(file, self._busy_timeout)
        try:
            done += await thread.call(partial(self._repair_inside, layout, ours))
            await thread.drain()
        finally:
            await shielded(None, thread.close)
        return done

    def _repair_inside(
        self, layout: Layout, findings: Sequence[Finding], connection: Connection
    ) -> list[Repair]:
        codes = {one.code for one in findings}
        done: list[Repair] = []
        if NO_LOG in codes:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            done.append(
                Repair(NO_LOG, f"the journal mode is {mode}", str(self._path), mode == "wal")
            )
        connection.begin_transaction()
        try:
            done += self._repair_tables(layout, findings, connection)
            connection.execute("COMMIT")
        finally:
            connection.back_out()
        if LARGE_LOG in codes:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            what = "another process reads from it" if busy else "it was emptied"
            done.append(Repair(LARGE_LOG, what, f"{self._path}-wal", not busy))
        return done

    def _repair_tables(
        self, layout: Layout, findings: Sequence[Finding], connection: Connection
    ) -> list[Repair]:
        """Repair what is wrong in the tables, in the transaction that is open."""
        asked = {(one.code, one.where) for one in findings}
        codes = {code for code, _ in asked}
        done: list[Repair] = []
        for code, where in sorted(asked):
            if code == DAMAGED_INDEX:
                connection.execute(f"REINDEX {quoted(where)}")
                done.append(Repair(code, "the index was made anew", where))
        before = schema_of(connection)
        done += [
            _made(connection, difference)
            for difference in differences(before, wanted_schema(layout))
            if (difference.code, difference.where) in asked
        ]
        if codes & {BOOT_NUMBER, "missing-table"}:
            _number_boot(connection, layout)
            if BOOT_NUMBER in codes:
                what = "the next process that opens the file begins a boot after all stored times"
                done.append(Repair(BOOT_NUMBER, what, "aiostorage_boot"))
        if codes & {MISSING_TICKS, "missing-column"}:
            self._fill(connection, layout, before)
            done += [
                Repair(code, "the times got their ticks", where)
                for code, where in sorted(asked)
                if code == MISSING_TICKS
            ]
        return done

    def _fill(self, connection: Connection, layout: Layout, before: Schema) -> None:
        """Fill new columns, and give ticks to the times that have none."""
        clock = StoreClock(self._wall)
        clock.begin(connection)
        upgrade = FileUpgrade(
            self._path, self._busy_timeout, layout, (), clock, backup=False, dry_run=False
        )
        upgrade.fill_columns(connection, before)
        fill_ticks(connection, layout.collections, clock)


def _made(connection: Connection, difference: Difference) -> Repair:
    """Make what a file lacks, unless its records do not allow it."""
    connection.execute("SAVEPOINT repair")
    try:
        for statement in difference.statements:
            connection.execute(statement)
    except sqlite3.IntegrityError as error:
        connection.execute("ROLLBACK TO repair")
        return Repair(difference.code, str(error), difference.where, done=False)
    finally:
        connection.execute("RELEASE repair")
    return Repair(difference.code, "it was made", difference.where)


def _number_boot(connection: Connection, layout: Layout) -> None:
    """Have the next opening begin a boot that is after all times that are stored."""
    number = highest_boot(connection, layout)
    connection.execute(BOOT_TABLE)
    last, count = connection.execute("SELECT max(number), count(*) FROM aiostorage_boot").fetchone()
    if number > (last or 0) or count > 1:
        connection.execute("DELETE FROM aiostorage_boot")
        values = (max(number, last or 0), "")
        connection.execute("INSERT INTO aiostorage_boot VALUES (?, ?)", values)


def _mode_in_header(path: Path) -> str:
    """Return the journal mode in the header of a file that has no log.

    With a log, another connection of this process might have locks, which closing would drop.
    """
    with path.open("rb") as file:
        head = file.read(20)
    return "wal" if head[18:20] == b"\x02\x02" else "delete"
