"""The contract on limits: how many trials are completed, and how many may break."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiostorage.errors import ConfigurationError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import case, gather, lose, make_config, registered, stored

__all__ = ["LimitLaws"]


class LimitLaws:
    """Law 6 with limits: a trial goes to a caller only while the experiment needs one."""

    async def test_never_more_than_max_trials(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config(max_trials=5))
        await registered(storage, experiment, 16)
        counts: list[int] = []
        running = completed = failed = 0

        async def work(number: int) -> None:
            nonlocal running, completed, failed
            mine = (storage, other)[number % 2]
            while await mine.limit_reached(experiment) is None:
                async with mine.reserved_trial(experiment, wait=20, max_trials=True) as trial:
                    if trial is None:
                        continue
                    running += 1
                    counts.append(running + completed)
                    await anyio.sleep(0.01)
                    running -= 1
                    if trial.params["x"] < 3 and failed < 5:
                        failed += 1
                        await mine.set_trial_status(trial, ("broken", "suspended")[failed % 2])
                    else:
                        completed += 1
                        await mine.complete_trial(trial, 1)

        with anyio.fail_after(60):
            await gather(map(work, range(6)))
        assert max(counts) <= 5
        assert await storage.count_completed_trials(experiment) == 5
        assert await storage.limit_reached(experiment) == "max_trials"
        assert await storage.fetch_trials_by_status(experiment, "reserved") == []

    async def test_what_is_evaluated_counts_unless_it_is_lost(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 4)
        async with storage.reserved_trial(experiment, max_trials=2) as first:
            assert first is not None
            await storage.complete_trial(first, 1)
        async with storage.reserved_trial(experiment, max_trials=2) as second:
            assert second is not None
            async with storage.reserved_trial(experiment, max_trials=2) as third:
                assert third is None
            assert await storage.limit_reached(experiment, max_trials=2) is None
            async with storage.reserved_trial(experiment, max_trials=3) as third:
                assert third is not None
            await lose(storage, second)
            async with storage.reserved_trial(experiment, max_trials=2) as another:
                assert another is not None
                assert another != second
                await storage.complete_trial(another, 1)
        assert await storage.limit_reached(experiment, max_trials=2) == "max_trials"
        assert (await stored(storage, second)).status in ("reserved", "interrupted")

    async def test_waiting_ends_at_the_limit_and_begins_below_it(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 5)

        async def wait() -> str | None:
            async with other.reserved_trial(experiment, wait=60, max_trials=1) as trial:
                if trial is not None:
                    await other.complete_trial(trial, 2)
                return None if trial is None else trial.id

        with anyio.fail_after(20):
            mine = await storage.reserve_trial(experiment)
            assert mine is not None
            waiting = [asyncio.create_task(wait()) for _ in range(3)]
            await anyio.sleep(0.1)
            assert not any(task.done() for task in waiting)
            await storage.set_trial_status(mine, "interrupted")  # so there is room for one
            got = await gather(waiting)
        assert sorted(uid is None for uid in got) == [False, True, True]
        assert await storage.count_completed_trials(experiment) == 1

    async def test_the_limits_of_the_config(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config(max_trials=None))
        await registered(storage, experiment, 4)

        async def reserve(status: str, limit: object = True) -> bool:
            async with storage.reserved_trial(
                experiment,
                max_trials=limit,  # type: ignore[arg-type]
                max_broken=limit,  # type: ignore[arg-type]
            ) as trial:
                if trial is not None:
                    await storage.set_trial_status(trial, status)
                return trial is not None

        assert await reserve("broken")
        assert await storage.limit_reached(experiment) is None
        await storage.update_experiment(experiment, max_broken=2)
        assert await reserve("broken")
        assert not await reserve("broken")
        assert await storage.limit_reached(experiment) == "max_broken"
        assert await storage.limit_reached(experiment, max_broken=None) is None
        assert await storage.limit_reached(experiment, max_broken=3) is None
        await storage.update_experiment(experiment, max_broken=3, max_trials=1)
        assert await reserve("completed")
        assert not await reserve("completed")
        assert await storage.limit_reached(experiment) == "max_trials"
        assert not await reserve("completed", 0)
        assert await reserve("completed", 5)
        for bad in ("2", True, -1, [1]):
            with case(bad):
                await storage.update_experiment(experiment, max_trials=bad)
                with pytest.raises(ConfigurationError, match="max_trials"):
                    await storage.limit_reached(experiment)
                with pytest.raises(ConfigurationError, match="max_trials"):
                    await reserve("completed")
        assert await storage.limit_reached({"_id": "nobody"}) is None
