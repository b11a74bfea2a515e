"""The upgrade of a file: a copy first, then everything in one transaction.

Nothing here knows what a layout contains. A new file is laid out in memory, and what the old file
lacks of it is added; the steps of the layouts in between change the documents.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from aiostorage._core.cancellation import shielded
from aiostorage._core.files.path_options import not_there
from aiostorage.drivers.sqlite.backup import back_up, check_backup
from aiostorage.drivers.sqlite.clock import StoreClock
from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.execution import Tables, moment, page, run
from aiostorage.drivers.sqlite.file_checks import not_a_database
from aiostorage.drivers.sqlite.schema_changes import (
    Schema,
    added_columns,
    schema_changes,
    schema_of,
)
from aiostorage.drivers.sqlite.sql import tables_of
from aiostorage.drivers.sqlite.tables import fill_ticks, layout_of, wanted_schema
from aiostorage.errors import NotADatabaseError, TemporaryBackendError
from aiostorage.operations import Compare, Find, Layout, Update
from aiostorage.upgrades import (
    UpgradeProgress,
    UpgradeReport,
    UpgradeStep,
    silent,
    steps_from,
)

__all__ = ["FileUpgrade"]

PAGE_SIZE: Final = 500
"""Documents that are in memory at a time while new columns are filled."""

ATTEMPT_TIMEOUT_RANGE: Final = 0.05, 0.2
"""Seconds of an attempt to have the file alone, and of the pause after it: least and most."""


@dataclass(frozen=True, slots=True)
class FileUpgrade:
    """The upgrade of one file that no connection of this process has open.

    Attributes
    ----------
    path
        The file, absolute.
    busy_timeout
        Seconds to wait until no other process has it open.
    backup
        Whether to make one, or where to.
    dry_run
        Whether to change nothing.
    progress
        Is told what is done.
    """

    path: Path
    busy_timeout: float
    layout: Layout
    steps: Sequence[UpgradeStep]
    clock: StoreClock
    backup: bool | str | os.PathLike[str]
    dry_run: bool
    progress: UpgradeProgress = silent

    async def carry_out(self) -> UpgradeReport:
        """Upgrade the file; see `aiostorage.protocols.UpgradableDriver.upgrade`."""
        if not await anyio.Path(self.path).exists():  # a connection would create it
            raise not_there(self.path)
        try:
            report = await self._connected(self._look)
        except NotADatabaseError as error:
            if error.__cause__ is None:
                raise
            cause = error.__cause__
            raise await anyio.to_thread.run_sync(not_a_database, self.path, cause) from error
        if not report.needed:
            return report
        if self.dry_run:
            return await self._connected(self._rehearse)
        # each of two upgrades at the same time keeps the other one out, until it closes the file
        end = anyio.current_time() + self.busy_timeout
        while True:
            timeout = random.uniform(*ATTEMPT_TIMEOUT_RANGE)  # noqa: S311  no secret
            try:
                return await self._connected(self._upgrade, timeout)
            except TemporaryBackendError:
                if anyio.current_time() >= end:
                    raise
            await anyio.sleep(timeout)

    async def _connected(
        self, act: Callable[[Connection], UpgradeReport], wait: float | None = None
    ) -> UpgradeReport:
        file = DatabaseFile(self.path, creates=False)
        wait = self.busy_timeout if wait is None else min(wait, self.busy_timeout)
        thread = ConnectionThread(file, wait, "PRAGMA synchronous = FULL")
        try:
            return await thread.call(act)
        finally:
            await shielded(None, thread.close)

    def _look(self, connection: Connection) -> UpgradeReport:
        connection.execute("BEGIN")  # one snapshot: another upgrade may be under way
        try:
            return self._report(self._found(connection))
        finally:
            connection.back_out()

    def _rehearse(self, connection: Connection) -> UpgradeReport:
        """Do everything but the backup, and take it back."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            found = self._found(connection)
            if copy := self._place_of_backup(found):
                check_backup(copy)
            return self._report(found, self._change(connection, found))
        finally:
            connection.back_out()

    def _upgrade(self, connection: Connection) -> UpgradeReport:
        # from its first transaction on, no other connection can use the file until this one closes
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        found = self._begin(connection)
        connection.execute("COMMIT")
        copy = self._place_of_backup(found)
        if found == self.layout.version:  # another process was faster
            return self._report(found)
        if copy is not None:
            back_up(connection, self.path, copy, self.progress)
        try:
            self._begin(connection)
            notes = self._change(connection, found)
            connection.execute("COMMIT")
        finally:
            connection.back_out()
        return self._report(found, notes, copy)

    def _begin(self, connection: Connection) -> int:
        """Begin a transaction that excludes all other connections; return the file's version."""
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            raise TemporaryBackendError(
                f"another process has {self.path} open: end all workers that use it, and try again"
            ) from error
        return self._found(connection)

    def _found(self, connection: Connection) -> int:
        found = layout_of(connection, self.path, self.layout.version)
        if found is None:
            raise NotADatabaseError(f"{self.path} is not a database of aiostorage")
        return found

    def _report(
        self, found: int, notes: tuple[str, ...] = (), backup: Path | None = None
    ) -> UpgradeReport:
        return UpgradeReport(
            str(self.path), found, self.layout.version, notes, backup, self.dry_run
        )

    # ------------------------------------------------------------------------- the changes

    def _place_of_backup(self, found: int) -> Path | None:
        if self.backup is False:
            return None
        beside = self.path.with_name(f"{self.path.name}.layout-{found}")
        return beside if self.backup is True else Path(self.backup).absolute()

    def _change(self, connection: Connection, found: int) -> tuple[str, ...]:
        """Bring the file from the layout that was found to the present one; return the notes."""
        tables = tables_of(self.layout)
        self._change_schema(connection)
        fill_ticks(connection, self.layout.collections, self.clock)
        notes: list[str] = []
        for step in steps_from(self.steps, found, self.layout.version):
            self.progress(f"changing the documents to layout {step.version}")
            plan = step.plan(run(connection, tables, step.find, moment(self.clock)))
            notes += plan.notes
            for operation in plan.operations:
                run(connection, tables, operation, moment(self.clock))
        connection.execute(f"PRAGMA user_version = {self.layout.version:d}")
        return tuple(notes)

    def _change_schema(self, connection: Connection) -> None:
        """Add the tables, columns and indexes that the file lacks; replace indexes that differ."""
        found = schema_of(connection)
        for statement in schema_changes(found, wanted_schema(self.layout)):
            self.progress(" ".join(statement.split()[:4]).lower())
            connection.execute(statement)
        self.fill_columns(connection, found)

    def fill_columns(self, connection: Connection, found: Schema) -> None:
        """Fill the columns that the file has now, and had not when its schema was `found`."""
        tables = tables_of(self.layout)
        for name, columns in added_columns(found, schema_of(connection)).items():
            if name in tables and (
                fields := [column for column in columns if column in tables[name].kinds]
            ):
                self._fill(connection, tables, name, fields)

    def _fill(self, connection: Connection, tables: Tables, name: str, fields: list[str]) -> None:
        """Put into new columns what documents have of these fields already."""
        find = Find(name, selection={"_id": True, **dict.fromkeys(fields, True)})
        read = partial(page, connection, tables[name], find, size=PAGE_SIZE, now=moment(self.clock))
        after: int | None = 0
        while after is not None:
            documents, after = read(after=after)
            for document in documents:
                there = {field: document[field] for field in fields if field in document}
                if any(value is not None for value in there.values()):
                    where = Compare("_id", "eq", document["_id"])
                    run(connection, tables, Update(name, where, there), moment(self.clock))
