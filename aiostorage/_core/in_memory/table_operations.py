"""Operations on documents in memory: what an engine does whose tables are in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from aiostorage._core.change_log.log_rows import is_logged, sets_content
from aiostorage._core.follow_ups.receipts import insertion_of
from aiostorage._core.in_memory.steady_clock import SteadyMoment
from aiostorage._core.in_memory.table import DocumentTable
from aiostorage._core.in_memory.table_log import Pair, add_to_log
from aiostorage._core.queries.projection import copy_tree, select
from aiostorage.operations import (
    Count,
    Delete,
    Document,
    Find,
    FollowUp,
    Insert,
    Operation,
    Take,
    Update,
)

__all__ = ["AllOrNone", "Undo", "run", "run_all"]

_CHANGING: Final = (Update, Take)

Undo: TypeAlias = list[Callable[[], None]]
"""What takes back the changes that were made, in the order in which they were made."""


class AllOrNone:
    """Gives a list for what takes changes back; if the body fails, takes them all back."""

    __slots__ = ("_undo",)

    def __init__(self) -> None:
        self._undo: Undo = []

    def __enter__(self) -> Undo:
        return self._undo

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for step in reversed(self._undo):
                step()


def run_all(
    tables: Mapping[str, DocumentTable],
    operations: Sequence[Operation[Any]],
    now: SteadyMoment,
    undo: Undo,
    *,
    logs: bool = True,
) -> list[Any]:
    """Carry out operations in order, and return their results.

    Parameters
    ----------
    logs
        Whether changes are logged where the layout says so.
    """
    results: list[Any] = []
    for operation in operations:
        if isinstance(operation, FollowUp):
            operation = insertion_of(operation, results)  # noqa: PLW2901
        table = tables[operation.collection]
        pairs: list[Pair] | None = [] if logs and table.logged is not None else None
        results.append(run(table, operation, now, undo, pairs))
        if pairs and table.logged is not None:
            content, reason = False, None
            if isinstance(operation, _CHANGING):
                content = sets_content(table.logged, operation.changes)
                reason = operation.reason
            add_to_log(tables, table.logged, pairs, now, undo, content=content, reason=reason)
    return results


def run(
    table: DocumentTable,
    operation: Operation[Any],
    now: SteadyMoment,
    undo: Undo,
    pairs: list[Pair] | None = None,
) -> Any:
    """Carry out one operation on the table of its collection.

    Parameters
    ----------
    pairs
        Gets each document that was changed, as it was before and as it is after that; None if
        the caller does not need them.
    """
    clocked = table.clocked
    match operation:
        case Take():
            documents = table.find(clocked.resolved(operation.where, now), operation.order)
            found = list(islice(documents, operation.limit))
            changed = _replace(table, found, clocked.at(operation.changes, now), undo, pairs)
            return [clocked.hide(copy_tree(document)) for document in changed]
        case Update():
            found = list(table.find(clocked.resolved(operation.where, now)))
            _replace(table, found, clocked.at(operation.changes, now), undo, pairs)
            return len(found)
        case Insert():
            for document in operation.documents:
                table.insert(copy_tree(clocked.at(document, now)), undo)
                if pairs is not None:
                    pairs.append((None, table.documents[table.last]))
            return None
        case Delete():
            found = list(table.find(clocked.resolved(operation.where, now)))
            for document in found:
                table.remove(document["_id"], undo)
                if pairs is not None:
                    pairs.append((document, None))
            return len(found)
        case _:
            return _read(table, operation, now)


def _read(table: DocumentTable, operation: Operation[Any], now: SteadyMoment) -> Any:
    clocked = table.clocked
    match operation:
        case Find():
            where = clocked.resolved(operation.where, now)
            documents = table.find(where, operation.order, operation.after)
            first = islice(documents, operation.limit)
            return [clocked.hide(select(d, operation.selection)) for d in first]
        case Count():
            return sum(1 for _ in table.find(clocked.resolved(operation.where, now)))
        case _:
            raise TypeError(f"unknown operation {operation!r}")


def _replace(
    table: DocumentTable,
    found: Sequence[Document],
    fields: Mapping[str, Any],
    undo: Undo,
    pairs: list[Pair] | None,
) -> list[Document]:
    """Replace documents by changed ones, and return these."""
    changed = [table.replace(document["_id"], fields, undo) for document in found]
    if pairs is not None and table.logged is not None and is_logged(table.logged, fields):
        pairs += zip(found, changed, strict=True)
    return changed
