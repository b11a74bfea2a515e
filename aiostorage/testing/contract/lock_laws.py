"""The contract on the algorithm lock: one holder, and others in their turn."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiostorage._core.holders import fingerprint
from aiostorage.errors import LockAcquisitionTimeout
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    algorithm_state,
    gather,
    make_config,
    show_free,
    with_state,
)

__all__ = ["LockLaws"]


class LockLaws:
    """Law 9: mutual exclusion and fairness."""

    async def test_one_at_a_time(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await with_state(storage, 0)
        inside = 0

        async def work(number: int) -> None:
            nonlocal inside
            mine = (storage, other)[number % 2]
            async with mine.acquire_algorithm_lock(experiment, timeout=60) as algorithm:
                inside += 1
                assert inside == 1
                found = algorithm.state
                await anyio.sleep(0.001)
                algorithm.set_state(found + 1)
                inside -= 1

        await gather(map(work, range(24)))
        assert await algorithm_state(storage, experiment) == 24

    async def test_locks_of_different_experiments_are_different(
        self, storage: AsyncStorageProtocol
    ) -> None:
        one = await storage.create_experiment(make_config("one"))
        two = await storage.create_experiment(make_config("two"))
        async with storage.acquire_algorithm_lock(one), storage.acquire_algorithm_lock(two, 0):
            pass

    @pytest.mark.usefixtures("cancels")
    async def test_first_come_first_served(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        order: list[int] = []

        async def wait(number: int) -> None:
            async with storage.acquire_algorithm_lock(experiment, timeout=60):
                order.append(number)

        async with asyncio.TaskGroup() as group, storage.acquire_algorithm_lock(experiment):
            tasks = []
            for number in range(10):
                tasks.append(group.create_task(wait(number)))
                await anyio.sleep(0.002)
            tasks[3].cancel()
        assert order == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    async def test_nobody_is_passed_over(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        order: list[str] = []

        async def wait(name: str, mine: AsyncStorageProtocol) -> None:
            async with mine.acquire_algorithm_lock(experiment, timeout=60, retry_interval=0.01):
                order.append(name)

        async with asyncio.TaskGroup() as group, storage.acquire_algorithm_lock(experiment):
            group.create_task(wait("other's first", other))
            await anyio.sleep(0.2)  # until it stands in the store's queue
            for number in range(3):
                group.create_task(wait(f"ours {number}", storage))
                await anyio.sleep(0.002)
        assert order[0] == "other's first"
        assert len(order) == 4

    async def test_timeout_says_who_holds_it_since_when(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment):
            info = await other.get_algorithm_lock_info(experiment)
            assert info is not None
            for mine in (storage, other):
                with pytest.raises(LockAcquisitionTimeout) as raised:
                    async with mine.acquire_algorithm_lock(
                        experiment, timeout=0.2, retry_interval=0.05
                    ):
                        raise AssertionError("two hold the lock")
                error = raised.value
                assert isinstance(error, TimeoutError)
                assert 0.2 <= error.waited < 5
                assert error.holder == info.owner
                assert error.since == info.since
                assert fingerprint(str(info.owner)) in str(error)
                assert str(info.owner) not in str(error)
        await show_free(other, experiment)

    async def test_timeout_of_zero(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment, timeout=0):
            for mine in (storage, other):
                with anyio.fail_after(5), pytest.raises(LockAcquisitionTimeout):
                    await show_free(mine, experiment)
        for mine in (storage, other):
            await show_free(mine, experiment)

    @pytest.mark.usefixtures("cancels")
    async def test_who_gives_up_is_in_nobodys_way(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment):
            with pytest.raises(LockAcquisitionTimeout):
                async with other.acquire_algorithm_lock(experiment, 0.1, 0.02):
                    pass
            with anyio.move_on_after(0.1):
                async with other.acquire_algorithm_lock(experiment, 60, 0.02):
                    pass
        await show_free(storage, experiment)
        await show_free(other, experiment)
