"""What a database of ours looks like: its indexes, and a document that tells the version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiostorage.drivers._mongodb_client import Client
from aiostorage.drivers._mongodb_compile import Table
from aiostorage.errors import NotADatabaseError, SchemaVersionError

__all__ = ["META", "pass_barrier", "prepare"]

META: Final = "aiostorage_meta"
"""The collection with a document that tells the version of the layout, and one that is written."""


async def prepare(client: Client, tables: Mapping[str, Table], version: int) -> None:
    """Create the indexes, unless a database of this version is there already.

    Collections, documents and indexes of Oríon's stay as they are.

    Raises
    ------
    SchemaVersionError
        Another version of aiostorage has made it.
    NotADatabaseError
        Its collections hold something that does not fit.
    """
    meta = client.collection(META)
    found = await meta.find_one({"_id": "layout"})
    if found is None:
        for table in tables.values():
            await _create(client, table)
        await meta.update_one(
            {"_id": "layout"}, {"$setOnInsert": {"version": version}}, upsert=True
        )
        found = await meta.find_one({"_id": "layout"}) or {}
    there: Any = found.get("version")
    if not isinstance(there, int):
        raise NotADatabaseError(
            f"{client.settings.location}: the document in {META} has no version; another program "
            "may have written it: use another database"
        )
    if there != version:
        raise SchemaVersionError(
            f"{client.settings.location} has layout {there}, this version of aiostorage has "
            f"{version}: use the version of aiostorage that it was made with"
        )


async def pass_barrier(client: Client) -> None:
    """Wait until a majority of the members has all that was written before.

    A new primary may know of a write that the old one did not answer, and that the members do not
    have yet. What it answers to a read after this write of ours, no failover takes back.
    """
    barrier = client.collection(META)
    await barrier.update_one({"_id": "barrier"}, {"$currentDate": {"passed": True}}, upsert=True)


async def _create(client: Client, table: Table) -> None:
    for index in table.indexes:
        options: dict[str, Any] = {"name": table.index_name(index)}
        if index.unique:
            options["unique"] = True
        if (partial := table.index_filter(index)) is not None:
            options["partialFilterExpression"] = partial
        await client.create_index(table.name, table.index_keys(index), **options)
