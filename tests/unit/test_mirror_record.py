"""How often a trial was reserved, counted from the rows of the outbox."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aiostorage._core.delivery.outbox import Change, MirrorRecord, OutboxRow


def row(change: Change, worker: str | None) -> OutboxRow:
    return OutboxRow("1", "e", "t", change, worker, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("workers", "attempts"),
    [((), 0), (("a",), 1), (("a", "a"), 1), (("a", "b", "b"), 2), ((None, None), 2)],
)
def test_a_row_that_was_written_twice_counts_once(
    workers: tuple[str | None, ...], attempts: int
) -> None:
    rows = [row("reserved", worker) for worker in workers]
    record = MirrorRecord("e", "t").counted([*rows, row("changed", "z")])
    assert record.attempts == attempts
    one_by_one = MirrorRecord("e", "t")
    for one in rows:
        one_by_one = one_by_one.counted([one])
    assert one_by_one == record
