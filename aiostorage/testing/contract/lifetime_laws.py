"""The contract on the life of a storage: closed, copied, and shown."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import anyio
import pytest

from aiostorage.errors import StorageClosedError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.reservation import Reservation
from aiostorage.testing.contract.helpers import gather, make_config, make_trial, registered
from aiostorage.trial import Result

__all__ = ["StorageLifetimeLaws"]


class StorageLifetimeLaws:
    """Laws 13 and 14."""

    async def test_closed_twice(self, storage: AsyncStorageProtocol) -> None:
        await storage.create_experiment(make_config())
        await storage.aclose()
        await storage.aclose()

    async def test_closed_without_use(self, storage: AsyncStorageProtocol) -> None:
        await storage.aclose()

    async def test_use_after_close(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        trial.results = [Result("o", "objective", 1)]
        await storage.aclose()
        calls = [
            storage.count_broken_trials(experiment),
            storage.count_completed_trials(experiment),
            storage.create_benchmark({"name": "b"}),
            storage.create_experiment(make_config("other")),
            storage.complete_trial(trial, 1),
            storage.delete_algorithm_lock(experiment),
            storage.delete_benchmark({}),
            storage.delete_experiment(experiment),
            storage.delete_trials(experiment),
            storage.fetch_benchmark({}),
            storage.fetch_experiments({}),
            storage.fetch_lost_trials(experiment),
            storage.fetch_noncompleted_trials(experiment),
            storage.fetch_pending_trials(experiment),
            storage.fetch_trials(experiment),
            storage.fetch_trials_by_status(experiment, "new"),
            storage.get_algorithm_lock_info(experiment),
            storage.get_trial(trial),
            storage.initialize_algorithm_lock("e", {}),
            storage.push_trial_results(trial),
            storage.recover_lost_trials(experiment),
            storage.register_trial(make_trial(experiment, 9)),
            storage.register_trials([make_trial(experiment, 9)]),
            storage.release_algorithm_lock(experiment),
            storage.reserve_trial(experiment),
            storage.reserve_trials(experiment, 1),
            storage.resume_reservation(Reservation("e", trial.id, "t")),
            storage.retrieve_result(trial),
            storage.set_trial_status(trial, "broken"),
            storage.update_experiment(experiment, x=1),
            storage.update_heartbeat(trial),
            storage.update_trial(trial, x=1),
            storage.update_trials(experiment, x=1),
            storage.write_algorithm_lock("e", {}),
            anext(storage.iter_trials(experiment)),
            storage.acquire_algorithm_lock(experiment).__aenter__(),
            storage.reserved_trial(experiment).__aenter__(),
        ]
        for call in calls:
            with anyio.fail_after(5), pytest.raises(StorageClosedError):
                await call

    async def test_closed_under_those_who_use_it(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())

        async def use(x: int) -> bool:
            try:
                await storage.register_trial(make_trial(experiment, x))
            except StorageClosedError:
                return False
            return True

        tasks = [asyncio.create_task(use(x)) for x in range(50)]
        await asyncio.sleep(0)
        with anyio.fail_after(10):
            await storage.aclose()
            await gather(tasks)

    async def test_pickled_copy(
        self, storage: AsyncStorageProtocol, shared_by_copies: bool
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 3)
        copy: AsyncStorageProtocol = pickle.loads(pickle.dumps(storage))  # noqa: S301  our own
        try:
            assert await copy.fetch_experiments({}) == await storage.fetch_experiments({})
            trial = await copy.reserve_trial(experiment)
            assert trial is not None
            await copy.complete_trial(trial, 1)
            async with copy.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state(1)
        finally:
            await copy.aclose()
        assert await storage.count_completed_trials(experiment) == int(shared_by_copies)

    async def test_pickled_while_locked(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        async with storage.acquire_algorithm_lock(experiment):
            pickle.dumps(storage)

    async def test_what_is_written_outlives_it(
        self, storage: AsyncStorageProtocol, opening: Any, shared: bool
    ) -> None:
        if not shared:
            pytest.skip("the engine cannot be opened again on its data")
        experiment = await storage.create_experiment(make_config())
        trials = await registered(storage, experiment, 3)
        await storage.aclose()
        again = await opening()
        assert await again.fetch_trials(experiment) == trials

    async def test_shown_without_secrets(
        self, storage: AsyncStorageProtocol, secrets: tuple[str, ...]
    ) -> None:
        shown = [repr(storage), str(storage), repr(vars(storage))]
        await storage.aclose()
        with pytest.raises(StorageClosedError) as raised:
            await storage.fetch_experiments({})
        shown.append(str(raised.value))
        for secret in secrets:
            assert not any(secret in text for text in shown)
