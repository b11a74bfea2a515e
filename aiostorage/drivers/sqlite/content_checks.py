"""What may be wrong inside a file: damage, tables and indexes, times that no clock compares.

All functions read with a connection, and change nothing.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aiostorage.drivers.sqlite.clock import TICK_BITS
from aiostorage.drivers.sqlite.schema_changes import Schema, added_columns, schema_of
from aiostorage.drivers.sqlite.schema_sql import quoted, ticks_column
from aiostorage.drivers.sqlite.tables import wanted_schema
from aiostorage.findings import REPAIR_COMMAND, Finding, Severity
from aiostorage.operations import Layout

__all__ = [
    "BOOT_NUMBER",
    "DAMAGED_INDEX",
    "MISSING_TICKS",
    "Difference",
    "differences",
    "highest_boot",
    "inner_findings",
]

BOOT_NUMBER: Final = "boot-number"
DAMAGED_INDEX: Final = "damaged-index"
MISSING_TICKS: Final = "missing-ticks"

MAX_MESSAGES: Final = 100
"""Messages of an integrity check, at most."""

_OF_INDEX: Final = re.compile(
    r"(?:row \d+ missing from index |wrong # of entries in index |values differ .* index "
    r"|rowid not at end-of-record for row \d+ of index )(?P<index>.+)"
)
_TWICE: Final = re.compile(r"non-unique entry in index (?P<index>.+)")


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a file lacks, compared with a new one, or has otherwise.

    Attributes
    ----------
    code
        The code of the finding.
    where
        The table, column or index.
    what
        A sentence about it.
    statements
        What puts it right.
    """

    code: str
    where: str
    what: str
    statements: tuple[str, ...]


def differences(found: Schema, wanted: Schema) -> list[Difference]:
    """Return the differences of a file from the layout, tables first; additions do not count."""
    made = []
    with_tables: set[str] = set()
    for table, sql in wanted.tables.items():
        if table not in found.tables:
            own = {
                n: text for n, (_, text) in wanted.others.items() if f"ON {quoted(table)}" in text
            }
            with_tables |= own.keys() - found.others.keys()
            statements = (sql, *(text for n, text in own.items() if n not in found.others))
            what = f"the table {table} is missing: it counts as empty, and what was in it is gone"
            made.append(Difference("missing-table", table, what, statements))
    for table, columns in added_columns(found, wanted).items():
        for name in columns:
            add = f"ALTER TABLE {quoted(table)} ADD COLUMN {wanted.columns[table][name]}"
            what = f"the column {name} of the table {table} is missing, so that calls fail"
            made.append(Difference("missing-column", f"{table}.{name}", what, (add,)))
    for name, (kind, sql) in wanted.others.items():
        there = found.others.get(name)
        if name in with_tables:
            continue
        if there is None:
            what = f"the {kind} {name} is missing"
            made.append(Difference(f"missing-{kind}", name, what, (sql,)))
        elif there != (kind, sql):
            drop = f"DROP {there[0]} {quoted(name)}"
            what = f"the {kind} {name} is another one than aiostorage makes"
            made.append(Difference(f"changed-{kind}", name, what, (drop, sql)))
    return made


def inner_findings(connection: sqlite3.Connection, layout: Layout, shown: str) -> list[Finding]:
    """Return the findings inside a file of this layout.

    Parameters
    ----------
    shown
        The path of the file, quoted for a shell.
    """
    findings = list(_damage(connection, shown))
    if any(finding.code == "damaged-file" for finding in findings):
        return findings
    found, wanted = schema_of(connection), wanted_schema(layout)
    twice = list(_duplicates(connection, layout, found))
    findings += twice
    not_unique = {finding.where for finding in twice}
    findings += [
        Finding(one.code, "warning", one.what, one.where, REPAIR_COMMAND, repairable=True)
        for one in differences(found, wanted)
        if one.where not in not_unique
    ]
    findings += _foreign(connection, wanted, shown)
    findings += _without_ticks(connection, layout, found)
    findings += _boot(connection, layout, found)
    return findings


def _damage(connection: sqlite3.Connection, shown: str) -> Iterator[Finding]:
    recover = f"sqlite3 {shown} .recover | sqlite3 RECOVERED.db"
    try:
        rows = connection.execute(f"PRAGMA integrity_check({MAX_MESSAGES})").fetchall()
        messages = [str(row[0]) for row in rows if row[0] != "ok"]
        broken = Counter(row[0] for row in connection.execute("PRAGMA foreign_key_check"))
    except sqlite3.DatabaseError as error:
        messages, broken = [str(error)], Counter[str]()
    rest: list[str] = []
    indexes: Counter[str] = Counter()
    for message in messages:
        if match := _OF_INDEX.fullmatch(message):
            indexes[match["index"]] += 1
        elif match := _TWICE.fullmatch(message):
            what = f"records are equal in what the unique index {match['index']} is of"
            yield Finding("duplicate-records", "error", what, match["index"], recover)
        else:
            rest.append(message)
    if rest:
        what = f"SQLite finds the file damaged: {'; '.join(rest[:3])}"
        if len(rest) > 3:
            what += f"; and {len(rest) - 3} more"
        yield Finding("damaged-file", "error", what, shown, recover)
        return
    for index in indexes:
        what = f"the index {index} does not agree with its table, so that records are not found"
        yield Finding(DAMAGED_INDEX, "error", what, index, REPAIR_COMMAND, repairable=True)
    for table, count in broken.items():
        what = f"{count} rows of the foreign table {table} refer to rows that are not there"
        yield Finding(
            "broken-reference",
            "warning",
            what,
            table,
            f"sqlite3 {shown} 'PRAGMA foreign_key_check({table})'",
        )


