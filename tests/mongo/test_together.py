"""Operations that share a command on a MongoDB server: each gets a result of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from aiostorage import Storage, Trial, TrialLost, open_storage
from aiostorage._core.documents import equal
from aiostorage.drivers.mongodb import MongoDBDriver, batches, noted_changes
from aiostorage.errors import AioStorageError, EncodingError, UnsupportedQuery
from aiostorage.operations import Compare, Delete, Find, Insert, Update
from aiostorage.testing import Deployment
from tests.mongo.conftest import LIBRARIES

pytestmark = pytest.mark.anyio

COUNT = 40


@pytest.fixture(params=["standalone", "replica set"])
def url(request: pytest.FixtureRequest) -> str:
    fixture = f"mongodb_{request.param.replace(' ', '_')}"
    deployment: Deployment = request.getfixturevalue(fixture)
    return deployment.url_for(request.getfixturevalue("mongodb_emptied_database"))


@pytest.fixture(params=LIBRARIES)
async def storage(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Storage]:
    # logged changes have batches of their own
    history = "30d" if request.param == "motor" else "off"
    async with open_storage(url, client=request.param, history=history) as storage:
        yield storage


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many updates went together."""
    sizes: list[int] = []
    real = batches.update_each

    async def noted(run: Any, table: Any, updates: Any) -> Any:
        sizes.append(len(updates))
        return await real(run, table, updates)

    async def logged(own: Any, batch: Any) -> Any:
        if len(batch) > 1:
            sizes.append(len(batch))
        return await chosen(own, batch)

    chosen = noted_changes._chosen
    monkeypatch.setattr(batches, "update_each", noted)
    monkeypatch.setattr(noted_changes, "_chosen", logged)
    return sizes


def driver_of(storage: Storage) -> MongoDBDriver:
    return cast(MongoDBDriver, storage._gateway.driver)


def trials(experiment: Any, count: int = COUNT) -> list[Trial]:
    return [Trial(experiment=experiment.id, params={"x": number}) for number in range(count)]


async def test_all_of_them_match(storage: Storage, together: list[int]) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(trials(experiment))
    held = await asyncio.gather(*(storage.reserve_trial(experiment) for _ in range(COUNT)))
    mine = [trial for trial in held if trial is not None]
    assert len({trial.id for trial in mine}) == COUNT
    assert await storage.reserve_trial(experiment) is None
    await asyncio.gather(*(storage.update_heartbeat(trial) for trial in mine))
    await asyncio.gather(*(storage.complete_trial(trial, float(n)) for n, trial in enumerate(mine)))
    assert sum(together) == 2 * COUNT
    for number, trial in enumerate(mine):
        stored = await storage.get_trial(trial)
        assert stored is not None
        assert stored.status == "completed"
        assert stored.objective is not None
        assert stored.objective.value == number


async def test_each_learns_whether_its_own_has_matched(
    storage: Storage, together: list[int]
) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(trials(experiment))
    mine = await storage.reserve_trials(experiment, COUNT)
    lost, gone, twice = mine[3], mine[7], mine[11]
    driver = driver_of(storage)
    await driver.execute(Update("trials", Compare("id", "eq", lost.id), {"worker": "another"}))
    await driver.execute(Delete("trials", Compare("id", "eq", gone.id)))
    before = {document["id"]: document for document in await driver.execute(Find("trials"))}

    first = await asyncio.gather(
        *(storage.complete_trial(trial, 1.0) for trial in mine), return_exceptions=True
    )
    after = {document["id"]: document for document in await driver.execute(Find("trials"))}
    assert together == [COUNT]
    assert isinstance(first[3], TrialLost)
    assert "no trial" in str(first[7])
    assert [n for n, answer in enumerate(first) if answer is not None] == [3, 7]
    assert after.keys() == before.keys()  # nothing was inserted
    assert after[lost.id] == before[lost.id]
    assert Counter(d["status"] for d in after.values()) == {"completed": COUNT - 2, "reserved": 1}

    # a completed trial cannot be completed again, also not together with others
    await storage.register_trials(
        [Trial(experiment=experiment.id, params={"x": -n}) for n in (1, 2, 3, 4)]
    )
    fresh = await storage.reserve_trials(experiment, 4)
    twice.status = "reserved"
    second = await asyncio.gather(
        *(storage.complete_trial(trial, 2.0) for trial in (*fresh, twice)), return_exceptions=True
    )
    assert second[:4] == [None] * 4
    assert isinstance(second[4], AioStorageError)
    stored = await storage.get_trial(twice)
    assert stored is not None
    assert stored.objective is not None
    assert stored.objective.value == 1.0


