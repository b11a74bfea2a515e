"""Operations as SQL: pure functions, no connection.

A collection is a table: one column for each declared field, and ``doc`` with the rest of the
document as JSON text. A column is NULL when its field is None or missing; in the first case
``doc`` has the key, with a null. Conditions on declared fields become SQL that means
exactly the same; a condition on anything else calls `MATCH`, an SQL function that the connection
registers and that uses `aiostorage._core.query`, so that its meaning is written once.

Beside each clocked field stands a column with its ticks (see `clock`). Comparisons with the store's
time and sorts go by the ticks, comparisons with other times by the field.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, assert_never

from aiostorage._core.document_json import dump_document, load_document
from aiostorage._core.matching import conjuncts
from aiostorage._core.ordering import value_of
from aiostorage._core.projection import select
from aiostorage._core.query import compile_condition, matches
from aiostorage.drivers.sqlite.clock import Moment
from aiostorage.drivers.sqlite.columns import (
    Kept,
    TableColumns,
    bound_value,
    column_value,
    compiled,
    ticks_of,
)
from aiostorage.drivers.sqlite.log_sql import LogSql, log_statements
from aiostorage.drivers.sqlite.schema_sql import (
    create_statements,
    names_an_index,
    partial_where,
    quoted,
    ticks_column,
    violated_fields,
)
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import (
    After,
    And,
    Collection,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    ElementMatch,
    Find,
    Layout,
    Or,
    SortBy,
    StoreTime,
    Take,
    UnreadableDocument,
    Update,
)

__all__ = ["MATCH", "VALUE", "Table", "tables_of"]

MATCH: Final = "aiostorage_match"
"""SQL function ``(key, doc)``: whether a condition that is kept as number `key` holds in `doc`."""

VALUE: Final = "aiostorage_value"
"""SQL function ``(key, doc)``: what the function kept as number `key` finds in `doc` to sort by."""

_MAX_INT: Final = 2**63 - 1

_KEYS: Final = frozenset({str, int})
"""The types of keys."""

Sql = tuple[str, list[Any]]

_OPERATORS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

_MAX_PARAMETERS: Final = 16
"""More values than this are passed as one JSON array, so that the statement stays the same."""

_MAX_JOINED: Final = 100
"""More conditions than this are joined in groups: SQLite limits the depth of an expression."""


@lru_cache(maxsize=256)
def _equalities(paths: tuple[str, ...]) -> str:
    return " AND ".join(f"{quoted(path)} = ?" for path in paths)


def _keep(kept: Kept, value: Any) -> int:
    kept.append(value)
    return len(kept) - 1


class Table:
    """One collection as a SQLite table.

    Parameters
    ----------
    collection
        The collection.
    log_of
        The table whose changes are logged in this one.
    """

    def __init__(self, collection: Collection, log_of: Table | None = None) -> None:
        self.name: str = collection.name
        self.kinds: dict[str, str] = {"_id": "key"}
        self.required: set[str] = {"_id"}
        self._clocked: dict[str, str] = {}
        for field in collection.fields:
            self.kinds[field.name] = field.kind
            if field.required:
                self.required.add(field.name)
            if field.clocked:
                self._clocked[field.name] = ticks_column(field.name)
        self._changed = TableColumns(self.name, self.kinds, self.required, self._clocked)
        self._table = quoted(self.name)
        self._columns = ", ".join([*map(quoted, self.kinds), "doc"])
        written = [*self.kinds, *self._clocked.values(), "doc"]
        self._insert = (
            f"INSERT INTO {self._table} ({', '.join(map(quoted, written))}) "
            f"VALUES ({', '.join('?' * len(written))})"
        )
        self._partial = [(i.where, partial_where(i.where)) for i in collection.indexes if i.where]
        self._collection = collection
        self._unique = [("_id",), *(i.fields for i in collection.indexes if i.unique)]
        self.log: LogSql | None = (
            LogSql(self.name, collection.logged, ["seq", *self.kinds])
            if collection.logged
            else None
        )
        self.logs: bool = True
        self._log_of = None if log_of is None else log_of.log

    # ------------------------------------------------------------------------------ schema

    def schema(self) -> list[str]:
        """Return the statements that create the table and its indexes."""
        make = create_statements if self._log_of is None else log_statements
        return make(self._collection)

    def numbering(self) -> list[str]:
        """Return the statements for a log that was made without subjects; none for other tables."""
        return self._log_of.numbered(self._collection) if self._log_of is not None else []

    def unique_fields(self, message: str) -> tuple[str, ...]:
        """Return the fields that SQLite means in the message of a violated unique index."""
        return violated_fields(self._collection, message)

    # --------------------------------------------------------------------------- documents

    def row(self, document: Document, now: Moment) -> tuple[Any, ...]:
        """Return the values of a document's row; takes them out of the document."""
        values: list[Any] = []
        ticks: dict[str, int | None] = dict.fromkeys(self._clocked)
        for name, kind in self.kinds.items():
            value = document.get(name)
            if value is None:
                values.append(None)
                continue
            del document[name]
            values.append(column_value(self.name, name, kind, value, now))
            if name in ticks:
                ticks[name] = ticks_of(value, now)
        return (*values, *ticks.values(), dump_document(document))

    def documents(
        self,
        rows: Iterable[Sequence[Any]],
        start: int = 0,
        selection: Mapping[str, bool] | None = None,
    ) -> list[Document]:
        """Return the documents of rows, whose columns begin with number `start`."""
        documents = []
        for row in rows:
            try:
                document = load_document(row[-1])
                for (name, kind), value in zip(self.kinds.items(), row[start:-1], strict=True):
                    if value is None:
                        continue
                    if kind == "time":
                        value = datetime.fromisoformat(value)  # noqa: PLW2901
                    elif kind == "key" and value.__class__ is bytes:
                        raise EncodingError(  # noqa: TRY301  as the others that are raised here
                            f"{name}: {reprlib.repr(value)} is not text"
                        )
                    document[name] = value
            except (EncodingError, TypeError, ValueError) as error:
                document = self._unreadable(row[start:-1], error)
            # nothing else refers to the document, so without a selection it need not be copied
            documents.append(select(document, selection) if selection else document)
        return documents

    def _unreadable(self, columns: Sequence[Any], error: Exception) -> Document:
        """Return the readable fields of a row that another program has written or damaged."""
        found: Document = {}
        reason = str(error)
        for (name, kind), value in zip(self.kinds.items(), columns, strict=True):
            try:
                read = datetime.fromisoformat(value) if kind == "time" and value else value
            except (TypeError, ValueError):
                reason = f"{name}: {reprlib.repr(value)} is not a time"
            else:
                if kind != "key" or name == "_id" or value.__class__ is not bytes:
                    found[name] = read
        return UnreadableDocument(found, reason)

    # -------------------------------------------------------------------------- statements

    def insert(self, document: Document, now: Moment) -> Sql:
        """Compile the insertion of one document."""
        return self._insert, list(self.row(document, now))

    def find(self, find: Find, now: Moment, kept: Kept) -> Sql:
        """Compile a `Find`; its rows are for `documents`."""
        where, params = self.where(find.where, now, kept)
        if self._log_of is not None and (of_one := self._log_of.of_one(find.where)):
            where, params = f"{of_one[0]} AND ({where})", [*of_one[1], *params]
        if find.after is not None:
            behind, more = self._behind(find.after, find.order, now, kept)
            where, params = f"({where}) AND {behind}", [*params, *more]
        order, more = self._order(find.order, kept)
        params += more
        sql = f"SELECT {self._columns} FROM {self._table} WHERE {where} ORDER BY {order}"
        if find.limit is not None:
            sql += " LIMIT ?"
            params.append(find.limit)
        return sql, params

    def page(self, where: Condition, after: int, size: int, now: Moment, kept: Kept) -> Sql:
        """Compile one page of a stream: rows are ``seq`` and, from 1 on, for `documents`."""
        condition, params = self.where(where, now, kept)
        table = self._table
        if not names_an_index(self._collection, where):
            table += " NOT INDEXED"  # each page would read and sort all that the index has
        rows = f"SELECT seq, {self._columns} FROM {table} WHERE {condition}"
        return f"{rows} AND seq > ? ORDER BY seq LIMIT ?", [*params, after, size]

    def rows_behind(self, name: str, value: Any, after: int, limit: int) -> Sql:
        """Compile the next rows by insertion, all or those with a key in one column."""
        rows = f"SELECT seq, {self._columns} FROM {self._table} WHERE seq > ?"
        own, params = ("", []) if value is None else (f" AND +{quoted(name)} = ?", [value])
        return f"{rows}{own} ORDER BY seq LIMIT ?", [after, *params, limit]

    def first_row(self, seq: int) -> Sql:
        """Compile the first row with this number or a greater one: its number and ``_id``."""
        return f"SELECT seq, _id FROM {self._table} WHERE seq >= ? ORDER BY seq LIMIT 1", [seq]

    def last_row(self) -> Sql:
        """Compile the last row: its number and ``_id``."""
        return f"SELECT seq, _id FROM {self._table} ORDER BY seq DESC LIMIT 1", []

    def count(self, count: Count, now: Moment, kept: Kept) -> Sql:
        """Compile a `Count`."""
        where, params = self.where(count.where, now, kept)
        return f"SELECT count(*) FROM {self._table} WHERE {where}", params

    def delete(self, delete: Delete, now: Moment, kept: Kept) -> Sql:
        """Compile a `Delete`."""
        where, params = self.where(delete.where, now, kept)
        return f"DELETE FROM {self._table} WHERE {where}", params

    def update(self, update: Update, now: Moment, kept: Kept, *, whole: bool = False) -> Sql:
        """Compile an `Update`; if `whole`, of those rows only whose text can be decoded."""
        where, params = self.matching(update.where, now, kept, whole=whole)
        assigned = compiled(self._changed, update.changes)
        values = assigned.values(update.changes, now, kept)
        return f"{assigned.update} WHERE {where}", values + params

    def names_one(self, where: Condition) -> bool:
        """Return whether a condition says which key each field of a unique index equals, or _id.

        One document at most can match it, and any other condition that is compiled to the same SQL.
        """
        named = {
            part.path
            for part in conjuncts(where)
            if isinstance(part, Compare) and part.op == "eq" and part.value.__class__ in _KEYS
        }
        return any(map(named.issuperset, self._unique))

    def most_read(self, where: Condition, limit: float) -> float:
        """Return how many documents a search looks at in Python, at most.

        Parameters
        ----------
        limit
            How many are wanted. SQLite finds them alone if the condition is about columns; if it is
            not, a unique index may say how many can match.
        """
        named: dict[str, int] = {}
        only_columns = True
        for part in conjuncts(where):
            if not isinstance(part, Compare) or part.path not in self.kinds:
                only_columns = only_columns and self._is_of_columns(part)
            elif part.op in ("eq", "in"):
                named[part.path] = 1 if part.op == "eq" else len(part.value)
        most = limit if only_columns else math.inf
        for fields in self._unique:
            if named.keys() >= set(fields):
                most = min(most, math.prod(map(named.__getitem__, fields)))
        return most

    def _is_of_columns(self, where: Condition) -> bool:
        if isinstance(where, Compare):
            return where.path in self.kinds
        return isinstance(where, And | Or) and all(map(self._is_of_columns, where.conditions))

    def chosen(self, take: Take, limit: int | None, now: Moment, kept: Kept) -> Sql:
        """Compile the first half of a `Take`; its rows are ``seq`` and, from 1 on, for `documents`.

        SQLite does this and what `changed` returns in half the time of one UPDATE with a subquery
        and RETURNING.
        """
        where, params = self.where(take.where, now, kept)
        return (
            f"SELECT seq, {self._columns} FROM {self._table} "
            f"WHERE {where} ORDER BY {self._order(take.order, kept)[0]} LIMIT ?"
        ), [*params, -1 if limit is None else limit]

    def changed(
        self,
        rows: Sequence[Sequence[Any]],
        changes: Mapping[str, Any],
        now: Moment,
        kept: Kept,
        statements: dict[str, list[list[Any]]],
    ) -> list[Document]:
        """Return the documents of the rows that `chosen` found, changed.

        What is to be emptied and is empty already is left out: a reservation empties the results,
        which hardly any trial has, and the text need not be written anew for that.

        Parameters
        ----------
        statements
            Gets the parameters for each row, by the statement that changes it.
        """
        documents = self.documents(rows, 1)
        assigned = compiled(self._changed, changes)
        if not rows:
            assigned.values(changes, now, kept)  # refuses what cannot be set
        for row, document in zip(rows, documents, strict=True):
            one, damaged = assigned, document.__class__ is UnreadableDocument
            if one.without_empty is not None and not damaged and one.has_empty(document):
                one = one.without_empty
            values = one.values(changes, now, kept, damaged=damaged)
            values.append(row[0])
            one.document_changes(changes, now)(document)
            sql = f"{one.damaged if damaged else one.update} WHERE seq = ?"
            statements.setdefault(sql, []).append(values)
        return documents

    def _order(self, order: tuple[str | SortBy, ...], kept: Kept) -> Sql:
        """Compile what stands behind ``ORDER BY``."""
        terms: list[str] = []
        params: list[Any] = []
        for item in order:
            if isinstance(item, str):
                terms.append(self._sorted_column(item))
                continue
            text, more = self._sorted_by(item, kept)
            terms.append(f"{text} {'DESC' if item.descending else 'ASC'} NULLS LAST")
            params += more
        return ", ".join([*terms, "seq"]), params

    def _sorted_column(self, name: str) -> str:
        if name not in self.kinds:
            raise UnsupportedQuery(f"{self.name} cannot be sorted by {name!r}: it is not declared")
        return quoted(self._clocked.get(name, name))

    def _sorted_by(self, item: SortBy, kept: Kept) -> Sql:
        if item.element is None:
            return self._sorted_column(item.path), []
        return f"{VALUE}(?, doc)", [_keep(kept, lambda document: value_of(document, item))]

    def _behind(
        self, after: After, order: tuple[str | SortBy, ...], now: Moment, kept: Kept
    ) -> Sql:
        """Compile the condition that a row comes after a place in an order."""
        last = f"ifnull((SELECT seq FROM {self._table} WHERE _id = ?), {_MAX_INT})"
        text, params = f"seq > {last}", [after.uid]
        for item, value in zip(reversed(order), reversed(after.values), strict=True):
            by = SortBy(item) if isinstance(item, str) else item
            term, own = self._sorted_by(by, kept)
            bound = value if by.element else bound_value(self.kinds[by.path], value, now)
            if bound is None and item is by:
                text, params = f"({term} IS NULL AND {text})", [*own, *params]
            elif bound is None:
                text = f"({term} IS NOT NULL OR {text})"
            else:
                later = f"{term} {'<' if by.descending else '>'} ?"
                none = f" OR {term} IS NULL" if item is by else ""
                text = f"({later}{none} OR ({term} = ? AND {text}))"
                params = [*own, bound, *(own if none else ()), *own, bound, *params]
        return text, params

    # -------------------------------------------------------------------------- conditions

    def matching(
        self, condition: Condition, now: Moment, kept: Kept, *, whole: bool = False
    ) -> Sql:
        """Compile a condition; if `whole`, with the one that the text can be decoded."""
        where, params = self.where(condition, now, kept)
        if whole:
            where = f"({where}) AND {MATCH}(?, doc)"
            params = [*params, _keep(kept, lambda _document: True)]
        return where, params

    def where(self, condition: Condition, now: Moment, kept: Kept) -> Sql:
        """Compile a condition."""
        if isinstance(condition, Compare):
            if condition.op == "in":
                for partial, text in self._partial:
                    if condition == partial:
                        return text, []
            return self._compare(condition, now, kept)
        if isinstance(condition, And):
            return self._joined(" AND ", condition.conditions, "1", now, kept)
        if isinstance(condition, Or):
            return self._joined(" OR ", condition.conditions, "0", now, kept)
        if isinstance(condition, ElementMatch):
            if condition.path.partition(".")[0] in self.kinds:  # which hold no lists
                return "0", []
            return f"{MATCH}(?, doc)", [_keep(kept, compile_condition(condition))]
        assert_never(condition)

    def _joined(
        self, word: str, conditions: tuple[Condition, ...], empty: str, now: Moment, kept: Kept
    ) -> Sql:
        if word == " AND " and (equalities := self._key_equalities(conditions)) is not None:
            return equalities
        parts = [self.where(condition, now, kept) for condition in conditions]
        if any(condition.__class__ is not Compare for condition in conditions):
            # what is read before a parenthesis stays on the parser's stack, which holds a hundred
            parts.sort(key=lambda part: len(part[0]), reverse=True)
        texts = [text for text, _ in parts]
        params = [value for _, values in parts for value in values]
        if not texts:
            return empty, params
        while len(texts) > _MAX_JOINED:
            groups = range(0, len(texts), _MAX_JOINED)
            texts = [f"({word.join(texts[i : i + _MAX_JOINED])})" for i in groups]
        joined = word.join(texts)
        return (joined if word == " AND " else f"({joined})"), params

    def _key_equalities(self, conditions: tuple[Condition, ...]) -> Sql | None:
        """Compile equal keys, as most updates have them, the short way; else None."""
        paths: list[str] = []
        params: list[Any] = []
        for one in conditions:
            if not isinstance(one, Compare) or one.op != "eq" or one.value.__class__ not in _KEYS:
                return None
            if self.kinds.get(one.path) != "key":
                return None
            paths.append(one.path)
            params.append(one.value)
        return (_equalities(tuple(paths)), params) if 0 < len(paths) <= _MAX_JOINED else None

    def _compare(self, compare: Compare, now: Moment, kept: Kept) -> Sql:
        root, _, rest = compare.path.partition(".")
        kind = self.kinds.get(root)
        if kind is None:
            return f"{MATCH}(?, doc)", [_keep(kept, compile_condition(compare))]
        if rest:  # a declared field holds no document, so there is nothing at that path
            return ("1" if matches({}, compare) else "0"), []
        value = compare.value
        column, kind = self._timed(root) if value.__class__ is StoreTime else (quoted(root), kind)
        match compare.op:
            case "eq":
                return self._equal(column, kind, value, now)
            case "ne":
                text, params = self._equal(column, kind, value, now)
                return f"NOT ifnull({text}, 0)", params
            case "in":
                return self._among(column, kind, value, now)
            case "nin":
                text, params = self._among(column, kind, value, now)
                return f"NOT ifnull({text}, 0)", params
            case "exists":
                if root in self.required:
                    return ("1" if value else "0"), []
                there = f"({column} IS NOT NULL OR {MATCH}(?, doc))"
                return there if value else f"NOT {there}", [
                    _keep(kept, compile_condition(Compare(root, "exists", True)))
                ]
            case "gt" | "gte" | "lt" | "lte":
                return self._ordered(column, kind, compare.op, value, now)
            case _:
                assert_never(compare.op)

    def _timed(self, name: str) -> tuple[str, str]:
        """Return the column that is compared with the store's time, and its kind."""
        if name in self._clocked:
            return quoted(self._clocked[name]), "ticks"
        return quoted(name), self.kinds[name]

    def _bound(self, kind: str, value: Any, now: Moment) -> Any:
        """Return what `bound_value` does; most conditions are about keys and the store's time."""
        if kind == "key" and (value.__class__ is str or value.__class__ is int):
            return value
        if kind == "ticks" and not value.offset:
            return now.ticks
        return bound_value(kind, value, now)

    def _equal(self, column: str, kind: str, value: Any, now: Moment) -> Sql:
        if value is None:
            return f"{column} IS NULL", []
        bound = self._bound(kind, value, now)
        return ("0", []) if bound is None else (f"{column} = ?", [bound])

    def _among(self, column: str, kind: str, values: tuple[Any, ...], now: Moment) -> Sql:
        bound = [b for v in values if (b := self._bound(kind, v, now)) is not None]
        if len(bound) > _MAX_PARAMETERS:
            text, params = _in_array(column, kind, bound)
        else:
            text, params = f"{column} IN ({', '.join('?' * len(bound))})", bound
        return (f"({column} IS NULL OR {text})" if None in values else text), params

    def _ordered(self, column: str, kind: str, op: str, value: Any, now: Moment) -> Sql:
        if value is None:
            return (f"{column} IS NULL" if op in ("gte", "lte") else "0"), []
        bound = self._bound(kind, value, now)
        if bound is None:
            return "0", []
        sign = _OPERATORS[op]
        if kind == "bytes":  # as BSON: the shorter one first
            longer = f"length({column}) {sign[0]} length(?)"
            alike = f"length({column}) = length(?) AND {column} {sign} ?"
            return f"({longer} OR {alike})", [bound, bound, bound]
        if isinstance(bound, str):  # in SQLite every number is less than any text
            return f"({column} {sign} ? AND {column} >= '')", [bound]
        return f"({column} {sign} ? AND {column} < '')", [bound]


