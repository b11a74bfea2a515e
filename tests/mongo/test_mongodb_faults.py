"""Commands that fail, whose answers are lost or late, whose callers give up: exactly once.

The servers fail on demand, by fail points; what is in the database afterwards is read past the
library.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pymongo.common
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from aiostorage import (
    BackendError,
    DuplicateKeyError,
    RetryPolicy,
    Storage,
    SyncStorage,
    TemporaryBackendError,
    Trial,
    open_storage,
)
from aiostorage.drivers.mongodb import blobs
from aiostorage.testing import FailPoint, Mongod, ReplicaSet
from aiostorage.testing.contract.helpers import case
from aiostorage.testing.mongodb.fail_point import fail_point_on
from tests.mongo.conftest import UNCLOSED
from tests.processes.support import starter

pytestmark = pytest.mark.usefixtures("sockets_collected")

LIMIT = 0.4
"""Seconds that one command may take."""

POLL = "serverMonitoringMode=poll&heartbeatFrequencyMS=500"
"""A fail point changes nothing that a monitor could be told of: it has to ask."""

FAULTS: dict[str, dict[str, Any]] = {
    "connection closed": {"closeConnection": True},
    "shutting down after it": {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},
    "not replicated in time": {"writeConcernError": {"code": 64, "errmsg": "timed out"}},
    "not primary, labelled": {"errorCode": 10107, "errorLabels": ["RetryableWriteError"]},
    "stepping down, unlabelled": {"errorCode": 11602, "errorLabels": list[str]()},
    "too slow": {"blockConnection": True, "blockTimeMS": 700},
}

DATABASE = "faults"
"""Several tests share it: its indexes take longer to make than most of them."""

numbers = count()


@dataclass
class MongoDBFaultCase:
    """An experiment with three trials in a database that several tests share."""

    url: str
    library: str
    database: Database[dict[str, Any]]
    name: str
    experiment: Any = None
    point: FailPoint | None = None

    @property
    def replicated(self) -> bool:
        return "replicaSet" in self.url

    def run(self, call: Callable[[Storage], Awaitable[Any]], **options: Any) -> Any:
        """Await what is called on a storage of its own."""

        async def main() -> Any:
            async with open_storage(self.url, client=self.library, **options) as storage:
                return await call(storage)

        return anyio.run(main)

    async def prepare(self, storage: Storage) -> None:
        self.name = f"e{next(numbers)}"
        config = {"name": self.name}
        self.experiment = await storage.create_experiment(config, algo_state="old")
        await storage.register_trials(
            [Trial(experiment=self.experiment.id, params={"x": x}) for x in range(3)]
        )

    def trials(self, **where: Any) -> list[dict[str, Any]]:
        return list(
            self.database.trials.find({"experiment": ObjectId(self.experiment.id), **where})
        )

    def reserved(self) -> list[str]:
        return [trial["worker"] for trial in self.trials(status="reserved")]

    def lock(self) -> dict[str, Any]:
        (found,) = self.database.algo.find({"experiment": ObjectId(self.experiment.id)})
        return found

    def alone(self) -> set[Any]:
        """Return the lock records that belong to no experiment."""
        experiments = self.database.experiments.distinct("_id")
        return {*self.database.algo.distinct("experiment")} - {*experiments}

    def check_nothing_half_made(self) -> None:
        assert self.alone() == set()
        assert self.database.lock_waiters.count_documents({}) == 0

    def fail_point(self, *commands: str, **data: Any) -> AbstractContextManager[FailPoint]:
        """Make commands fail while a block runs; see `Mongod.fail_point`."""
        times = data.pop("times", None)
        mode: object = "alwaysOn" if times is None else {"times": times}
        client = self.database.client  # no server is killed here, so that it can stay open
        return fail_point_on(
            lambda: nullcontext(client),
            "failCommand",
            mode,
            {"failCommands": list(commands), **data},
            lambda: True,
        )


async def check_usable(world: MongoDBFaultCase, storage: Storage) -> None:
    """Show that the next worker finds everything in order."""
    async with storage.acquire_algorithm_lock(world.experiment, timeout=5):
        pass
    left = await storage.reserve_trials(world.experiment, 9)
    assert left
    for trial in left:
        await storage.complete_trial(trial, 1)
    assert await asyncio.to_thread(world.reserved) == []


Servers = dict[str, tuple[str, "MongoClient[dict[str, Any]]"]]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Give a URL, and a client of the server to which it leads."""
    directory = tmp_path_factory.mktemp("faults")
    with (
        Mongod(directory / "standalone", test_commands=True) as standalone,
        ReplicaSet(directory / "replica-set", size=1, test_commands=True) as replica_set,
        standalone.client() as first,
        replica_set.members[0].client() as second,
    ):
        yield {
            "standalone": (f"{standalone.url_for(DATABASE)}?{POLL}", first),
            "replica set": (f"{replica_set.url_for(DATABASE)}&{POLL}", second),
        }


