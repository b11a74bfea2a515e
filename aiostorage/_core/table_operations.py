"""Operations on documents in memory: what an engine does whose tables are in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeAlias

from aiostorage._core.projection import copy_tree, select
from aiostorage._core.receipts import insertion_of
from aiostorage._core.steady_clock import SteadyMoment
from aiostorage._core.table import DocumentTable
from aiostorage.operations import Count, Delete, Find, FollowUp, Insert, Operation, Take, Update

__all__ = ["Undo", "all_or_none", "run", "run_all"]

Undo: TypeAlias = list[Callable[[], None]]
"""What takes back the changes that were made, in the order in which they were made."""


@contextmanager
def all_or_none() -> Iterator[Undo]:
    """Give a list for what takes changes back; if the body fails, take them all back."""
    undo: Undo = []
    try:
        yield undo
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def run_all(
    tables: Mapping[str, DocumentTable],
    operations: Sequence[Operation[Any]],
    now: SteadyMoment,
    undo: Undo,
) -> list[Any]:
    """Carry out operations in order, and return their results."""
    results: list[Any] = []
    for operation in operations:
        if isinstance(operation, FollowUp):
            operation = insertion_of(operation, results)  # noqa: PLW2901
        results.append(run(tables[operation.collection], operation, now, undo))
    return results


def run(table: DocumentTable, operation: Operation[Any], now: SteadyMoment, undo: Undo) -> Any:
    """Carry out one operation on the table of its collection."""
    clocked = table.clocked
    match operation:
        case Take(where=where, changes=changes):
            documents = table.find(clocked.resolved(where, now), operation.order)
            found = list(islice(documents, operation.limit))
            fields = clocked.at(changes, now)
            taken = [table.replace(d["_id"], fields, undo) for d in found]
            return [clocked.hide(copy_tree(document)) for document in taken]
        case Update(where=where, changes=changes):
            found = list(table.find(clocked.resolved(where, now)))
            fields = clocked.at(changes, now)
            for document in found:
                table.replace(document["_id"], fields, undo)
            return len(found)
        case Insert():
            for document in operation.documents:
                table.insert(copy_tree(clocked.at(document, now)), undo)
            return None
        case Find():
            where = clocked.resolved(operation.where, now)
            documents = table.find(where, operation.order, operation.after)
            first = islice(documents, operation.limit)
            return [clocked.hide(select(d, operation.selection)) for d in first]
        case Count():
            return sum(1 for _ in table.find(clocked.resolved(operation.where, now)))
        case Delete():
            doomed = list(table.find(clocked.resolved(operation.where, now)))
            for document in doomed:
                table.remove(document["_id"], undo)
            return len(doomed)
        case _:
            raise TypeError(f"unknown operation {operation!r}")
