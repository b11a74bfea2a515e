"""The contract on `reserved_trial`: a reservation that is lost while its block runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import anyio
import pytest

from aiostorage.errors import FailedUpdate, TrialLost
from aiostorage.experiment import Experiment
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.testing.contract.helpers import (
    case,
    gather,
    lose,
    make_config,
    registered,
    reserved,
    stored,
)
from aiostorage.trial import Trial

__all__ = ["WorkerLossLaws"]

WARNING = "going on without a trial that was lost"


async def _take_over(storage: AsyncStorageProtocol, experiment: Experiment, trial: Trial) -> Trial:
    """Declare a trial lost, and reserve it."""
    await lose(storage, trial)
    while not await storage.recover_lost_trials(experiment):
        await lose(storage, trial)  # its heart had beaten in between
    successor = await storage.reserve_trial(experiment)
    assert successor is not None
    return successor


def _warnings(caplog: pytest.LogCaptureFixture) -> int:
    """Return the number of losses that were logged so far, and clear the log."""
    count = sum(record.getMessage().startswith(WARNING) for record in caplog.records)
    caplog.clear()
    return count


class WorkerLossLaws:
    """A lost trial ends its block, and nothing else."""

    async def test_lost_to_another_worker(
        self, storage: AsyncStorageProtocol, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "aiostorage")
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            successor = await _take_over(storage, experiment, trial)
            trial.status = "completed"
            await storage.complete_trial(trial, 1)
            raise AssertionError("it was written")
        assert trial.status == "interrupted"
        assert _warnings(caplog) == 1
        found = await stored(storage, successor)
        assert (found.status, found.worker) == ("reserved", successor.worker)
        await storage.complete_trial(successor, 2)

    async def test_lost_is_an_error_on_demand(
        self, storage: AsyncStorageProtocol, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "aiostorage")
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        with pytest.raises(TrialLost) as raised:
            async with storage.reserved_trial(experiment, on_lost="raise") as trial:
                assert trial is not None
                successor = await _take_over(storage, experiment, trial)
                await storage.complete_trial(trial, 1)
        assert raised.value.holder == successor.worker
        assert _warnings(caplog) == 0
        with pytest.raises(ValueError, match="'explode'"):
            async with storage.reserved_trial(experiment, on_lost="explode"):  # type: ignore[arg-type]
                pass

    @pytest.mark.usefixtures("cancels")
    @pytest.mark.parametrize("on_lost", ["skip", "raise"])
    async def test_the_body_is_cancelled_when_it_is_lost(
        self,
        storage: AsyncStorageProtocol,
        on_lost: Literal["skip", "raise"],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.WARNING, "aiostorage")
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        cancelled = False
        lost: TrialLost | None = None
        try:
            with anyio.fail_after(10):
                async with storage.reserved_trial(
                    experiment,
                    heartbeat=0.5,
                    on_lost=on_lost,
                ) as trial:
                    assert trial is not None
                    # over before the next beat
                    taking = asyncio.create_task(_take_over(storage, experiment, trial))
                    try:
                        await anyio.sleep_forever()
                    except asyncio.CancelledError:
                        cancelled = True
                        raise
        except TrialLost as error:
            lost = error
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        successor = await taking
        assert cancelled
        assert _warnings(caplog) == (on_lost == "skip")
        assert (lost.holder if lost else None) == (successor.worker if on_lost == "raise" else None)
        found = await stored(storage, successor)
        assert (found.status, found.worker) == ("reserved", successor.worker)

    async def test_a_loop_goes_on(
        self, storage: AsyncStorageProtocol, other: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 12)
        done: list[int] = []
        unlucky = {1, 5, 6}

        async def work() -> None:
            while True:
                async with storage.reserved_trial(experiment) as trial:
                    if trial is None:
                        return
                    number = trial.params["x"]
                    if number in unlucky:
                        unlucky.remove(number)
                        await lose(other, trial)
                        await other.recover_lost_trials(experiment)
                    await storage.complete_trial(trial, number)
                    done.append(number)

        await gather(work() for _ in range(3))
        assert sorted(done) == list(range(12))
        assert await storage.count_completed_trials(experiment) == 12

    async def test_lost_in_a_task_of_the_body(
        self, storage: AsyncStorageProtocol, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "aiostorage")
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            successor = await _take_over(storage, experiment, trial)
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(storage.complete_trial(trial, 1))
        assert _warnings(caplog) == 1
        await storage.complete_trial(successor, 1)

    async def test_another_trial_is_lost(self, storage: AsyncStorageProtocol) -> None:
        lost = await reserved(storage, "lost")
        await lose(storage, lost)
        await storage.recover_lost_trials({"_id": lost.experiment})
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)  # has the same params, and so the same id
        errors: list[BaseException] = []
        for together in (False, True):
            with case(together), pytest.raises((TrialLost, ExceptionGroup)) as raised:
                async with storage.reserved_trial(experiment) as trial:
                    assert trial is not None
                    assert trial.id == lost.id
                    if together:
                        async with asyncio.TaskGroup() as group:
                            group.create_task(storage.complete_trial(lost, 1))
                    await storage.complete_trial(lost, 1)
            errors.append(raised.value)
            assert trial is not None
            assert (await stored(storage, trial)).status == "interrupted"
        assert list(map(type, errors)) == [TrialLost, ExceptionGroup]

    async def test_lost_beside_a_failure_of_the_objective(
        self, storage: AsyncStorageProtocol
    ) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)

        async def fail() -> None:
            raise LookupError

        with pytest.raises(ExceptionGroup):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                successor = await _take_over(storage, experiment, trial)
                async with asyncio.TaskGroup() as group:
                    group.create_task(storage.complete_trial(trial, 1))
                    group.create_task(fail())
        assert (await stored(storage, successor)).status == "reserved"

    async def test_given_up_by_the_body_is_not_lost(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        with pytest.raises(FailedUpdate):
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await storage.set_trial_status(trial, "suspended")
                await storage.complete_trial(trial, 1)
        assert trial is not None
        assert (await stored(storage, trial)).status == "suspended"

    async def test_deleted_by_the_body(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        async with storage.reserved_trial(experiment) as trial:
            assert trial is not None
            await storage.delete_trials(experiment)
        assert await storage.get_trial(trial) is None

    async def test_deleted_under_its_worker(
        self, storage: AsyncStorageProtocol, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "aiostorage")

        async def delete_the_trial(experiment: Experiment) -> None:
            await storage.delete_trials(experiment)

        async def delete_the_experiment(experiment: Experiment) -> None:
            await storage.delete_experiment(experiment)

        async def turn(delete: Callable[[Experiment], Awaitable[None]], name: str) -> None:
            experiment = await storage.create_experiment(make_config(name))
            await registered(storage, experiment, 1)
            async with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                await delete(experiment)
                await storage.complete_trial(trial, 1)

        await turn(delete_the_trial, "its trial")
        assert _warnings(caplog) == 1
        with pytest.raises(TrialLost) as raised:  # there is nothing to go on with
            await turn(delete_the_experiment, "itself")
        assert raised.value.status is None

    @pytest.mark.usefixtures("cancels")
    async def test_a_heartbeat_notices_a_deletion(self, storage: AsyncStorageProtocol) -> None:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        with anyio.fail_after(10):
            async with storage.reserved_trial(experiment, heartbeat=0.02) as trial:
                assert trial is not None
                await storage.delete_trials(experiment, where={"id": trial.id})
                await anyio.sleep_forever()
            with pytest.raises(TrialLost):
                async with storage.reserved_trial(experiment, heartbeat=0.02):
                    await storage.delete_experiment(experiment)
                    await anyio.sleep_forever()