MOTOR_ON_REPLICA_SET = pytest.param(("motor", "replica set"), id="motor-replica set")
PAIRS = [
    pytest.param(("motor", "standalone"), id="motor-standalone"),
    pytest.param(("pymongo", "replica set"), id="pymongo-replica set", marks=UNCLOSED),
    MOTOR_ON_REPLICA_SET,  # its transactions run in threads
]


@pytest.fixture(params=PAIRS)
def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> Iterator[MongoDBFaultCase]:
    # half a second, before it looks again at a server that has failed
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.05)
    library, deployment = request.param
    url, client = servers[deployment]
    world = MongoDBFaultCase(url, library, client[DATABASE], f"e{next(numbers)}")
    yield world
    world.database.algo.delete_many({"experiment": {"$in": [*world.alone()]}})


# ------------------------------------------------------------------------ what is called


Arm = Callable[[], Awaitable[None]]


async def reserve(world: MongoDBFaultCase, storage: Storage, arm: Arm) -> None:
    await arm()
    trial = await storage.reserve_trial(world.experiment)
    assert trial is not None
    assert await asyncio.to_thread(world.reserved) == [trial.worker]
    await storage.set_trial_status(trial, "interrupted")


async def register(world: MongoDBFaultCase, storage: Storage, arm: Arm) -> None:
    new = [Trial(experiment=world.experiment.id, params={"x": x}) for x in range(10, 15)]
    await arm()
    assert await storage.register_trials(new) == new


async def complete(world: MongoDBFaultCase, storage: Storage, arm: Arm) -> None:
    trial = await storage.reserve_trial(world.experiment)
    assert trial is not None
    await arm()
    await storage.complete_trial(trial, 1.5)
    assert trial.status == "completed"


async def create(world: MongoDBFaultCase, storage: Storage, arm: Arm) -> None:
    await arm()
    await storage.create_experiment({"name": f"{world.name} new"}, algo_state="s")


async def acquire(world: MongoDBFaultCase, storage: Storage, arm: Arm) -> None:
    await arm()
    async with storage.acquire_algorithm_lock(world.experiment, timeout=5) as algorithm:
        assert algorithm.state == "old"
        algorithm.set_state("new")


async def release(world: MongoDBFaultCase, storage: Storage, arm: Arm) -> None:
    async with storage.acquire_algorithm_lock(world.experiment, timeout=5) as algorithm:
        algorithm.set_state("new")
        await arm()


async def check_reserved(world: MongoDBFaultCase, storage: Storage, done: bool) -> None:
    assert await asyncio.to_thread(world.reserved) == []
    found = await asyncio.to_thread(world.trials)
    assert {t["status"] for t in found} <= {"new", "interrupted"}


async def check_registered(world: MongoDBFaultCase, storage: Storage, done: bool) -> None:
    found = await asyncio.to_thread(world.trials)
    assert len(found) in ((8,) if done else (3, 8))
    assert {t["status"] for t in found} == {"new"}


async def check_completed(world: MongoDBFaultCase, storage: Storage, done: bool) -> None:
    completed = await asyncio.to_thread(partial(world.trials, status="completed"))
    for trial in completed:
        assert [r["value"] for r in trial["results"]] == [1.5]
    # who was not answered still has it
    held = await asyncio.to_thread(world.reserved)
    assert len(completed) == 1 if done else len(completed) + len(held) == 1
    await storage.update_trials(
        world.experiment, where={"status": "reserved"}, status="interrupted"
    )


async def check_created(world: MongoDBFaultCase, storage: Storage, done: bool) -> None:
    where = {"name": f"{world.name} new"}
    found = await asyncio.to_thread(world.database.experiments.count_documents, where)
    assert found in ((1,) if done else (0, 1))