def _duplicates(connection: sqlite3.Connection, layout: Layout, found: Schema) -> Iterator[Finding]:
    """Look for records that are equal where a unique index is missing."""
    for collection in layout.collections:
        name = collection.name
        for fields in (("_id",), *(i.fields for i in collection.indexes if i.unique)):
            index = "_".join((name, *fields))
            if index in found.others or any(f not in found.columns.get(name, ()) for f in fields):
                continue
            columns = ", ".join(map(quoted, fields))
            groups = connection.execute(
                f"SELECT count(*), sum(n) FROM (SELECT count(*) AS n FROM {quoted(name)} "  # noqa: S608  names of ours
                f"GROUP BY {columns} HAVING n > 1)"
            ).fetchone()
            if groups[0]:
                what = (
                    f"{groups[1]} records of {name} are equal in {' and '.join(fields)}, which "
                    "must not be; delete all but one of each"
                )
                yield Finding("duplicate-records", "error", what, index, "aiostorage list{storage}")


def _foreign(connection: sqlite3.Connection, wanted: Schema, shown: str) -> Iterator[Finding]:
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master "
        "WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    for kind, name, table, sql in rows.fetchall():
        if name in wanted.tables or name in wanted.others:
            continue
        drop = f"sqlite3 {shown} 'DROP {kind} {quoted(name)}'"
        if kind == "table":
            what = f"the table {name} is none of aiostorage's; it is left alone"
            yield Finding("foreign-table", "note", what, name, f"sqlite3 {shown} '.schema {name}'")
        elif table in wanted.tables:
            works = kind == "trigger" or "UNIQUE" in sql.upper().split("INDEX")[0]
            severity: Severity = "warning" if works else "note"
            effect = "; it may refuse or change what is written" if works else ""
            what = f"the {kind} {name} on {table} is none of aiostorage's{effect}"
            yield Finding(f"foreign-{kind}", severity, what, name, drop)


def _clocked(layout: Layout, found: Schema) -> Iterator[tuple[str, str, str]]:
    """Yield the tables with the columns of times that decide who is alive, and of their ticks."""
    for collection in layout.collections:
        for field in collection.fields:
            ticks = ticks_column(field.name)
            there = found.columns.get(collection.name, {})
            if field.clocked and field.name in there and ticks in there:
                yield collection.name, field.name, ticks


def _without_ticks(
    connection: sqlite3.Connection, layout: Layout, found: Schema
) -> Iterator[Finding]:
    for table, name, ticks in _clocked(layout, found):
        count = connection.execute(
            f"SELECT count(*) FROM {quoted(table)} "  # noqa: S608  names of ours
            f"WHERE {quoted(name)} IS NOT NULL AND {quoted(ticks)} IS NULL"
        ).fetchone()[0]
        if count:
            what = (
                f"{count} records of {table} have a {name} that another program wrote, without "
                "the ticks by which it grows old"
            )
            where = f"{table}.{name}"
            yield Finding(MISSING_TICKS, "warning", what, where, REPAIR_COMMAND, repairable=True)


def highest_boot(connection: sqlite3.Connection, layout: Layout) -> int:
    """Return the highest number of a boot that the ticks in a file are of."""
    highest = 0
    for table, _, ticks in _clocked(layout, schema_of(connection)):
        found = connection.execute(
            f"SELECT max({quoted(ticks)}) FROM {quoted(table)} "  # noqa: S608  names of ours
            f"WHERE typeof({quoted(ticks)}) = 'integer'"
        ).fetchone()[0]
        highest = max(highest, (found or 0) >> TICK_BITS)
    return highest


def _boot(connection: sqlite3.Connection, layout: Layout, found: Schema) -> Iterator[Finding]:
    number, count = 0, 1
    if "aiostorage_boot" in found.tables:
        numbers = connection.execute("SELECT max(number), count(*) FROM aiostorage_boot").fetchone()
        number, count = numbers[0] or 0, numbers[1]
    if number < highest_boot(connection, layout) or count > 1:
        what = (
            "the number of the machine's last boot is lower than that of stored times, so that "
            "they never grow old"
        )
        where = "aiostorage_boot"
        yield Finding(BOOT_NUMBER, "error", what, where, REPAIR_COMMAND, repairable=True)
