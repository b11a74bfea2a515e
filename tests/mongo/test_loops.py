"""Which storages share connections: one in several event loops, and several facades."""

from __future__ import annotations

import gc
import threading

import anyio

from aiostorage import Experiment, Storage, SyncStorage, open_storage
from aiostorage.drivers.mongodb import shared_clients
from aiostorage.testing import Deployment


def test_a_loop_that_ends_leaves_nothing_that_is_in_the_way(
    mongodb_replica_set: Deployment, mongodb_emptied_database: str, library: str
) -> None:
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    kept, other = (open_storage(url, client=library) for _ in range(2))

    async def use(storage: Storage, name: str) -> None:
        experiment = await storage.create_experiment({"name": name}, algo_state=0)
        async with anyio.create_task_group() as group:
            for _ in range(3):  # those who wait do so by a change stream
                group.start_soon(count, storage, experiment)
        info = await storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.state == 3

    async def count(storage: Storage, experiment: Experiment) -> None:
        async with storage.acquire_algorithm_lock(experiment, timeout=30) as algorithm:
            algorithm.set_state(algorithm.state + 1)

    async def both(name: str) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(use, kept, f"{name} kept")
            group.start_soon(use, other, f"{name} other")

    async def close() -> None:
        assert len(await kept.fetch_experiments({})) == 6
        assert len(shared_clients._clients) == 1  # those of the loops before are gone
        await kept.aclose()
        await other.aclose()

    for number in range(3):
        anyio.run(both, str(number))
        assert len(shared_clients._clients) == 1  # both share the connections
    anyio.run(close)
    assert not shared_clients._clients


def facade_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aiostorage"]


def test_facades_of_one_url_share_their_connections(
    mongodb_replica_set: Deployment, mongodb_emptied_database: str, library: str
) -> None:
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    many = [SyncStorage(open_storage(url, client=library)) for _ in range(20)]
    for number, storage in enumerate(many):
        storage.create_experiment({"name": str(number)})
    assert len(shared_clients._clients) == len(facade_threads()) == 1
    with SyncStorage(open_storage(url, client=library, timeout=19)) as other:  # other settings
        assert len(other.fetch_experiments({})) == 20
        assert len(shared_clients._clients) == len(facade_threads()) == 2

    experiment = many[0].fetch_experiments({"name": "0"})[0]
    with many[0].acquire_algorithm_lock(experiment) as algorithm:
        many.pop().close()
        many[1:10] = []  # these are never closed
        gc.collect()
        assert all(len(storage.fetch_experiments({})) == 20 for storage in many)
        algorithm.set_state(1)
    info = many[1].get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == 1
    for storage in many:
        storage.close()
    for thread in facade_threads():  # those of the dropped ones may still be at it
        thread.join(10)
    assert not shared_clients._clients
    assert facade_threads() == []
