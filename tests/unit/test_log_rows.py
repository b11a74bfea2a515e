"""What is logged of one change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from aiostorage._core.change_log.log_rows import (
    MAX_REASON,
    entries_of,
    keys_of,
    known_before,
    log_rows,
)
from aiostorage._core.layout import LAYOUT, TRIALS
from aiostorage.operations import And, Compare, Logged, Update

NOW = datetime(2026, 2, 28, tzinfo=UTC)
LOGGED = next(one.logged for one in LAYOUT.collections if one.name == TRIALS)
assert isinstance(LOGGED, Logged)
TRIAL = {"experiment": 1, "id": "t", "status": "reserved", "worker": "w"}


def rows(before: Any, after: Any, **more: Any) -> list[tuple[Any, ...]]:
    assert LOGGED is not None
    found = log_rows(LOGGED, before, after, content=False, attempt=4, time=NOW, **more)
    names = ("kind", "owner", "name", "before", "after", "holder", "attempt")
    return [tuple(row[name] for name in names) for row in found]


def test_a_trial_that_is_registered_as_reserved_has_been_begun() -> None:
    assert rows(None, TRIAL) == [("inserted", 1, "t", None, "reserved", "w", 5)]


def test_a_trial_that_gets_another_name() -> None:
    assert rows(TRIAL, TRIAL | {"id": "u"}) == [
        ("deleted", 1, "t", "reserved", None, "w", 4),
        ("inserted", 1, "u", None, "reserved", "w", 1),
    ]


def test_what_another_program_has_stored_is_no_name() -> None:
    assert rows(None, TRIAL | {"id": None}) == []
    assert rows(TRIAL | {"worker": [1]}, None) == [("deleted", 1, "t", "reserved", None, None, 4)]


def test_a_long_reason_is_cut() -> None:
    assert LOGGED is not None
    reason = "x" * (MAX_REASON + 9)
    (row,) = log_rows(LOGGED, TRIAL, None, content=False, attempt=1, time=NOW, reason=reason)
    assert row["reason"] == reason[:MAX_REASON]
    update = Update(TRIALS, And(()), {"status": "broken"}, reason=reason)
    [entry] = entries_of(LOGGED, [(7, keys_of(TRIAL, LOGGED), update)], 1)
    assert reason[:MAX_REASON] in entry
    assert reason not in entry


@pytest.mark.parametrize("experiment", ["e", 1])
@pytest.mark.parametrize(
    ("bound", "changes", "known"),
    [
        (("experiment", "id", "status", "worker"), {"status": "completed"}, True),
        (("experiment", "id", "status"), {"status": "completed"}, False),
        (("experiment", "id", "status"), {"status": "reserved", "worker": "v"}, True),
        (("experiment", "id", "status"), {"status": "new", "worker": None}, False),
        (("experiment", "id", "worker"), {"status": "completed"}, False),
    ],
)
def test_what_a_condition_tells(bound: Any, changes: Any, known: bool, experiment: Any) -> None:
    assert LOGGED is not None
    trial = {**TRIAL, "experiment": experiment}
    where = And(tuple(Compare(name, "eq", trial[name]) for name in bound))
    found = known_before(LOGGED, Update(TRIALS, where, changes))
    assert found == ([keys_of({name: trial[name] for name in bound}, LOGGED)] if known else None)
    assert known_before(LOGGED, Update(TRIALS, where, {"heartbeat": NOW})) == []
