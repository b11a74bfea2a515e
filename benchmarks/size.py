"""What a study takes in MongoDB: bytes on disk and in the oplog, and connections of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from pymongo import MongoClient

from aiostorage import open_storage
from benchmarks.mongodb import LIBRARIES
from benchmarks.workload import PARAM_COUNT, cycle, fill

__all__ = ["TASKS", "CollectionSize", "StudySize", "connections", "study"]

TASKS = 64
CONNECTED_AFTER = 4.0
"""Seconds after which a client has opened what it keeps open."""


@dataclass(frozen=True)
class CollectionSize:
    """One collection of a finished study.

    Attributes
    ----------
    data
        Bytes of the documents.
    stored
        Bytes that they take on disk, compressed.
    indexes
        Bytes of the indexes on disk.
    """

    name: str
    documents: int
    data: int
    stored: int
    indexes: int


@dataclass(frozen=True)
class StudySize:
    """A finished study whose trials were each reserved, beaten for once, and completed.

    Attributes
    ----------
    registered, worked
        Bytes of the oplog that the registration of all trials made, and the work on them.
    """

    trials: int
    params: int
    collections: list[CollectionSize]
    registered: int
    worked: int


@contextmanager
def _watching(url: str) -> Iterator[tuple[MongoClient[Any], str]]:
    """Yield a client and the name of a database, which is dropped afterwards."""
    name = f"aiostorage_size_{uuid4().hex[:12]}"
    with MongoClient[Any](url) as client:
        try:
            yield client, name
        finally:
            client.drop_database(name)


def study(url: str, trials: int) -> StudySize:
    """Make a study and work it off; return what it takes."""
    with _watching(url) as (client, database):
        begin = _oplog(client, database)

        async def work() -> tuple[int, int]:
            async with open_storage(url, database=database) as storage:
                experiment = await fill(storage, "size", trials)
                registered = _oplog(client, database) - begin

                async def share() -> None:
                    for _ in range(trials // TASKS):
                        await cycle(storage, experiment)

                async with asyncio.TaskGroup() as tasks:
                    for _ in range(TASKS):
                        tasks.create_task(share())
                return registered, _oplog(client, database) - begin - registered

        registered, worked = asyncio.run(work())
        client.admin.command("fsync")  # sizes on disk are those of the last checkpoint
        found = [
            CollectionSize(
                name, stats["count"], stats["size"], stats["storageSize"], stats["totalIndexSize"]
            )
            for name in sorted(client[database].list_collection_names())
            for stats in [client[database].command("collStats", name)]
            if stats["count"]
        ]
        return StudySize(trials, PARAM_COUNT, found, registered, worked)


def _oplog(client: MongoClient[Any], database: str) -> int:
    """Return the bytes of the oplog's entries about a database."""
    # transactions are entries of `admin.$cmd` that have the collections inside
    mine = {"$or": [{"ns": {"$regex": f"^{database}"}}, {"o.applyOps.0": {"$exists": True}}]}
    total = {"_id": None, "bytes": {"$sum": {"$bsonSize": "$$ROOT"}}}
    stages: list[dict[str, Any]] = [{"$match": mine}, {"$group": total}]
    for found in client.local["oplog.rs"].aggregate(stages):
        return int(found["bytes"])
    return 0


def connections(url: str) -> Iterator[tuple[str, int, int]]:
    """Yield, for each client library, how many tasks work and wait, and how many connections."""
    with _watching(url) as (client, database):

        async def work(library: str, tasks: int) -> int:
            name = uuid4().hex
            named = f"{url}{'&' if '?' in url else '?'}appName={name}"
            async with open_storage(named, database=database, client=library) as storage:
                experiment = await fill(storage, name, tasks * 10)

                async def share() -> None:
                    for _ in range(10):
                        await cycle(storage, experiment)
                    await storage.reserve_trial(experiment, wait=CONNECTED_AFTER)

                async with asyncio.TaskGroup() as group:
                    for _ in range(tasks):
                        group.create_task(share())
                all_of_them = {"allUsers": True, "idleConnections": True}
                found = client.admin.aggregate([{"$currentOp": all_of_them}])
                return sum(one.get("appName") == name for one in found)

        for library in LIBRARIES:
            for tasks in (1, 8, TASKS):
                yield library, tasks, asyncio.run(work(library, tasks))
