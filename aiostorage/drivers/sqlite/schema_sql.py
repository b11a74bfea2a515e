"""The schema as SQL: tables and indexes of the collections. Pure functions, no connection."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aiostorage.operations import Collection, Compare, Condition, Index

__all__ = ["create_statements", "partial_where", "quoted", "violated_fields"]


@lru_cache(maxsize=256)
def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def create_statements(collection: Collection) -> list[str]:
    """Return the statements that create the table of a collection, and its indexes."""
    required = _required(collection)
    names = ["_id", *(field.name for field in collection.fields)]
    columns = ", ".join(
        f"{quoted(name)}{' NOT NULL' if name in required else ''}" for name in names
    )
    table = quoted(collection.name)
    return [
        f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY, {columns}, doc TEXT NOT NULL)",
        *(_create_index(collection, index) for index in _indexes(collection)),
    ]


def violated_fields(collection: Collection, message: str) -> tuple[str, ...]:
    """Return the fields that SQLite means in the message of a violated unique index."""
    for index in _indexes(collection):
        columns = ", ".join(f"{collection.name}.{name}" for name in index.fields)
        if index.unique and (
            f"'{_index_name(collection, index)}'" in message or message.endswith(f": {columns}")
        ):
            return index.fields
    return ()


def partial_where(condition: Condition) -> str:
    """Return the condition of a partial index, with literals: SQLite compares the text."""
    if not (isinstance(condition, Compare) and condition.op == "in"):
        raise TypeError("a partial index needs one `in` comparison")
    return f"{quoted(condition.path)} IN ({', '.join(map(_literal, condition.value))})"


def _indexes(collection: Collection) -> tuple[Index, ...]:
    return Index(("_id",), unique=True), *collection.indexes


def _required(collection: Collection) -> set[str]:
    return {"_id", *(field.name for field in collection.fields if field.required)}


def _index_name(collection: Collection, index: Index) -> str:
    return "_".join([collection.name, *index.fields])


def _create_index(collection: Collection, index: Index) -> str:
    required = _required(collection)
    columns = [
        # to SQLite two NULLs differ, while the contract takes two Nones for the same
        f"ifnull({quoted(name)}, x'')" if index.unique and name not in required else quoted(name)
        for name in index.fields
    ]
    where = f" WHERE {partial_where(index.where)}" if index.where else ""
    return (
        f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {quoted(_index_name(collection, index))} "
        f"ON {quoted(collection.name)} ({', '.join(columns)}){where}"
    )


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"the condition of a partial index compares str and int, not {value!r}")