async def check_locked(world: MongoDBFaultCase, storage: Storage, done: bool) -> None:
    assert (await asyncio.to_thread(world.lock))["locked"] == 0
    info = await storage.get_algorithm_lock_info(world.experiment)
    assert info is not None
    assert info.state in (("new",) if done else ("old", "new"))


Call = Callable[[MongoDBFaultCase, Storage, Arm], Awaitable[None]]
Check = Callable[[MongoDBFaultCase, Storage, bool], Awaitable[None]]

CHANGE = "findAndModify update"
"""One of them changes a trial: the second in a transaction of several, else the first."""

CALLS: dict[str, tuple[str, str, Call, Check]] = {
    "reserve_trial": (CHANGE, "trials", reserve, check_reserved),
    "register_trials": ("insert", "trials", register, check_registered),
    "complete_trial": (CHANGE, "trials", complete, check_completed),
    "create_experiment": ("insert", "experiments", create, check_created),
    "create_experiment's lock": ("insert", "algo", create, check_created),
    "acquiring the lock": ("findAndModify", "algo", acquire, check_locked),
    "releasing the lock": ("findAndModify", "algo", release, check_locked),
}


@contextmanager
def failing(
    world: MongoDBFaultCase, command: str, collection: str, **data: Any
) -> Iterator[tuple[Arm, ExitStack]]:
    """Give a function that lets a command fail from then on, and the stack that ends that."""
    with ExitStack() as faults:

        async def arm() -> None:
            point = world.fail_point(*command.split(), namespace=f"{DATABASE}.{collection}", **data)
            world.point = await asyncio.to_thread(faults.enter_context, point)

        yield arm, faults


@pytest.mark.parametrize("name", CALLS)
def test_fails_once(world: MongoDBFaultCase, name: str) -> None:
    command, collection, call, check = CALLS[name]

    async def main(storage: Storage) -> None:
        for fault, failure in FAULTS.items():
            with case(fault):
                await world.prepare(storage)
                with failing(world, command, collection, times=1, **failure) as (arm, faults):
                    await call(world, storage, arm)
                    await asyncio.to_thread(faults.close)
                assert world.point is not None
                assert world.point.hits == 1
                await check(world, storage, True)
                await asyncio.to_thread(world.check_nothing_half_made)

    world.run(main, timeout=LIMIT)


@pytest.mark.parametrize("name", CALLS)
def test_fails_for_good(world: MongoDBFaultCase, name: str) -> None:
    """One attempt, without an answer: whatever it did is given back at once, or harmless."""
    command, collection, call, check = CALLS[name]

    async def fail_once(storage: Storage, patient: Storage, fault: str) -> None:
        await world.prepare(patient)
        done = True
        with failing(world, command, collection, times=1, **FAULTS[fault]) as (arm, faults):
            try:
                await call(world, storage, arm)
            except TemporaryBackendError:
                done = False
            await asyncio.to_thread(faults.close)
        assert world.point is not None
        assert world.point.hits == 1
        if call is not release:  # what could not be released is free when its lease is over
            await check(world, patient, done)
        await asyncio.to_thread(world.check_nothing_half_made)
        await check_usable(world, patient)

    async def main(patient: Storage) -> None:
        policy = RetryPolicy(attempts=1)
        async with open_storage(
            world.url, client=world.library, timeout=LIMIT, retry=policy, lock_lease=1.0
        ) as storage:
            for fault in ("connection closed", "not replicated in time", "too slow"):
                with case(fault):
                    await fail_once(storage, patient, fault)

    world.run(main)


# ---------------------------------------------------------------- writes with a receipt


async def first_of(storage: Storage, experiment: Any) -> Trial:
    return (await storage.fetch_trials(experiment) or [])[0]


async def update_one(storage: Storage, experiment: Any) -> object:
    trial = await first_of(storage, experiment)
    return await storage.update_trial(trial, where={"status": "new"}, status="suspended")


async def update_all(storage: Storage, experiment: Any) -> object:
    return await storage.update_trials(experiment, where={"status": "new"}, status="suspended")


async def update_the_experiment(storage: Storage, experiment: Any) -> object:
    return await storage.update_experiment(experiment, where={"note": None}, note=1)


async def set_status(storage: Storage, experiment: Any) -> object:
    trial = await first_of(storage, experiment)
    await storage.set_trial_status(trial, "broken")
    return trial.status


