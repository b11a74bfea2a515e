"""One storage in several event loops, one after the other."""

from __future__ import annotations

import anyio

from aiostorage import Experiment, Storage, open_storage
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
