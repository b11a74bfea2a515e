"""The algorithm lock, handed over from one caller of a process to the next with one write.

The one before saves its state and gives the lock away in the same moment. What is shown here: who
may get it so, and what becomes of the lock if one of the two is cancelled, or an answer is lost.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, TypeVar

import anyio
import pytest

from aiostorage import (
    Experiment,
    LockAcquisitionTimeout,
    LockLost,
    RetryPolicy,
    Storage,
    TemporaryBackendError,
)
from aiostorage._core.cancellation import wait_until_done
from aiostorage._core.documents import equal
from aiostorage._core.layout import ALGO, LAYOUT, WAITERS
from aiostorage._core.lock import MAX_HANDED_STATE
from aiostorage.operations import Count, Find, Insert, Operation, StoreTime, Take, Update
from aiostorage.protocols import Driver
from aiostorage.testing import FakeClock, FaultyDriver, cancelled_at_every_await
from aiostorage.testing.contract.helpers import algorithm_state, show_free, until

pytestmark = pytest.mark.anyio

T = TypeVar("T")

LEASE = 60.0
"""Seconds, far more than a test takes."""

MakeDriver = Callable[[], Driver]
Operations = Sequence[Operation[Any]]


class WatchedDriver(FaultyDriver):
    """A driver that notes the writes to the lock, and can stop one before or behind it."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.writes: list[Operation[Any]] = []
        self.looks = 0
        self.stop_at: Literal["before", "behind"] | None = None
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()

    async def execute(self, operation: Operation[T]) -> T:
        self._note((operation,))
        result = await super().execute(operation)
        self.looks += isinstance(operation, Find) and operation.collection == WAITERS
        return result

    async def transact(self, operations: Operations) -> list[Any]:
        self._note(operations)
        if not is_handover(operations):
            return await super().transact(operations)
        if self.stop_at == "before":
            await self._stop()
        results = await super().transact(operations)
        if self.stop_at == "behind":
            await self._stop()
        return results

    def _note(self, operations: Operations) -> None:
        self.writes += [
            one for one in operations if one.collection == ALGO and isinstance(one, Take | Update)
        ]

    async def _stop(self) -> None:
        self.stopped.set()
        await self.go_on.wait()


def is_handover(operations: Operations) -> bool:
    """Return whether these release the lock and take it."""
    first = operations[0]
    return isinstance(first, Take) and first.collection == ALGO and "released" in first.changes


class Caller:
    """A task that acquires the lock, adds its name to the state, and releases it when told."""

    def __init__(self, storage: Storage, experiment: Experiment, name: str, **options: Any) -> None:
        self.storage, self.experiment, self.name = storage, experiment, name
        self.options = {"timeout": 30, **options}
        self.holds, self.may_go = asyncio.Event(), asyncio.Event()
        self.owner: str | None = None
        self.task: asyncio.Task[None] = asyncio.create_task(self._run())

    async def _run(self) -> None:
        lock = self.storage.acquire_algorithm_lock(self.experiment, **self.options)
        async with lock as algorithm:
            self.owner = algorithm.owner
            algorithm.set_state([*algorithm.state, self.name])
            self.holds.set()
            await self.may_go.wait()

    async def end(self) -> None:
        """Let it release the lock, and wait for its end."""
        self.may_go.set()
        with anyio.fail_after(20):
            await self.task


class World:
    """A storage and another one, as of another process, with an experiment."""

    def __init__(self, driver: WatchedDriver, storage: Storage, other: Storage) -> None:
        self.driver, self.storage, self.other = driver, storage, other
        self.experiment: Experiment
        self.callers: list[Caller] = []

    async def caller(self, name: str, *, near: bool = True, **options: Any) -> Caller:
        """Start a caller, and wait until it holds the lock.

        If it is `near`, the next one, wait until it has looked at the queue in the store.
        """
        looks = self.driver.looks
        caller = Caller(self.storage, self.experiment, name, **options)
        self.callers.append(caller)

        async def is_there() -> bool:
            return caller.holds.is_set() or self.driver.looks > looks

        if near:
            await until(is_there)
        await asyncio.sleep(0.02)  # until it has got the answer
        return caller

    async def theirs(self, name: str = "theirs") -> Caller:
        """Start a caller of another process, and wait until it holds the lock or has a ticket."""
        caller = Caller(self.other, self.experiment, name, retry_interval=0.01)
        self.callers.append(caller)

        async def is_there() -> bool:
            return caller.holds.is_set() or await self.tickets() > 0

        await until(is_there)
        return caller

    async def tickets(self) -> int:
        return await self.driver.driver.execute(Count(WAITERS))

    async def queued(self) -> None:
        """Wait until somebody has a ticket."""

        async def is_there() -> bool:
            return await self.tickets() > 0

        await until(is_there)

    async def state(self) -> Any:
        return await algorithm_state(self.other, self.experiment)

    async def owner(self) -> str | None:
        info = await self.other.get_algorithm_lock_info(self.experiment)
        assert info is not None
        return info.owner


