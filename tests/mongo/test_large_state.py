"""Algorithm state beyond what one document holds: in GridFS, swapped in as a whole."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from aiostorage import Experiment, Storage, SyncStorage, open_storage
from aiostorage.drivers.mongodb import blobs
from aiostorage.testing import Deployment
from tests.mongo.conftest import PAIRS
from tests.processes.support import starter

MIB = 2**20


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, Deployment]:
    library, name = request.param
    return library, request.getfixturevalue(name)


@pytest.fixture
def library(pair: tuple[str, Deployment]) -> Iterator[str]:
    yield pair[0]
    gc.collect()


@pytest.fixture
def url(pair: tuple[str, Deployment], mongodb_emptied_database: str) -> str:
    return pair[1].url_for(mongodb_emptied_database)


@pytest.fixture
def database(url: str) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](url) as client:
        yield client.get_default_database()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def files(database: Database[dict[str, Any]]) -> int:
    return database[f"{blobs.BUCKET}.files"].count_documents({})


def chunks(database: Database[dict[str, Any]]) -> int:
    return database[f"{blobs.BUCKET}.chunks"].count_documents({})


async def save(storage: Storage, experiment: Experiment, state: object) -> None:
    async with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state(state)


async def saved(storage: Storage, experiment: Experiment) -> object:
    info = await storage.get_algorithm_lock_info(experiment)
    assert info is not None
    return info.state


@pytest.mark.anyio
async def test_large_states_come_and_go(
    url: str, library: str, database: Database[dict[str, Any]]
) -> None:
    async with open_storage(url, client=library) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        for number, size in enumerate((1, 13, 20, 1, 14)):
            state = {"data": noise(size * MIB, number), "number": number}
            await save(storage, experiment, state)
            assert await saved(storage, experiment) == state
            # bytes that no longer belong to a state are gone
            found = await in_thread(lambda: (files(database), chunks(database)))
            assert found == ((1, size + 1) if size > 12 else (0, 0))
        with pytest.raises(ZeroDivisionError):
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.state["number"] = -1
                raise ZeroDivisionError
        assert await saved(storage, experiment) == state
        await storage.delete_experiment(experiment)
        assert await in_thread(lambda: (files(database), chunks(database))) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("pair", PAIRS[1:], indirect=True)
async def test_a_state_of_100_mib(url: str, library: str) -> None:
    async with open_storage(url, client=library, lock_lease=30) as storage:
        experiment = await storage.create_experiment({"name": "tune"})
        state = noise(100 * MIB)
        await save(storage, experiment, state)
        async with storage.acquire_algorithm_lock(experiment) as algorithm:
            assert algorithm.state == state
            algorithm.set_state(None)


@pytest.mark.anyio
async def test_an_experiment_that_begins_with_a_large_state(
    url: str, library: str, database: Database[dict[str, Any]]
) -> None:
    async with open_storage(url, client=library) as storage:
        state = noise(14 * MIB)
        experiment = await storage.create_experiment({"name": "tune"}, algo_state=state)
        assert await saved(storage, experiment) == state
        assert await storage.release_algorithm_lock(experiment) == 0
        assert await storage.write_algorithm_lock("other", {}, state=noise(15 * MIB, 1)) == 1
        assert await in_thread(lambda: files(database)) == 2
        assert await storage.delete_algorithm_lock(uid="other") == 1
        assert await in_thread(lambda: files(database)) == 1


KILLED = """
import asyncio, os, random, sys
from aiostorage import open_storage
async def main(url, library, uid):
    storage = open_storage(url, client=library, lock_lease=4.0)
    async with storage.acquire_algorithm_lock({"_id": uid}) as algorithm:
        algorithm.set_state(random.Random(1).randbytes(14 * 2**20))
        from aiostorage.drivers.mongodb.blobs import Blobs
        written = Blobs.extract
        async def die(self, *args):
            await written(self, *args)
            os.kill(os.getpid(), 9)
        Blobs.extract = die

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_crash_before_the_swap_leaves_the_state_whole(
    url: str,
    library: str,
    database: Database[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = noise(13 * MIB)
    with SyncStorage(open_storage(url, client=library, lock_lease=4.0)) as storage:
        experiment = storage.create_experiment({"name": "tune"}, algo_state=old)
        with starter(tmp_path) as start:
            worker = start("-c", KILLED, url, library, experiment.id)
            assert worker.wait() == -9, worker.stderr
        assert files(database) == 2  # the old one, and one without a reference
        with storage.acquire_algorithm_lock(experiment, timeout=30) as algorithm:
            assert algorithm.state == old
            algorithm.set_state(noise(15 * MIB, 2))
        assert files(database) == 2
        monkeypatch.setattr(blobs, "MIN_SWEPT_AGE", timedelta(seconds=-1))
        with storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.set_state(noise(16 * MIB, 3))
        assert files(database) == 1
        info = storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.state == noise(16 * MIB, 3)


async def in_thread(action: Any) -> Any:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(action)
