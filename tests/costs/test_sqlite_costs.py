"""What a call costs on SQLite: trips to a connection's thread, statements, commits, and no scan.

Counts, unlike times, are the same on every machine. A number that falls is good news: write it
into the table. One that rises needs a reason.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import pytest

from aiostorage import Storage
from aiostorage.drivers.sqlite import SQLiteDriver, connection
from aiostorage.testing.contract.helpers import make_trial
from tests.costs.public_calls import CALLS, GROUPS, Case, prepared, warmed_up

pytestmark = pytest.mark.anyio


class Cost(NamedTuple):
    """What a call costs.

    Attributes
    ----------
    trips
        Calls of a connection's thread.
    statements
        Calls of SQLite; a statement for many rows is one.
    commits
        Transactions that have written.
    executed
        Statements that SQLite carried out: one for each of the many rows.
    """

    trips: int
    statements: int
    commits: int
    executed: int


COSTS = {  # trips, statements, commits, executed
    "create_experiment": Cost(2, 7, 1, 7),
    "update_experiment": Cost(1, 6, 1, 6),
    "fetch_experiments": Cost(1, 1, 0, 1),
    "summary": Cost(3, 18, 0, 18),
    "register_trial": Cost(1, 5, 1, 5),
    "register_trials of 64": Cost(1, 70, 1, 133),
    "reserve_trial": Cost(1, 6, 1, 6),
    "reserve_trial, none pending": Cost(2, 4, 1, 4),
    "reserve_trials of 64": Cost(1, 8, 1, 134),
    "update_heartbeat": Cost(1, 3, 1, 3),
    "push_trial_results": Cost(1, 5, 1, 5),
    "complete_trial": Cost(1, 5, 1, 5),
    "set_trial_status": Cost(1, 8, 1, 8),
    "get_trial": Cost(1, 1, 0, 1),
    "fetch_trials": Cost(1, 1, 0, 1),
    "fetch_trials, no such experiment": Cost(3, 3, 0, 3),
    "fetch_trials_by_status": Cost(1, 1, 0, 1),
    "fetch_lost_trials": Cost(1, 1, 0, 1),
    "iter_trials": Cost(1, 1, 0, 1),
    "count_trials": Cost(1, 1, 0, 1),
    "count_completed_trials": Cost(1, 1, 0, 1),
    "trial_history": Cost(1, 1, 0, 1),
    "changes_since": Cost(1, 2, 0, 2),
    "the algorithm lock": Cost(3, 8, 2, 8),
    "the algorithm lock, a new state": Cost(3, 8, 2, 8),
    "get_algorithm_lock_info": Cost(1, 1, 0, 1),
}

GROUP_COSTS = {  # trips, statements, commits, executed
    "register_trial": Cost(1, 68, 1, 131),
    "reserve_trial": Cost(1, 8, 1, 134),
    "update_heartbeat": Cost(1, 5, 1, 68),
    "complete_trial": Cost(1, 7, 1, 133),
    "set_trial_status": Cost(1, 7, 1, 133),
}
"""Of 64 tasks at the same time."""

SORTS = {
    *("fetch_experiments", "fetch_lost_trials", "fetch_trials", "fetch_trials_by_status"),
    *("fetch_trials, no such experiment", "summary", "trial_history"),
}
"""Calls that sort what they have found by an index: they return all of it, in order."""


class Counter:
    """Counts what the connections do, and keeps the statements."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.trips = self.executed = self.steps = 0
        self.statements: list[tuple[str, Any]] = []

    @property
    def cost(self) -> Cost:
        commits = sum(sql == "COMMIT" for sql, _ in self.statements)
        return Cost(self.trips, len(self.statements), commits, self.executed)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()

    class Counted(connection.Connection):
        def _open(self) -> None:
            super()._open()
            self.set_trace_callback(self._traced)
            self.set_progress_handler(self._stepped, 1)

        def _stepped(self) -> None:
            counter.steps += 1

        def _traced(self, _: str) -> None:
            counter.executed += 1

        def statement(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            counter.statements.append((sql, parameters))
            return sqlite3.Connection.execute(self, sql, parameters)

        def execute(self, sql: Any, parameters: Any = (), /) -> Any:
            counter.trips += callable(sql)
            return super().execute(sql, parameters)

        def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
            rows = list(rows)
            counter.statements.append((sql, rows[0] if rows else ()))
            return super().executemany(sql, rows)

    monkeypatch.setattr(connection, "Connection", Counted)
    return counter


async def costs(
    path: Path, counter: Counter, calls: dict[str, Callable[[Case], Awaitable[Any]]]
) -> tuple[dict[str, Cost], dict[str, list[tuple[str, Any]]]]:
    found: dict[str, Cost] = {}
    statements: dict[str, list[tuple[str, Any]]] = {}
    async with Storage(SQLiteDriver(path, synchronous="NORMAL")) as storage:
        await warmed_up(storage)
        for name, call in calls.items():
            case = await prepared(storage, name)
            counter.clear()
            await call(case)
            found[name], statements[name] = counter.cost, list(counter.statements)
    return found, statements


async def test_a_call(tmp_path: Path, counter: Counter) -> None:
    found, statements = await costs(tmp_path / "store.db", counter, CALLS)
    assert found == COSTS
    scans = await plans_with(tmp_path / "store.db", statements, "SCAN")
    # it reads one row, the last one of the log
    assert scans == {"changes_since": {"SCAN trial_changes"}}
    sorts = await plans_with(tmp_path / "store.db", statements, "TEMP B-TREE")
    assert sorts.keys() == SORTS


async def test_many_at_the_same_time(tmp_path: Path, counter: Counter) -> None:
    found, statements = await costs(tmp_path / "store.db", counter, GROUPS)
    assert found == GROUP_COSTS
    assert await plans_with(tmp_path / "store.db", statements, "SCAN", "TEMP B-TREE") == {}


async def test_an_experiment_that_is_named_by_an_int_costs_the_same(
    tmp_path: Path, counter: Counter
) -> None:
    name = "complete_trial"
    async with Storage(SQLiteDriver(tmp_path / "store.db", synchronous="NORMAL")) as storage:
        await warmed_up(storage)
        case = await prepared(storage, name, _id=7)
        counter.clear()
        await CALLS[name](case)
        assert counter.cost == COSTS[name]
        case = await prepared(storage, f"{name} of 64", _id=8)
        counter.clear()
        await GROUPS[name](case)
        assert counter.cost == GROUP_COSTS[name]


CONSTANT = (
    *("register_trial", "reserve_trial", "reserve_trial, none pending", "update_heartbeat"),
    *("push_trial_results", "complete_trial", "set_trial_status", "get_trial", "trial_history"),
    *("the algorithm lock", "update_experiment"),
)
"""Calls that cost the same however many trials there are."""


async def test_the_number_of_trials_does_not_matter(tmp_path: Path, counter: Counter) -> None:
    """Counted in steps of SQLite's machine, of which a scan makes several for each row."""
    few, many = [await steps(tmp_path / f"{n}.db", counter, n) for n in (100, 5000)]
    assert {
        name for name in CONSTANT if not 0 < few[name] <= many[name] <= 1.05 * few[name]
    } == set()


async def steps(path: Path, counter: Counter, trials: int) -> dict[str, int]:
    """Return how many steps each call makes among so many trials, and as many changes."""
    found: dict[str, int] = {}
    async with Storage(SQLiteDriver(path, synchronous="NORMAL")) as storage:
        await warmed_up(storage)
        case = await prepared(storage, "the only one")
        await storage.register_trials([make_trial(case.experiment, -9 - n) for n in range(trials)])
        for name in CONSTANT:
            counter.clear()
            await CALLS[name](case)
            found[name] = counter.steps
    return found


async def plans_with(
    path: Path, statements: dict[str, list[tuple[str, Any]]], *signs: str
) -> dict[str, set[str]]:
    return await anyio.to_thread.run_sync(_plans_with, path, statements, signs)


def _plans_with(
    path: Path, statements: dict[str, list[tuple[str, Any]]], signs: tuple[str, ...]
) -> dict[str, set[str]]:
    """Return the steps of SQLite's plans with one of these signs, by the name of the call."""
    found: dict[str, set[str]] = {}
    database = sqlite3.connect(path)
    for name in ("match", "set", "value"):
        database.create_function(f"aiostorage_{name}", 2, lambda *_: 1, deterministic=True)
    for call, issued in statements.items():
        for sql, parameters in issued:
            if not sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
                continue
            plan = database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            steps = {step for *_, step in plan if any(sign in step for sign in signs)}
            if steps:
                found.setdefault(call, set()).update(steps)
    database.close()
    return found
