"""The schema as SQL: tables and indexes of the collections. Pure functions, no connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from aiostorage.operations import And, Collection, Compare, Condition, Field, Index

__all__ = [
    "create_statements",
    "missing_ticks",
    "names_an_index",
    "partial_where",
    "quoted",
    "text_literal",
    "ticks_column",
    "violated_fields",
]


@lru_cache(maxsize=256)
def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def create_statements(collection: Collection, more: Sequence[str] = ()) -> list[str]:
    """Return the statements that create the table of a collection, and its indexes.

    Parameters
    ----------
    more
        The definitions of further columns.
    """
    columns = ['"_id" NOT NULL']
    for field in collection.fields:
        columns.append(f"{quoted(field.name)}{' NOT NULL' if field.required else ''}")
        if field.clocked:
            columns.append(_ticks_definition(field))
    columns += more
    table = quoted(collection.name)
    return [
        f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY, {', '.join(columns)}, doc TEXT NOT NULL)",
        *(_create_index(collection, index) for index in _indexes(collection)),
    ]


def names_an_index(collection: Collection, where: Condition) -> bool:
    """Return whether a condition has a value for each field of an index, or for ``_id``.

    The rows that such an index finds are few, or come by insertion.
    """
    compared = [c for c in _conjuncts(where) if isinstance(c, Compare)]
    equal = {c.path for c in compared if c.op == "eq"}
    listed = equal | {c.path for c in compared if c.op == "in"}
    return "_id" in listed or any(
        index.where is None and (listed if index.unique else equal).issuperset(index.fields)
        for index in collection.indexes
    )


def _conjuncts(where: Condition) -> Iterator[Condition]:
    if isinstance(where, And):
        for condition in where.conditions:
            yield from _conjuncts(condition)
    else:
        yield where


def ticks_column(name: str) -> str:
    """Return the column with the ticks of a clocked field."""
    return f"{name}_ticks"


def missing_ticks(
    collection: Collection, wall: str, ticks: int
) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the statements, with parameters, that give ticks to the times without them.

    Such times have been written by a version that knew no ticks. Each gets the ticks that lie as
    far from now as it does.

    Parameters
    ----------
    wall, ticks
        The present moment, the first as the text of a column.
    """
    statements: list[tuple[str, tuple[Any, ...]]] = []
    for field in collection.fields:
        if field.clocked:
            name, column = quoted(field.name), quoted(ticks_column(field.name))
            # a day is a float that holds a twentieth of a millisecond
            distance = f"CAST(round((julianday({name}) - julianday(?)) * 86400000) AS INTEGER)"
            change = f"UPDATE {quoted(collection.name)} SET {column} = ? + {distance}"
            without = f"WHERE {name} IS NOT NULL AND {column} IS NULL"
            statements.append((f"{change} {without}", (ticks, wall)))
    return statements


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


def _ticks_definition(field: Field) -> str:
    return f"{quoted(ticks_column(field.name))} INTEGER"


def _required(collection: Collection) -> set[str]:
    return {"_id", *(field.name for field in collection.fields if field.required)}


def _index_name(collection: Collection, index: Index) -> str:
    return "_".join([collection.name, *index.fields])


def _create_index(collection: Collection, index: Index) -> str:
    required = _required(collection)
    # what is sorted by a clocked field goes by its ticks; two that differ may have the same
    clocked = set() if index.unique else {f.name for f in collection.fields if f.clocked}
    names = [ticks_column(name) if name in clocked else name for name in index.fields]
    columns = [
        # to SQLite two NULLs differ, while the contract takes two Nones for the same
        f"ifnull({quoted(name)}, x'')" if index.unique and name not in required else quoted(name)
        for name in names
    ]
    where = f" WHERE {partial_where(index.where)}" if index.where else ""
    return (
        f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {quoted(_index_name(collection, index))} "
        f"ON {quoted(collection.name)} ({', '.join(columns)}){where}"
    )


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return text_literal(value)
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"the condition of a partial index compares str and int, not {value!r}")
