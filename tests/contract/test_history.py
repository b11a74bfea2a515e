"""The history of trials: trimmed, followed from damaged and older stores, and with faults."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aiostorage import CursorExpired, RetryPolicy, Storage, SyncStorage, open_storage
from aiostorage._core.documents import equal
from aiostorage._core.layout import CHANGES, LAYOUT, TRIALS
from aiostorage._core.reasons import reason_of
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.sqlite.clock import Moment
from aiostorage.drivers.sqlite.sql import Table, tables_of
from aiostorage.drivers.track import TrackDriver
from aiostorage.experiment import Experiment
from aiostorage.operations import Count, Delete, Find, Update
from aiostorage.protocols import Driver
from aiostorage.testing import FakeClock, FaultyDriver
from aiostorage.testing.cancellation import cancelled_at_every_await
from aiostorage.testing.contract.change_feed_laws import check_chains
from aiostorage.testing.contract.helpers import make_config, registered
from aiostorage.trial_change import TrialChange

pytestmark = pytest.mark.anyio

Make = Callable[[], Driver]

MOMENT = Moment(datetime(2026, 1, 1, tzinfo=UTC), 0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "track"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Make:
    """Give a function that makes drivers of the same store."""
    if request.param == "memory":
        one = MemoryDriver(clock=clock)
        return lambda: one
    if request.param == "sqlite":
        return lambda: SQLiteDriver(tmp_path / "store.db", clock=clock, synchronous="NORMAL")
    return lambda: TrackDriver(tmp_path / "store.json", clock=clock)


async def behind(storage: Storage, experiment: Any, cursor: str = "oldest") -> list[TrialChange]:
    found: list[TrialChange] = []
    while True:
        page = await storage.changes_since(experiment, cursor, limit=500)
        found += page.changes
        cursor = page.cursor
        if len(page.changes) < 500:
            return found


async def trim(storage: Storage, experiment: Experiment) -> None:
    """Let the next operation take along what is not kept any more."""
    storage._gateway._trim_at = 0.0
    await storage.count_broken_trials(experiment)


async def test_a_number_of_changes(make: Make) -> None:
    async with Storage(make(), history=3) as storage:
        experiment = await storage.create_experiment(make_config())
        (one, _) = await registered(storage, experiment, 2)
        for _ in range(3):
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            await storage.set_trial_status(trial, "interrupted")
        changes = await behind(storage, experiment)
        assert len(changes) == 8
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes[5:]
        for change in changes[:5]:
            with pytest.raises(CursorExpired):
                await storage.changes_since(experiment, change.cursor)
        for number, change in enumerate(changes[5:], 6):
            assert await behind(storage, experiment, change.cursor) == changes[number:]
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        (last,) = await behind(storage, experiment, changes[-1].cursor)
        assert last.attempt == 1 + max(c.attempt for c in changes if c.trial == trial.id)
        await storage.delete_trials(experiment)
        await trim(storage, experiment)
        assert len(await behind(storage, experiment)) == 3
        assert one.id in {c.trial for c in changes}


async def test_a_span_of_time(make: Make, clock: FakeClock) -> None:
    async with Storage(make(), history="60s") as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        clock.advance(50)
        trial = await storage.reserve_trial(experiment)
        assert trial is not None
        changes = await behind(storage, experiment)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes
        clock.advance(20)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes[2:]
        with pytest.raises(CursorExpired):
            await storage.changes_since(experiment, changes[0].cursor)
        clock.advance(1000)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes[2:], "the last one stays"
        clock.advance(-3000)  # set back: nothing is too old
        await storage.complete_trial(trial, 1.0)
        await trim(storage, experiment)
        assert len(await behind(storage, experiment, changes[-1].cursor)) == 1


async def test_many_are_trimmed_step_by_step(make: Make) -> None:
    async with Storage(make(), history="30d") as storage:
        experiment = await storage.create_experiment(make_config())
        # Track reads and writes the whole file each time
        number = 50 if storage._gateway.driver.name == "track" else 1000
        await registered(storage, experiment, number)
        await storage.update_trials(experiment, status="suspended")
        await storage.update_trials(experiment, status="new")
        changes = await behind(storage, experiment)
        assert len(changes) == 3 * number
    if storage._gateway.driver.name == "memory":
        storage = Storage(make(), history=10)
    async with Storage(make(), history=10) as storage, Storage(make()) as other:
        left: list[int] = []
        for _ in range(4):
            storage._gateway._trim_at = min(storage._gateway._trim_at, 0.0 if not left else 1e18)
            await storage.count_broken_trials(experiment)
            left.append(await storage._gateway.driver.execute(Count(CHANGES)))
        assert left == ([2000, 1000, 10, 10] if number == 1000 else [10] * 4)
        assert await behind(other, experiment) == changes[-10:]
        assert other._gateway.history.limit == storage._gateway.history.limit


async def test_faults_end_in_right_chains(make: Make) -> None:
    faulty = FaultyDriver(make(), before=0.1, lost=0.1, after=0.15, seed=5)
    policy = RetryPolicy(attempts=30, initial=0.0005, maximum=0.001, jitter=0)
    async with Storage(faulty, retry=policy) as storage:
        experiment = await storage.create_experiment(make_config())
        trials = await registered(storage, experiment, 9)
        for number in range(24):
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            if number % 3:
                await storage.set_trial_status(trial, "interrupted", reason=str(number))
            else:
                await storage.complete_trial(trial, 1.0)
        assert faulty.faults > 10
        changes = await behind(storage, experiment)
        check_chains(changes)
        assert len(changes) == 9 + 24 + 24
        assert len({c.trial for c in changes}) == len(trials)


async def test_cancelled_readers(make: Make) -> None:
    async with Storage(make()) as storage:
        experiment = await storage.create_experiment(make_config())
        (trial, *_) = await registered(storage, experiment, 3)
        changes = await behind(storage, experiment)

        async def read() -> None:
            async for change in storage.watch_trials(experiment, since=changes[0].cursor):
                if change == changes[-1]:
                    break
            await storage.changes_since(experiment)
            await storage.wait_for(trial, "new")

        async def check() -> None:
            assert await behind(storage, experiment) == changes

        assert await cancelled_at_every_await(read, check) > 10


async def test_a_copy_and_another_store(make: Make, tmp_path: Path) -> None:
    async with Storage(make()) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 2)
        changes = await behind(storage, experiment)
        async with pickle.loads(pickle.dumps(storage)) as copy:
            assert await behind(copy, experiment, changes[0].cursor) == changes[1:]
        async with open_storage(f"sqlite:///{tmp_path / 'another.db'}") as another:
            there = await another.create_experiment({**make_config(), "_id": experiment.id})
            await registered(another, there, 2)
            with pytest.raises(CursorExpired, match="another store"):
                await another.changes_since(there, changes[0].cursor)
        await storage.delete_experiment(experiment)
        kinds = [c.kind for c in await behind(storage, experiment, changes[-1].cursor)]
        assert kinds == ["deleted", "deleted"]


def test_a_store_without_a_log(tmp_path: Path) -> None:
    """It was made by an older version, and another process has it open meanwhile."""
    url = f"sqlite:///{tmp_path / 'old.db'}"

    async def prepare() -> Experiment:
        async with open_storage(url) as storage:
            experiment = await storage.create_experiment(make_config())
            await registered(storage, experiment, 2)
            return experiment

    experiment = asyncio.run(prepare())
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript("DROP TABLE trial_changes; DROP TABLE settings;")
        connection.execute("SELECT count(*) FROM trials").fetchone()

        async def go_on() -> list[TrialChange]:
            async with open_storage(url) as storage:
                trial = await storage.reserve_trial(experiment)
                assert trial is not None
                await storage.complete_trial(trial, 1.0)
                return await behind(storage, experiment)

        found = asyncio.run(go_on())
    assert [(c.before, c.after, c.attempt) for c in found] == [
        ("new", "reserved", 1),
        ("reserved", "completed", 1),
    ]


async def test_a_trial_with_several_lives(make: Make) -> None:
    """Its history goes on where it is deleted, also in the transaction of another change."""
    driver = make()
    async with Storage(driver) as storage:
        experiment = await storage.create_experiment(make_config())
        (trial, _) = await registered(storage, experiment, 2)
        for attempt in (1, 2):
            taken = await storage.reserve_trial(experiment)
            assert taken is not None
            assert taken.id == trial.id
            named = equal(experiment=experiment.id, id=trial.id)
            held = equal(
                experiment=experiment.id, id=trial.id, status="reserved", worker=taken.worker
            )
            changed = await driver.transact(
                (
                    Update(TRIALS, held, {"status": "broken"}, reason=f"life {attempt}"),
                    Delete(TRIALS, named),
                    Update(TRIALS, held, {"status": "broken"}),
                )
            )
            assert changed == [1, 1, 0]
            await storage.register_trial(trial)
            # so that it is the oldest one again
            changes = {"submit_time": datetime(2000, 1, 1, tzinfo=UTC)}
            assert await driver.execute(Update(TRIALS, named, changes)) == 1
        life = [("inserted", 0), ("reserved", 1), ("status", 1), ("deleted", 1)]
        again = [("inserted", 1), ("reserved", 2), ("status", 2), ("deleted", 2)]
        history = await storage.trial_history(trial)
        assert [(c.kind, c.attempt) for c in history] == [*life, *again, ("inserted", 2)]
        assert [c.reason for c in history if c.kind == "status"] == ["life 1", "life 2"]
        found = [c for c in await behind(storage, experiment) if c.trial == trial.id]
        assert [replace(change, cursor="") for change in found] == history


def test_rows_are_found_by_an_index(tmp_path: Path) -> None:
    tables = tables_of(LAYOUT)
    log = tables[TRIALS].log
    assert log is not None
    found = tables[CHANGES].find(Find(CHANGES, equal(owner="o", name="n")), MOMENT, [])
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        for table in tables.values():
            for statement in table.schema():
                connection.execute(statement)
        for sql, params in (found, (log.insert, [""] * 12), (log.last, [])):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()
            steps = [step for *_, step in plan]
            assert not [step for step in steps if step.startswith("SCAN")], steps
    assert len([step for step in steps if step.startswith("SEARCH")]) == 1, "the last number"


def test_a_log_of_rows_without_subjects(tmp_path: Path) -> None:
    """It was made before the rows had the number of the trial's row."""
    url = f"sqlite:///{tmp_path / 'old.db'}"

    async def use(*, deletes: bool) -> list[TrialChange]:
        async with open_storage(url) as storage:
            experiment = await storage.get_or_create_experiment({**make_config(), "_id": "0" * 24})
            if not await storage.fetch_trials(experiment):
                await registered(storage, experiment, 2)
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            await storage.set_trial_status(trial, "suspended")
            if deletes:
                await storage.delete_trials(experiment)
            return await storage.trial_history(trial)

    earlier = asyncio.run(use(deletes=False))
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.executescript(
            "DROP INDEX trial_changes_subject; DROP INDEX trial_changes_owner_name; "
            "ALTER TABLE trial_changes DROP COLUMN subject; "
            "CREATE INDEX trial_changes_owner_name ON trial_changes (owner, name);"
        )
    found = asyncio.run(use(deletes=True))
    assert [replace(c, cursor="") for c in found[:3]] == [replace(c, cursor="") for c in earlier]
    assert [(c.kind, c.attempt) for c in found[3:]] == [
        ("reserved", 2),
        ("status", 2),
        ("deleted", 2),
    ]


