"""Compensations that have not been carried out yet: the next call does it, or else `aclose`."""

from __future__ import annotations

import pytest

from aiostorage import Experiment, RetryPolicy, Storage, TemporaryBackendError, Trial
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.protocols import Driver
from aiostorage.testing import FaultyDriver

pytestmark = pytest.mark.anyio


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def faulty(driver: MemoryDriver) -> FaultyDriver:
    return FaultyDriver(driver)


@pytest.fixture
async def storage(faulty: FaultyDriver) -> Storage:
    storage = Storage(faulty, retry=RetryPolicy(attempts=1))
    await storage.open()
    return storage


async def lose_a_reservation(storage: Storage, faulty: FaultyDriver) -> Experiment:
    """Reserve a trial, lose the answer, and fail to release it; it stays reserved for no caller."""
    experiment = await storage.create_experiment({"name": "e"})
    await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    faulty.fail_next("after")
    faulty.fail_next("before", matching=lambda _: faulty.planned == 1)
    with pytest.raises(TemporaryBackendError):
        await storage.reserve_trial(experiment)
    assert faulty.planned == 0
    assert await status(faulty.driver, experiment) == "reserved"
    return experiment


async def status(driver: Driver, experiment: Experiment) -> str:
    """Return the status of the only trial, as the store has it."""
    truth = Storage(driver)
    found = await truth.fetch_trials(experiment)
    assert found is not None
    (trial,) = found
    return trial.status


async def test_aclose_carries_out_what_is_pending(
    storage: Storage, faulty: FaultyDriver, driver: MemoryDriver
) -> None:
    experiment = await lose_a_reservation(storage, faulty)
    await storage.aclose()
    assert await status(driver, experiment) == "interrupted"


async def test_the_next_call_carries_it_out_first(storage: Storage, faulty: FaultyDriver) -> None:
    experiment = await lose_a_reservation(storage, faulty)
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    await storage.aclose()


async def test_aclose_succeeds_although_the_engine_fails(
    storage: Storage, faulty: FaultyDriver, driver: MemoryDriver, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = await lose_a_reservation(storage, faulty)
    faulty.fail_next("before")
    await storage.aclose()
    assert "compensations failed" in caplog.text
    assert await status(driver, experiment) == "reserved"
