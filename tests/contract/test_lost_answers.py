"""Law 11 for writes that no token settles: they happen once, and their callers get the answer.

`tests.contract.test_faults` has the others, and what the cases here are made of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from aiostorage import (
    DuplicateKeyError,
    FailedUpdate,
    RetryPolicy,
    Storage,
    SyncStorage,
    TemporaryBackendError,
    Trial,
    TrialLost,
)
from aiostorage._core import receipts
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import ALGO, RECEIPTS
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.operations import Count, Insert, Operation, Receipt, StoreTime, Update
from aiostorage.protocols import Driver
from aiostorage.testing import FakeClock, FaultyDriver
from aiostorage.testing.faults import Fault
from tests.contract.conftest import UNCLOSED
from tests.contract.late_attempts import LateDriver
from tests.contract.test_faults import POLICY, FaultCase, fails_once

pytestmark = [UNCLOSED, pytest.mark.anyio]

T = TypeVar("T")

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def world(make_driver: Callable[[], Driver]) -> FaultCase:
    return FaultCase(make_driver())


async def trial_of(world: FaultCase, number: int = 0) -> Trial:
    """Read a trial, which has no token as long as it is not reserved."""
    return (await world.truth.fetch_trials(world.experiment) or [])[number]


# ------------------------------------------------------------------ each call of the driver


async def create_experiment(world: FaultCase) -> None:
    uid = f"mine{next(world.numbers)}"
    config: dict[str, Any] = {"_id": uid, "name": uid}
    experiment = await world.storage.create_experiment(config, algo_state="s")
    assert experiment.id == uid
    stored = {**config, "version": 1}
    assert await world.truth.fetch_experiments({"name": config["name"]}) == [stored]
    info = await world.truth.get_algorithm_lock_info(experiment)
    assert info is not None
    assert info.state == "s"


async def create_an_experiment_with_a_taken_id(world: FaultCase) -> None:
    before = await world.truth.fetch_experiments({"_id": world.experiment.id})
    config = {"_id": world.experiment.id, "name": f"other {world.experiment.name}"}
    with pytest.raises(DuplicateKeyError) as raised:
        await world.storage.create_experiment(config, algo_state="new")
    assert raised.value.fields == ("_id",)
    assert await world.truth.fetch_experiments({"_id": world.experiment.id}) == before
    info = await world.truth.get_algorithm_lock_info(world.experiment)
    assert info is not None
    assert info.state == "old"


async def create_an_experiment_again(world: FaultCase) -> None:
    uid = world.experiment.id
    await world.truth.delete_experiment(world.experiment, cascade=False)
    config = {"_id": uid, "name": f"again {world.experiment.name}"}
    await world.storage.create_experiment(config, algo_state="new")
    info = await world.truth.get_algorithm_lock_info(uid=uid)
    assert info is not None
    assert info.state == "new"


async def update_experiment(world: FaultCase) -> None:
    update = world.storage.update_experiment
    assert await update(world.experiment, where={"a": None}, a=1) is True
    assert await update(world.experiment, where={"a": None}, a=2) is False
    assert len(await world.truth.fetch_experiments({"a": 1, "_id": world.experiment.id})) == 1


async def register_trial(world: FaultCase) -> None:
    uid = f"mine{next(world.numbers)}"
    new = Trial(experiment=world.experiment.id, params={"x": 9}, _id=uid)
    trial = await world.storage.register_trial(new)
    found = await world.truth.get_trial(trial)
    assert found is not None
    assert found.to_dict() == trial.to_dict()
    assert found.to_dict()["_id"] == uid


async def register_a_trial_with_a_taken_id(world: FaultCase) -> None:
    taken = (await trial_of(world)).to_dict()["_id"]
    new = Trial(experiment=world.experiment.id, params={"x": 9}, _id=taken)
    with pytest.raises(DuplicateKeyError) as raised:
        await world.storage.register_trial(new)
    assert raised.value.fields == ("_id",)
    assert await world.statuses() == ["new"] * 4


async def register_trials_one_with_a_taken_id(world: FaultCase) -> None:
    taken = (await trial_of(world)).to_dict()["_id"]
    new = [Trial(experiment=world.experiment.id, params={"x": x}) for x in range(10, 14)]
    new[2].id_override = taken
    with pytest.raises(DuplicateKeyError):
        await world.storage.register_trials(new)
    assert await world.statuses() == ["new"] * 4


async def update_trial(world: FaultCase) -> None:
    trial = await trial_of(world)
    where = {"status": "new"}
    assert await world.storage.update_trial(trial, where=where, status="suspended") == 1
    assert await world.storage.update_trial(trial, where=where, status="broken") == 0
    assert await world.statuses() == ["suspended", "new", "new", "new"]


async def update_trials(world: FaultCase) -> None:
    where = {"status": "new"}
    assert await world.storage.update_trials(world.experiment, where=where, status="broken") == 4
    assert await world.storage.update_trials(world.experiment, where=where, status="new") == 0
    assert await world.statuses() == ["broken"] * 4


async def delete_trials(world: FaultCase) -> None:
    last = {"_id": (await trial_of(world, 3)).to_dict()["_id"]}
    assert await world.storage.delete_trials(world.experiment, where=last) == 1
    assert await world.storage.delete_trials(world.experiment, where=last) == 0
    assert await world.storage.delete_trials(world.experiment) == 3
    assert await world.statuses() == []


async def set_trial_status(world: FaultCase) -> None:
    trial = await trial_of(world, 1)
    await world.storage.set_trial_status(trial, "suspended")
    assert trial.status == "suspended"
    assert await world.statuses() == ["new", "suspended", "new", "new"]
    with pytest.raises(FailedUpdate):
        await world.storage.set_trial_status(trial, "broken", was="new")


async def push_trial_results(world: FaultCase) -> None:
    trial = await world.reserve()
    trial.worker = None
    trial.status = "completed"
    assert await world.storage.push_trial_results(trial) == 1
    assert await world.statuses() == ["completed", "new", "new", "new"]


async def complete_trial(world: FaultCase) -> None:
    trial = await world.reserve()
    trial.worker = None
    await world.storage.complete_trial(trial, 1.5)
    assert trial.status == "completed"
    with pytest.raises(FailedUpdate):
        await world.storage.complete_trial(trial, 2.5)


async def create_benchmark(world: FaultCase) -> None:
    uid = f"mine{next(world.numbers)}"
    config = {"_id": uid, "name": uid}
    assert await world.storage.create_benchmark(config) == 1
    assert await world.truth.fetch_benchmark({"_id": uid}) == [config]
    with pytest.raises(DuplicateKeyError):
        await world.storage.create_benchmark({"_id": uid, "name": f"other {uid}"})
    assert await world.truth.fetch_benchmark({"_id": uid}) == [config]
    assert await world.storage.delete_benchmark({"name": uid}) == 1
    assert await world.storage.delete_benchmark({"name": uid}) == 0


async def lock_records(world: FaultCase) -> None:
    uid = f"l{next(world.numbers)}"
    assert await world.storage.write_algorithm_lock(uid, {}, 1, "s") == 1
    assert await world.storage.release_algorithm_lock(uid=uid, new_state="t") == 1
    assert await world.storage.release_algorithm_lock(uid=uid) == 0
    assert await world.storage.delete_algorithm_lock(uid=uid) == 1
    assert await world.storage.delete_algorithm_lock(uid=uid) == 0


async def lock_written_over(world: FaultCase) -> None:
    uid = f"l{next(world.numbers)}"
    write = CollectionAccess(world.storage).write_lock
    for locked in (1, 0):
        assert await write(uid, {"n": locked}, locked) == 1
        (record,) = await CollectionAccess(world.truth).find(ALGO, {"experiment": uid})
        assert (record["configuration"], record["locked"]) == ({"n": locked}, locked)


async def collections(world: FaultCase) -> None:
    access = CollectionAccess(world.storage)
    uids = [f"c{next(world.numbers)}" for _ in range(3)]
    group = uids[0]
    documents = [{"_id": uid, "name": uid, "group": group} for uid in uids]
    assert await access.insert("benchmarks", documents) == 3
    with pytest.raises(DuplicateKeyError):
        await access.insert("benchmarks", [{"_id": group, "name": f"other {group}"}])
    new = {"group": group, "n": None}
    assert await access.update("benchmarks", {"_id": group}, {"group": None}) == 1
    assert await access.update("benchmarks", new, {"n": 1}) == 2
    taken = await access.take("benchmarks", {"group": group, "n": 1}, {"n": 2})
    assert taken == {"_id": uids[1], "name": uids[1], "group": group, "n": 2}
    assert await access.delete("benchmarks", {"group": group}) == 2
    assert await access.delete("benchmarks", {"_id": group}) == 1


CALLS: list[Callable[[FaultCase], Awaitable[None]]] = [
    create_experiment,
    create_an_experiment_with_a_taken_id,
    create_an_experiment_again,
    update_experiment,
    register_trial,
    register_a_trial_with_a_taken_id,
    register_trials_one_with_a_taken_id,
    update_trial,
    update_trials,
    delete_trials,
    set_trial_status,
    push_trial_results,
    complete_trial,
    create_benchmark,
    lock_records,
    lock_written_over,
    collections,
]


@pytest.mark.parametrize("call", CALLS)
async def test_each_call_fails_once(
    world: FaultCase, call: Callable[[FaultCase], Awaitable[None]], kinds: tuple[Fault, ...]
) -> None:
    async with world.truth:
        for kind in kinds:
            if kind != "before":  # then nothing has to be settled
                await fails_once(world, call, kind)


def test_through_the_facade() -> None:
    driver = FaultyDriver(MemoryDriver())
    with SyncStorage(Storage(driver, retry=POLICY)) as storage:
        driver.after = driver.lost = 0.25
        experiment = storage.create_experiment({"_id": "mine", "name": "mine"})
        with pytest.raises(DuplicateKeyError):
            storage.create_experiment({"_id": "mine", "name": "other"})
        trials = storage.register_trials(
            [Trial(experiment="mine", params={"x": x}, _id=x) for x in range(20)]
        )
        for trial in trials[:5]:
            assert storage.update_trial(trial, where={"status": "new"}, status="broken") == 1
        for trial in trials[5:10]:
            storage.set_trial_status(trial, "suspended")
        assert storage.update_trials(experiment, where={"status": "new"}, status="broken") == 10
        lost = storage.reserve_trials(experiment, 3)
        storage.update_trials(experiment, heartbeat=LONG_AGO)
        assert [t.id for t in storage.recover_lost_trials(experiment)] == [t.id for t in lost]
        assert storage.delete_trials(experiment, where={"status": "broken"}) == 15
        assert storage.delete_experiment(experiment) == 1
        assert driver.faults > 10


# ------------------------------------------------------- others write between the attempts


class Between(FaultyDriver):
    """Awaits something when an answer was lost, before the storage tries again."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def execute(self, operation: Operation[T]) -> T:
        try:
            return await super().execute(operation)
        except TemporaryBackendError:
            await self._between()
            raise

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        try:
            return await super().transact(operations)
        except TemporaryBackendError:
            await self._between()
            raise

    async def _between(self) -> None:
        if (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            await meanwhile()


@pytest.fixture
def between(make_driver: Callable[[], Driver]) -> FaultCase:
    world = FaultCase(make_driver())
    world.faulty = Between(world.faulty.driver)
    world.storage = Storage(world.faulty, retry=POLICY)
    return world


def lose_an_answer(world: FaultCase, meanwhile: Callable[[], Awaitable[object]]) -> None:
    assert isinstance(world.faulty, Between)
    world.faulty.meanwhile = meanwhile
    world.faulty.fail_next("after", matching=lambda o: any(isinstance(x, Receipt) for x in o))


def lose_a_request(world: FaultCase, meanwhile: Callable[[], Awaitable[object]]) -> None:
    assert isinstance(world.faulty, Between)
    world.faulty.meanwhile = meanwhile
    world.faulty.fail_next("lost", matching=lambda o: isinstance(o[0], Update))


async def test_what_others_write_meanwhile_stays(between: FaultCase) -> None:
    truth, storage = between.truth, between.storage
    async with truth:
        await between.reset()
        trial = await trial_of(between)

        lose_an_answer(between, lambda: truth.update_trial(trial, note="theirs"))
        assert await storage.update_trial(trial, note="mine") == 1
        assert between.faulty.planned == 0
        found = await truth.fetch_trials(between.experiment, where={"note": "theirs"})
        assert found is not None
        assert len(found) == 1

        lose_an_answer(between, lambda: truth.update_experiment(between.experiment, a="theirs"))
        assert await storage.update_experiment(between.experiment, a="mine") is True
        assert len(await truth.fetch_experiments({"a": "theirs"})) == 1

        new = Trial(experiment=between.experiment.id, params={"x": 9})
        lose_an_answer(between, lambda: truth.register_trial(new))
        assert await storage.delete_trials(between.experiment) == 4
        assert await between.statuses() == ["new"]


async def test_what_others_delete_meanwhile_is_gone(between: FaultCase) -> None:
    truth, storage = between.truth, between.storage
    async with truth:
        await between.reset()
        benchmark = {"_id": "b", "name": "b"}
        lose_an_answer(between, lambda: truth.delete_benchmark({"_id": "b"}))
        assert await storage.create_benchmark(benchmark) == 1
        assert await truth.fetch_benchmark({"_id": "b"}) == []

        trial = Trial(experiment=between.experiment.id, params={"x": 9}, _id="mine")
        lose_an_answer(between, lambda: truth.delete_trials(between.experiment))
        assert (await storage.register_trial(trial)).params == {"x": 9}
        assert await between.statuses() == []


async def test_a_trial_that_others_take_meanwhile(between: FaultCase) -> None:
    """It may be reserved as soon as its new status is written: that is not a failure."""
    truth, storage = between.truth, between.storage
    async with truth:
        await between.reset()
        for token in (True, False):
            trial = await between.reserve()
            if not token:
                trial.worker = None
            lose_an_answer(between, lambda: truth.reserve_trial(between.experiment))
            await storage.set_trial_status(trial, "interrupted")
            assert trial.status == "interrupted"
            found = await truth.get_trial(trial)
            assert found is not None
            assert found.status == "reserved"
            assert found.worker != trial.worker
            await truth.set_trial_status(found, "broken")


async def test_what_another_worker_wrote_is_not_ours(between: FaultCase) -> None:
    truth, storage = between.truth, between.storage
    async with truth:
        await between.reset()
        writes: tuple[Callable[[Trial], Awaitable[None]], ...] = (
            lambda trial: storage.set_trial_status(trial, "completed"),
            lambda trial: storage.complete_trial(trial, 1.5),
        )
        for write in writes:
            trial = await between.reserve()
            theirs = trial.copy()

            async def complete_theirs(theirs: Trial = theirs) -> None:
                await truth.complete_trial(theirs, 1.5)
                await truth.update_trial(theirs, worker="another")

            lose_a_request(between, complete_theirs)
            with pytest.raises(TrialLost):
                await write(trial)
            assert between.faulty.planned == 0


async def test_recovered_trials_that_others_take_meanwhile(
    between: FaultCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, storage = between.truth, between.storage
    async with truth:
        await between.reset()
        for limit in (receipts.MAX_NOTED_TEXT, 10):  # the second time it has only ids
            monkeypatch.setattr(receipts, "MAX_NOTED_TEXT", limit)
            lost = await truth.reserve_trials(between.experiment, 3)
            await truth.update_trials(between.experiment, heartbeat=LONG_AGO)
            meanwhile: list[Trial] = []

            async def take(into: list[Trial] = meanwhile) -> None:
                into.extend(await truth.reserve_trials(between.experiment, 1))

            lose_an_answer(between, take)
            recovered = await storage.recover_lost_trials(between.experiment)
            assert [t.id for t in recovered] == [t.id for t in lost]
            first = "interrupted" if limit > 10 else "reserved"
            assert [t.status for t in recovered] == [first, "interrupted", "interrupted"]
            assert [t.id for t in meanwhile] == [lost[0].id]
            await truth.set_trial_status(meanwhile[0], "interrupted")


# ------------------------------------------------------------ an attempt that comes too late


@pytest.mark.parametrize("when", ["before the second", "after the second"])
async def test_an_attempt_that_arrives_late(make_driver: Callable[[], Driver], when: str) -> None:
    world = FaultCase(make_driver())
    async with world.truth:
        await world.reset()
        trial, other = await trial_of(world), await trial_of(world, 1)

        def late() -> tuple[Storage, LateDriver]:
            driver = LateDriver(world.faulty.driver, when, Receipt)
            return Storage(driver, retry=POLICY), driver

        storage, driver = late()
        where = {"status": "new"}
        assert await storage.update_trial(trial, where=where, status="broken") == 1
        assert await world.statuses() == ["broken", "new", "new", "new"]
        storage, driver = late()
        await storage.set_trial_status(other, "suspended")
        storage, driver = late()
        config = {"_id": f"late{when}", "name": f"late{when}"}
        await storage.create_experiment(config)
        storage, driver = late()
        assert await storage.delete_trials(world.experiment, where={"status": "broken"}) == 1
        storage, driver = late()
        assert await storage.delete_trials(world.experiment, where={"status": "broken"}) == 0
        assert await world.statuses() == ["suspended", "new", "new"]
        # who was told that nothing happened can rely on it
        if when == "after the second":
            await world.truth.update_trials(world.experiment, status="broken")
            await driver.arrive()
            assert isinstance(driver.outcome, DuplicateKeyError)
            assert await world.statuses() == ["broken"] * 3


async def test_an_attempt_that_is_too_slow(make_driver: Callable[[], Driver]) -> None:
    """The time limit ends the wait for an attempt, but not always the attempt."""
    world = FaultCase(make_driver())
    async with world.truth:
        await world.reset()
        trial = await trial_of(world)

        class Slow(FaultyDriver):
            slow = True

            async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
                results = await super().transact(operations)
                if self.slow:
                    self.slow = False
                    await anyio.sleep_forever()
                return results

        policy = RetryPolicy(attempts=3, attempt_timeout=0.5, initial=0.001, jitter=0.001)
        storage = Storage(Slow(world.faulty.driver), retry=policy)
        where = {"status": "new"}
        assert await storage.update_trial(trial, where=where, status="broken") == 1
        assert await world.statuses() == ["broken", "new", "new", "new"]


# ------------------------------------------------------------------------ what is left over


async def kept(driver: Driver) -> int:
    return await driver.execute(Count(RECEIPTS))


async def test_only_what_needs_one_leaves_a_receipt(world: FaultCase) -> None:
    async with world.truth as storage:
        await world.reset()
        await world.reset()
        await storage.create_benchmark({"name": world.experiment.name})
        reserved = await storage.reserve_trials(world.experiment, 2)
        await storage.update_heartbeat(reserved[0])
        await storage.complete_trial(reserved[0], 1.0)
        await storage.set_trial_status(reserved[1], "broken")
        async with storage.acquire_algorithm_lock(world.experiment) as algorithm:
            algorithm.set_state("new")
        async with storage.reserved_trial(world.experiment) as trial:
            assert trial is not None
        before = await kept(world.faulty.driver)
        assert before == 0
        assert await storage.update_trial(reserved[0], where={"status": "new"}, note=1) == 0
        assert await kept(world.faulty.driver) == 0
        assert await storage.update_trial(reserved[0], note=1) == 1
        assert await kept(world.faulty.driver) == 1


async def test_a_storage_that_tries_for_ages() -> None:
    async with Storage(MemoryDriver(), retry=RetryPolicy(total=1e12)) as storage:
        experiment = await storage.create_experiment({"name": "a"})
        assert await storage.update_experiment(experiment, note=1)


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_receipts_are_kept_for_a_while(engine: str, tmp_path: Path) -> None:
    clock = FakeClock()
    driver: Driver = MemoryDriver(clock=clock)
    if engine == "sqlite":
        driver = SQLiteDriver(tmp_path / "store.db", clock=clock)
    async with Storage(driver) as storage:
        benchmark = {"name": "b"}
        for _ in range(3):
            await storage.create_benchmark(dict(benchmark))
            assert await storage.delete_benchmark(benchmark) == 1
        assert await kept(driver) == 3
        clock.advance(660 - 1)  # ten minutes, and the time of all attempts
        storage._gateway._sweep_at = 0.0
        await storage.create_benchmark(dict(benchmark))
        await storage.delete_benchmark(benchmark)
        assert await kept(driver) == 4
        clock.advance(2)
        await storage.create_benchmark(dict(benchmark))
        await storage.delete_benchmark(benchmark)
        assert await kept(driver) == 5  # it is not swept each time
        storage._gateway._sweep_at = 0.0
        await storage.create_benchmark(dict(benchmark))
        await storage.delete_benchmark(benchmark)
        assert await kept(driver) == 3


async def test_a_write_takes_some_of_many_receipts_along(world: FaultCase) -> None:
    driver = world.faulty.driver
    async with world.truth as storage:
        await world.reset()
        documents = [{"_id": f"r{n}", "expires": LONG_AGO, "answers": [1]} for n in range(2500)]
        await driver.execute(Insert(RECEIPTS, tuple(documents)))
        trial, left = await trial_of(world), []
        storage._gateway._sweep_at = 0.0
        for number in range(4):
            assert await storage.update_trial(trial, note=number) == 1
            left.append(await kept(driver))
        assert left == [1501, 502, 3, 4]


# -------------------------------------------------------------------- what a receipt contains


def test_a_receipt_of_many_documents_has_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = Receipt(RECEIPTS, "k", StoreTime(60.0))
    documents = [{"_id": uid, "text": "x" * 100} for uid in ("a", 1)]
    (record,) = receipts.insertion_of(receipt, [documents, 2, [], None]).documents
    assert record["answers"] == [documents, 2, [], None]
    assert record["answers"][0][0] is not documents[0]
    monkeypatch.setattr(receipts, "MAX_NOTED_TEXT", 200)
    (record,) = receipts.insertion_of(receipt, [documents, 2, [], None]).documents
    assert record["answers"] == [{"ids": ["a", 1]}, 2, [], None]


def test_a_receipt_of_nothing() -> None:
    receipt = Receipt(RECEIPTS, "k", StoreTime(60.0))
    assert receipts.insertion_of(receipt, [0, []]).documents == ()
    assert len(receipts.insertion_of(receipt, [0, None]).documents) == 1
