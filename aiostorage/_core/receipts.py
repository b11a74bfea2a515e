"""What follows from results and is stored with them: receipts, rows of the outbox, next keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiostorage._core.next_keys import documents_at_next_keys
from aiostorage._core.outbox_rows import rows_of
from aiostorage._core.projection import copy_tree
from aiostorage.operations import Document, FollowUp, Insert, InsertNext, OutboxNote, Receipt

__all__ = ["MAX_NOTED_TEXT", "insertion_of"]

MAX_NOTED_TEXT: Final = 2**20
"""Characters of documents that a receipt holds, as JSON, at most; else it has their ids only.

An engine may limit the size of a document: MongoDB to 16 MiB.
"""


def insertion_of(follow_up: FollowUp, results: Sequence[Any]) -> Insert:
    """Return the insertion by which an engine carries out a follow-up.

    Parameters
    ----------
    follow_up
        The operation.
    results
        The results of all operations before it in the same `transact`.

    Returns
    -------
    Insert
        Of no document, if there is nothing to insert.
    """
    match follow_up:
        case Receipt():
            return _receipt(follow_up, results[follow_up.skipped :])
        case OutboxNote():
            return Insert(follow_up.collection, rows_of(follow_up, results))
        case InsertNext():
            documents = documents_at_next_keys(follow_up, results[-1])
            return Insert(follow_up.collection, documents)
        case _:
            raise TypeError(f"unknown operation {follow_up!r}")


def _receipt(receipt: Receipt, results: Sequence[Any]) -> Insert:
    if not receipt.repeated and all(result is not None and not result for result in results):
        return Insert(receipt.collection, ())
    record = {"_id": receipt.key, "expires": receipt.expires, "answers": _noted(results)}
    return Insert(receipt.collection, (record,))


def _noted(results: Sequence[Any]) -> list[Any]:
    """Return results as a receipt has them: copies, or ids in place of too many documents."""
    whole = not any(map(_is_documents, results)) or _is_short(results)
    return [
        copy_tree(result) if whole or not _is_documents(result) else {"ids": _ids(result)}
        for result in results
    ]


def _is_documents(result: Any) -> bool:
    return isinstance(result, list) and bool(result)


def _is_short(results: Sequence[Any]) -> bool:
    from aiostorage._core.document_json import dump_document  # noqa: PLC0415  with orjson

    try:
        return len(dump_document({"answers": list(results)})) <= MAX_NOTED_TEXT
    except (TypeError, ValueError):  # another program has stored something else
        return False


def _ids(documents: Sequence[Document]) -> list[Any]:
    return [document["_id"] for document in documents]
