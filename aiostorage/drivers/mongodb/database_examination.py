"""What may be wrong with a database and its server, and what of it is repaired.

What has to be in the documents is examined elsewhere, for all engines alike.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pymongo.errors
from bson import json_util

from aiostorage.drivers.mongodb.blobs import BUCKET, Blobs
from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.filters import CollectionSchema
from aiostorage.drivers.mongodb.indexes import create_one_index, existing_layout, is_another
from aiostorage.errors import NotADatabaseError, SchemaVersionError
from aiostorage.findings import (
    NEWER_COMMAND,
    REPAIR_COMMAND,
    UPGRADE_COMMAND,
    EngineReport,
    Finding,
    Repair,
    Severity,
)
from aiostorage.operations import Index, Layout

__all__ = ["examine_database", "repair_database"]

LEFTOVER_BLOBS: Final = "leftover-blobs"

Facts = dict[str, str | int | float | None]


def _schemas(client: Client, layout: Layout) -> dict[str, CollectionSchema]:
    return {c.name: CollectionSchema(c, partial=client.partial) for c in layout.collections}


async def examine_database(client: Client, layout: Layout) -> EngineReport:
    """Examine a database; see `aiostorage.protocols.ExaminableDriver.examine`."""
    findings: list[Finding] = []
    facts = await _facts(client)
    findings += await _members(client)
    location = client.settings.location
    try:
        found = await existing_layout(
            client, [c.name for c in layout.collections if c.fields], layout.version
        )
    except (NotADatabaseError, SchemaVersionError) as error:
        newer = isinstance(error, SchemaVersionError)
        code = "newer-layout" if newer else "not-a-database"
        command = NEWER_COMMAND if newer else "aiostorage config{url}"
        findings.append(Finding(code, "error", str(error), location, command))
        return EngineReport(tuple(findings), facts, readable=False)
    facts["layout"] = found
    if found is None:
        what = "another program made this database; its indexes come with the first opening"
        findings.append(Finding("no-layout", "note", what, location, "aiostorage list{storage}"))
        return EngineReport(tuple(findings), facts)
    if found < layout.version:
        what = (
            f"the database has layout {found}, this aiostorage needs {layout.version}; end all "
            "workers that use it first, on every machine"
        )
        findings.append(Finding("old-layout", "error", what, location, UPGRADE_COMMAND))
        return EngineReport(tuple(findings), facts, readable=False)
    schemas = _schemas(client, layout)
    for schema in schemas.values():
        findings += await _indexes(client, schema)
    findings += await _blobs(client, schemas)
    return EngineReport(tuple(findings), facts)


async def _facts(client: Client) -> Facts:
    server = await client.admin_command("buildInfo")
    return {
        "server": server.get("version"),
        "deployment": "replica set or cluster" if client.replicated else "standalone server",
        "client library": client.settings.library,
        "pymongo": pymongo.version,
    }


async def _members(client: Client) -> list[Finding]:
    """Return the members of a replica set that are down; none if the user may not ask."""
    if not client.replicated:
        return []
    try:
        status = await client.admin_command("replSetGetStatus")
    except pymongo.errors.OperationFailure:
        return []
    return [
        Finding(
            "member-down",
            "warning",
            f"the member {member.get('name')} of the replica set is "
            f"{str(member.get('stateStr')).lower()}",
            str(member.get("name")),
            f"mongosh {shlex.quote(client.settings.location)} --eval 'rs.status()'",
        )
        for member in status.get("members", ())
        if member.get("health") != 1 or member.get("state") not in (1, 2, 7)
    ]


async def _indexes(client: Client, schema: CollectionSchema) -> list[Finding]:
    there = await client.collections[schema.name].index_information()
    names = await client.collection_names()
    ours = {schema.index_name(index): index for index in schema.indexes}
    findings: list[Finding] = []
    for name, index in ours.items():
        where = f"{schema.name}.{name}"
        found = there.get(name)
        lacks_uniqueness = index.unique and (found is None or not found.get("unique"))
        if lacks_uniqueness and (twice := await _duplicates(client, schema, index)):
            what = (
                f"{twice} records of {schema.name} are equal in {' and '.join(index.fields)}, "
                "which must not be; delete all but one of each"
            )
            command = "aiostorage list{storage}"
            findings.append(Finding("duplicate-records", "error", what, where, command))
        elif found is None or is_another(schema, index, found):
            code = "missing-index" if found is None else "changed-index"
            state = "missing" if found is None else "another one than aiostorage makes"
            what = f"the index {name} of {schema.name} is {state}"
            findings.append(Finding(code, "warning", what, where, REPAIR_COMMAND, repairable=True))
    if schema.name in names:
        foreign = sorted(there.keys() - ours.keys() - {"_id_"})
        findings += [_foreign(client, schema, name, there[name]) for name in foreign]
    return findings


def _foreign(
    client: Client, schema: CollectionSchema, name: str, index: Mapping[str, Any]
) -> Finding:
    keys = list(index["key"])
    known = [schema.index_keys(one) for one in schema.indexes if one.unique]
    works = (index.get("unique") and keys not in known) or "expireAfterSeconds" in index
    severity: Severity = "warning" if works else "note"
    effect = "; it may refuse records, or delete them" if works else ""
    what = f"the index {name} of {schema.name} is none of aiostorage's{effect}"
    shell = f"db[{json_util.dumps(schema.name)}].dropIndex({json_util.dumps(name)})"
    command = f"mongosh {shlex.quote(client.settings.location)} --eval {shlex.quote(shell)}"
    return Finding("foreign-index", severity, what, f"{schema.name}.{name}", command)


async def _duplicates(client: Client, schema: CollectionSchema, index: Index) -> int:
    key = {name.replace(".", "_"): f"${name}" for name in index.fields}
    found = await client.aggregated(
        schema.name,
        [
            {"$group": {"_id": key, "n": {"$sum": 1}}},
            {"$match": {"n": {"$gt": 1}}},
            {"$group": {"_id": None, "n": {"$sum": "$n"}}},
        ],
    )
    return int(found[0]["n"]) if found else 0


async def _blobs(client: Client, schemas: Mapping[str, CollectionSchema]) -> list[Finding]:
    blobs = Blobs(client)
    left = len(await blobs.left_over(schemas)) + len(await blobs.stray_chunks())
    if not left:
        return []
    what = f"{left} blobs are left that no record refers to"
    return [Finding(LEFTOVER_BLOBS, "warning", what, BUCKET, REPAIR_COMMAND, repairable=True)]


async def repair_database(
    client: Client, layout: Layout, findings: Sequence[Finding]
) -> list[Repair]:
    """Repair a database; see `aiostorage.protocols.ExaminableDriver.repair`."""
    schemas = _schemas(client, layout)
    indexes = {
        f"{schema.name}.{schema.index_name(index)}": (schema, index)
        for schema in schemas.values()
        for index in schema.indexes
    }
    done: list[Repair] = []
    for one in findings:
        if not one.repairable:
            continue
        if one.code in ("missing-index", "changed-index") and one.where in indexes:
            done.append(await _repair_index(client, *indexes[one.where], one))
        elif one.code == LEFTOVER_BLOBS:
            count = await Blobs(client).delete_left_over(schemas)
            done.append(Repair(one.code, f"{count} were deleted", one.where))
    return done


async def _repair_index(
    client: Client, schema: CollectionSchema, index: Index, finding: Finding
) -> Repair:
    collection, name = client.collections[schema.name], schema.index_name(index)
    there = (await collection.index_information()).get(name)
    try:
        if there is not None and is_another(schema, index, there):
            await collection.drop_index(name)
        await create_one_index(client, schema, index)
    except NotADatabaseError as error:
        return Repair(finding.code, str(error), finding.where, done=False)
    return Repair(finding.code, "it was made", finding.where)
