"""Documents under the next free keys: what an `InsertNext` inserts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiostorage._core.queries.changes import apply_changes
from aiostorage._core.queries.projection import copy_tree
from aiostorage.operations import Document, InsertNext

__all__ = ["documents_at_next_keys", "next_places"]


def next_places(insert: InsertNext, taken: Sequence[Document]) -> Sequence[Mapping[str, Any]]:
    """Return what each document gets with its key; nothing if there are not enough keys.

    Parameters
    ----------
    insert
        The operation.
    taken
        The result of the operation before it: documents that have some of the keys.
    """
    key = insert.key
    keys = {document[key] for document in taken if key in document}
    last = next((n for n, place in enumerate(reversed(insert.places)) if place[key] in keys), None)
    free = insert.places if last is None else insert.places[len(insert.places) - last :]
    wanted = len(insert.documents)
    return free[:wanted] if len(free) >= wanted else ()


def documents_at_next_keys(insert: InsertNext, taken: Sequence[Document]) -> tuple[Document, ...]:
    """Return the documents with their keys, as `next_places` has them for the same arguments."""
    made = []
    for document, place in zip(insert.documents, next_places(insert, taken), strict=False):
        copy: Document = copy_tree(document)
        apply_changes(copy, place)
        made.append(copy)
    return tuple(made)