async def recover(storage: Storage, experiment: Any) -> object:
    trials = await storage.reserve_trials(experiment, 2)
    await storage.update_trials(experiment, heartbeat=datetime(2020, 1, 1, tzinfo=UTC))
    found = await storage.recover_lost_trials(experiment)
    return [t.id for t in found] == [t.id for t in trials]


async def delete_some(storage: Storage, experiment: Any) -> object:
    trial = await first_of(storage, experiment)
    return await storage.delete_trials(experiment, where={"_id": trial._id})


async def delete_all(storage: Storage, experiment: Any) -> object:
    return await storage.delete_experiment(experiment)


async def create_of_ones_own(storage: Storage, experiment: Any) -> object:
    config = {"_id": f"own {experiment.name}", "name": f"own {experiment.name}"}
    return (await storage.create_experiment(config)).id == config["_id"]


async def create_a_taken_one(storage: Storage, experiment: Any) -> object:
    config = {"_id": experiment.id, "name": f"taken {experiment.name}"}
    try:
        return await storage.create_experiment(config)
    except DuplicateKeyError as error:
        return error.fields


WRITES: dict[str, tuple[str, Callable[[Storage, Any], Awaitable[object]], object]] = {
    "update_trial": ("update", update_one, 1),
    "update_trials": ("update", update_all, 3),
    "update_experiment": ("update", update_the_experiment, True),
    "set_trial_status": ("update", set_status, "broken"),
    "recover_lost_trials": ("", recover, True),
    "delete_trials": ("delete", delete_some, 1),
    "delete_experiment": ("delete", delete_all, 1),
    "create_experiment": ("insert", create_of_ones_own, True),
    "create_experiment, taken": ("insert", create_a_taken_one, ("_id",)),
}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "too slow"])
@pytest.mark.parametrize("world", PAIRS, indirect=True)
def test_writes_with_a_receipt_fail_once(world: MongoDBFaultCase, fault: str) -> None:
    """Their answers get lost, at the write itself or at the commit of its transaction."""

    async def main(storage: Storage) -> None:
        for name, (command, call, expected) in WRITES.items():
            failing_command = "commitTransaction" if world.replicated else command
            with case(f"{name}, {fault}"):
                await world.prepare(storage)
                point = world.fail_point(failing_command, times=1, **FAULTS[fault])
                with ExitStack() as faults:
                    if failing_command:
                        await asyncio.to_thread(faults.enter_context, point)
                    assert await call(storage, world.experiment) == expected
                    await asyncio.to_thread(faults.close)

    world.run(main, timeout=LIMIT)
    world.check_nothing_half_made()


def test_receipts_that_may_not_be_deleted(world: MongoDBFaultCase) -> None:
    """A write that takes along what has expired happens as a whole, or not at all."""

    async def main(storage: Storage) -> None:
        await world.prepare(storage)
        expired = {"_id": f"old {world.name}", "expires": datetime(2020, 1, 1, tzinfo=UTC)}
        await asyncio.to_thread(world.database.receipts.insert_one, {**expired, "answers": []})
        refused: dict[str, Any] = {"errorCode": 13, "namespace": f"{DATABASE}.receipts", "times": 1}
        with ExitStack() as faults:
            point = world.fail_point("delete", **refused)
            await asyncio.to_thread(faults.enter_context, point)
            with pytest.raises(BackendError):
                await storage.update_trials(world.experiment, status="suspended")
            await asyncio.to_thread(faults.close)
        assert await storage.update_trials(world.experiment, where={"status": "new"}, note=1) == 3

    world.run(main)


@pytest.mark.parametrize("world", [PAIRS[1], MOTOR_ON_REPLICA_SET], indirect=True)
def test_a_commit_that_is_never_acknowledged(world: MongoDBFaultCase) -> None:
    """The library asks until the time is over; then the receipt tells that it has happened."""
    fault = FAULTS["not replicated in time"]

    async def main(storage: Storage) -> None:
        for name in ("update_trial", "delete_trials", "create_experiment"):
            _, call, expected = WRITES[name]
            with case(name), ExitStack() as faults:
                await world.prepare(storage)
                point = world.fail_point("commitTransaction", **fault)
                world.point = await asyncio.to_thread(faults.enter_context, point)
                assert await call(storage, world.experiment) == expected
                await asyncio.to_thread(faults.close)
                assert world.point.hits >= 1

    world.run(main, timeout=LIMIT)


# --------------------------------------------------------------------- callers that give up


