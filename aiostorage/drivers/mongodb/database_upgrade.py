"""The upgrade of a database: step by step, and the version of the layout is written last.

Each step can be repeated, so that an upgrade that was interrupted continues with the next one. The
collections and indexes that a layout adds are made as in a new database. Indexes of other programs
stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiostorage.drivers.mongodb.blobs import Blobs
from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.commands import Commands
from aiostorage.drivers.mongodb.filters import CollectionSchema, schemas_of
from aiostorage.drivers.mongodb.indexes import META, create_indexes, existing_layout, is_another
from aiostorage.drivers.mongodb.transactions import carry_out_all
from aiostorage.operations import Layout
from aiostorage.upgrades import (
    UpgradeProgress,
    UpgradeReport,
    UpgradeStep,
    silent,
    steps_from,
)

__all__ = ["upgrade_database"]


async def upgrade_database(
    client: Client,
    layout: Layout,
    steps: Sequence[UpgradeStep],
    *,
    dry_run: bool,
    progress: UpgradeProgress = silent,
) -> UpgradeReport:
    """Upgrade a database; see `aiostorage.protocols.UpgradableDriver.upgrade`."""
    schemas = schemas_of(layout, partial=client.partial)
    commands = Commands(client, schemas, Blobs(client))
    named = [c.name for c in layout.collections if c.fields]
    found = await existing_layout(client, named, layout.version)
    notes: list[str] = []
    if found is not None and found < layout.version:
        for step in steps_from(steps, found, layout.version):
            progress(f"changing the documents to layout {step.version}")
            plan = step.plan(await commands.run(step.find))
            notes += plan.notes
            for operation in () if dry_run else plan.operations:
                # one by one: a transaction that has all of them could take too long
                await carry_out_all(commands, (operation,))
        if not dry_run:
            for schema in schemas.values():
                progress(f"making the indexes of {schema.name}")
                await _drop_changed_indexes(client, schema)
                await create_indexes(client, schema)
            await client.collections[META].update_one(
                {"_id": "layout", "version": found}, {"$set": {"version": layout.version}}
            )
    return UpgradeReport(
        client.settings.location, found, layout.version, tuple(notes), dry_run=dry_run
    )


async def _drop_changed_indexes(client: Client, schema: CollectionSchema) -> None:
    """Drop the indexes that have the name of one of ours, and are defined otherwise."""
    collection = client.collections[schema.name]
    found = await collection.index_information()
    for index in schema.indexes:
        name = schema.index_name(index)
        if (there := found.get(name)) is not None and is_another(schema, index, there):
            await collection.drop_index(name)
