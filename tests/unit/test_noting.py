"""What is added to operations so that changes are noted, and what a storage without that pays."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aiostorage import Storage, Trial
from aiostorage._core.delivery.noting import NotingDriver, noted
from aiostorage._core.documents import equal
from aiostorage._core.layout import ALGO, EXPERIMENTS, LAYOUT, OUTBOX, RECEIPTS, TRIALS
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.operations import (
    And,
    Compare,
    Delete,
    Find,
    Insert,
    InsertNext,
    NotedChange,
    Operation,
    OutboxNote,
    Receipt,
    StoreTime,
    Take,
    Update,
)

HELD = equal(experiment="e", id="t", status="reserved", worker="w")
PENDING = And((Compare("experiment", "eq", "e"), Compare("status", "in", ("new",))))


@pytest.mark.parametrize(
    "operation",
    [
        Find(TRIALS),
        Update(TRIALS, HELD, {"heartbeat": StoreTime()}),
        Update(ALGO, equal(experiment="e"), {"locked": 1}),
        Insert(OUTBOX, ({"_id": "r", "experiment": "e"},)),
        Delete(RECEIPTS, equal(_id="r")),
    ],
)
def test_what_a_tracker_need_not_know_stays_as_it_is(operation: Operation[Any]) -> None:
    assert noted((operation,)) is None


def test_a_change_that_names_its_trial_needs_nothing_but_the_note() -> None:
    update = Update(TRIALS, HELD, {"status": "completed"})
    plan = noted((update,))
    assert plan is not None
    change = NotedChange(0, "changed", ("e", "t"), ("experiment", "id"), None, "w")
    assert plan.operations == (update, OutboxNote(OUTBOX, (change,)))
    assert plan.operations[0] is update


@pytest.mark.parametrize(
    ("where", "changes", "kind"),
    [
        (HELD, {"status": "reserved", "results": []}, "changed"),
        (HELD, {"status": "reserved", "worker": "v"}, "reserved"),
        (equal(experiment="e", id="t"), {"status": "reserved"}, "reserved"),
    ],
)
def test_a_reservation_is_what_was_not_reserved(where: And, changes: Any, kind: str) -> None:
    plan = noted((Update(TRIALS, where, changes),))
    assert plan is not None
    note = plan.operations[-1]
    assert isinstance(note, OutboxNote)
    assert [change.change for change in note.changes] == [kind]


def test_others_are_looked_up_before_and_no_receipt_shows_that() -> None:
    delete, receipt = Delete(TRIALS, PENDING), Receipt(RECEIPTS, "k", StoreTime(1.0))
    plan = noted((delete, receipt))
    assert plan is not None
    look, same, asked, note = plan.operations
    assert (plan.first, same) == (1, delete)
    assert isinstance(look, Find)
    assert look.where == PENDING
    assert isinstance(asked, Receipt)
    assert asked.skipped == 1
    assert isinstance(note, OutboxNote)
    assert note.changes[0].position == 0


def test_a_trial_that_moves_is_noted_under_both_ids() -> None:
    async def run() -> list[tuple[Any, Any]]:
        driver = MemoryDriver()
        noting = NotingDriver(driver)
        await noting.open(LAYOUT)
        trial = {"_id": "r", "experiment": "e", "id": "t", "status": "new"}
        await driver.execute(Insert(TRIALS, (trial,)))
        await noting.execute(Update(TRIALS, equal(experiment="e", id="t"), {"id": "u"}))
        await noting.execute(Take(TRIALS, equal(experiment="e", id="u"), {"id": "v"}))
        rows = await driver.execute(Find(OUTBOX))
        return [(row["experiment"], row["trial"]) for row in rows]

    assert asyncio.run(run()) == [("e", "t"), ("e", "u"), ("e", "u"), ("e", "v")]


def test_trials_that_get_their_ids_from_the_engine_are_noted_by_these() -> None:
    async def run() -> list[tuple[Any, ...]]:
        driver = MemoryDriver()
        noting = NotingDriver(driver)
        await noting.open(LAYOUT)
        await driver.execute(
            Insert(TRIALS, ({"_id": "r", "experiment": "e", "id": "t0", "status": "new"},))
        )
        documents = (
            {"_id": "s", "experiment": "e", "status": "reserved", "worker": "w"},
            {"_id": "t", "experiment": "e", "status": "new"},
        )
        insert = InsertNext(TRIALS, documents, "id", tuple({"id": f"t{n}"} for n in range(4)))
        taken = Find(TRIALS, Compare("id", "in", tuple(f"t{n}" for n in range(4))), {"id": True})
        # another operation that has to be looked up first moves all others
        moved = Update(TRIALS, equal(status="new"), {"note": 1})
        results = await noting.transact((taken, insert, moved))
        assert results == [[{"_id": "r", "id": "t0"}], None, 2]
        rows = await driver.execute(Find(OUTBOX))
        return [(row["experiment"], row["trial"], row["change"], row["worker"]) for row in rows]

    assert asyncio.run(run()) == [
        ("e", "t1", "reserved", "w"),
        ("e", "t2", "inserted", None),
        ("e", "t0", "changed", None),
    ]


def test_an_experiment_with_its_trials_is_one_row() -> None:
    operations = (
        Delete(EXPERIMENTS, equal(_id="e")),
        Delete(TRIALS, equal(experiment="e")),
        Delete(ALGO, equal(experiment="e")),
    )
    plan = noted(operations)
    assert plan is not None
    assert plan.operations[:3] == operations
    assert plan.operations[3] == Delete(OUTBOX, Compare("experiment", "eq", "e"))
    note = plan.operations[4]
    assert isinstance(note, OutboxNote)
    assert {change.named for change in note.changes} == {("e", None)}


# ------------------------------------------------------------------------------------- the cost


class Recorder(NotingDriver):
    """Records what reaches the engine, and notes nothing."""

    def __init__(self) -> None:
        super().__init__(MemoryDriver())
        self.seen: list[Operation[Any]] = []

    async def execute(self, operation: Operation[Any]) -> Any:
        self.seen.append(operation)
        return await self.driver.execute(operation)

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        self.seen += operations
        return await self.driver.transact(operations)


async def _search(storage: Storage) -> None:
    experiment = await storage.create_experiment({"name": "tune", "version": 1})
    await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
    trial = await storage.reserve_trial(experiment)
    assert trial is not None
    await storage.update_heartbeat(trial)
    await storage.complete_trial(trial, 1.0)
    await storage.delete_trials(experiment)


@pytest.mark.anyio
async def test_without_a_tracker_nothing_is_added() -> None:
    recorder = Recorder()
    async with Storage(recorder) as storage:
        await _search(storage)
    assert not [one for one in recorder.seen if isinstance(one, OutboxNote)]
    assert not [one for one in recorder.seen if one.collection == OUTBOX]


@pytest.mark.anyio
async def test_statements_with_an_outbox_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    original = Connection.statement

    def counted(self: Connection, sql: str, *more: Any) -> Any:
        statements.append(sql)
        return original(self, sql, *more)

    monkeypatch.setattr(Connection, "statement", counted)
    counts = {}
    for name, wrap in (("without", lambda driver: driver), ("with", NotingDriver)):
        statements.clear()
        async with Storage(wrap(SQLiteDriver(tmp_path / f"{name}.db"))) as storage:
            experiment = await storage.create_experiment({"name": "tune", "version": 1})
            await storage.register_trial(Trial(experiment=experiment.id, params={"x": 1}))
            statements.clear()
            trial = await storage.reserve_trial(experiment)
            assert trial is not None
            reserving = list(statements)
            statements.clear()
            await storage.update_heartbeat(trial)
            counts[name] = len(reserving), len(statements)
        if name == "without":
            assert not [sql for sql in reserving if "outbox" in sql or "SAVEPOINT" in sql]
    # a savepoint, the insertion, and the end of the savepoint
    assert counts["with"] == (counts["without"][0] + 3, counts["without"][1])


@pytest.mark.anyio
async def test_a_file_of_this_layout_without_the_tables_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with Storage(SQLiteDriver(path)) as storage:
        await storage.create_experiment({"name": "tune", "version": 1})
    for name in ("outbox", "mirrored", "deliverers"):
        await asyncio.to_thread(_execute, path, f"DROP TABLE {name}")
    storages = [Storage(NotingDriver(SQLiteDriver(path))) for _ in range(3)]
    await asyncio.gather(*(storage.open() for storage in storages))
    [found] = await storages[0].fetch_experiments({})
    await storages[1].update_experiment(uid=found["_id"], max_trials=3)
    for storage in storages:
        await storage.aclose()
    assert await asyncio.to_thread(_execute, path, "SELECT count(*) FROM outbox") == [(1,)]


def _execute(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()
