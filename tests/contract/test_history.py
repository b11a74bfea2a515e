"""The history of trials: trimmed, followed from damaged and older stores, and with faults."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from aiostorage import (
    BackendError,
    ConfigurationError,
    CursorExpired,
    DuplicateKeyError,
    RetryPolicy,
    Storage,
    SyncStorage,
    open_storage,
)
from aiostorage._core import change_feed
from aiostorage._core.documents import equal
from aiostorage._core.layout import BENCHMARKS, CHANGES, LAYOUT, SETTINGS, TRIALS
from aiostorage._core.reasons import reason_of
from aiostorage.doctor import examine
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.sqlite.clock import Moment
from aiostorage.drivers.sqlite.sql import Table, tables_of
from aiostorage.drivers.track import TrackDriver
from aiostorage.experiment import Experiment
from aiostorage.operations import EVERYTHING, Count, Delete, Find, Insert, Update
from aiostorage.protocols import Driver
from aiostorage.testing import FakeClock, FaultyDriver
from aiostorage.testing.cancellation import cancelled_at_every_await
from aiostorage.testing.contract.change_feed_laws import all_changes, check_chains
from aiostorage.testing.contract.helpers import make_config, make_trial, registered
from aiostorage.trial_change import TrialChange

pytestmark = pytest.mark.anyio

behind = partial(all_changes, limit=500)
Make = Callable[[], Driver]

MOMENT = Moment(datetime(2026, 1, 1, tzinfo=UTC), 0)


@pytest.fixture(params=["memory", "sqlite", "track"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Make:
    """Give a function that makes drivers of the same store."""
    if request.param == "memory":
        one = MemoryDriver(clock=clock)
        return lambda: one
    if request.param == "sqlite":
        return lambda: SQLiteDriver(tmp_path / "store.db", clock=clock, synchronous="NORMAL")
    return lambda: TrackDriver(tmp_path / "store.json", clock=clock)


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


async def test_a_clock_that_was_set_back(make: Make, clock: FakeClock) -> None:
    """Rows are deleted from the beginning, so that no reader misses one in the middle."""
    async with Storage(make(), history="60s") as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        for seconds, status in ((0, "suspended"), (-50, "new"), (70, "broken")):
            clock.advance(seconds)
            await storage.update_trials(experiment, status=status)
        changes = await behind(storage, experiment)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes, "one is too old, but not the first"
        clock.advance(50)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes[3:]
        clock.advance(1000)  # a wrong time, until somebody notices
        await storage.update_trials(experiment, status="new")
        clock.advance(-1000)
        await storage.update_trials(experiment, status="broken")
        clock.advance(100)
        await storage.update_trials(experiment, status="new")
        changes = await behind(storage, experiment)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes[3:]


async def test_a_clock_that_was_set_back_behind_an_old_change(make: Make, clock: FakeClock) -> None:
    """A change that is too old stays as long as one before it does."""
    async with Storage(make(), history="60s") as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        for seconds, status in ((100, "suspended"), (-90, "new"), (95, "broken")):
            clock.advance(seconds)
            await storage.update_trials(experiment, status=status)
        changes = await behind(storage, experiment)
        await trim(storage, experiment)
        assert await behind(storage, experiment) == changes[1:]


async def test_it_was_off_meanwhile(make: Make) -> None:
    """No cursor from before leads past the changes that nobody has logged."""
    shared = isinstance(make(), MemoryDriver)  # where a second opening is not independent
    async with Storage(make()) as storage:
        experiment = await storage.create_experiment(make_config())
        none = (await storage.changes_since(experiment)).cursor
        await registered(storage, experiment, 2)
        cursors = [none, *(change.cursor for change in await behind(storage, experiment))]
        async with Storage(make(), history="off"):
            pass
        async with Storage(make(), history=100) as other:
            storages = [other] if shared else [storage, other]
            fresh = (await storages[0].changes_since(experiment)).cursor
            assert await behind(storages[0], experiment, fresh) == []
            assert await other.reserve_trial(experiment) is not None
            for one in storages:
                assert len(await behind(one, experiment, fresh)) == 1
                for cursor in cursors:
                    with pytest.raises(CursorExpired):
                        await one.changes_since(experiment, cursor)


async def test_rows_of_other_programs(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    async with Storage(make()) as storage:
        experiment = await storage.create_experiment(make_config())
        (trial,) = await registered(storage, experiment, 1)
        for status in ("suspended", "new", "broken", "new", "suspended"):
            await storage.update_trials(experiment, status=status)
        changes = await behind(storage, experiment)
        rows = await storage._gateway.execute(Find(CHANGES))
        spoilt: list[dict[str, Any]] = [{"kind": "odd"}, {"attempt": "x"}, {"reason": 3}]
        for row, wrong in zip(rows[1:], spoilt, strict=False):
            assert await storage._gateway.execute(Update(CHANGES, equal(_id=row["_id"]), wrong))
        left = [changes[0], *changes[4:]]
        for _ in range(2):
            assert await behind(storage, experiment) == left
            assert (await storage.changes_since(experiment, "oldest", limit=2)).changes == left[:2]
            assert await storage.trial_history(trial) == left
        assert await behind(storage, experiment, changes[2].cursor) == left[1:]
        assert len(caplog.messages) == 3
        assert all(trial.id in message for message in caplog.messages)
        assert len(await storage.fetch_trials(experiment, since=changes[3].cursor) or ()) == 1
        found = await examine(storage)
        assert [one.code for one in found.findings] == ["unreadable-change"] * 3
        await storage.register_trials([make_trial(experiment, x) for x in range(10, 40)])
        await storage._gateway.execute(Update(CHANGES, EVERYTHING, {"kind": "odd"}))
        found = await examine(storage)
        assert {one.code for one in found.findings} == {"unreadable-change"}
        assert len(found.findings) == 21
        assert "16 more changes" in found.findings[-1].what


async def test_a_transaction_that_fails_leaves_no_row(make: Make) -> None:
    driver = make()
    async with Storage(driver) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        before = await storage.changes_since(experiment, "oldest")
        insert = Insert(BENCHMARKS, ({"_id": "b", "name": "b"},))
        await driver.execute(insert)
        change = Update(TRIALS, equal(experiment=experiment.id), {"status": "broken"})
        with pytest.raises(DuplicateKeyError):
            await driver.transact((change, insert))
        assert await storage.changes_since(experiment, "oldest") == before
        assert (await storage.changes_since(experiment)).cursor == before.cursor
        await storage.update_trials(experiment, status="suspended")
        assert len(await behind(storage, experiment, before.cursor)) == 1


async def test_a_new_reservation_is_no_heartbeat(clock: FakeClock) -> None:
    async with Storage(MemoryDriver(clock=clock)) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        beats = change_feed._Beats(storage._gateway, experiment.id)
        for _ in range(2):
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            assert await beats.look("") == []
            clock.advance(1)
            await storage.update_heartbeat(trial)
            assert [change.worker for change in await beats.look("")] == [trial.worker]
            assert await beats.look("") == []
            await storage.set_trial_status(trial, "interrupted")
            clock.advance(1)


async def test_a_setting_that_nobody_can_read(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    driver = make()
    async with Storage(driver, history=7) as storage:
        experiment = await storage.create_experiment(make_config())
        await registered(storage, experiment, 1)
        await storage._gateway.execute(Update(SETTINGS, equal(_id="history"), {"limit": "soon"}))
        async with Storage(make()) as other:
            assert "not 'soon'" in caplog.text
            await other.update_trials(experiment, status="suspended")
            await trim(other, experiment)
            with pytest.raises(ConfigurationError, match=r"cannot be read: .*not 'soon'"):
                await other.changes_since(experiment, "oldest")
        if driver is not make():
            assert len(await behind(storage, experiment)) == 2
            async with Storage(make(), history="1d") as mended:
                await mended.update_trials(experiment, status="new")
                assert len(await behind(mended, experiment)) == 3


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


@pytest.mark.parametrize("fate", ["removed", "replaced"])
@pytest.mark.parametrize("scheme", ["sqlite", "track"])
async def test_a_file_that_is_taken_from_a_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, fate: str
) -> None:
    monkeypatch.setattr(change_feed, "MAX_READ_INTERVAL", 0.1)
    path, other = tmp_path / "store", tmp_path / "other"
    seen: list[TrialChange] = []

    async def follow() -> None:
        async for change in storage.watch_trials(experiment, since="oldest"):
            seen.append(change)  # noqa: PERF401  each at once

    async def fill(to: Storage) -> Experiment:
        made = await to.create_experiment(make_config())
        await registered(to, made, 2)
        return made

    async with open_storage(f"{scheme}:///{path}", retry=RetryPolicy(total=1.0)) as storage:
        experiment = await fill(storage)
        if fate == "replaced":
            async with open_storage(f"{scheme}:///{other}") as another:
                await fill(another)
        following = asyncio.create_task(follow())
        with anyio.fail_after(30):
            while len(seen) < 2:
                await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(path.unlink)
            if fate == "replaced":
                await anyio.to_thread.run_sync(other.rename, path)
            with pytest.raises((BackendError, CursorExpired)) as raised:
                await following
        assert isinstance(raised.value, CursorExpired) == (scheme == "track" and fate == "replaced")
        assert len(seen) == 2


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
        for sql, params in (found, (log.insert, log.arranged([""] * 12)), (log.last, [])):
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