@pytest.fixture
async def world(make_clocked_driver: MakeDriver) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        driver = WatchedDriver(make_clocked_driver())
        retry = RetryPolicy(attempts=3, initial=0.001, total=5)
        storage = Storage(driver, lock_lease=LEASE, retry=retry)
        await stack.enter_async_context(storage)
        other = await stack.enter_async_context(Storage(make_clocked_driver(), lock_lease=LEASE))
        world = World(driver, storage, other)
        world.experiment = await storage.create_experiment({"name": "e"}, algo_state=[])
        yield world
        for caller in world.callers:
            caller.task.cancel()
        await asyncio.gather(*(caller.task for caller in world.callers), return_exceptions=True)


async def test_the_next_one_gets_the_lock_with_the_write_that_releases_it(world: World) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    third = await world.caller("third", near=False)
    world.driver.writes.clear()
    await first.end()
    await second.holds.wait()
    assert second.owner == await world.owner()
    await asyncio.sleep(0.05)  # the third looks now
    await second.end()
    await third.holds.wait()
    handovers = [one for one in world.driver.writes if isinstance(one, Take)]
    assert len(handovers) == len(world.driver.writes) == 2
    assert await world.state() == ["first", "second"]
    info = await world.other.get_algorithm_lock_info(world.experiment)
    assert info is not None
    assert info.locked
    assert info.since is not None


async def test_every_state_is_saved_and_read(world: World) -> None:
    callers = [await world.caller("0")]
    callers += [await world.caller(str(number), near=False) for number in range(1, 6)]
    for caller in callers:
        await caller.holds.wait()
        await asyncio.sleep(0.01)  # so that the next one has looked
        await caller.end()
    assert await world.state() == [str(number) for number in range(6)]
    await show_free(world.other, world.experiment)


async def test_one_of_another_process_who_came_first_comes_first(world: World) -> None:
    first = await world.caller("first")
    theirs = await world.theirs()
    second = await world.caller("second")
    world.driver.writes.clear()
    await first.end()
    assert not any(map(is_handover, [[one] for one in world.driver.writes]))
    await theirs.holds.wait()
    assert not second.holds.is_set()
    await theirs.end()
    await second.holds.wait()
    await second.end()
    assert await world.state() == ["first", "theirs", "second"]


async def test_one_of_another_process_comes_before_those_who_came_later(world: World) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    theirs = await world.theirs()
    third = await world.caller("third", near=False)
    await first.end()
    await second.holds.wait()
    await asyncio.sleep(0.05)  # the third looks now
    await second.end()
    await theirs.holds.wait()
    assert not third.holds.is_set()
    await theirs.end()
    await third.holds.wait()
    await third.end()
    assert await world.state() == ["first", "second", "theirs", "third"]


async def test_a_ticket_of_the_holder_is_in_nobodys_way_and_given_back(world: World) -> None:
    theirs = await world.theirs()
    first = await world.caller("first", retry_interval=0.01)
    await world.queued()
    await theirs.end()
    await first.holds.wait()
    second = await world.caller("second")
    world.driver.writes.clear()
    await first.end()
    await second.holds.wait()
    assert [type(one) for one in world.driver.writes] == [Take]
    assert await world.tickets() == 0
    await second.end()
    assert await world.state() == ["theirs", "first", "second"]


async def test_a_ticket_that_has_expired_is_in_nobodys_way(world: World, clock: FakeClock) -> None:
    first = await world.caller("first")
    ticket = {
        "_id": "dead",
        "experiment": world.experiment.id,
        "since": StoreTime(),
        "expires": StoreTime(5.0),
    }
    await world.driver.driver.execute(Insert(WAITERS, (ticket,)))
    clock.advance(5.1)
    second = await world.caller("second")
    world.driver.writes.clear()
    await first.end()
    await second.holds.wait()
    assert [type(one) for one in world.driver.writes] == [Take]


