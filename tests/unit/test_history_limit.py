"""How long the history is kept, as a user writes it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aiostorage import ConfigurationError
from aiostorage._core.history_limit import MAX_ROWS, HistoryLimit


@pytest.mark.parametrize(
    ("value", "age", "rows"),
    [
        ("30d", timedelta(days=30), None),
        ("90s", timedelta(seconds=90), None),
        ("2w", timedelta(weeks=2), None),
        (1, None, 1),
        ("10000", None, 10000),
        (MAX_ROWS, None, MAX_ROWS),
        ("off", None, None),
        (False, None, None),
    ],
)
def test_limits(value: Any, age: timedelta | None, rows: int | None) -> None:
    limit = HistoryLimit.of(value)
    assert (limit.age, limit.rows, limit.is_off) == (
        age,
        rows,
        age is None and rows is None,
    )
    assert HistoryLimit.of(limit.text) == limit


@pytest.mark.parametrize(
    "value",
    [0, -1, "0", "0d", True, None, 1.5, MAX_ROWS + 1, "", "30 d", "30y", "999999999w", "²d"],
)
def test_what_is_none(value: Any) -> None:
    with pytest.raises(ConfigurationError, match='history is a time such as "30d"'):
        HistoryLimit.of(value)