def tables_of(layout: Layout) -> dict[str, Table]:
    """Return the tables of a layout, by the names of the collections."""
    tables = {one.name: Table(one) for one in layout.collections}
    for one in layout.collections:
        if one.logged is not None:
            log = next(other for other in layout.collections if other.name == one.logged.log)
            tables[log.name] = Table(log, tables[one.name])
    return tables


def _in_array(column: str, kind: str, values: list[Any]) -> Sql:
    """Compile an ``IN`` whose values are one JSON array, which carries each of them unchanged."""
    if kind == "bytes":
        there = f"{column} IS NOT NULL AND hex({column})"  # hex(NULL) is an empty text
        texts = [one.hex().upper() for one in values]
        return f"({there} IN (SELECT value FROM json_each(?)))", [json.dumps(texts)]
    # no key is a float: one that is whole equals an int, and no key equals any other
    values = [
        int(one) if one.__class__ is float else one
        for one in values
        if one.__class__ is not float or (-(2.0**63) <= one < 2.0**63 and one.is_integer())
    ]
    value = "value"
    if any(one.__class__ is str and "\0" in one for one in values):
        # json_each ends a text at its first NUL
        values = [_without_nul(one) if one.__class__ is str else one for one in values]
        with_nul = "replace(replace(value, char(1, 3), char(0)), char(1, 2), char(1))"
        value = f"iif(type = 'text', {with_nul}, value)"
    return f"{column} IN (SELECT {value} FROM json_each(?))", [json.dumps(values)]


def _without_nul(text: str) -> str:
    return text.replace("\1", "\1\2").replace("\0", "\1\3")
