"""What the columns of a table hold, and what an UPDATE sets. Pure functions, no connection.

An UPDATE is compiled once for all changes of one shape: their paths, and which of them make a field
empty, as None or an empty list does. A store sees some twenty shapes, while each worker writes
several times for each trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import methodcaller
from typing import Any, Final

from aiostorage._core.changes import compile_changes
from aiostorage.drivers.sqlite.clock import TICK, Moment
from aiostorage.drivers.sqlite.schema_sql import quoted
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import Document, StoreTime

__all__ = [
    "SET",
    "Assignments",
    "Kept",
    "TableColumns",
    "bound_value",
    "column_value",
    "compiled",
    "meant_time",
    "ticks_of",
    "to_text",
]

SET: Final = "aiostorage_set"
"""SQL function ``(key, doc)``: `doc` as the function that is kept as number `key` changes it."""

Kept = list[Any]
"""Objects that the SQL functions of a statement need; their index stands for them in the SQL."""

_MAX_SHAPES: Final = 256


@lru_cache(maxsize=64)  # one transaction has one time, which goes into many columns
def to_text(value: datetime) -> str:
    """Return an aware UTC datetime as text that sorts as time does."""
    return value.isoformat("T", "microseconds")[:26] + "Z"


def meant_time(value: StoreTime, now: Moment) -> datetime:
    """Return the time of day that is meant at a moment."""
    return now.wall + timedelta(seconds=value.offset) if value.offset else now.wall


def ticks_of(value: Any, now: Moment) -> int:
    """Return the ticks of a time; that of another one than now, as far from now as it is."""
    if value.__class__ is StoreTime:
        return now.ticks + round(value.offset * 1000) if value.offset else now.ticks
    distance: int = (value - now.wall) // TICK
    return now.ticks + distance


def bound_value(kind: str, value: Any, now: Moment) -> Any:
    """Return the stored form of a value in such a column; None if the column cannot hold it."""
    if kind == "key":
        if value.__class__ is str or value.__class__ is int:
            return value
        # 1.0 is equal to 1; a NaN is equal to no key
        return value if isinstance(value, float) and value == value else None  # noqa: PLR0124
    if kind == "ticks":
        return ticks_of(value, now)
    if kind == "time":
        if value.__class__ is StoreTime:
            value = meant_time(value, now)
        return to_text(value) if isinstance(value, datetime) else None
    return value if isinstance(value, bytes) else None


def column_value(table: str, name: str, kind: str, value: Any, now: Moment) -> Any:
    """Return the stored form of a value that is to be written into a column.

    Raises
    ------
    EncodingError
        The column cannot hold it.
    """
    if value.__class__ is StoreTime and kind == "time":  # in every write of the hot path
        return to_text(meant_time(value, now) if value.offset else now.wall)
    bound = bound_value(kind, value, now)
    if bound is None or (kind == "key" and type(value) is float):
        raise EncodingError(f"{table}.{name} holds a {kind}, not {type(value).__name__}", path=name)
    return bound


class TableColumns:
    """The columns of a table, as far as changes depend on them, and what was compiled for it."""

    def __init__(
        self, table: str, kinds: Mapping[str, str], required: set[str], ticks: Mapping[str, str]
    ) -> None:
        self.table = table
        self.kinds = kinds
        self.required = required
        self.ticks = ticks
        self.shapes: dict[object, Assignments] = {}


class Assignments:
    """Changes of one shape, as they are written into rows and into documents.

    Parameters
    ----------
    columns
        The table.
    changes
        Some changes of this shape.

    Attributes
    ----------
    update
        The statement, up to its condition.
    damaged
        The same for rows whose text cannot be decoded, and stays as it is.
    emptied
        The fields that become empty, and what they become.
    without_empty
        The assignments of the other fields alone.
    """

    def __init__(self, columns: TableColumns, changes: Mapping[str, Any]) -> None:
        self._table = columns.table
        self._columns: list[tuple[str, str, bool]] = []
        names: list[str] = []
        rest: list[str] = []
        for path, value in changes.items():
            root = path.partition(".")[0]
            kind = columns.kinds.get(root)
            if kind is None:
                rest.append(path)
                continue
            if root != path or root == "_id":
                raise UnsupportedQuery(
                    f"{self._table}.{root} holds a {kind} and has no parts: {path!r}"
                )
            if value is None:
                if root in columns.required:
                    raise EncodingError(f"{self._table}.{root} cannot be None", path=root)
                rest.append(root)
            ticks = columns.ticks.get(root)
            self._columns.append((root, kind, ticks is not None))
            names += [root] if ticks is None else [root, ticks]
        self._text = tuple(rest)
        self._is_plain = all(map(str.isidentifier, rest))
        self._beside = tuple(path for path in rest if path not in columns.kinds)
        sets = [f"{quoted(name)} = ?" for name in names]
        self.damaged: str = _update(self._table, sets)
        self.update: str = _update(self._table, [*sets, f"doc = {SET}(?, doc)"] if rest else sets)
        self.emptied: list[tuple[str, Any]] = [
            (path, None if value is None else [])
            for path, value in changes.items()
            if _empties(path, value)
        ]
        self.without_empty: Assignments | None = None
        if self.emptied:
            others = {k: v for k, v in changes.items() if not _empties(k, v)}
            self.without_empty = compiled(columns, others)

    def values(
        self, changes: Mapping[str, Any], now: Moment, kept: Kept, *, damaged: bool = False
    ) -> list[Any]:
        """Return the parameters of the statement."""
        values: list[Any] = []
        for name, kind, has_ticks in self._columns:
            value = changes[name]
            values.append(
                None if value is None else column_value(self._table, name, kind, value, now)
            )
            if has_ticks:
                values.append(None if value is None else ticks_of(value, now))
        if self._text and not damaged:
            kept.append(self._text_changes(changes))
            values.append(len(kept) - 1)
        return values

    def _text_changes(self, changes: Mapping[str, Any]) -> Callable[[Document], None]:
        """Return the function that changes a document which becomes text at once: no copies."""
        own = {path: changes[path] for path in self._text}
        if self._is_plain:  # nothing to split or to check
            return methodcaller("update", own)
        return compile_changes(own)

    def document_changes(
        self, changes: Mapping[str, Any], now: Moment
    ) -> Callable[[Document], None]:
        """Return the function that changes documents likewise, with copies of what is set."""
        columns: dict[str, Any] = {}
        for name, _, _ in self._columns:
            value = changes[name]
            columns[name] = meant_time(value, now) if value.__class__ is StoreTime else value
        if not self._beside:
            return methodcaller("update", columns)
        change = compile_changes({path: changes[path] for path in self._beside})

        def change_all(document: Document) -> None:
            document.update(columns)
            change(document)

        return change_all

    def has_empty(self, document: Document) -> bool:
        """Return whether all that is to become empty is so in a document, and is there."""
        for path, value in self.emptied:
            there = document[path] if path in document else False  # noqa: SIM401  `get` may raise
            if there is not value and (value is None or there != value):
                return False
        return True


def compiled(columns: TableColumns, changes: Mapping[str, Any]) -> Assignments:
    """Return the assignments for changes; compiled anew only if their shape is.

    Raises
    ------
    UnsupportedQuery, EncodingError
        What no row can have is to be set.
    """
    empty = [path for path, value in changes.items() if value is None or value == []]
    shape = (*changes, None, *empty)
    found = columns.shapes.get(shape)
    if found is None:
        if len(columns.shapes) >= _MAX_SHAPES:
            columns.shapes.clear()
        found = columns.shapes[shape] = Assignments(columns, changes)
    return found


def _update(table: str, sets: Sequence[str]) -> str:
    # an update without changes still counts its matches
    return f"UPDATE {quoted(table)} SET {', '.join(sets) or 'seq = seq'}"  # noqa: S608  quoted


def _empties(path: str, value: Any) -> bool:
    return (value is None or (value.__class__ is list and not value)) and "." not in path