async def task_cancelled(call: Callable[[], Awaitable[Any]], seconds: float) -> None:
    task = asyncio.ensure_future(call())
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def timed_out(call: Callable[[], Awaitable[Any]], seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await call()


async def failed_after(call: Callable[[], Awaitable[Any]], seconds: float) -> None:
    with suppress(TimeoutError), anyio.fail_after(seconds):
        await call()


def test_a_reservation_that_nobody_waits_for(world: MongoDBFaultCase) -> None:
    # the server reserves, but later
    slow: dict[str, Any] = {"times": 1, "blockConnection": True, "blockTimeMS": 400}

    async def main(storage: Storage) -> None:
        for give_up, many in ((task_cancelled, 1), (timed_out, 3), (failed_after, 1)):
            with case(give_up.__name__), failing(world, CHANGE, "trials", **slow) as (arm, faults):
                await world.prepare(storage)
                await arm()
                start = asyncio.get_running_loop().time()
                await give_up(partial(storage.reserve_trials, world.experiment, many), 0.1)
                assert asyncio.get_running_loop().time() - start < 5
                assert await asyncio.to_thread(world.reserved) == []
                await asyncio.to_thread(faults.close)
                assert world.point is not None
                assert world.point.hits == 1
                again = await storage.reserve_trials(world.experiment, 3)
                assert len(again) == 3

    world.run(main)


def test_some_of_many_give_up(world: MongoDBFaultCase) -> None:
    """Reservations that share commands: each belongs to its caller, or is given back."""

    async def main(storage: Storage) -> None:
        await world.prepare(storage)
        more = [Trial(experiment=world.experiment.id, params={"x": x}) for x in range(10, 30)]
        await storage.register_trials(more)
        slow = failing(world, CHANGE, "trials", times=1, blockConnection=True, blockTimeMS=300)
        with slow as (arm, faults):
            await arm()
            tasks = [
                asyncio.ensure_future(storage.reserve_trial(world.experiment)) for _ in range(12)
            ]
            await asyncio.sleep(0.1)
            for task in tasks[::3]:
                task.cancel()
            await asyncio.sleep(0.21)  # those that waited are under way
            for task in tasks[1::3]:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.to_thread(faults.close)
        got = [task.result() for task in tasks if not task.cancelled()]
        reserved = await asyncio.to_thread(world.reserved)
        assert sorted(reserved) == sorted(str(trial.worker) for trial in got if trial)
        for trial in got:
            assert trial is not None
            await storage.set_trial_status(trial, "interrupted")

    world.run(main)


def test_a_lock_that_nobody_waits_for(world: MongoDBFaultCase) -> None:
    slow = failing(world, "findAndModify", "algo", times=1, blockConnection=True, blockTimeMS=300)

    async def main(storage: Storage) -> None:
        await world.prepare(storage)

        async def hold() -> None:
            async with storage.acquire_algorithm_lock(world.experiment):
                raise AssertionError("it was given up before")

        with slow as (arm, faults):
            await arm()
            await task_cancelled(hold, 0.1)
            await asyncio.to_thread(faults.close)
        assert (await asyncio.to_thread(world.lock))["locked"] == 0

        await asyncio.to_thread(world.check_nothing_half_made)
        await check_usable(world, storage)

    world.run(main)


# ------------------------------------------------------------ the block of a worker


@pytest.mark.parametrize(
    ("world", "fault"),
    [
        pytest.param(PAIRS[0].values[0], "connection closed", id="connection closed"),
        pytest.param(PAIRS[1].values[0], "stepping down, unlabelled", id="stepping down"),
    ],
    indirect=["world"],
)
def test_a_result_that_the_server_refuses_for_a_while(world: MongoDBFaultCase, fault: str) -> None:
    policy = RetryPolicy(attempts=2, total=3, initial=0.01, jitter=0)
    opened = open_storage(world.url, client=world.library, retry=policy)
    with SyncStorage(opened) as storage:
        experiment = storage.create_experiment({"name": world.name})
        storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
        with pytest.raises(TemporaryBackendError) as raised:
            with storage.reserved_trial(experiment) as trial:
                assert trial is not None
                trials = f"{DATABASE}.trials"
                with world.fail_point(*CHANGE.split(), namespace=trials, **FAULTS[fault]):
                    storage.complete_trial(trial, 1.5)
        assert [result.value for result in raised.value.results] == [1.5]
        assert any("is completed after all" in note for note in raised.value.__notes__)
        assert storage.count_completed_trials(experiment) == 1
        assert storage.delete_experiment(experiment) == 1


# ------------------------------------------------------------------------- large states


def test_a_swap_that_fails_leaves_the_state_whole(world: MongoDBFaultCase) -> None:
    old, new = (random.Random(seed).randbytes((13 + seed) << 20) for seed in (0, 1))
    files = world.database[f"{blobs.BUCKET}.files"]
    with SyncStorage(open_storage(world.url, client=world.library)) as storage:
        experiment = storage.create_experiment({"name": world.name}, algo_state=old)
        # not a failure that may pass: it is not tried again, and the new bytes are taken away
        with (
            world.fail_point("findAndModify", errorCode=20),
            pytest.raises(BackendError),
            storage.acquire_algorithm_lock(experiment),
        ):
            pytest.fail("the lock cannot be taken while the server refuses it")
        refusing = ExitStack()
        with pytest.raises(BackendError), storage.acquire_algorithm_lock(experiment) as algorithm:
            algorithm.set_state(new)
            point = world.fail_point("findAndModify", "update", errorCode=20)
            refusing.enter_context(point)
        refusing.close()
        info = storage.get_algorithm_lock_info(experiment)
        assert info is not None
        assert info.state == old
        assert files.count_documents({}) == 1
        assert storage.delete_experiment(experiment) == 1
        assert files.count_documents({}) == 0


# --------------------------------------------------- a server that has no transactions


CREATOR = """
import asyncio, sys
from aiostorage import open_storage

async def main():
    url, library, uid = sys.argv[1:]
    async with open_storage(url, client=library) as storage:
        await storage.create_experiment({"name": uid, "_id": uid}, algo_state="first")

asyncio.run(main())
"""


def test_killed_between_the_two_writes(world: MongoDBFaultCase, tmp_path: Path) -> None:
    world.run(lambda storage: storage.fetch_experiments({}))
    uid = f"killed {world.name}"
    there = {"experiment": uid}
    slow: dict[str, Any] = {
        "blockConnection": True,
        "blockTimeMS": 1500,
        "errorCode": 11602,
        "errorLabels": [],
    }
    with world.fail_point("insert", namespace=f"{DATABASE}.experiments", times=1, **slow):
        with starter(tmp_path) as start:
            creator = start("-c", CREATOR, world.url, world.library, uid)
            end = time.monotonic() + 30
            while not world.replicated and not world.database.algo.find_one(there):
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.3 if world.replicated else 0.0)
            creator.kill()
        time.sleep(1.5)  # the server notices that the client of the second write has gone
    assert world.database.experiments.find_one({"_id": uid}) is None
    assert (world.database.algo.find_one(there) is None) is world.replicated

    async def again(storage: Storage) -> None:
        config = {"name": uid, "_id": uid}
        experiment = await storage.create_experiment(config, algo_state="second")
        async with storage.acquire_algorithm_lock(experiment, timeout=0) as algorithm:
            assert algorithm.state == "second"
        with pytest.raises(DuplicateKeyError):
            await storage.create_experiment(config, algo_state="third")
        async with storage.acquire_algorithm_lock(experiment, timeout=0) as algorithm:
            assert algorithm.state == "second"

    world.run(again)
    world.check_nothing_half_made()


AGAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "conflict": ("update", {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}),
    "commit without an answer": (
        "commitTransaction",
        FAULTS["not replicated in time"],
    ),
    "refused commit": (
        "commitTransaction",
        {"errorCode": 251, "errorLabels": ["TransientTransactionError"]},
    ),
}


@pytest.mark.parametrize("world", [PAIRS[1], MOTOR_ON_REPLICA_SET], indirect=True)
@pytest.mark.parametrize("fault", AGAIN)
def test_a_change_that_is_tried_again_is_logged_once(world: MongoDBFaultCase, fault: str) -> None:
    command, failure = AGAIN[fault]

    async def reserve(storage: Storage) -> list[str]:
        trial = await storage.reserve_trial(world.experiment)
        assert trial is not None
        return [change.kind for change in await storage.trial_history(trial)]

    world.run(world.prepare)
    with world.fail_point(command, times=3, **failure) as point:
        kinds = world.run(reserve)
    assert point.hits == 3
    assert kinds == ["inserted", "reserved"]
