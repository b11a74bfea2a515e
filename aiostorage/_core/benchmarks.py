"""Benchmarks in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiostorage._core.documents import document_of, query_of
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.layout import BENCHMARKS
from aiostorage._core.record_reader import whole_documents
from aiostorage.operations import Delete, Document, Find, Insert

__all__ = ["Benchmarks"]


class Benchmarks:
    """What `Storage` does with benchmarks; the contract is `AsyncStorageProtocol`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def create(self, config: dict[str, Any]) -> int:
        document = document_of(BENCHMARKS, config)
        own_ids = config.get("_id") is not None
        await self._gateway.insert(Insert(BENCHMARKS, (document,)), own_ids=own_ids)
        config["_id"] = document["_id"]
        return 1

    async def fetch(
        self, query: Mapping[str, Any] | None, selection: Mapping[str, Any] | None
    ) -> list[Document]:
        condition, selected = query_of(query, selection)
        found = await self._gateway.execute(Find(BENCHMARKS, condition, selected))
        return whole_documents(self._gateway, BENCHMARKS, found)

    async def delete(self, query: Mapping[str, Any]) -> int:
        return await self._gateway.execute_once(Delete(BENCHMARKS, query_of(query)[0]))
