"""What a database of ours looks like: its indexes, and a document that tells the version."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.filters import Table
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import (
    ConfigurationError,
    DuplicateKeyError,
    NotADatabaseError,
    SchemaVersionError,
)

__all__ = ["META", "inspect", "pass_barrier", "prepare"]

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
    _check_version(client, found, version)


async def inspect(client: Client, names: Collection[str], version: int) -> bool:
    """Look at a database without changing it; answer whether it was prepared, and has our indexes.

    Parameters
    ----------
    names
        The collections of which it has at least one.

    Raises
    ------
    ConfigurationError
        There is none of that name.
    NotADatabaseError
        It is somebody else's.
    SchemaVersionError
        Another version of aiostorage has made it.
    """
    there = await client.collection_names()
    if not there:
        raise ConfigurationError(f"there is no database {client.settings.location}, or it is empty")
    found = await client.collection(META).find_one({"_id": "layout"})
    if found is not None:
        _check_version(client, found, version)
    elif there.isdisjoint(names):
        raise NotADatabaseError(
            f"{client.settings.location} is a database neither of aiostorage nor of Oríon: it has "
            f"no collection {', '.join(names)}"
        )
    return found is not None


def _check_version(client: Client, found: Mapping[str, Any], version: int) -> None:
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
        try:
            with translated(client.settings.location, writing=False):
                await client.create_index(table.name, table.index_keys(index), **options)
        except DuplicateKeyError as error:
            named = ", ".join(map("{}={!r}".format, error.fields, error.values))
            raise NotADatabaseError(
                f"{client.settings.location}: {table.name} has records with {named} more than "
                "once, which must not be; delete all but one (of locks, `orion db upgrade` leaves "
                "several: the right one has a state)"
            ) from error
