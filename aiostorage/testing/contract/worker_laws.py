"""The contract on `reserved_trial`: a worker's turn."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiostorage.errors import FailedUpdate
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    Open,
    case,
    gather,
    make_config,
    registered,
    stored,
    until,
)
from aiostorage.testing.faults import FakeClock

__all__ = ["WorkerLaws"]


class WorkerLaws:
    """The trial is completed, interrupted or broken when the body ends, however it ends."""

    async def test_nothing_pending(self, storage: AsyncStorageProtocol) -> None:
        async with storage.reserved_trial({"_id": "nobody"}) as trial:
            assert trial is None

    async def test_waiting_for_an_experiment_that_is_not_there(
        self, storage: AsyncStorageProtocol
    ) -> None:
        with anyio.fail_after(10), pytest.raises(FailedUpdate, match="nobody"):
            await storage.reserve_trial({"_id": "nobody"}, wait=60)
        with anyio.fail_after(10), pytest.raises(FailedUpdate, match="nobody"):
            async with storage.reserved_trial({"_id": "nobody"}, wait=60):
                pytest.fail("there is nothing to reserve")

    async def test_completed(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            assert (await stored(storage, trial)).status == "reserved"
            await storage.complete_trial(trial, 1)
        assert (await stored(storage, trial)).status == "completed"

    async def test_what_the_body_made_of_it_stays(self, storage: AsyncStorageProtocol) -> None:
        for status in ("suspended", "broken", "completed"):
            with case(status):
                experiment = await storage.create_experiment(make_config(status))
                await registered(storage, experiment, 1)
                with pytest.raises(LookupError):
                    async with storage.reserved_trial(experiment) as trial:
                        assert trial is not None
                        await storage.set_trial_status(trial, status)
                        raise LookupError
                assert trial is not None
                assert (await stored(storage, trial)).status == status

    async def test_left_without_completing(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            pass
        assert trial is not None
        assert trial.status == "interrupted"
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_the_body_raises(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        with pytest.raises(ZeroDivisionError):
            async with storage.reserved_trial(experiment) as trial:
                raise ZeroDivisionError
        assert trial is not None
        assert trial.status == "broken"
        assert (await stored(storage, trial)).status == "broken"

    @pytest.mark.parametrize("native", [True, False])
    async def test_the_body_is_cancelled(self, storage: AsyncStorageProtocol, native: bool) -> None:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        inside = anyio.Event()
        scope = anyio.CancelScope()

        async def work() -> None:
            with scope:
                async with storage.reserved_trial(experiment):
                    inside.set()
                    await anyio.sleep_forever()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel() if native else scope.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is native
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_a_base_exception(self, storage: AsyncStorageProtocol) -> None:
        class Stop(BaseException):
            pass

        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        with pytest.raises(Stop):
            async with storage.reserved_trial(experiment):
                raise Stop
        assert (await stored(storage, trial)).status == "interrupted"

    async def test_its_heart_beats(self, opening: Open, store_clock: FakeClock | None) -> None:
        lost_after = 0.5 if store_clock is None else 0.05
        storage = await opening(lost_after=lost_after)
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)

        async def beaten() -> bool:
            assert trial is not None
            return (await stored(storage, trial)).heartbeat != before

        async with storage.reserved_trial(experiment) as trial:  # beats five times as often
            assert trial is not None
            if store_clock is None:
                await anyio.sleep(1.2)
            else:
                for _ in range(3):
                    before = (await stored(storage, trial)).heartbeat
                    store_clock.advance(0.9 * lost_after)
                    await until(beaten)
            assert await storage.recover_lost_trials(experiment) == []
            await storage.complete_trial(trial, 1)

    async def test_completed_through_another_copy(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment, heartbeat=0.02) as trial:
            assert trial is not None
            await storage.complete_trial(trial.copy(), 1)
            await anyio.sleep(0.1)
        assert (await stored(storage, trial)).status == "completed"

    async def test_many_workers_do_all_the_work(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 60)
        done: list[int] = []

        async def work(number: int) -> None:
            mine = (storage, other)[number % 2]
            while True:
                async with mine.reserved_trial(experiment) as trial:
                    if trial is None:
                        return
                    done.append(trial.params["x"])
                    await mine.complete_trial(trial, trial.params["x"])

        await gather(map(work, range(16)))
        assert sorted(done) == list(range(60))
        assert await storage.count_completed_trials(experiment) == 60
