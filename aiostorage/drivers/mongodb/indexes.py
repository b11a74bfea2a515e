"""The indexes of a database, and the document that has the version of its layout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import (
    ConfigurationError,
    DuplicateKeyError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
)
from aiostorage.operations import Index

__all__ = [
    "META",
    "create_indexes",
    "create_one_index",
    "existing_layout",
    "inspect",
    "is_another",
    "layout_of",
    "pass_barrier",
    "prepare",
]

META: Final = "aiostorage_meta"
"""The collection with a document for the version of the layout, and one for `pass_barrier`."""


async def prepare(client: Client, schemas: Mapping[str, CollectionSchema], version: int) -> None:
    """Create the indexes, unless a database of this version exists already.

    Oríon's collections, documents and indexes stay as they are.

    Raises
    ------
    SchemaVersionError
        Another version of aiostorage has made it.
    NotADatabaseError
        Its collections have documents that do not fit.
    """
    found = await layout_of(client, version)
    if found is None:
        for schema in schemas.values():
            await create_indexes(client, schema)
        await client.collections[META].update_one(
            {"_id": "layout"}, {"$setOnInsert": {"version": version}}, upsert=True
        )
        found = await layout_of(client, version)
    _check_version(client, found, version)
    for schema in schemas.values():
        await _create_partial_indexes(client, schema)


async def inspect(client: Client, names: Collection[str], version: int) -> bool:
    """Check a database without changing it; return whether it was prepared, with its indexes.

    Parameters
    ----------
    names
        Collections; the database has to have at least one of them.

    Raises
    ------
    ConfigurationError
        There is no database of that name.
    NotADatabaseError
        Another program made it.
    SchemaVersionError
        Another version of aiostorage has made it.
    """
    found = await existing_layout(client, names, version)
    if found is not None:
        _check_version(client, found, version)
    return found is not None


async def existing_layout(client: Client, names: Collection[str], version: int) -> int | None:
    """Return the version of the layout of a database that has to exist; None if it has none yet.

    The errors are those of `inspect`, but an older layout is none.
    """
    there = await client.collection_names()
    if not there:
        raise ConfigurationError(f"there is no database {client.settings.location}, or it is empty")
    found = await layout_of(client, version)
    if found is None and there.isdisjoint(names):
        raise NotADatabaseError(
            f"{client.settings.location} is a database neither of aiostorage nor of Oríon: it has "
            f"no collection {', '.join(names)}"
        )
    return found


async def layout_of(client: Client, version: int) -> int | None:
    """Return the version of the layout of a database, None if it has none.

    Parameters
    ----------
    version
        The newest version that is known here.

    Raises
    ------
    SchemaVersionError
        A newer version of aiostorage has made it.
    NotADatabaseError
        Another program has.
    """
    document = await client.collections[META].find_one({"_id": "layout"})
    if document is None:
        return None
    found = document.get("version")
    if not isinstance(found, int):
        raise NotADatabaseError(
            f"{client.settings.location}: the document in {META} has no version; another program "
            "may have written it: use another database"
        )
    if found > version:
        raise SchemaVersionError(
            f"{client.settings.location} has layout {found}, this version of aiostorage has "
            f"{version}: upgrade the package"
        )
    return found


def _check_version(client: Client, found: int | None, version: int) -> None:
    if found != version:
        raise SchemaVersionError(
            f"{client.settings.location} has layout {found}, this aiostorage needs {version}; end "
            f"all workers that use it, on every machine, and run: {client.settings.upgrade_command}"
        )


async def pass_barrier(client: Client) -> None:
    """Wait until a majority of the members has all that was written before.

    A new primary may have a write that the old one did not acknowledge, and that the members do not
    have yet. No failover takes back what is read after the barrier.
    """
    barrier = client.collections[META]
    await barrier.update_one({"_id": "barrier"}, {"$currentDate": {"passed": True}}, upsert=True)


async def _create_partial_indexes(client: Client, schema: CollectionSchema) -> None:
    """Create the partial indexes, if an older server, which has none, made the database.

    Reservations name them. Whoever may not create them does not reserve either.
    """
    partial = {schema.index_name(i) for i in schema.indexes if schema.index_filter(i) is not None}
    if not partial:
        return
    with translated(client.settings.location, writing=False):
        found = await client.collections[schema.name].index_information()
    if not partial.issubset(found):
        with suppress(PermissionDenied):
            await create_indexes(client, schema)


async def create_indexes(client: Client, schema: CollectionSchema) -> None:
    """Create the indexes of a collection that do not exist.

    Raises
    ------
    NotADatabaseError
        Documents are equal in fields that must be unique.
    """
    for index in schema.indexes:
        await create_one_index(client, schema, index)


async def create_one_index(client: Client, schema: CollectionSchema, index: Index) -> None:
    """Create an index, unless it exists; see `create_indexes`."""
    options: dict[str, Any] = {"name": schema.index_name(index)}
    if index.unique:
        options["unique"] = True
    if (partial := schema.index_filter(index)) is not None:
        options["partialFilterExpression"] = partial
    try:
        with translated(client.settings.location, writing=False):
            await client.create_index(schema.name, schema.index_keys(index), **options)
    except DuplicateKeyError as error:
        named = ", ".join(map("{}={!r}".format, error.fields, error.values))
        raise NotADatabaseError(
            f"{client.settings.location}: {schema.name} has records with {named} more than "
            "once, which must not be; delete all but one (of locks, `orion db upgrade` leaves "
            "several: the right one has a state)"
        ) from error


def is_another(schema: CollectionSchema, index: Index, there: Mapping[str, Any]) -> bool:
    """Return whether an index with the name of one of ours is defined otherwise."""
    return (
        list(there["key"]) != schema.index_keys(index)
        or bool(there.get("unique")) is not index.unique
        or there.get("partialFilterExpression") != schema.index_filter(index)
    )