async def test_without_a_look_at_the_queue_nothing_is_handed_over(world: World) -> None:
    first = await world.caller("first")
    world.driver.fail_next("before", count=9, matching=lambda ops: ops[0].collection == WAITERS)
    second = Caller(world.storage, world.experiment, "second")
    world.callers.append(second)

    async def given_up() -> bool:
        return world.driver.planned <= 6

    await until(given_up)
    await asyncio.sleep(0.02)
    assert not second.task.done()
    world.driver.cancel_planned()
    world.driver.writes.clear()
    await first.end()
    await second.holds.wait()
    assert isinstance(world.driver.writes[0], Update)
    await second.end()
    assert await world.state() == ["first", "second"]


async def take(world: World) -> None:
    async with world.storage.acquire_algorithm_lock(world.experiment, timeout=30):
        pass


async def test_a_large_state_is_saved_by_a_release(world: World) -> None:
    large = os.urandom(MAX_HANDED_STATE + 1)
    for state, old in ((large, []), ("small", large)):
        first = asyncio.Event()

        async def save(state: Any = state, old: Any = old, first: asyncio.Event = first) -> None:
            async with world.storage.acquire_algorithm_lock(world.experiment) as algorithm:
                assert algorithm.state == old
                algorithm.set_state(state)
                await first.wait()

        looks = world.driver.looks
        saving = asyncio.create_task(save())
        await asyncio.sleep(0.02)
        holding = asyncio.create_task(take(world))

        async def has_looked(looks: int = looks) -> bool:
            return world.driver.looks > looks + 1

        await until(has_looked)
        await asyncio.sleep(0.02)
        world.driver.writes.clear()
        first.set()
        await asyncio.gather(saving, holding)
        assert isinstance(world.driver.writes[0], Update)
        assert await world.state() == state


# ---------------------------------------------------------------------------------- the next one


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_the_next_one_is_cancelled_while_it_gets_the_lock(
    world: World, where: Literal["before", "behind"]
) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    third = await world.caller("third", near=False)
    world.driver.stop_at = where
    first.may_go.set()
    await world.driver.stopped.wait()
    second.task.cancel()
    await asyncio.sleep(0.01)
    world.driver.stop_at = None
    world.driver.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await second.task
    assert not second.holds.is_set()
    await first.end()
    with anyio.fail_after(5):
        await third.holds.wait()
    await third.end()
    assert await world.state() == ["first", "third"]
    await show_free(world.other, world.experiment)


async def test_the_next_one_is_cancelled_at_each_await(world: World) -> None:
    async def one(name: str) -> None:
        async with world.storage.acquire_algorithm_lock(world.experiment) as algorithm:
            algorithm.set_state(name)
            await asyncio.sleep(0.003)

    async def wait() -> None:
        holder = asyncio.create_task(one("holder"))
        try:
            await asyncio.sleep(0)
            await one("next")
        finally:
            await wait_until_done(holder)

    async def check() -> None:
        await show_free(world.other, world.experiment)
        await show_free(world.storage, world.experiment)
        assert await world.state() in ("holder", "next")
        assert await world.tickets() == 0

    assert await cancelled_at_every_await(wait, check) >= 8


async def test_a_timeout_while_the_lock_is_handed_over_gets_the_lock(world: World) -> None:
    first = await world.caller("first")
    second = await world.caller("second", timeout=0.2)
    world.driver.stop_at = "before"
    first.may_go.set()
    await world.driver.stopped.wait()
    await asyncio.sleep(0.25)
    assert not second.task.done()
    world.driver.stop_at = None
    world.driver.go_on.set()
    await second.holds.wait()
    await second.end()
    assert await world.state() == ["first", "second"]


async def test_who_has_given_up_gets_nothing(world: World) -> None:
    first = await world.caller("first")
    second = await world.caller("second", timeout=0.05)
    third = await world.caller("third", near=False)
    with pytest.raises(LockAcquisitionTimeout):
        await second.task
    await asyncio.sleep(0.05)  # the third is the next one now, and looks
    world.driver.writes.clear()
    await first.end()
    await third.holds.wait()
    assert [type(one) for one in world.driver.writes] == [Take]
    await third.end()
    assert await world.state() == ["first", "third"]


async def test_an_error_of_the_heir_leaves_what_the_first_has_saved(world: World) -> None:
    first = await world.caller("first")

    async def fail() -> None:
        async with world.storage.acquire_algorithm_lock(world.experiment) as algorithm:
            algorithm.set_state("half made")
            raise LookupError

    looks = world.driver.looks
    failing = asyncio.create_task(fail())

    async def has_looked() -> bool:
        return world.driver.looks > looks

    await until(has_looked)
    await asyncio.sleep(0.02)
    world.driver.writes.clear()
    await first.end()
    with pytest.raises(LookupError):
        await failing
    assert isinstance(world.driver.writes[0], Take)
    assert await world.state() == ["first"]
    await show_free(world.other, world.experiment)


