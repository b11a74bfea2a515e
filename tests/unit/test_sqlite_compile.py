"""Operations as SQL: the plans that SQLite makes of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from aiostorage._core.layout import LAYOUT, PENDING, TRIALS, WAITERS
from aiostorage._core.lost_trials import LostTrials
from aiostorage._core.trial_queries import order_of, trial_condition
from aiostorage.drivers.sqlite.clock import Moment
from aiostorage.drivers.sqlite.columns import SET, to_text
from aiostorage.drivers.sqlite.sql import MATCH, VALUE, Table
from aiostorage.errors import EncodingError, UnsupportedQuery
from aiostorage.operations import (
    After,
    And,
    Collection,
    Compare,
    Count,
    Delete,
    Field,
    Find,
    Index,
    Or,
    StoreTime,
    Take,
    Update,
)

NOW = Moment(datetime(2026, 1, 1, tzinfo=UTC), 5)
TABLES = {c.name: Table(c) for c in LAYOUT.collections}


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.create_function(MATCH, 2, lambda _key, _doc: True, deterministic=True)
    connection.create_function(SET, 2, lambda _key, doc: doc, deterministic=True)
    connection.create_function(VALUE, 2, lambda _key, doc: 1, deterministic=True)
    for table in TABLES.values():
        for statement in table.schema():
            connection.execute(statement)
    yield connection
    connection.close()


def plan(database: sqlite3.Connection, statement: tuple[str, list[Any]]) -> str:
    rows = database.execute("EXPLAIN QUERY PLAN " + statement[0], statement[1])
    return "\n".join(row[-1] for row in rows)


EXPERIMENT = Compare("experiment", "eq", "e")


def test_plan_of_a_reservation(database: sqlite3.Connection) -> None:
    where = And((EXPERIMENT, PENDING))
    find = Find(TRIALS, where, order=("submit_time",), limit=1)
    found = plan(database, TABLES[TRIALS].find(find, NOW, []))
    assert "trials_experiment_submit_time" in found
    assert "TEMP B-TREE" not in found
    assert "SCAN" not in found


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (And((EXPERIMENT, Compare("id", "eq", "t"))), "trials_experiment_id"),
        (And((EXPERIMENT, Compare("status", "eq", "completed"))), "trials_experiment_status"),
        (And((EXPERIMENT, *LostTrials(120).conditions)), "trials_experiment_status"),
        (Compare("_id", "eq", "x"), "trials__id"),
    ],
)
def test_plans_of_trials(database: sqlite3.Connection, where: Any, index: str) -> None:
    table = TABLES[TRIALS]
    for statement in (
        table.count(Count(TRIALS, where), NOW, []),
        table.update(Update(TRIALS, where, {"status": "broken"}), NOW, []),
        table.delete(Delete(TRIALS, where), NOW, []),
    ):
        found = plan(database, statement)
        assert index in found
        assert "SCAN" not in found


def test_plans_of_questions_about_trials(database: sqlite3.Connection) -> None:
    table = TABLES[TRIALS]
    params = trial_condition(None, {"lr": {"$gt": 1e-3}})
    where = And((EXPERIMENT, params))
    by_index = "SEARCH trials USING INDEX trials_experiment_"
    for count in (where, And((EXPERIMENT, Compare("status", "eq", "new"), params))):
        assert plan(database, table.count(Count(TRIALS, count), NOW, [])).startswith(by_index)
    for name in (None, "end_time", "-objective"):
        order = order_of(name)
        after = After("t", (1.5 if name == "-objective" else NOW.wall,))
        find = Find(TRIALS, where, order=order, limit=5, after=after)
        found = plan(database, table.find(find, NOW, []))
        assert found.startswith(by_index)
        assert "SCAN" not in found


def test_plan_of_lost_trials(database: sqlite3.Connection) -> None:
    where = And((EXPERIMENT, *LostTrials(120).conditions))
    take = Take(TRIALS, where, {}, order=("submit_time",))
    found = plan(database, TABLES[TRIALS].chosen(take, 1, NOW, []))
    assert "trials_experiment_status (experiment=? AND status=?)" in found
    assert "SCAN" not in found


def test_what_is_empty_already_is_not_written(database: sqlite3.Connection) -> None:
    table = TABLES[TRIALS]
    begun = {"status": "reserved", "heartbeat": StoreTime(), "end_time": None, "results": []}
    cases: dict[str, tuple[dict[str, Any], bool]] = {
        "new": ({"end_time": None, "results": []}, True),
        "with results": ({"end_time": None, "results": [1]}, False),
        "ended": ({"end_time": NOW.wall, "results": []}, False),
        "no results": ({"end_time": None}, False),
        "no end": ({"results": []}, False),
    }
    for name, (more, is_short) in cases.items():
        stored: dict[str, Any] = {"_id": name, "experiment": "e", "id": name, "status": "new"}
        database.execute(*table.insert({**stored, **more}, NOW))
        take = Take(TRIALS, Compare("_id", "eq", name), begun)
        rows = database.execute(*table.chosen(take, 1, NOW, [])).fetchall()
        statements: dict[str, list[list[Any]]] = {}
        [document] = table.changed(rows, begun, NOW, [], statements)
        [(sql, [values])] = statements.items()
        assert document == {**stored, **begun, "heartbeat": NOW.wall}
        assert (SET not in sql) is is_short
        assert values[-1] == rows[0][0]
        assert document["results"] is not begun["results"]


def test_plan_of_the_queue(database: sqlite3.Connection) -> None:
    where = And((EXPERIMENT, Compare("expires", "gt", StoreTime())))
    find = Find(WAITERS, where, {"_id": True}, ("since",), 1)
    found = plan(database, TABLES[WAITERS].find(find, NOW, []))
    assert "lock_waiters_experiment_since" in found
    assert found.count("SEARCH") == 1
    assert "TEMP B-TREE" not in found


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        NOW.wall,
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_time_as_text(moment: datetime) -> None:
    assert datetime.fromisoformat(to_text(moment)) == moment
    assert len(to_text(moment)) == 27


def test_text_sorts_as_time() -> None:
    moments = [datetime(y, 1, 1, 0, 0, 0, us, tzinfo=UTC) for y in (1, 99, 2026) for us in (0, 1)]
    assert sorted(map(to_text, moments)) == list(map(to_text, moments))


def test_what_does_not_fit_a_column() -> None:
    table = TABLES[TRIALS]
    for changes in ({"status": 1.5}, {"status": [1]}, {"heartbeat": "now"}, {"status": None}):
        with pytest.raises(EncodingError) as raised:
            table.update(Update(TRIALS, EXPERIMENT, changes), NOW, [])
        assert raised.value.path == next(iter(changes))
    with pytest.raises(UnsupportedQuery):
        table.update(Update(TRIALS, EXPERIMENT, {"status.x": 1}), NOW, [])
    with pytest.raises(UnsupportedQuery):
        table.find(Find(TRIALS, EXPERIMENT, order=("params",)), NOW, [])


def test_names_and_literals_are_quoted(database: sqlite3.Connection) -> None:
    strange = Collection(
        'a"b',
        fields=(Field('c"; DROP TABLE trials; --', "key"),),
        indexes=(
            Index(
                ('c"; DROP TABLE trials; --',),
                where=Compare('c"; DROP TABLE trials; --', "in", ("it's", 1)),
            ),
        ),
    )
    for statement in Table(strange).schema():
        database.execute(statement)
    assert database.execute("SELECT count(*) FROM trials").fetchone() == (0,)
    for where in (Compare("x", "eq", 1), Compare("x", "in", (1.5,))):
        wrong = Collection("w", fields=(Field("x", "key"),), indexes=(Index(("x",), where=where),))
        with pytest.raises(TypeError):
            Table(wrong).schema()


def test_empty_conditions() -> None:
    table = TABLES[TRIALS]
    assert table.where(And(()), NOW, []) == ("1", [])
    assert table.where(Or(()), NOW, []) == ("0", [])
    assert table.where(Compare("status.x", "eq", None), NOW, []) == ("1", [])
    assert table.where(Compare("status.x", "eq", 1), NOW, []) == ("0", [])
