"""Waiters are woken by one change stream for a process; a standalone server is polled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pymongo import MongoClient

from aiostorage import Storage, Trial, open_storage
from aiostorage.drivers.mongodb import change_streams
from aiostorage.testing import Deployment
from tests.processes.support import starter

pytestmark = pytest.mark.anyio

NEVER = 3600.0


@pytest.fixture(params=["motor", "pymongo"])
async def storages(
    request: pytest.FixtureRequest,
    mongodb_replica_set: Deployment,
    mongodb_emptied_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[list[Storage]]:
    """Give storages on one database, none of which ever polls."""
    monkeypatch.setattr(change_streams, "RECHECK_INTERVAL", NEVER)
    async with AsyncExitStack() as stack:
        url = mongodb_replica_set.url_for(mongodb_emptied_database)
        yield [
            await stack.enter_async_context(open_storage(url, client=request.param))
            for _ in range(12)
        ]


def streams(url: str, database: str) -> list[dict[str, Any]]:
    """Return the open change streams of a database."""
    ours = {
        "cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": True},
        "cursor.originatingCommand.$db": database,
    }
    with MongoClient[dict[str, Any]](url) as client:
        cursors = client.admin.aggregate(
            [{"$currentOp": {"idleCursors": True, "allUsers": True}}, {"$match": ours}]
        )
        return cursors.to_list()


@pytest.fixture
def count(
    mongodb_replica_set: Deployment, mongodb_emptied_database: str
) -> Callable[[], Awaitable[int]]:
    async def counted() -> int:
        url = mongodb_replica_set.url
        return len(await anyio.to_thread.run_sync(streams, url, mongodb_emptied_database))

    return counted


async def test_a_process_has_one_stream(
    storages: list[Storage], count: Callable[[], Awaitable[int]]
) -> None:
    experiment = await storages[0].create_experiment({"name": "tune"})
    waiting = [
        asyncio.create_task(storage.reserve_trial(experiment, wait=NEVER)) for storage in storages
    ]
    async with storages[0].acquire_algorithm_lock(experiment):
        locking = asyncio.create_task(_hold(storages[1], experiment))
        with anyio.fail_after(20):  # the stream that did not look at locks has to end first
            while await count() != 1:
                await anyio.sleep(0.1)
    with anyio.fail_after(10):
        await locking
        await storages[0].register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(len(storages))]
        )
        trials = await asyncio.gather(*waiting)
    assert len({trial.id for trial in trials if trial is not None}) == len(storages)


async def _hold(storage: Storage, experiment: Any) -> None:
    async with storage.acquire_algorithm_lock(experiment, retry_interval=NEVER):
        pass


async def test_the_stream_ends_when_nobody_waits(
    storages: list[Storage],
    count: Callable[[], Awaitable[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(change_streams, "MAX_IDLE_SECONDS", 0.1)
    experiment = await storages[0].create_experiment({"name": "tune"})
    assert await storages[0].reserve_trial(experiment, wait=0.5) is None
    with anyio.fail_after(20):
        while await count():
            await anyio.sleep(0.1)
    waiting = asyncio.create_task(storages[0].reserve_trial(experiment, wait=NEVER))
    await anyio.sleep(0.5)
    await storages[1].register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    with anyio.fail_after(10):
        assert await waiting is not None


async def test_a_stream_that_breaks_is_opened_again(
    storages: list[Storage], mongodb_replica_set: Deployment, mongodb_emptied_database: str
) -> None:
    experiment = await storages[0].create_experiment({"name": "tune"})
    waiting = asyncio.create_task(storages[0].reserve_trial(experiment, wait=NEVER))
    await anyio.sleep(0.5)
    await anyio.to_thread.run_sync(_kill_streams, mongodb_replica_set.url, mongodb_emptied_database)
    await anyio.sleep(0.5)
    await storages[1].register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    with anyio.fail_after(20):
        assert await waiting is not None


def _kill_streams(url: str, database: str) -> None:
    end = time.monotonic() + 20
    while not (found := streams(url, database)):  # one that broke may not be there again yet
        assert time.monotonic() < end
        time.sleep(0.01)
    with MongoClient[dict[str, Any]](url) as client:
        for operation in found:
            name, _, collection = operation["ns"].partition(".")
            cursor = operation["cursor"]["cursorId"]
            client[name].command("killCursors", collection, cursors=[cursor])


async def test_closing_leaves_no_stream_behind(
    mongodb_replica_set: Deployment,
    mongodb_emptied_database: str,
    count: Callable[[], Awaitable[int]],
) -> None:
    for library in ("motor", "pymongo"):
        url = mongodb_replica_set.url_for(mongodb_emptied_database)
        async with open_storage(url, client=library) as storage:
            experiment = await storage.create_experiment({"name": library})
            assert await storage.reserve_trial(experiment, wait=0.5) is None
            assert await count() == 1
        assert await count() == 0


async def test_a_standalone_server_is_looked_at(
    mongodb_standalone: Deployment, mongodb_emptied_database: str
) -> None:
    url = mongodb_standalone.url_for(mongodb_emptied_database)
    async with open_storage(url) as storage, open_storage(url) as other:
        experiment = await storage.create_experiment({"name": "tune"})
        waiting = asyncio.create_task(storage.reserve_trial(experiment, wait=60))
        await anyio.sleep(0.3)
        await other.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        with anyio.fail_after(5):
            assert await waiting is not None


NEVER_CLOSED = """
import sys, warnings
from aiostorage import SyncStorage, open_storage

storages = [SyncStorage(open_storage(sys.argv[1], client=c)) for c in ("motor", "pymongo")]
warnings.simplefilter("ignore")
experiment = storages[0].create_experiment({"name": "never closed"})
for storage in storages:
    storage.reserve_trial(experiment, wait=0.3)
"""


def test_a_process_that_ends_says_nothing_of_its_streams(
    mongodb_replica_set: Deployment, mongodb_emptied_database: str, tmp_path: Path
) -> None:
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    with starter(tmp_path) as start:
        process = start("-c", NEVER_CLOSED, url)
        process.succeed()
        assert process.stderr == ""
