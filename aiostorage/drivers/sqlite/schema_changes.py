"""What the schema of a file lacks, compared with that of a new file."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from aiostorage.drivers.sqlite.schema_sql import quoted

__all__ = ["Schema", "added_columns", "schema_changes", "schema_of"]


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables, columns and indexes of a file.

    Attributes
    ----------
    tables
        The statement that makes each table.
    columns
        The definition of each column, by table and name.
    others
        The kind of everything else that a statement makes, such as an index, and the statement.
    """

    tables: dict[str, str]
    columns: dict[str, dict[str, str]]
    others: dict[str, tuple[str, str]]


def schema_of(connection: sqlite3.Connection) -> Schema:
    """Read the schema."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master "
        "WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    tables = {name: sql for kind, name, sql in rows if kind == "table"}
    return Schema(
        tables,
        {name: _columns(connection, name) for name in tables},
        {name: (kind, sql) for kind, name, sql in rows if kind != "table"},
    )


def schema_changes(found: Schema, wanted: Schema) -> list[str]:
    """Return the statements that add what is missing, and replace indexes that differ.

    What is not wanted stays. A column that is added can be NULL, since the rows that are there have
    no value for it.
    """
    statements = [sql for name, sql in wanted.tables.items() if name not in found.tables]
    for table, columns in added_columns(found, wanted).items():
        statements += [
            f"ALTER TABLE {quoted(table)} ADD COLUMN {wanted.columns[table][name]}"
            for name in columns
        ]
    for name, (kind, sql) in wanted.others.items():
        if name in found.others and found.others[name] != (kind, sql):
            statements.append(f"DROP {found.others[name][0]} {quoted(name)}")
        if found.others.get(name) != (kind, sql):
            statements.append(sql)
    return statements


def added_columns(found: Schema, wanted: Schema) -> dict[str, list[str]]:
    """Return the columns that the tables lack which are there, by table."""
    added = {
        table: [name for name in columns if name not in found.columns[table]]
        for table, columns in wanted.columns.items()
        if table in found.columns
    }
    return {table: names for table, names in added.items() if names}


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    rows = connection.execute("SELECT name, type, dflt_value FROM pragma_table_info(?)", (table,))
    return {
        name: " ".join(
            [quoted(name), *([kind] if kind else []), *([f"DEFAULT {value}"] if value else [])]
        )
        for name, kind, value in rows.fetchall()
    }
