"""Law 11: engines that fail now and then, and whose answers get lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import (
    DuplicateKeyError,
    Experiment,
    FailedUpdate,
    OperationTimeout,
    RetryPolicy,
    Storage,
    TemporaryBackendError,
    Trial,
)
from aiostorage._core.layout import TRIALS, WAITERS
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import (
    And,
    Compare,
    Count,
    Delete,
    Find,
    Insert,
    Operation,
    Or,
    Take,
    Update,
)
from aiostorage.protocols import Driver
from aiostorage.testing import FakeClock, FaultyDriver, StorageContract
from aiostorage.testing.contract.helpers import case
from aiostorage.testing.faults import Fault
from tests.contract.conftest import UNCLOSED

pytestmark = UNCLOSED

POLICY = RetryPolicy(attempts=60, initial=0.0005, maximum=0.002, jitter=0.0005)


class TestFaultyMemory(StorageContract):
    """Every tenth call fails, every tenth request gets lost, and every fourth answer.

    The faults are above the engine; `test_each_call_fails_once` shows each of them to all engines.
    """

    clock: FakeClock
    large_state = 1 << 20
    shared_by_copies = False
    threads = False

    def setup_method(self) -> None:
        self.clock = FakeClock()
        self.seeds = count(1)
        self.driver = MemoryDriver(clock=self.clock)

    async def open_storage(self, tmp_path: Path, **settings: Any) -> Storage:
        seed = next(self.seeds)
        faulty = FaultyDriver(self.driver, before=0.1, lost=0.1, after=0.25, seed=seed)
        storage = Storage(faulty, retry=POLICY, **settings)
        await storage.open()
        return storage


# ------------------------------------------------------------- every single answer gets lost


class FaultCase:
    def __init__(self, driver: Driver) -> None:
        self.faulty = FaultyDriver(driver)
        self.storage = Storage(self.faulty, retry=POLICY)
        self.truth = Storage(driver)
        self.numbers = count()
        self.experiment: Experiment

    async def reset(self) -> None:
        config = {"name": f"e{next(self.numbers)}"}
        self.experiment = await self.truth.create_experiment(config, algo_state="old")
        await self.truth.register_trials(
            [Trial(experiment=self.experiment.id, params={"x": x}) for x in range(4)]
        )

    async def reserve(self) -> Trial:
        trial = await self.truth.reserve_trial(self.experiment)
        assert trial is not None
        return trial

    async def statuses(self) -> list[str]:
        return [t.status for t in await self.truth.fetch_trials(self.experiment) or ()]


@pytest.fixture
def world(make_driver: Callable[[], Driver]) -> FaultCase:
    return FaultCase(make_driver())


async def create_experiment(world: FaultCase) -> None:
    config: dict[str, Any] = {"name": f"e{next(world.numbers)}"}
    experiment = await world.storage.create_experiment(config, algo_state="s")
    stored = {**config, "version": 1}
    assert await world.truth.fetch_experiments({"name": config["name"]}) == [stored]
    info = await world.truth.get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == "s"
    with pytest.raises(DuplicateKeyError):
        await world.truth.create_experiment({"name": config["name"]})


async def create_a_taken_experiment(world: FaultCase) -> None:
    with pytest.raises(DuplicateKeyError):
        await world.storage.create_experiment({"name": world.experiment.name})


async def update_experiment(world: FaultCase) -> None:
    assert await world.storage.update_experiment(world.experiment, a=1)
    assert len(await world.truth.fetch_experiments({"a": 1, "_id": world.experiment.id})) == 1


async def delete_experiment(world: FaultCase) -> None:
    assert await world.storage.delete_experiment(world.experiment) == 1
    assert await world.truth.fetch_trials(world.experiment) is None
    assert await world.storage.delete_experiment(world.experiment) == 0


async def register_trial(world: FaultCase) -> None:
    trial = await world.storage.register_trial(
        Trial(experiment=world.experiment.id, params={"x": 9})
    )
    found = await world.truth.get_trial(trial)
    assert found is not None
    assert found.to_dict() == trial.to_dict()
    assert await world.statuses() == ["new"] * 5


async def register_trials(world: FaultCase) -> None:
    new = [Trial(experiment=world.experiment.id, params={"x": x}) for x in range(10, 20)]
    assert await world.storage.register_trials(new) == new
    assert await world.statuses() == ["new"] * 14


async def register_a_taken_trial(world: FaultCase) -> None:
    with pytest.raises(DuplicateKeyError):
        await world.storage.register_trial(Trial(experiment=world.experiment.id, params={"x": 3}))
    assert await world.statuses() == ["new"] * 4


async def reserve_trial(world: FaultCase) -> None:
    trial = await world.storage.reserve_trial(world.experiment)
    assert trial is not None
    assert trial.params == {"x": 0}
    found = await world.truth.get_trial(trial)
    assert found is not None
    assert found.worker == trial.worker
    assert await world.statuses() == ["reserved", "new", "new", "new"]


async def reserve_trials(world: FaultCase) -> None:
    trials = await world.storage.reserve_trials(world.experiment, 3)
    assert [t.params["x"] for t in trials] == [0, 1, 2]
    assert await world.statuses() == ["reserved"] * 3 + ["new"]


async def complete_trial(world: FaultCase) -> None:
    trial = await world.reserve()
    await world.storage.complete_trial(trial, 1.5)
    assert trial.status == "completed"
    assert await world.truth.count_completed_trials(world.experiment) == 1


async def complete_a_completed_trial(world: FaultCase) -> None:
    trial = await world.reserve()
    await world.truth.complete_trial(trial, 1.5)
    with pytest.raises(FailedUpdate):
        await world.storage.complete_trial(trial, 2.5)
    found = await world.truth.get_trial(trial)
    assert found is not None
    assert [result.value for result in found.results] == [1.5]


async def push_trial_results(world: FaultCase) -> None:
    trial = await world.reserve()
    trial.results = [{"name": "o", "type": "objective", "value": 2}]  # type: ignore[list-item]
    assert await world.storage.push_trial_results(trial) == 1


async def set_trial_status(world: FaultCase) -> None:
    trial = await world.reserve()
    await world.storage.set_trial_status(trial, "suspended")
    assert await world.statuses() == ["suspended", "new", "new", "new"]


async def set_trial_status_reserved(world: FaultCase) -> None:
    trial = (await world.truth.fetch_trials(world.experiment) or [])[1]
    await world.storage.set_trial_status(trial, "reserved")
    found = await world.truth.get_trial(trial)
    assert found is not None
    assert found.worker == trial.worker
    assert await world.statuses() == ["new", "reserved", "new", "new"]


async def update_heartbeat(world: FaultCase) -> None:
    assert await world.storage.update_heartbeat(await world.reserve()) == 1


async def recover_lost_trials(world: FaultCase) -> None:
    trial = await world.reserve()
    await world.truth.update_trial(trial, heartbeat=datetime.now(UTC) - timedelta(hours=1))
    recovered = await world.storage.recover_lost_trials(world.experiment)
    assert await world.statuses() == ["interrupted", "new", "new", "new"]
    found = await world.truth.get_trial(trial)
    assert found is not None
    assert [trial.to_dict() for trial in recovered] == [found.to_dict()]
    assert await world.storage.recover_lost_trials(world.experiment) == []


async def reserved_trial(world: FaultCase) -> None:
    async with world.storage.reserved_trial(world.experiment) as trial:
        assert trial is not None
    assert trial.status == "interrupted"
    assert await world.statuses() == ["interrupted", "new", "new", "new"]


async def algorithm_lock(world: FaultCase) -> None:
    async with world.storage.acquire_algorithm_lock(world.experiment, timeout=5) as algorithm:
        assert algorithm.state == "old"
        algorithm.set_state("new")
    info = await world.truth.get_algorithm_lock_info(world.experiment)
    assert info is not None
    assert (info.state, bool(info.locked)) == ("new", False)
    assert await world.faulty.driver.execute(Count(WAITERS)) == 0


async def algorithm_lock_left_by_an_error(world: FaultCase) -> None:
    with pytest.raises(LookupError):
        async with world.storage.acquire_algorithm_lock(world.experiment) as algorithm:
            algorithm.set_state("new")
            raise LookupError
    async with world.truth.acquire_algorithm_lock(world.experiment, timeout=0) as algorithm:
        assert algorithm.state == "old"


async def waiting_for_the_algorithm_lock(world: FaultCase) -> None:
    lock = world.truth.acquire_algorithm_lock(world.experiment)
    async with anyio.create_task_group() as group, lock:
        group.start_soon(algorithm_lock, world)
        await anyio.sleep(0.03)
    assert await world.faulty.driver.execute(Count(WAITERS)) == 0


async def initialize_algorithm_lock(world: FaultCase) -> None:
    uid = f"l{next(world.numbers)}"
    assert await world.storage.initialize_algorithm_lock(uid, {}) == 1
    assert await world.truth.delete_algorithm_lock(uid=uid) == 1


async def create_benchmark(world: FaultCase) -> None:
    config = {"name": f"b{next(world.numbers)}"}
    assert await world.storage.create_benchmark(config) == 1
    assert await world.truth.fetch_benchmark({"name": config["name"]}) == [config]


async def iter_trials(world: FaultCase) -> None:
    found = [t async for t in world.storage.iter_trials(world.experiment, batch_size=2)]
    assert [t.params["x"] for t in found] == [0, 1, 2, 3]


CALLS: list[Callable[[FaultCase], Awaitable[None]]] = [
    create_experiment,
    create_a_taken_experiment,
    update_experiment,
    delete_experiment,
    register_trial,
    register_trials,
    register_a_taken_trial,
    reserve_trial,
    reserve_trials,
    complete_trial,
    complete_a_completed_trial,
    push_trial_results,
    set_trial_status,
    set_trial_status_reserved,
    update_heartbeat,
    recover_lost_trials,
    reserved_trial,
    algorithm_lock,
    algorithm_lock_left_by_an_error,
    waiting_for_the_algorithm_lock,
    initialize_algorithm_lock,
    create_benchmark,
    iter_trials,
]


def nth(number: int) -> Callable[[Sequence[Operation[Any]]], bool]:
    """Match one call, counted from now."""
    calls = count(1)
    return lambda _: next(calls) == number


@pytest.mark.anyio
@pytest.mark.parametrize("call", CALLS)
async def test_each_call_fails_once(
    world: FaultCase, call: Callable[[FaultCase], Awaitable[None]], kinds: tuple[Fault, ...]
) -> None:
    async with world.truth:
        for kind in kinds:
            await fails_once(world, call, kind)


async def fails_once(
    world: FaultCase,
    call: Callable[[FaultCase], Awaitable[None]],
    when: Fault,
) -> None:
    """Let the first call of the driver fail, then the second, and so on to the last."""
    for number in range(1, 100):
        with case(f"{when} call {number}"):
            await world.reset()
            world.faulty.fail_next(when, matching=nth(number))
            await call(world)
            if world.faulty.planned:
                assert number > 1
                world.faulty.cancel_planned()
                return
    raise AssertionError("the call never ends")


# ---------------------------------------------------------------------- the end of patience


@pytest.mark.anyio
async def test_the_policy_runs_out(world: FaultCase) -> None:
    async with world.truth:
        await world.reset()
        faulty = FaultyDriver(world.faulty.driver, before=1.0)
        storage = Storage(faulty, retry=RetryPolicy(attempts=4, initial=0.001, jitter=0))
        with pytest.raises(TemporaryBackendError, match="injected"):
            await storage.count_broken_trials(world.experiment)
        assert faulty.calls == 4


@pytest.mark.anyio
async def test_a_reservation_without_answer_is_given_back(world: FaultCase) -> None:
    async with world.truth:
        await world.reset()
        # its only attempt is carried out, but neither answered nor found again
        storage = Storage(world.faulty, retry=RetryPolicy(attempts=1))
        world.faulty.fail_next("after", matching=lambda o: isinstance(o[0], Take))
        with pytest.raises(TemporaryBackendError):
            await storage.reserve_trial(world.experiment)
        assert await world.statuses() == ["interrupted", "new", "new", "new"]
        trial = (await world.truth.fetch_trials(world.experiment) or [])[1]
        world.faulty.fail_next("after", matching=lambda o: isinstance(o[0], Update))
        with pytest.raises(TemporaryBackendError):
            await storage.set_trial_status(trial, "reserved")
        assert trial.status == "new"
        assert await world.statuses() == ["interrupted", "new", "new", "new"]


@pytest.mark.anyio
async def test_an_attempt_that_takes_too_long(world: FaultCase) -> None:
    async with world.truth:
        await world.reset()
        slow = FaultyDriver(world.faulty.driver, latency=10)
        policy = RetryPolicy(attempts=2, attempt_timeout=0.02, initial=0.001, jitter=0)
        with anyio.fail_after(2), pytest.raises(OperationTimeout) as raised:
            await Storage(slow, retry=policy).count_broken_trials(world.experiment)
        assert raised.value.ambiguous
        assert slow.calls == 2


@pytest.mark.anyio
async def test_errors_for_good_are_not_retried(world: FaultCase) -> None:
    async with world.truth:
        await world.reset()
        unknown = Trial(experiment="e", params={"x": 1})
        for _ in range(2):  # the first write also looks for receipts that have expired
            before = world.faulty.calls
            with pytest.raises(FailedUpdate):
                await world.storage.set_trial_status(unknown, "broken", was="new")
        assert world.faulty.calls == before + 2  # the update, and the look at what is there


@pytest.mark.anyio
async def test_heartbeats_that_do_not_get_through_are_no_end(world: FaultCase) -> None:
    async with world.truth:
        await world.reset()
        storage = Storage(world.faulty, retry=RetryPolicy(attempts=1))
        async with storage.reserved_trial(world.experiment, heartbeat=0.01) as trial:
            assert trial is not None
            world.faulty.fail_next("before", count=3)
            with anyio.fail_after(60):
                while world.faulty.planned:
                    await anyio.sleep(0.01)
            await storage.complete_trial(trial, 1)
        assert await world.truth.count_completed_trials(world.experiment) == 1


@pytest.mark.anyio
async def test_iteration_holds_one_page(world: FaultCase) -> None:
    sizes: list[int] = []

    class Spy(FaultyDriver):
        async def page(self, find: Find, after: object | None, size: int) -> Any:
            documents, mark = await super().page(find, after, size)
            sizes.append(len(documents))
            return documents, mark

    async with world.truth:
        await world.truth.register_trials(
            [Trial(experiment="e", params={"x": x}) for x in range(50)]
        )
        number = 0
        async for _ in Storage(Spy(world.faulty.driver)).iter_trials({"_id": "e"}, batch_size=7):
            number += 1
            assert sum(sizes) - number < 7  # no page is fetched before it is needed
        assert number == 50
        assert max(sizes) == 7


@pytest.mark.anyio
async def test_faulty_driver(world: FaultCase) -> None:
    driver = world.faulty
    async with world.truth:
        everything = And((Or((Compare("experiment", "eq", "e"),)),))
        document = {"_id": 1, "experiment": "e", "id": "t", "status": "new"}
        driver.fail_next("before")
        with pytest.raises(TemporaryBackendError) as raised:
            await driver.execute(Insert(TRIALS, (dict(document),)))
        assert not raised.value.ambiguous
        assert await driver.execute(Count(TRIALS, everything)) == 0
        driver.fail_next("after")
        with pytest.raises(TemporaryBackendError) as raised:
            await driver.transact((Insert(TRIALS, (dict(document),)),))
        assert raised.value.ambiguous
        assert await driver.execute(Count(TRIALS, everything)) == 1
        assert (driver.calls, driver.faults) == (4, 2)
        assert (driver.name, driver.location) == (driver.driver.name, driver.driver.location)
        driver.fail_next("lost")
        with pytest.raises(TemporaryBackendError) as raised:
            await driver.execute(Delete(TRIALS, everything))
        assert raised.value.ambiguous
        assert await driver.execute(Count(TRIALS, everything)) == 1
        kinds: tuple[Fault, ...] = ("before", "lost", "after")
        for when in kinds:
            driver.fail_next(when)
            with pytest.raises(TemporaryBackendError):
                await driver.now()
    with pytest.warns(DeprecationWarning, match="losable"):
        spared = FaultyDriver(MemoryDriver(), after=1.0, losable=lambda _: False)
    await spared.now()
    assert spared.faults == 0
