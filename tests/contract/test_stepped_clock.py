"""The time of day is set while a store is in use: who lives and who is first does not hang on it.

What several processes make of that: ``tests/processes/test_stepped_clock.py``.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiostorage import LockAcquisitionTimeout, Storage, Trial
from aiostorage._core.layout import LAYOUT, WAITERS
from aiostorage.cli.store_summary import summarise
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.track import TrackDriver
from aiostorage.operations import Compare, Find, Insert, StoreTime
from aiostorage.protocols import Driver
from tests.stepped import step

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
LONG = 60.0
"""Seconds that no test here takes."""


class Wrong:
    """By how much the time of day is wrong."""

    by = timedelta(0)

    def __call__(self) -> timedelta:
        return self.by


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Wrong:
    wrong = Wrong()
    step(wrong, monkeypatch.setattr)
    return wrong


@pytest.fixture(params=["memory", "sqlite", "track"])
def make_driver(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Driver]:
    """Give a function that makes drivers of the same store."""
    if request.param == "memory":
        one = MemoryDriver()
        return lambda: one
    if request.param == "track":
        return lambda: TrackDriver(tmp_path / "store.json")
    return lambda: SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL")


@pytest.fixture
async def storage(make_driver: Callable[[], Driver], wrong: Wrong) -> AsyncIterator[Storage]:
    async with Storage(make_driver(), lost_after=LONG, lock_lease=LONG) as storage:
        yield storage


@pytest.fixture(params=[HOUR, -HOUR], ids=["forward", "back"])
def by(request: pytest.FixtureRequest) -> timedelta:
    found: timedelta = request.param
    return found


async def test_no_trial_is_lost(storage: Storage, wrong: Wrong, by: timedelta) -> None:
    experiment = await storage.create_experiment({"name": "e"})
    await storage.register_trials(
        [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
    )
    before = await storage.reserve_trial(experiment)
    wrong.by = by
    after = await storage.reserve_trial(experiment)
    assert before is not None
    assert after is not None
    assert after.heartbeat is not None
    assert abs(after.heartbeat - datetime.now(UTC) - by) < timedelta(minutes=1)  # for people
    for wrong.by in (by, timedelta(0), 2 * by):
        assert await storage.fetch_lost_trials(experiment) == []
    await storage.update_heartbeat(before)
    wrong.by = -by
    assert await storage.recover_lost_trials(experiment) == []
    # an operator moves one back, by the time of day that there is now
    long_ago = datetime.now(UTC) - by - timedelta(seconds=LONG + 1)
    await storage.update_trial(after, heartbeat=long_ago)
    assert [t.id for t in await storage.recover_lost_trials(experiment)] == [after.id]


async def test_no_lease_ends_early_or_late(
    make_driver: Callable[[], Driver], storage: Storage, wrong: Wrong, by: timedelta
) -> None:
    experiment = await storage.create_experiment({"name": "e"})

    async def vainly() -> None:
        with pytest.raises(LockAcquisitionTimeout):
            async with other.acquire_algorithm_lock(experiment, 0.05, 0.01):
                pass

    other = Storage(make_driver(), lost_after=LONG, lock_lease=LONG)
    async with other:
        async with storage.acquire_algorithm_lock(experiment):
            for wrong.by in (by, -by):
                await vainly()
                (found,) = await summarise(storage)
                assert found.lock is not None
                assert found.lock.locked
        async with other.acquire_algorithm_lock(experiment, 0):
            pass


async def test_an_expired_lease_is_free(
    make_driver: Callable[[], Driver], storage: Storage, wrong: Wrong, by: timedelta
) -> None:
    async with Storage(make_driver(), lock_lease=0.05) as dead:
        experiment = await dead.create_experiment({"name": "e"}, algo_locked=1)
        wrong.by = by
        await asyncio.sleep(0.06)
        (found,) = await summarise(storage)
        assert found.lock is not None
        assert not found.lock.locked
        async with storage.acquire_algorithm_lock(experiment, 1, 0.01):
            pass


async def test_tickets_keep_their_order(
    make_driver: Callable[[], Driver], storage: Storage, wrong: Wrong
) -> None:
    await storage.create_experiment({"name": "e"})
    driver = make_driver()
    await driver.open(LAYOUT)
    for uid, wrong.by in (("first", HOUR), ("second", timedelta(0)), ("third", -HOUR)):
        ticket = {"_id": uid, "experiment": "e", "since": StoreTime(), "expires": StoreTime(LONG)}
        await driver.execute(Insert(WAITERS, (ticket,)))
    alive = Compare("expires", "gt", StoreTime())
    for wrong.by in (HOUR, -HOUR):
        found = await driver.execute(Find(WAITERS, alive, order=("since",)))
        assert [ticket["_id"] for ticket in found] == ["first", "second", "third"]
        assert all(ticket.keys() == {"_id", "experiment", "since", "expires"} for ticket in found)
    await driver.aclose()


async def test_a_copy_of_a_memory_goes_on_as_the_original(wrong: Wrong, by: timedelta) -> None:
    async with Storage(MemoryDriver(), lost_after=LONG) as storage:
        experiment = await storage.create_experiment({"name": "e"})
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        await storage.reserve_trial(experiment)
        wrong.by = by
        async with pickle.loads(pickle.dumps(storage)) as copy:
            assert await copy.fetch_lost_trials(experiment) == []
            wrong.by = -by
            assert await copy.fetch_lost_trials(experiment) == []