async def test_two_updates_of_one_document(storage: Storage, together: list[int]) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(trials(experiment, 1))
    (trial,) = await storage.reserve_trials(experiment, 1)
    copies = [trial.copy() for _ in range(8)]
    answers = await asyncio.gather(
        *(storage.complete_trial(copy, float(n)) for n, copy in enumerate(copies)),
        return_exceptions=True,
    )
    assert together == [8]
    (winner,) = [n for n, answer in enumerate(answers) if answer is None]
    stored = await storage.get_trial(trial)
    assert stored is not None
    assert stored.objective is not None
    assert stored.objective.value == winner


async def test_what_cannot_be_carried_out_fails_alone(
    storage: Storage, together: list[int]
) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(trials(experiment, 8))
    driver = driver_of(storage)
    mine = await storage.reserve_trials(experiment, 8)
    changes: list[dict[str, Any]] = [{"results": [n]} for n in range(8)]
    changes[2] = {"status.part": 1}  # the server refuses it
    changes[5] = {"results": ["x" * 2**24]}  # the library refuses it
    answers = await asyncio.gather(
        *(
            driver.execute(
                Update("trials", equal(experiment=trial.experiment, id=trial.id), change)
            )
            for trial, change in zip(mine, changes, strict=True)
        ),
        return_exceptions=True,
    )
    assert together in ([7], [6])  # what the server refuses is not a logged change
    assert isinstance(answers[2], UnsupportedQuery)
    assert isinstance(answers[5], EncodingError)
    assert [answers[n] for n in (0, 1, 3, 4, 6, 7)] == [1] * 6
    stored = await driver.execute(Find("trials", order=("submit_time",)))
    found = {document["id"]: document["results"] for document in stored}
    assert [found[trial.id] for trial in mine] == [[0], [1], [], [3], [4], [], [6], [7]]


async def test_takes_of_several_storages(storage: Storage, url: str) -> None:
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(trials(experiment, 3 * COUNT))
    found: Counter[str] = Counter()

    async def worker(store: Storage) -> None:
        while (trial := await store.reserve_trial(experiment)) is not None:
            found[trial.id] += 1
            await store.complete_trial(trial, 0.0)

    async with (
        open_storage(url, client="pymongo", timeout=19.0) as other,
        open_storage(url, client="pymongo", timeout=18.0) as third,
    ):
        async with asyncio.TaskGroup() as group:
            for store in (storage, other, third):
                for _ in range(12):
                    group.create_task(worker(store))
    assert len(found) == 3 * COUNT
    assert set(found.values()) == {1}
    assert await storage.count_completed_trials(experiment) == 3 * COUNT


async def test_inserts_are_not_held_up(storage: Storage) -> None:
    driver = driver_of(storage)
    await storage.open()
    documents = [{"_id": f"{n}", "n": n} for n in range(8)]
    await asyncio.gather(*(driver.execute(Insert("test", (document,))) for document in documents))
    assert len(await driver.execute(Find("test"))) == 8


async def test_telemetry_is_told_of_groups(storage: Storage) -> None:
    told: list[tuple[int, int]] = []
    driver_of(storage).on_group = lambda size, waiting: told.append((size, waiting))
    experiment = await storage.create_experiment({"name": "tune"})
    await storage.register_trials(trials(experiment))
    reserved = await asyncio.gather(*(storage.reserve_trial(experiment) for _ in range(COUNT)))
    assert None not in reserved
    assert max(size for size, _ in told) > 1
    assert sum(size for size, _ in told) >= COUNT