# ---------------------------------------------------------------------------------- the first


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_the_first_is_cancelled_while_it_hands_the_lock_over(
    world: World, where: Literal["before", "behind"]
) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    world.driver.stop_at = where
    first.may_go.set()
    await world.driver.stopped.wait()
    first.task.cancel()
    await asyncio.sleep(0.01)
    assert not first.task.done()
    world.driver.stop_at = None
    world.driver.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first.task
    await second.holds.wait()
    await second.end()
    assert await world.state() == ["first", "second"]


async def test_a_lock_that_was_lost_is_not_handed_over(world: World) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    await world.other.release_algorithm_lock(world.experiment, new_state=["operator"])
    first.may_go.set()
    with pytest.raises(LockLost):
        await first.task
    await second.holds.wait()
    await second.end()
    assert await world.state() == ["operator", "second"]


async def test_a_lock_that_was_lost_to_another_process_is_not_handed_over(
    world: World, clock: FakeClock
) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    clock.advance(LEASE + 1)
    async with world.other.acquire_algorithm_lock(world.experiment, timeout=5) as algorithm:
        first.may_go.set()
        with pytest.raises(LockLost):
            await first.task
        await asyncio.sleep(0.01)
        assert not second.holds.is_set()
        algorithm.set_state(["other"])
    await second.holds.wait()
    await second.end()
    assert await world.state() == ["other", "second"]


# ------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("when", ["before", "lost", "after"])
async def test_one_answer_is_lost(world: World, when: Literal["before", "lost", "after"]) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    world.driver.writes.clear()
    world.driver.fail_next(when, matching=is_handover)
    await first.end()
    await second.holds.wait()
    assert second.owner == await world.owner()
    assert all(isinstance(one, Take) for one in world.driver.writes)
    await second.end()
    assert await world.state() == ["first", "second"]
    await show_free(world.other, world.experiment)


@pytest.mark.parametrize("when", ["before", "lost", "after"])
async def test_no_answer_comes(world: World, when: Literal["before", "lost", "after"]) -> None:
    first = await world.caller("first")
    second = await world.caller("second")
    world.driver.fail_next(when, matching=is_handover, count=3)
    first.may_go.set()
    if when == "after":  # the second attempt finds that the first one has happened
        await first.task
    else:
        with pytest.raises(TemporaryBackendError):
            await first.task
    world.driver.cancel_planned()
    with anyio.fail_after(5):
        await second.holds.wait()
    await second.end()
    assert await world.state() == (["first", "second"] if when == "after" else ["second"])
    await show_free(world.other, world.experiment)


async def test_the_answer_is_lost_and_never_found(world: World) -> None:
    """Both have to give the lock up: neither knows whose it is."""
    first = await world.caller("first")
    second = await world.caller("second")
    world.driver.fail_next("after", matching=is_handover)

    def finds(operations: Operations) -> bool:
        return isinstance(operations[0], Find) and operations[0].collection == ALGO

    world.driver.fail_next("before", matching=finds, count=2)
    first.may_go.set()
    with pytest.raises(TemporaryBackendError):
        await first.task
    with anyio.fail_after(5):
        await second.holds.wait()
    assert second.owner == await world.owner()
    await second.end()
    assert await world.state() == ["first", "second"]
    await show_free(world.other, world.experiment)


async def test_others_have_held_the_lock_before_the_answer_was_found(world: World) -> None:
    """The first one has saved its state; the second one does not have the lock, and waits."""
    first = await world.caller("first")
    second = await world.caller("second")
    truth = world.driver.driver
    await truth.open(LAYOUT)

    transact = world.driver.transact

    async def lose(operations: Operations) -> list[Any]:
        results = await transact(operations)
        if is_handover(operations):
            taken = {"owner": "another", "expires": StoreTime(LEASE), "heartbeat": StoreTime()}
            assert await truth.execute(Update(ALGO, equal(locked=1), taken)) == 1
            raise TemporaryBackendError("the answer was lost", ambiguous=True)
        return results

    world.driver.transact = lose  # type: ignore[method-assign]
    await first.end()
    await asyncio.sleep(0.05)
    assert not second.holds.is_set()
    assert await world.owner() == "another"
    await world.other.release_algorithm_lock(world.experiment)
    await second.holds.wait()
    await second.end()
    assert await world.state() == ["first", "second"]
