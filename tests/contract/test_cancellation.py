"""Law 12: every method, cancelled at each of its awaits, on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from aiostorage import Experiment, LockAcquisitionTimeout, Result, Storage, Trial
from aiostorage._core.layout import ALGO, TRIALS, WAITERS
from aiostorage.operations import Compare, Count, Document, Find
from aiostorage.protocols import Driver
from aiostorage.testing import cancelled_at_every_await
from aiostorage.testing.cancellation import HOWS, How
from aiostorage.testing.contract.helpers import case
from tests.contract.conftest import UNCLOSED

pytestmark = [pytest.mark.anyio, UNCLOSED]

Make = Callable[[], Driver]


@dataclass
class CancellationCase:
    """A storage with one experiment in it, which each run finds in the same state."""

    storage: Storage
    driver: Driver
    experiment: Experiment = field(default=None)  # type: ignore[assignment]
    trial: Trial = field(default=None)  # type: ignore[assignment]
    result: Any = None
    numbers: count[int] = field(default_factory=count)

    async def reset(self, reserve: bool = False) -> None:
        """Make a new experiment with three trials and a state, and maybe reserve the first."""
        config = {"name": f"e{next(self.numbers)}", "a": 0, "b": 0}
        self.experiment = await self.storage.create_experiment(config, algo_state="old")
        trials = [Trial(experiment=self.experiment.id, params={"x": x}) for x in range(3)]
        self.trial = (await self.storage.register_trials(trials))[0]
        if reserve:
            reserved = await self.storage.reserve_trial(self.experiment)
            assert reserved is not None
            self.trial = reserved
        self.result = None

    async def documents(self) -> list[Document]:
        """Read the trials past the storage."""
        where = Compare("experiment", "eq", self.experiment.id)
        return await self.driver.execute(Find(TRIALS, where, order=("submit_time",)))

    async def stored(self) -> Document:
        """Read the trial past the storage."""
        return next(d for d in await self.documents() if d["id"] == self.trial.id)

    async def usable(self) -> None:
        """Show that the storage reads, writes and locks, at once."""
        with anyio.fail_after(10):
            assert await self.storage.update_experiment(self.experiment, used=1)
            async with self.storage.acquire_algorithm_lock(self.experiment, timeout=0):
                pass
            assert await self.driver.execute(Count(WAITERS)) == 0


@pytest.fixture
async def world(make_driver: Make) -> AsyncIterator[CancellationCase]:
    driver = make_driver()
    async with Storage(driver) as storage:
        world = CancellationCase(storage, driver)
        await world.reset()
        yield world


async def injected(
    world: CancellationCase,
    call: Callable[[CancellationCase], Awaitable[Any]],
    verify: Callable[[CancellationCase], Awaitable[None]],
    *,
    reserve: bool = False,
    locks: bool = False,
    fresh: bool = True,
    hows: tuple[How, ...] = HOWS,
) -> None:
    """Inject cancellations into a call; each run starts from a fresh experiment, if need be.

    The storage has to be usable in the end, and after each run of a call that takes the lock. What
    another call blocks would be in the way of the next runs.
    """

    async def run() -> None:
        world.result = await call(world)

    async def check() -> None:
        await verify(world)
        if locks:
            await world.usable()
        if fresh:
            await world.reset(reserve)

    await world.reset(reserve)
    assert await cancelled_at_every_await(run, check, hows=hows) >= 3
    await world.usable()


READS: dict[str, Callable[[CancellationCase], Awaitable[Any]]] = {
    "fetch_experiments": lambda w: w.storage.fetch_experiments({"a": 0}),
    "fetch_trials": lambda w: w.storage.fetch_trials(w.experiment, where={"params.value": 1}),
    "fetch_trials of nothing": lambda w: w.storage.fetch_trials(uid="nobody"),
    "get_trial": lambda w: w.storage.get_trial(w.trial),
    "fetch_lost_trials": lambda w: w.storage.fetch_lost_trials(w.experiment),
    "fetch_pending_trials": lambda w: w.storage.fetch_pending_trials(w.experiment),
    "fetch_noncompleted_trials": lambda w: w.storage.fetch_noncompleted_trials(w.experiment),
    "fetch_trials_by_status": lambda w: w.storage.fetch_trials_by_status(w.experiment, "new"),
    "count_completed_trials": lambda w: w.storage.count_completed_trials(w.experiment),
    "count_broken_trials": lambda w: w.storage.count_broken_trials(w.experiment),
    "retrieve_result": lambda w: w.storage.retrieve_result(w.trial),
    "get_algorithm_lock_info": lambda w: w.storage.get_algorithm_lock_info(w.experiment),
    "fetch_benchmark": lambda w: w.storage.fetch_benchmark({}),
    "iter_trials": lambda w: all_of(w.storage.iter_trials(w.experiment, batch_size=1)),
}


async def all_of(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_reads(world: CancellationCase) -> None:
    async def verify(world: CancellationCase) -> None:
        documents = await world.documents()
        assert [d["status"] for d in documents] == ["new"] * 3

    for name, call in READS.items():
        with case(name):
            await injected(world, call, verify, fresh=False)


async def test_create_experiment(world: CancellationCase) -> None:
    config: dict[str, Any] = {}

    async def call(world: CancellationCase) -> None:
        config.clear()
        config.update(name=f"created {next(world.numbers)}", algorithm={"random": {}})
        await world.storage.create_experiment(config, algo_state="s")

    async def verify(world: CancellationCase) -> None:
        found = await world.storage.fetch_experiments({"name": config["name"]})
        for document in found:
            info = await world.storage.get_algorithm_lock_info(document)
            assert info is not None
            assert info.state == "s"
        assert "_id" not in config or found == [{**config, "version": 1}]
        where = Compare("configuration", "eq", {"random": {}})
        locks = await world.driver.execute(Find(ALGO, where))
        known = {c["_id"] for c in await world.storage.fetch_experiments({})}
        assert {lock["experiment"] for lock in locks} <= known

    await injected(world, call, verify)


@pytest.mark.parametrize("cascade", [True, False])
async def test_delete_experiment(world: CancellationCase, cascade: bool) -> None:
    async def verify(world: CancellationCase) -> None:
        found = await world.storage.fetch_experiments({"_id": world.experiment.id})
        trials = await world.documents()
        info = await world.storage.get_algorithm_lock_info(world.experiment)
        there = bool(found) or not cascade
        assert (len(trials), info is not None) == ((3, True) if there else (0, False))

    await injected(
        world, lambda w: w.storage.delete_experiment(w.experiment, cascade=cascade), verify
    )


async def test_update_experiment(world: CancellationCase) -> None:
    async def verify(world: CancellationCase) -> None:
        (found,) = await world.storage.fetch_experiments({"_id": world.experiment.id})
        assert found["a"] == found["b"]

    await injected(world, lambda w: w.storage.update_experiment(w.experiment, a=1, b=1), verify)


@pytest.mark.parametrize("many", [1, 20])
async def test_register(world: CancellationCase, many: int) -> None:
    async def call(world: CancellationCase) -> None:
        new = [Trial(experiment=world.experiment.id, params={"y": y}) for y in range(many)]
        if many == 1:
            await world.storage.register_trial(new[0])
        else:
            await world.storage.register_trials(new)

    async def verify(world: CancellationCase) -> None:
        assert len(await world.documents()) in (3, 3 + many)

    await injected(world, call, verify)


@pytest.mark.parametrize("count", [1, 2])
async def test_reserve(world: CancellationCase, count: int) -> None:
    async def call(world: CancellationCase) -> list[Trial]:
        if count == 1:
            trial = await world.storage.reserve_trial(world.experiment)
            return [trial] if trial else []
        return await world.storage.reserve_trials(world.experiment, count)

    async def verify(world: CancellationCase) -> None:
        reserved = [d["worker"] for d in await world.documents() if d["status"] == "reserved"]
        assert reserved == [trial.worker for trial in world.result or ()]

    await injected(world, call, verify)


WRITES: dict[str, Callable[[CancellationCase], Awaitable[Any]]] = {
    "update_trial": lambda w: w.storage.update_trial(w.trial, status="broken", y=1),
    "update_trials": lambda w: w.storage.update_trials(w.experiment, status="broken", y=1),
    "delete_trials": lambda w: w.storage.delete_trials(w.experiment),
    "update_heartbeat": lambda w: w.storage.update_heartbeat(w.trial),
    "create_benchmark": lambda w: w.storage.create_benchmark({"name": f"b{next(w.numbers)}"}),
    "delete_benchmark": lambda w: w.storage.delete_benchmark({}),
}


async def test_writes(world: CancellationCase) -> None:
    async def verify(world: CancellationCase) -> None:
        documents = await world.documents()
        if name == "delete_trials":
            assert len(documents) in (0, 3)
        elif name == "update_trials":
            assert len({(d["status"] == "broken", d.get("y")) for d in documents[1:]}) == 1
        for document in documents:
            assert (document["status"] == "broken") is (document.get("y") == 1)

    for name, call in WRITES.items():
        with case(name):
            await injected(world, call, verify, reserve=True)


async def test_push_trial_results(world: CancellationCase) -> None:
    async def call(world: CancellationCase) -> None:
        world.trial.results = [Result("o", "objective", 1)]
        world.trial.end_time = datetime(2026, 1, 1, tzinfo=UTC)
        await world.storage.push_trial_results(world.trial)

    async def verify(world: CancellationCase) -> None:
        found = await world.stored()
        assert (found["results"] == []) is (found["end_time"] is None)

    await injected(world, call, verify, reserve=True)


async def test_complete_trial(world: CancellationCase) -> None:
    async def verify(world: CancellationCase) -> None:
        found = await world.stored()
        done = found["status"] == "completed"
        assert done or found["status"] == "reserved"
        assert bool(found["results"]) is done
        assert (found["end_time"] is not None) is done
        if world.trial.status == "completed":
            assert done
        elif not done:  # the worker can still do it
            await world.storage.complete_trial(world.trial, 1)

    await injected(world, lambda w: w.storage.complete_trial(w.trial, 1), verify, reserve=True)


@pytest.mark.parametrize("status", ["reserved", "broken"])
async def test_set_trial_status(world: CancellationCase, status: str) -> None:
    async def verify(world: CancellationCase) -> None:
        found = await world.stored()
        assert found["status"] in ("new", status)
        if found["status"] == "reserved":
            assert found["worker"] == world.trial.worker, "the reservation has no owner"

    await injected(world, lambda w: w.storage.set_trial_status(w.trial, status), verify)


async def test_recover_lost_trials(world: CancellationCase) -> None:
    async def call(world: CancellationCase) -> list[Trial]:
        return await world.storage.recover_lost_trials(world.experiment)

    async def verify(world: CancellationCase) -> None:
        found = await world.stored()
        pair = (found["status"], found["worker"])
        assert pair in (("reserved", world.trial.worker), ("interrupted", None))
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        await world.storage.update_trials(world.experiment, heartbeat=long_ago)

    world.storage = Storage(world.driver, lost_after=1e-9)
    await injected(world, call, verify, reserve=True)


async def test_reserved_trial(world: CancellationCase) -> None:
    async def call(world: CancellationCase) -> None:
        async with world.storage.reserved_trial(world.experiment, heartbeat=0.001) as trial:
            assert trial is not None
            await anyio.sleep(0.002)
            await world.storage.complete_trial(trial, 1)

    async def verify(world: CancellationCase) -> None:
        for document in await world.documents():
            assert document["status"] in ("new", "interrupted", "completed")
            assert (document["status"] == "completed") is bool(document["results"])

    await injected(world, call, verify)


# ------------------------------------------------------------------------------- the lock


async def test_acquire_algorithm_lock(world: CancellationCase) -> None:
    async def call(world: CancellationCase) -> bool:
        async with world.storage.acquire_algorithm_lock(world.experiment) as algorithm:
            await anyio.lowlevel.checkpoint()
            algorithm.set_state("new")
        return True

    async def verify(world: CancellationCase) -> None:
        info = await world.storage.get_algorithm_lock_info(world.experiment)
        assert info is not None
        assert not info.locked, "the lock is stuck"
        assert info.state in (("new",) if world.result else ("old", "new"))

    await injected(world, call, verify, locks=True)


@pytest.mark.parametrize("same", [True, False], ids=["same storage", "two storages"])
async def test_wait_for_the_algorithm_lock(
    world: CancellationCase, make_driver: Make, same: bool
) -> None:
    async with Storage(make_driver()) as other:
        waiting = world.storage if same else other

        async def call(world: CancellationCase) -> None:
            with pytest.raises(LockAcquisitionTimeout):
                async with waiting.acquire_algorithm_lock(world.experiment, 0.03, 0.01):
                    pass

        async def check() -> None:
            assert await world.driver.execute(Count(WAITERS)) == 0

        async with world.storage.acquire_algorithm_lock(world.experiment):
            await cancelled_at_every_await(lambda: call(world), check)
        await world.usable()


async def test_renewing_the_lease(make_driver: Make) -> None:
    driver = make_driver()
    # a lease must not be over before the engine has answered, on a busy machine as well
    lease = {"mongodb": 0.6, "sqlite": 0.08}.get(driver.name, 0.02)
    hows = HOWS[:1] if driver.name == "mongodb" else HOWS
    async with Storage(driver, lock_lease=lease) as storage:
        world = CancellationCase(storage, driver)

        async def call(world: CancellationCase) -> None:
            async with storage.acquire_algorithm_lock(world.experiment):
                await anyio.sleep(lease / 2)

        async def verify(world: CancellationCase) -> None:
            info = await storage.get_algorithm_lock_info(world.experiment)
            assert info is not None
            assert not info.locked

        await injected(world, call, verify, locks=True, hows=hows)


LOCKS: dict[str, Callable[[CancellationCase], Awaitable[Any]]] = {
    "initialize_algorithm_lock": lambda w: w.storage.initialize_algorithm_lock("i", {}),
    "write_algorithm_lock": lambda w: w.storage.write_algorithm_lock("i", {}, state="s"),
    "release_algorithm_lock": lambda w: w.storage.release_algorithm_lock(uid="l", new_state="s"),
    "delete_algorithm_lock": lambda w: w.storage.delete_algorithm_lock(uid="l"),
}


async def test_lock_records(world: CancellationCase) -> None:
    async def verify(world: CancellationCase) -> None:
        info = await world.storage.get_algorithm_lock_info(uid="l")
        if info is not None:
            assert (info.state, bool(info.locked)) in (("old", True), ("s", False))
        for uid in ("i", "l"):
            await world.storage.delete_algorithm_lock(uid=uid)
        await world.storage.write_algorithm_lock("l", {}, locked=1, state="old")

    await world.storage.write_algorithm_lock("l", {}, locked=1, state="old")
    for name, call in LOCKS.items():
        with case(name):
            await injected(world, call, verify, fresh=False)


# -------------------------------------------------------------------------------- lifetime


async def test_open(make_driver: Make) -> None:
    opened: list[Storage] = []

    async def call() -> None:
        storage = Storage(make_driver())
        opened.append(storage)
        await storage.open()

    async def check() -> None:
        for storage in opened:
            assert isinstance(await storage.fetch_experiments({}), list)  # opens it now, if need be
            await storage.aclose()
        opened.clear()

    assert await cancelled_at_every_await(call, check) >= 3


async def test_the_first_call_opens(make_driver: Make) -> None:
    opened: list[Storage] = []

    async def call() -> None:
        storage = Storage(make_driver())
        opened.append(storage)
        await storage.count_broken_trials({"_id": "e"})

    async def check() -> None:
        await opened.pop().aclose()  # leaves no thread behind, the fixture says

    assert await cancelled_at_every_await(call, check) >= 3


async def test_aclose(make_driver: Make) -> None:
    storages: list[Storage] = []

    async def prepare() -> None:
        storages.append(Storage(make_driver()))
        await storages[0].fetch_experiments({})

    async def check() -> None:
        await storages.pop().aclose()
        await prepare()

    await prepare()
    await cancelled_at_every_await(lambda: storages[0].aclose(), check)  # noqa: PLW0108  another each time
    await storages[0].aclose()
