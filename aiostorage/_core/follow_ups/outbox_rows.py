"""The rows that an engine writes into the outbox, from the results of the changes themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aiostorage._core.follow_ups.next_keys import next_places
from aiostorage._core.ids import new_id
from aiostorage.operations import Document, NotedChange, OutboxNote, StoreTime

__all__ = ["rows_of"]


def rows_of(note: OutboxNote, results: Sequence[Any]) -> tuple[Document, ...]:
    """Return the rows of a note, each change of a trial or experiment once.

    Parameters
    ----------
    note
        The note.
    results
        The results of the operations before it.
    """
    rows: dict[tuple[Any, ...], Document] = {}
    for noted in note.changes:
        for experiment, trial in _changed(noted, _result(noted, results)):
            key = (experiment, trial, noted.change, noted.worker)
            if key not in rows:
                rows[key] = {
                    "_id": new_id(),
                    "experiment": experiment,
                    "trial": trial,
                    "change": noted.change,
                    "worker": noted.worker,
                    "time": StoreTime(),
                }
    return tuple(rows.values())


def _result(noted: NotedChange, results: Sequence[Any]) -> Any:
    if noted.inserted is None:
        return results[noted.position]
    insert, number = noted.inserted
    places = next_places(insert, results[noted.position - 1])
    return [{**insert.documents[number], **place} for place in places[number : number + 1]]


def _changed(noted: NotedChange, result: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the ids of what an operation has changed."""
    if result is not None and not result:
        return
    if noted.named is not None:
        yield noted.named
        return
    for document in result or ():
        for fields in (document, {**document, **noted.replaced} if noted.replaced else None):
            if fields is None:
                continue
            # not `get`: a document that cannot be read as a whole refuses it
            named = [fields[name] for name in noted.fields if name in fields]
            # another program may have stored anything
            if len(named) == len(noted.fields) and all(
                value.__class__ in (str, int) for value in named
            ):
                yield named[0], named[1] if len(named) > 1 else None
