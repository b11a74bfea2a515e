"""The clock of a file: ticks, the numbers of boots, and files that lack them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiostorage.drivers.sqlite import clock as clock_module
from aiostorage.drivers.sqlite.clock import BOOT_TABLE, TICK, TICK_BITS, Moment, StoreClock, boot_id
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.execution import moment
from aiostorage.drivers.sqlite.sql import Table
from aiostorage.drivers.sqlite.tables import fill_ticks
from aiostorage.operations import Collection, Compare, Count, Field, Find, Index, StoreTime
from aiostorage.testing import FakeClock

BEATS = Collection(
    "beats",
    fields=(
        Field("group", "key", required=True),
        Field("at", "time", clocked=True),
        Field("until", "time", clocked=True),
    ),
    indexes=(Index(("group", "at")), Index(("at",), unique=True)),
)
OLD = replace(BEATS, fields=tuple(replace(field, clocked=False) for field in BEATS.fields))
"""The same collection in a file that knows no ticks."""

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with closing(Connection(DatabaseFile(tmp_path / "x.db"), 5.0)) as c:
        yield c


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give the id of the boot, to change."""
    boot = ["first"]
    monkeypatch.setattr(clock_module, "boot_id", lambda: boot[0])
    clock_module._begin_of_boot.cache_clear()
    yield boot
    clock_module._begin_of_boot.cache_clear()


def ticks(connection: Connection, clock: StoreClock | None = None) -> int:
    """Return the ticks of a clock that begins now."""
    clock = clock or StoreClock()
    clock.begin(connection)
    return moment(clock).ticks


def test_a_boot_has_an_id() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36


def test_ticks_are_milliseconds_of_the_machine(connection: Connection) -> None:
    connection.execute(BOOT_TABLE)
    before = time.monotonic_ns() // 10**6
    number, milliseconds = divmod(ticks(connection), 1 << TICK_BITS)
    assert number == 1
    assert before <= milliseconds <= time.monotonic_ns() // 10**6


def test_each_boot_is_later_than_all_before(connection: Connection, boot: list[str]) -> None:
    connection.execute(BOOT_TABLE)
    found = []
    for boot[0] in ("first", "first", "second", "second", "", "first"):
        found.append(ticks(connection))
    assert found == sorted(found)
    assert [tick >> TICK_BITS for tick in found] == [1, 1, 2, 2, 3, 4]
    assert connection.execute("SELECT * FROM aiostorage_boot").fetchall() == [(4, "first")]


def test_a_boot_is_numbered_in_the_transaction_that_is_open(
    connection: Connection, boot: list[str]
) -> None:
    connection.execute(BOOT_TABLE)
    ticks(connection)
    connection.execute("BEGIN IMMEDIATE")
    boot[0] = "second"
    assert ticks(connection) >> TICK_BITS == 2
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT * FROM aiostorage_boot").fetchall() == [(1, "first")]


def test_without_an_id_the_time_of_day_counts(connection: Connection, boot: list[str]) -> None:
    connection.execute(BOOT_TABLE)
    boot[0] = ""
    milliseconds = ticks(connection) - (1 << TICK_BITS)
    assert abs(milliseconds / 1000 - time.time()) < 60
    clock = FakeClock(NOON)
    before = ticks(connection, StoreClock(clock))
    clock.advance(1.5)
    assert ticks(connection, StoreClock(clock)) - before == 1500


def test_ticks_follow_a_clock_of_the_caller(connection: Connection) -> None:
    connection.execute(BOOT_TABLE)
    fake = FakeClock()
    one, other = StoreClock(fake), StoreClock(fake)
    assert ticks(connection, one) == ticks(connection, other)
    assert abs(moment(one).ticks - ticks(connection)) < 60_000
    for seconds in (0.001, 3600, -7200):
        before = moment(one)
        fake.advance(seconds)
        assert moment(one) == moment(other) == Moment(fake(), before.ticks + round(seconds * 1000))


def test_a_million_boots_fit(connection: Connection) -> None:
    connection.execute(BOOT_TABLE)
    connection.execute("INSERT INTO aiostorage_boot VALUES (1000000, 'x')")
    last = ticks(connection)
    assert last < 2**63
    assert connection.execute("SELECT ?", [last]).fetchone() == (last,)


@pytest.mark.parametrize("seconds", [0.0, 0.001, -59.5, 3600.0, -(86400.0 * 365)])
def test_times_of_an_older_file_get_ticks(connection: Connection, seconds: float) -> None:
    old, new = Table(OLD), Table(BEATS)
    for statement in old.schema():
        connection.execute(statement)
    fake = FakeClock(NOON + timedelta(microseconds=123_456))
    at = fake() + timedelta(seconds=seconds)
    for document in ({"_id": 1, "group": "g", "at": at}, {"_id": 2, "group": "g"}):
        connection.execute(*old.insert(document, Moment(fake(), 0)))
    connection.execute("BEGIN IMMEDIATE")
    for column in ("at_ticks", "until_ticks"):
        connection.execute(f"ALTER TABLE beats ADD COLUMN {column} INTEGER")
    clock = StoreClock(fake)
    fill_ticks(connection, [BEATS], clock)
    fake.advance(7)
    fill_ticks(connection, [BEATS], clock)  # there is nothing left to do
    fake.advance(-7)
    connection.execute("COMMIT")
    found = connection.execute("SELECT at_ticks, until_ticks FROM beats ORDER BY seq").fetchall()
    assert found == [(moment(clock).ticks + (at - fake()) // TICK, None), (None, None)]
    for offset in (seconds - 1, seconds + 1):
        where = Compare("at", "gt", StoreTime(offset))
        (count,) = connection.execute(
            *new.count(Count("beats", where), moment(clock), [])
        ).fetchone()
        assert count == (offset < seconds)


def test_plan_of_a_sort_by_a_clocked_field(connection: Connection) -> None:
    table = Table(BEATS)
    for statement in table.schema():
        connection.execute(statement)
    by_at = Find("beats", Compare("group", "eq", "g"), order=("at",))
    sql, parameters = table.find(by_at, Moment(NOON, 0), [])
    plan = str(connection.execute("EXPLAIN QUERY PLAN " + sql, parameters).fetchall())
    assert "beats_group_at" in plan
    assert "TEMP B-TREE" not in plan


def test_a_unique_index_is_of_the_times_themselves(connection: Connection) -> None:
    table = Table(BEATS)
    for statement in table.schema():
        connection.execute(statement)
    for number in range(2):  # both have the same ticks
        document = {"_id": number, "group": "g", "at": NOON + timedelta(microseconds=number)}
        connection.execute(*table.insert(document, Moment(NOON, 0)))
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(*table.insert({"_id": 3, "group": "g", "at": NOON}, Moment(NOON, 5)))
