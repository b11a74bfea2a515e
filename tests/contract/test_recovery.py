"""Lost trials that are reserved, by calls that fail or are cancelled in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from aiostorage import Result, RetryPolicy, Storage, TemporaryBackendError, Trial
from aiostorage.operations import Count, Operation, Take
from aiostorage.protocols import Driver
from aiostorage.testing import cancelled_at_every_await
from aiostorage.testing.faults import Fault
from tests.contract.conftest import UNCLOSED
from tests.contract.test_cancellation import CancellationCase
from tests.contract.test_faults import FaultCase, fails_once

pytestmark = [pytest.mark.anyio, UNCLOSED]

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def faults(make_driver: Callable[[], Driver]) -> FaultCase:
    return FaultCase(make_driver())


@pytest.fixture
async def cancellations(make_driver: Callable[[], Driver]) -> AsyncIterator[CancellationCase]:
    driver = make_driver()
    async with Storage(driver) as storage:
        case = CancellationCase(storage, driver)
        await case.reset()
        yield case


async def lose_some(world: FaultCase) -> list[Trial]:
    """Reserve three of four trials, and lose the first two."""
    trials = await world.truth.reserve_trials(world.experiment, 3)
    for trial in trials[:2]:
        await world.truth.update_trial(trial, heartbeat=LONG_AGO)
    return trials


async def reserve_three(world: FaultCase) -> None:
    await lose_some(world)
    trials = await world.storage.reserve_trials(world.experiment, 4)
    assert [trial.params["x"] for trial in trials] == [3, 0, 1]
    assert len({trial.worker for trial in trials}) == 1
    assert await world.statuses() == ["reserved"] * 4
    for trial in trials:
        await world.truth.complete_trial(trial, 1)


async def reserve_one_after_the_other(world: FaultCase) -> None:
    await lose_some(world)
    for x in (3, 0, 1):
        trial = await world.storage.reserve_trial(world.experiment)
        assert trial is not None
        assert trial.params["x"] == x
        await world.truth.complete_trial(trial, 1)
    assert await world.storage.reserve_trial(world.experiment) is None


async def test_a_slow_reservation_takes_nothing_twice(
    make_driver: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver()
    async with Storage(driver, lost_after=0.05) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        await storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
        )
        execute = driver.execute

        async def slow(operation: Operation[Any]) -> Any:
            result = await execute(operation)
            if isinstance(operation, Take):
                await anyio.sleep(0.1)
            return result

        monkeypatch.setattr(driver, "execute", slow)
        trials = await storage.reserve_trials(experiment, 5)
        assert [trial.params["x"] for trial in trials] == [0, 1, 2]


@pytest.mark.parametrize("call", [reserve_three, reserve_one_after_the_other])
async def test_each_call_fails_once(
    faults: FaultCase, call: Callable[[FaultCase], Awaitable[None]], kinds: tuple[Fault, ...]
) -> None:
    async with faults.truth:
        for kind in kinds:
            if kind != "lost":
                await fails_once(faults, call, kind)


@pytest.mark.parametrize("kind", [Count, Take])
async def test_without_the_lost_ones_the_others_are_given_back(
    faults: FaultCase, kind: type[Count | Take]
) -> None:
    async with faults.truth:
        await faults.reset()
        await lose_some(faults)
        storage = Storage(faults.faulty, retry=RetryPolicy(attempts=1))
        takes = iter([False, True])  # the second one is that of the lost trials
        faults.faulty.fail_next(
            "before",
            matching=lambda o: isinstance(o[0], kind) and (kind is Count or next(takes)),
        )
        with pytest.raises(TemporaryBackendError):
            await storage.reserve_trials(faults.experiment, 4)
        assert await faults.statuses() == ["reserved"] * 3 + ["interrupted"]
        trials = await storage.reserve_trials(faults.experiment, 4)
        assert [trial.params["x"] for trial in trials] == [3, 0, 1]


async def test_a_lost_trial_whose_reservation_is_unanswered_is_released(faults: FaultCase) -> None:
    async with faults.truth:
        await faults.reset()
        await lose_some(faults)
        assert await faults.truth.reserve_trial(faults.experiment) is not None
        storage = Storage(faults.faulty, retry=RetryPolicy(attempts=1))
        takes = iter([False, True])
        faults.faulty.fail_next("after", matching=lambda o: isinstance(o[0], Take) and next(takes))
        with pytest.raises(TemporaryBackendError):
            await storage.reserve_trial(faults.experiment)
        assert await faults.statuses() == ["interrupted"] + ["reserved"] * 3


async def test_an_unanswered_new_reservation_leaves_what_was(faults: FaultCase) -> None:
    async with faults.truth:
        await faults.reset()
        trial = await faults.reserve()
        await faults.truth.complete_trial(trial, 1.5)
        before = await faults.truth.get_trial(trial)
        assert before is not None
        storage = Storage(faults.faulty, retry=RetryPolicy(attempts=1))
        await storage.open()
        faults.faulty.fail_next("after")
        with pytest.raises(TemporaryBackendError):
            await storage.set_trial_status(before, "reserved")
        found = await faults.truth.get_trial(trial)
        assert found is not None
        assert (found.status, found.worker) == ("completed", trial.worker)
        assert found.results == before.results == [Result("objective", "objective", 1.5)]
        assert (found.start_time, found.end_time) == (before.start_time, before.end_time)


@pytest.mark.parametrize("count", [1, 3])
async def test_cancelled_reservations(cancellations: CancellationCase, count: int) -> None:
    async def call(world: CancellationCase) -> list[Trial]:
        if count == 1:
            trial = await world.storage.reserve_trial(world.experiment)
            return [trial] if trial else []
        return await world.storage.reserve_trials(world.experiment, count)

    async def lose_all(world: CancellationCase) -> None:
        where: dict[str, Any] = {} if count == 1 else {"params.value": {"$gt": 0}}
        changes: dict[str, Any] = {"status": "reserved", "heartbeat": LONG_AGO, "worker": "lost"}
        await world.storage.update_trials(world.experiment, where=where, **changes)

    async def verify(world: CancellationCase) -> None:
        trials = [(d["status"], d["worker"]) for d in await world.documents()]
        ours = [t for t in trials if t[0] == "reserved" and t[1] != "lost"]
        assert ours == [("reserved", trial.worker) for trial in world.result or ()]
        assert {status for status, _ in trials} <= {"new", "reserved", "interrupted"}
        await world.reset()
        await lose_all(world)

    await cancellations.reset()
    await lose_all(cancellations)

    async def run() -> None:
        cancellations.result = await call(cancellations)

    assert await cancelled_at_every_await(run, lambda: verify(cancellations)) >= 3
