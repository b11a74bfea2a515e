"""Documents under the next free keys: what an `InsertNext` inserts."""

from __future__ import annotations

from collections.abc import Sequence

from aiostorage._core.changes import apply_changes
from aiostorage._core.projection import copy_tree
from aiostorage.operations import Document, InsertNext

__all__ = ["documents_at_next_keys"]


def documents_at_next_keys(insert: InsertNext, taken: Sequence[Document]) -> tuple[Document, ...]:
    """Return the documents with their keys; none if there are not enough keys.

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
    if len(free) < len(insert.documents):
        return ()
    made = []
    for document, place in zip(insert.documents, free, strict=False):
        copy: Document = copy_tree(document)
        apply_changes(copy, place)
        made.append(copy)
    return tuple(made)