def insert(path: Path, experiment: Any) -> None:
    """Log a change as another process does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO trial_changes (seq, _id, kind, owner, name, attempt, time, doc) "
            "SELECT ifnull(max(seq), 0) + 1, 'x' || count(*), 'inserted', ?, 'late', 0, "
            "'2026-01-01T00:00:00.000000+00:00', '{}' FROM trial_changes",
            [experiment],
        )


async def test_a_change_that_is_committed_between_two_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with open_storage(f"sqlite:///{path}") as storage:
        experiment = await storage.create_experiment(make_config())
        compile_rows = Table.rows_behind

        def late(self: Table, *args: Any) -> Any:
            monkeypatch.undo()
            insert(path, experiment.id)
            return compile_rows(self, *args)

        for _ in range(2):  # first the log is empty
            cursor = (await storage.changes_since(experiment)).cursor
            monkeypatch.setattr(Table, "rows_behind", late)
            page = await storage.changes_since(experiment, cursor)
            assert len(page.changes) == 1
            assert (await storage.changes_since(experiment, page.cursor)).changes == []


async def test_rows_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_storage(f"sqlite:///{path}", history="1s") as storage:
        experiment = await storage.create_experiment(make_config())
        trials = await registered(storage, experiment, 5)
        changes = await behind(storage, experiment)
        await asyncio.to_thread(damage, path)
        assert await behind(storage, experiment) == [changes[0], *changes[3:]]
        page = await storage.changes_since(experiment, "oldest", limit=2)
        assert page.changes == [changes[0], changes[3]]
        assert page.cursor == changes[3].cursor
        assert await storage.trial_history(trials[1]) == []
        await trim(storage, experiment)
        assert await storage.reserve_trial(experiment) is not None


def damage(path: Path) -> None:
    """Damage two rows as another program does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trial_changes SET time = 'soon' WHERE seq = 2")
        connection.execute("UPDATE trial_changes SET doc = '{' , time = 'x' WHERE seq = 3")


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


