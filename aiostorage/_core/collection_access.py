"""Access to whole collections, for adapters: what the protocol has no method for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiostorage._core.documents import both, document_of, query_of, update_of
from aiostorage._core.storage import Storage
from aiostorage.operations import EVERYTHING, Count, Delete, Document, Find, Insert, Take
from aiostorage.protocols import ExperimentLike
from aiostorage.trial import Trial

__all__ = ["CollectionAccess"]


class CollectionAccess:
    """The collections of a storage, in the verbs of a document database.

    Nothing here is fenced, and nothing is translated: documents are read and written as the engine
    stores them.

    Parameters
    ----------
    storage
        The storage whose connection is used.
    """

    def __init__(self, storage: Storage) -> None:
        self._gateway = storage._gateway  # noqa: SLF001  an adapter of this package
        self._lock_records = storage._lock_records  # noqa: SLF001  as above
        self._reservations = storage._reservations  # noqa: SLF001  as above

    async def insert(self, collection: str, documents: Sequence[dict[str, Any]]) -> int:
        """Insert documents, all or none; return how many. Each gets its ``_id``."""
        made = tuple(document_of(collection, document) for document in documents)
        own_ids = any(document.get("_id") is not None for document in documents)
        await self._gateway.insert(Insert(collection, made), own_ids=own_ids)
        for document, stored in zip(documents, made, strict=True):
            document["_id"] = stored["_id"]
        return len(made)

    async def update(
        self, collection: str, query: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> int:
        """Set fields of all documents that match; return how many did."""
        return await self._gateway.execute_once(
            update_of(collection, both(EVERYTHING, query_of(query)[0]), changes)
        )

    async def find(
        self,
        collection: str,
        query: Mapping[str, Any] | None,
        selection: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """Return the documents that match, by insertion."""
        condition, selected = query_of(query, selection)
        return await self._gateway.execute(Find(collection, condition, selected))

    async def pages(
        self, collection: str, query: Mapping[str, Any] | None, size: int
    ) -> AsyncIterator[list[Document]]:
        """Iterate over the documents that match page by page, by insertion."""
        async for documents in self._gateway.pages(Find(collection, query_of(query)[0]), size):
            yield documents

    async def take(
        self, collection: str, query: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> Document | None:
        """Set fields of the first document that matches; return it as it is then."""
        update = update_of(collection, both(EVERYTHING, query_of(query)[0]), changes)
        taken = await self._gateway.execute_once(Take(collection, update.where, update.changes))
        return taken[0] if taken else None

    async def count(self, collection: str, query: Mapping[str, Any] | None) -> int:
        """Return the number of documents that match."""
        return await self._gateway.execute(Count(collection, query_of(query)[0]))

    async def delete(self, collection: str, query: Mapping[str, Any] | None) -> int:
        """Delete the documents that match; return how many did."""
        return await self._gateway.execute_once(Delete(collection, query_of(query)[0]))

    async def reserve(self, experiment: ExperimentLike) -> Trial | None:
        """Reserve the oldest pending trial as Oríon's own storage does; None if there is none.

        Lost trials are left alone, and results that a trial was registered with stay.
        """
        return await self._reservations.reserve_as_registered(experiment)

    async def write_lock(
        self,
        uid: Any,
        configuration: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        """Write the lock record of an experiment, over the one that it may have; return 1.

        The state of an existing record stays unless a new one is given.
        """
        return await self._lock_records.replace(uid, configuration, locked, state, heartbeat)
