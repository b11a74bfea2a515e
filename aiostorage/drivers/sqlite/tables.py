"""The tables of a file: created in a new one, checked in an old one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiostorage._core.driver_options import upgrade_command
from aiostorage.drivers.sqlite.clock import BOOT_TABLE, StoreClock
from aiostorage.drivers.sqlite.columns import to_text
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.execution import moment
from aiostorage.drivers.sqlite.log_sql import HAS_SUBJECTS
from aiostorage.drivers.sqlite.schema_changes import Schema, schema_of
from aiostorage.drivers.sqlite.schema_sql import missing_ticks
from aiostorage.drivers.sqlite.sql import Table, tables_of
from aiostorage.errors import ConfigurationError, NotADatabaseError, SchemaVersionError
from aiostorage.operations import Collection, Layout

__all__ = ["APPLICATION_ID", "create_tables", "fill_ticks", "layout_of", "prepare", "wanted_schema"]

APPLICATION_ID: Final = 0x61696F73
"""``PRAGMA application_id`` of our files: "aios"."""


def prepare(connection: Connection, path: Path, version: int, tables: Sequence[Table]) -> None:
    """Create the tables of a new file; check those of an old one, and add those that it lacks.

    Raises
    ------
    NotADatabaseError
        Another application made it.
    SchemaVersionError
        Another version of aiostorage made it.
    ConfigurationError
        SQLite is too old, or cannot keep a write-ahead log there.
    """
    if sqlite3.sqlite_version_info < (3, 35):
        raise ConfigurationError(f"SQLite 3.35 or newer is needed, not {sqlite3.sqlite_version}")
    connection.execute(
        "BEGIN"
    )  # one snapshot: another process may be creating the tables right now
    try:
        recognised = _recognised(connection, path, version)
        if recognised and not _additions(connection, tables):
            return
    finally:
        connection.back_out()
    if recognised:
        _add_missing(connection, path, version, tables)
        return
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigurationError(
            f"the file system of {path} cannot carry SQLite's write-ahead log "
            f"(journal mode {mode!r}); put the file on a local disk"
        )
    connection.begin_transaction()
    try:
        if not _recognised(connection, path, version):  # no other process was faster
            create_tables(connection, tables)
            connection.execute(f"PRAGMA user_version = {version:d}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    finally:
        connection.back_out()


def _add_missing(connection: Connection, path: Path, version: int, tables: Sequence[Table]) -> None:
    connection.begin_transaction()
    try:
        if _recognised(connection, path, version):
            for statement in _additions(connection, tables):  # unless another process has
                connection.execute(statement)
            connection.execute(BOOT_TABLE)
        connection.execute("COMMIT")
    finally:
        connection.back_out()


def _additions(connection: Connection, tables: Sequence[Table]) -> list[str]:
    """Return the statements that make the tables that a file lacks, and complete an older log."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    there = {name for (name,) in found}
    statements: list[str] = []
    for table in tables:
        if table.name not in there:
            statements += table.schema()
        elif numbering := table.numbering():
            has_subjects = connection.execute(HAS_SUBJECTS, (table.name,)).fetchone()
            statements += [] if has_subjects else numbering
    return statements


def fill_ticks(
    connection: Connection, collections: Iterable[Collection], clock: StoreClock
) -> None:
    """Give ticks to the times of a file that lack them, in the transaction that is open.

    The tables have the columns for them already.
    """
    connection.execute(BOOT_TABLE)
    clock.begin(connection)
    now = moment(clock)
    for collection in collections:
        for statement in missing_ticks(collection, to_text(now.wall), now.ticks):
            connection.execute(*statement)


def create_tables(connection: sqlite3.Connection, tables: Iterable[Table]) -> None:
    """Create all that a new file has; an upgrade adds what an older one lacks of it."""
    for table in tables:
        for statement in table.schema():
            connection.execute(statement)
    connection.execute(BOOT_TABLE)


def wanted_schema(layout: Layout) -> Schema:
    """Return the schema of a new file."""
    fresh = sqlite3.connect(":memory:")
    try:
        create_tables(fresh, tables_of(layout).values())
        return schema_of(fresh)
    finally:
        fresh.close()


def layout_of(connection: Connection, path: Path, version: int) -> int | None:
    """Return the version of a file's layout, None if the file is empty.

    Parameters
    ----------
    version
        The newest version that is known here.

    Raises
    ------
    NotADatabaseError
        Another application made it.
    SchemaVersionError
        A newer version of aiostorage made it.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if found > version:
            raise SchemaVersionError(
                f"{path} was laid out by a newer aiostorage (layout {found}, this one knows "
                f"{version}); upgrade the package"
            )
        return found
    if application or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise NotADatabaseError(f"{path} is a SQLite database of something else; it was left alone")
    return None


def _recognised(connection: Connection, path: Path, version: int) -> bool:
    found = layout_of(connection, path, version)
    if found is not None and found < version:
        command = upgrade_command("sqlite:///" + quote(os.fsencode(path)))
        raise SchemaVersionError(
            f"{path} has layout {found}, this aiostorage needs {version}; end all workers that use "
            f"it, and run: {command}"
        )
    return found is not None