async def test_reasons_that_cannot_be_stored(make: Make) -> None:
    async with Storage(make()) as storage:
        experiment = await storage.create_experiment(make_config())
        errors = [
            (ValueError("bad \ud800 \0 \x1b[31m"), "ValueError: bad \\ud800 \0 \x1b[31m"),
            (ValueError("\ud800" * 300), ("ValueError: " + "\\ud800" * 300)[:300]),
            (SilentError(), "SilentError"),
        ]
        await registered(storage, experiment, len(errors))
        for error, reason in errors:
            assert reason_of(error) == reason

            async def fail(error: Exception = error) -> str:
                with pytest.raises(type(error)):
                    async with storage.reserved_trial(experiment) as trial:
                        assert trial is not None
                        uid = trial
                        raise error
                return (await storage.trial_history(uid))[-1].reason or ""

            assert await fail() == reason
        assert await storage.count_broken_trials(experiment) == len(errors)


def test_the_facade_follows(tmp_path: Path) -> None:
    with SyncStorage(open_storage(f"sqlite:///{tmp_path / 'store.db'}")) as storage:
        experiment = storage.create_experiment(make_config())
        (trial,) = storage.register_trials([_trial(experiment)])
        _, cursor = storage.changes_since(experiment, "oldest")
        following = storage.watch_trials(experiment, since=cursor)
        reserved = storage.reserve_trial(experiment)
        assert reserved is not None
        storage.complete_trial(reserved, 1.0)
        found = [next(following), next(following)]
        assert [(c.trial, c.after) for c in found] == [
            (trial.id, "reserved"),
            (trial.id, "completed"),
        ]


def _trial(experiment: Experiment) -> Any:
    from aiostorage.testing.contract.helpers import make_trial

    return make_trial(experiment, 1)
