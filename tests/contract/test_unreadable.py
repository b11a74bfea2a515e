"""Records of another program that cannot be read: they do not hide the others."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from aiostorage import EncodingError, FailedUpdate, Storage, SyncStorage, Trial
from aiostorage._core import record_reader
from aiostorage._core.documents import equal
from aiostorage._core.layout import ALGO, TRIALS
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.experiment import Experiment
from aiostorage.operations import Compare, Update
from aiostorage.protocols import Driver
from aiostorage.trial import TrialStatus
from tests.contract.conftest import UNCLOSED

pytestmark = [pytest.mark.anyio, UNCLOSED]

SPOILT: list[tuple[dict[str, Any], str]] = [
    ({"params": "abc"}, "params"),
    ({"params": [5]}, "params[0]"),
    ({"params": [{"type": "real", "value": 1}]}, "params[0].name"),
    ({"params.0.type": "nope"}, "params[0].type"),
    ({"results": 5}, "results"),
    ({"results": [{"name": "o", "type": "bogus", "value": 1}]}, "results[0].type"),
]
"""What another program makes of a trial, and the place that the error names."""

STATUSES: list[tuple[dict[str, Any], str]] = [
    ({"status": "bogus"}, "status"),
    ({"status": 3}, "status"),
]


@pytest.fixture(autouse=True)
def warned_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_reader, "_named", set())


@pytest.fixture
async def storage(make_driver: Callable[[], Driver]) -> AsyncIterator[Storage]:
    async with Storage(make_driver(), lost_after=0.05) as opened:
        yield opened


async def several(
    storage: Storage, name: str = "e", count: int = 3, **more: Any
) -> tuple[Experiment, list[Trial]]:
    experiment = await storage.create_experiment({"name": name})
    trials = [Trial(experiment=experiment.id, params={"x": x}, **more) for x in range(count)]
    return experiment, await storage.register_trials(trials)


async def spoil(storage: Storage, trial: Trial, changes: dict[str, Any]) -> None:
    """Write as another program does, past all our checks."""
    where = equal(experiment=trial.experiment, id=trial.id)
    driver = storage._gateway.driver
    assert await driver.execute(Update(TRIALS, where, changes)) == 1


def xs(trials: list[Trial] | None) -> list[Any]:
    assert trials is not None
    return sorted(trial.params["x"] for trial in trials)


async def test_readers_return_the_others(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    for number, (changes, place) in enumerate(SPOILT + STATUSES):
        experiment, trials = await several(storage, f"e{number}")
        await spoil(storage, trials[1], changes)
        caplog.clear()
        new = [] if "status" in changes else [trials[1].id]
        for _ in range(2):
            assert xs(await storage.fetch_trials(experiment)) == [0, 2]
            assert xs(await storage.fetch_pending_trials(experiment)) == [0, 2]
            assert xs(await storage.fetch_noncompleted_trials(experiment)) == [0, 2]
            assert xs(await storage.fetch_trials_by_status(experiment, "new")) == [0, 2]
            assert xs([t async for t in storage.iter_trials(experiment, batch_size=1)]) == [0, 2]
        (message,) = caplog.messages
        assert trials[1].id in message
        assert place in message
        with pytest.raises(EncodingError, match=f"trial {trials[1].id} .*cannot be read") as raised:
            await storage.get_trial(uid=trials[1].id, experiment_uid=experiment.id)
        assert raised.value.path == place
        assert "delete_trials" in str(raised.value)
        documents = [
            document
            async for document in storage.iter_trials(
                experiment, where={"status": "new"}, selection={"id": 1, "_id": 0}
            )
        ]
        assert documents == [{"id": uid} for uid in (trials[0].id, *new, trials[2].id)]
        assert await storage.delete_trials(experiment, where={"id": trials[1].id}) == 1


async def test_counts_count_it(storage: Storage) -> None:
    experiment, trials = await several(storage, status="completed")
    await spoil(storage, trials[0], SPOILT[0][0])
    assert await storage.count_completed_trials(experiment) == 3
    for trial in trials[1:]:
        await storage.delete_trials(experiment, where={"id": trial.id})
    assert await storage.fetch_trials(experiment) == []


async def test_it_can_be_mended(storage: Storage) -> None:
    experiment, trials = await several(storage)
    items = [{"name": "x", "type": "integer", "value": 1}]
    for changes, mended in (
        ({"status": "bogus"}, {"status": "new"}),
        ({"params.0.type": "nope"}, {"params.0.type": "integer"}),
        ({"params": 5}, {"params": items}),
    ):
        await spoil(storage, trials[1], changes)
        there: dict[str, Any] = {"uid": trials[1].id, "experiment_uid": experiment.id}
        assert await storage.update_trial(**there, **mended) == 1
        assert await storage.get_trial(**there) == trials[1]
    assert xs(await storage.fetch_trials(experiment)) == [0, 1, 2]


async def test_a_reservation_gives_it_back_as_broken(storage: Storage) -> None:
    for number, (changes, _) in enumerate(SPOILT[:4]):
        experiment, trials = await several(storage, f"e{number}", 5)
        await spoil(storage, trials[0], changes)
        await spoil(storage, trials[2], changes)
        reserved = await storage.reserve_trials(experiment, 3)
        assert xs(reserved) == [1, 3, 4]
        assert len({trial.worker for trial in reserved}) == 1
        assert await storage.count_broken_trials(experiment) == 2
        assert await storage.reserve_trial(experiment, recover=False) is None
        await storage.complete_trial(reserved[0], 1.0)
        where = {"status": "broken", "worker": reserved[0].worker}
        assert await storage.update_trials(experiment, where=where, note=1) == 2


async def test_a_reservation_goes_on_with_the_next(storage: Storage) -> None:
    experiment, trials = await several(storage, count=4)
    for bad in trials[:3]:
        await spoil(storage, bad, SPOILT[3][0])
    async with storage.reserved_trial(experiment) as trial:
        assert trial is not None
        assert trial.params == {"x": 3}
        await storage.complete_trial(trial, 1.0)
    assert await storage.count_broken_trials(experiment) == 3


@pytest.mark.parametrize("registered", [3, 0])
async def test_a_reservation_goes_on_with_the_next_lost_ones(
    storage: Storage, registered: int
) -> None:
    experiment, trials = await several(storage, count=6, status="reserved")
    new = [Trial(experiment=experiment.id, params={"x": 10 + x}) for x in range(registered)]
    trials += await storage.register_trials(new)
    for bad in (*trials[:3], *trials[6:7]):
        await spoil(storage, bad, SPOILT[0][0])
    await anyio.sleep(0.1)
    reserved = await storage.reserve_trials(experiment, registered + 2)
    assert xs(reserved) == [3, 4, 5, 11, 12][: registered + 2]
    assert len({trial.worker for trial in reserved}) == 1


async def test_a_reservation_gives_back_many_lost_ones() -> None:
    async with Storage(MemoryDriver(), lost_after=0.05) as storage:
        experiment, trials = await several(storage, count=350, status="reserved")
        where = Compare("_id", "in", tuple(trial._id for trial in trials[:-1]))
        await storage._gateway.driver.execute(Update(TRIALS, where, SPOILT[0][0]))
        await anyio.sleep(0.1)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        assert trial.params == {"x": 349}
        assert await storage.count_broken_trials(experiment) == 349


async def test_waiting_goes_on(storage: Storage) -> None:
    experiment, trials = await several(storage, count=1)
    await spoil(storage, trials[0], SPOILT[0][0])

    async def register() -> None:
        await anyio.sleep(0.05)
        await storage.register_trial(Trial(experiment=experiment.id, params={"x": 9}))

    async with anyio.create_task_group() as group:
        group.start_soon(register)
        trial = await storage.reserve_trial(experiment, wait=20)
    assert trial is not None
    assert trial.params == {"x": 9}


async def test_lost_trials(storage: Storage) -> None:
    experiment, trials = await several(storage)
    assert len(await storage.reserve_trials(experiment, 3)) == 3
    await spoil(storage, trials[1], SPOILT[1][0])
    await anyio.sleep(0.1)
    assert xs(await storage.fetch_lost_trials(experiment)) == [0, 2]
    assert xs(await storage.recover_lost_trials(experiment)) == [0, 2]


def test_the_other_colour(make_driver: Callable[[], Driver]) -> None:
    with SyncStorage(Storage(make_driver())) as storage:
        experiment = storage.create_experiment({"name": "e"})
        trials = storage.register_trials(
            [Trial(experiment=experiment.id, params={"x": x}) for x in range(3)]
        )
        update = Update(TRIALS, equal(id=trials[0].id), SPOILT[3][0])
        assert storage._portal.call(storage._storage._gateway.execute, update) == 1
        assert xs(storage.fetch_trials(experiment)) == [1, 2]
        assert xs(list(storage.iter_trials(experiment))) == [1, 2]
        with pytest.raises(EncodingError, match=r"params\[0\]\.type"):
            storage.get_trial(trials[0])
        trial = storage.reserve_trial(experiment)
        assert trial is not None
        assert trial.params == {"x": 1}
        assert storage.count_broken_trials(experiment) == 1


async def test_a_state_that_nobody_can_read(storage: Storage) -> None:
    experiment = await storage.create_experiment({"name": "e"}, algo_state={"seed": 1})
    driver = storage._gateway.driver
    update = Update(ALGO, equal(experiment=experiment.id), {"state": b"\x01torn"})
    assert await driver.execute(update) == 1
    for _ in range(2):  # the lock does not stay with the one who could not read it
        with pytest.raises(EncodingError, match="damaged"):
            async with storage.acquire_algorithm_lock(experiment, timeout=1):
                pass
    with pytest.raises(EncodingError, match="damaged"):
        await storage.get_algorithm_lock_info(experiment)


# ------------------------------------------------------------------------------ damaged files


def damaged(path: Path, change: str, which: str) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    try:
        assert other.execute(change, [which]).rowcount == 1
    finally:
        other.close()


@pytest.mark.parametrize(
    "damage",
    [
        "doc = '{'",
        "doc = ''",
        "doc = '[]'",
        "doc = x'00ff'",
        """doc = '{"params": [{"$date": "nonsense"}]}'""",
        "doc = json_set(doc, '$.params[0].type', 'bogus')",
        "doc = json_set(doc, '$.params[0].name', null)",
        "submit_time = 'yesterday'",
        "submit_time = 5",
        "submit_time = x'00'",
        "status = 'bogus'",
        "status = x'00'",
        "status = 1.5",
    ],
)
async def test_a_row_that_another_program_wrote(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.db"
    async with Storage(SQLiteDriver(path)) as storage:
        experiment, trials = await several(storage)
        change = f"UPDATE trials SET {damage} WHERE id = ?"
        await anyio.to_thread.run_sync(damaged, path, change, trials[1].id)
        assert xs(await storage.fetch_trials(experiment)) == [0, 2]
        assert xs(await storage.fetch_trials(experiment, where={"params.value": {"$gte": 0}}))
        assert xs([t async for t in storage.iter_trials(experiment)]) == [0, 2]
        for order in (None, "submit_time", "-submit_time"):  # the damage may have moved it
            whole = await storage.fetch_trials(experiment, order=order)
            assert xs(whole) == [0, 2]
            for limit in (1, 2, 3):
                assert (
                    await storage.fetch_trials(experiment, order=order, limit=limit)
                    == (whole or [])[:limit]
                )
        if "json_set" not in damage and "status" not in damage:
            with pytest.raises(EncodingError, match=f"trial {trials[1].id} .*cannot be read"):
                await storage.fetch_trials(experiment, after=trials[1].id)
        assert len([r for r in caplog.records if r.name.startswith("aiostorage")]) == 1
        with pytest.raises(EncodingError, match=f"trial {trials[1].id} .*cannot be read"):
            await storage.get_trial(trials[1])
        found = [
            document["id"]
            async for document in storage.iter_trials(experiment, selection={"id": 1, "status": 1})
        ]
        assert found == [trial.id for trial in trials]
        is_text = damage.startswith("doc =") and "json_set" not in damage
        assert await storage.update_trials(experiment, note=1) == (2 if is_text else 3)
        assert xs(await storage.reserve_trials(experiment, 3)) == [0, 2]
        assert xs(await storage.fetch_trials(experiment)) == [0, 2]
        assert await storage.delete_trials(experiment, where={"id": trials[1].id}) == 1


async def test_what_cannot_be_written_to_a_damaged_row_is_not_reported_as_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with Storage(SQLiteDriver(path)) as storage:
        experiment, trials = await several(storage)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        damage = "UPDATE trials SET doc = '{' WHERE id = ?"
        await anyio.to_thread.run_sync(damaged, path, damage, trial.id)
        params = trials[1].to_dict()["params"]
        assert not await storage.update_trial(trial, params=params)
        with pytest.raises(FailedUpdate):
            await storage.complete_trial(trial, 1.0)
        status = [
            document["status"]
            async for document in storage.iter_trials(experiment, selection={"status": 1})
        ]
        assert status == ["reserved", "new", "new"]
        assert await storage.update_trial(trial, status="broken")
        assert await storage.count_broken_trials(experiment) == 1
        # the others share a commit with it
        assert await storage.update_trials(experiment, note=1) == 2


async def test_an_experiment_that_another_program_wrote(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store.db"
    async with Storage(SQLiteDriver(path)) as storage:
        for name in ("a", "b"):
            await storage.create_experiment({"name": name})
            await storage.create_benchmark({"name": name})
        for table in ("experiments", "benchmarks"):
            change = f"UPDATE {table} SET doc = '{{' WHERE name = ?"
            await anyio.to_thread.run_sync(damaged, path, change, "a")
        for _ in range(2):
            assert [found["name"] for found in await storage.fetch_experiments({})] == ["b"]
            assert [found["name"] for found in await storage.fetch_benchmark({})] == ["b"]
        assert len(caplog.messages) == 2
        assert await storage.delete_benchmark({"name": "a"}) == 1


async def test_a_page_is_full_although_some_cannot_be_read(storage: Storage) -> None:
    experiment, trials = await several(storage, count=9, results=[])
    for position, (changes, _) in zip((1, 2, 4, 8), SPOILT[:2] + SPOILT[4:], strict=True):
        await spoil(storage, trials[position], changes)
    pages: list[list[Any]] = []
    last: Trial | None = None
    while page := await storage.fetch_trials(experiment, order="objective", limit=2, after=last):
        pages.append(xs(page))
        last = page[-1]
    assert pages == [[0, 3], [5, 6], [7]]
    assert xs(await storage.fetch_trials(experiment, limit=3, params={"x": {"$gt": 0}})) == [
        3,
        5,
        6,
    ]
    odd = {"status": {"$nin": list(TrialStatus)}}
    await spoil(storage, trials[0], {"status": "bogus"})
    assert await storage.count_trials(experiment, where=odd) == 1
    assert await storage.delete_trials(experiment, where=odd) == 1
