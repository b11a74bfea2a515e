"""When another caller may take an algorithm lock over, and what its record says once it is free.

The store's clock and the event loop's move by hand, so nothing here waits for the end of a lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest

from aiostorage import Experiment, LockAcquisitionTimeout, RetryPolicy, Storage
from aiostorage import TemporaryBackendError as Unreachable
from aiostorage._core.documents import equal
from aiostorage._core.layout import ALGO, LAYOUT, WAITERS
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.operations import Count, Insert, Operation, StoreTime, Update
from aiostorage.protocols import Driver, ExperimentLike
from aiostorage.testing import FakeClock, FaultyDriver
from aiostorage.testing.contract.helpers import until

pytestmark = pytest.mark.anyio

T = TypeVar("T")

LEASE = 60.0
"""Seconds, far more than a test takes: a lease is renewed only when a test lets time pass."""

MakeDriver = Callable[[], Driver]
Opening = Callable[..., Awaitable[Storage]]


class CountedRenewals(FaultyDriver):
    """A driver that counts how often its caller has renewed the lease of a lock."""

    renewals = 0

    async def execute(self, operation: Operation[T]) -> T:
        result = await super().execute(operation)
        if isinstance(operation, Update) and operation.collection == ALGO:
            self.renewals += 1
        return result


class InterruptedCheck(FaultyDriver):
    """A driver that lets others act after the check whether a lease has expired."""

    def __init__(self, driver: Driver, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(driver)
        self.meanwhile = meanwhile
        self.checks = 0

    async def execute(self, operation: Operation[T]) -> T:
        result = await super().execute(operation)
        if isinstance(operation, Count) and operation.collection == ALGO:
            self.checks += 1
            assert result == 1, "the lease has not expired"
            await self.meanwhile()
        return result


@pytest.fixture
async def pass_time(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that moves the event loop's clock along with the store's."""
    loop = asyncio.get_running_loop()
    real_time, passed = loop.time, 0.0

    def skip(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        clock.advance(seconds)

    monkeypatch.setattr(loop, "time", lambda: real_time() + passed)
    return skip


@pytest.fixture
async def opening() -> AsyncIterator[Opening]:
    """Give a function that opens storages, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(driver: Driver, **settings: Any) -> Storage:
            storage = Storage(driver, **{"lock_lease": LEASE, **settings})
            return await stack.enter_async_context(storage)

        yield open_one


async def an_experiment(storage: Storage) -> Experiment:
    return await storage.create_experiment({"name": "e"}, algo_state="old")


async def lock_info(storage: Storage, experiment: ExperimentLike) -> LockedAlgorithmState:
    info = await storage.get_algorithm_lock_info(experiment)
    assert info is not None
    return info


async def take(storage: Storage, experiment: ExperimentLike) -> None:
    """Acquire the lock at once, and release it."""
    async with storage.acquire_algorithm_lock(experiment, timeout=0):
        pass


async def assert_free(storage: Storage, experiment: ExperimentLike) -> None:
    info = await lock_info(storage, experiment)
    assert (bool(info.locked), info.owner, info.since) == (False, None, None)


# ---------------------------------------------------------------------------------- leases


async def test_a_holder_that_has_renewed_its_lease_and_died_is_replaced(
    make_clocked_driver: MakeDriver,
    opening: Opening,
    clock: FakeClock,
    pass_time: Callable[[float], None],
) -> None:
    connection = CountedRenewals(make_clocked_driver())
    holder = await opening(connection, retry=RetryPolicy(attempts=1))
    other = await opening(make_clocked_driver())
    experiment = await an_experiment(other)

    renewals = 0

    async def renewed() -> bool:
        return connection.renewals == renewals

    with pytest.raises(Unreachable):  # the holder cannot release the lock
        async with holder.acquire_algorithm_lock(experiment) as algorithm:
            for _ in range(3):  # it lives for longer than one lease
                renewals += 1
                pass_time(0.6 * LEASE)
                await until(renewed)
                assert (await lock_info(other, experiment)).heartbeat == clock()
            connection.before = 1.0  # from now on, none of its calls reaches the store
            algorithm.set_state("lost")
            pass_time(0.9 * LEASE)
            with pytest.raises(LockAcquisitionTimeout):
                await take(other, experiment)
            pass_time(0.2 * LEASE)
            async with other.acquire_algorithm_lock(experiment, timeout=0) as taken:
                assert taken.state == "old"
                taken.set_state("new")
    info = await lock_info(other, experiment)
    assert info.state == "new"
    connection.before = 0.0  # it may close


async def test_a_lease_that_is_renewed_after_the_check_is_not_taken(
    make_clocked_driver: MakeDriver, opening: Opening, clock: FakeClock
) -> None:
    holder = await opening(make_clocked_driver())
    renewing = make_clocked_driver()
    await renewing.open(LAYOUT)
    experiment = await an_experiment(holder)

    async def renew() -> None:
        changes = {"heartbeat": StoreTime(), "expires": StoreTime(LEASE)}
        assert await renewing.execute(Update(ALGO, equal(locked=1), changes)) == 1

    late = InterruptedCheck(make_clocked_driver(), renew)
    other = await opening(late)
    async with holder.acquire_algorithm_lock(experiment) as algorithm:
        clock.advance(LEASE + 1)
        with pytest.raises(LockAcquisitionTimeout) as raised:
            await take(other, experiment)
        assert raised.value.holder == algorithm.owner
        assert late.checks == 1
        algorithm.set_state("new")
    assert (await lock_info(holder, experiment)).state == "new"
    await renewing.aclose()


async def test_a_heartbeat_later_than_the_lease_shows_a_holder_without_a_lease(
    make_clocked_driver: MakeDriver, opening: Opening, clock: FakeClock
) -> None:
    storage = await opening(make_clocked_driver())
    other = make_clocked_driver()
    await other.open(LAYOUT)
    experiment = await an_experiment(storage)
    # what Oríon's own storage makes of the record of a dead holder: it knows no leases
    leftover = {"locked": 1, "owner": "dead", "expires": StoreTime(), "heartbeat": StoreTime()}
    assert await other.execute(Update(ALGO, equal(locked=0), leftover)) == 1
    clock.advance(LEASE)
    with pytest.raises(LockAcquisitionTimeout):
        await take(storage, experiment)
    lease = {"heartbeat": StoreTime(-2.0), "expires": StoreTime(-1.0)}
    assert await other.execute(Update(ALGO, equal(locked=1), lease)) == 1
    await take(storage, experiment)
    await other.aclose()


# ----------------------------------------------------------------------------- the open lock


async def test_a_free_lock_has_no_owner(make_clocked_driver: MakeDriver, opening: Opening) -> None:
    storage = await opening(make_clocked_driver())
    experiment = await an_experiment(storage)
    await assert_free(storage, experiment)
    async with storage.acquire_algorithm_lock(experiment) as algorithm:
        info = await lock_info(storage, experiment)
        assert info.owner == algorithm.owner
        assert info.owner is not None
        assert info.since is not None
    await assert_free(storage, experiment)
    with pytest.raises(LookupError):
        async with storage.acquire_algorithm_lock(experiment):
            raise LookupError
    await assert_free(storage, experiment)
    await storage.write_algorithm_lock("written", {}, locked=1)
    assert await storage.release_algorithm_lock(uid="written") == 1
    await assert_free(storage, {"_id": "written"})


# -------------------------------------------------------------------------------- the queue


async def test_a_waiter_comes_before_a_newcomer_until_its_ticket_expires(
    make_clocked_driver: MakeDriver, opening: Opening, clock: FakeClock
) -> None:
    storage = await opening(make_clocked_driver())
    queue = make_clocked_driver()
    await queue.open(LAYOUT)
    experiment = await an_experiment(storage)
    ticket = {
        "_id": "waiter",
        "experiment": experiment.id,
        "since": StoreTime(),
        "expires": StoreTime(5.0),
    }
    await queue.execute(Insert(WAITERS, (ticket,)))
    clock.advance(4.9)
    with pytest.raises(LockAcquisitionTimeout, match="in the queue"):
        await take(storage, experiment)
    clock.advance(0.2)
    await take(storage, experiment)
    await queue.aclose()
