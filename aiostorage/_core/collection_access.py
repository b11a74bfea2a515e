"""The collections as they are, for what the protocol has no method for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiostorage._core.documents import both, document_of, query_of, update_of
from aiostorage._core.gateway import Gateway
from aiostorage.operations import EVERYTHING, Count, Delete, Document, Find, Insert, Take

__all__ = ["Collections"]


class Collections:
    """Documents by collection, in the verbs of a document database; nothing here is fenced."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def insert(self, collection: str, documents: Sequence[dict[str, Any]]) -> int:
        """Insert documents, all or none; each gets its ``_id``."""
        made = tuple(document_of(collection, document) for document in documents)
        await self._gateway.execute(Insert(collection, made))
        for document, stored in zip(documents, made, strict=True):
            document["_id"] = stored["_id"]
        return len(made)

    async def update(
        self, collection: str, query: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> int:
        """Set fields of all that match; answer how many did."""
        return await self._gateway.execute(
            update_of(collection, both(EVERYTHING, query_of(query)[0]), changes)
        )

    async def find(
        self,
        collection: str,
        query: Mapping[str, Any] | None,
        selection: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """Answer what matches, by insertion."""
        condition, selected = query_of(query, selection)
        return await self._gateway.execute(Find(collection, condition, selected))

    async def pages(
        self, collection: str, query: Mapping[str, Any] | None, size: int
    ) -> AsyncIterator[list[Document]]:
        """Answer what matches page by page, by insertion."""
        async for documents in self._gateway.pages(Find(collection, query_of(query)[0]), size):
            yield documents

    async def take(
        self, collection: str, query: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> Document | None:
        """Set fields of the first that matches, and answer it as it is then."""
        update = update_of(collection, both(EVERYTHING, query_of(query)[0]), changes)
        taken = await self._gateway.execute(Take(collection, update.where, update.changes))
        return taken[0] if taken else None

    async def count(self, collection: str, query: Mapping[str, Any] | None) -> int:
        """Count what matches."""
        return await self._gateway.execute(Count(collection, query_of(query)[0]))

    async def delete(self, collection: str, query: Mapping[str, Any] | None) -> int:
        """Delete what matches; answer how many did."""
        return await self._gateway.execute(Delete(collection, query_of(query)[0]))
