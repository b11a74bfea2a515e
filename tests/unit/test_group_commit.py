"""Group commit on SQLite: cancelled writes, large groups, and transactions that fail."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from aiostorage.drivers.sqlite import SQLiteDriver
from aiostorage.drivers.sqlite.group_commit import MAX_GROUP
from aiostorage.operations import Collection, Field, Find, Insert, Layout

pytestmark = pytest.mark.anyio

PLANTS = Layout(1, (Collection("plants", fields=(Field("at", "time"),)),))

TIMEOUT = 20.0
"""Seconds after which a write that has no answer is an error."""


class HookedClock:
    """A clock that calls a function first, in the thread and within the transaction of a write."""

    def __init__(self) -> None:
        self.hook: Callable[[], None] | None = None

    def __call__(self) -> datetime:
        if (hook := self.hook) is not None:
            self.hook = None
            hook()
        return datetime.now(UTC)


@pytest.fixture
def clock() -> HookedClock:
    return HookedClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plants.db"


@pytest.fixture
async def driver(path: Path, clock: HookedClock) -> AsyncIterator[SQLiteDriver]:
    driver = SQLiteDriver(path, synchronous="NORMAL", clock=clock)
    await driver.open(PLANTS)
    yield driver
    await driver.aclose()


@pytest.fixture
def file_lock(path: Path, driver: SQLiteDriver) -> Iterator[sqlite3.Connection]:
    """Give another connection that has the file's write lock."""
    with closing(
        sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def write(driver: SQLiteDriver, *ids: int) -> asyncio.Future[object]:
    """Begin to insert documents."""
    documents = tuple({"_id": uid} for uid in ids)
    return asyncio.ensure_future(driver.execute(Insert("plants", documents)))


async def stored(driver: SQLiteDriver) -> list[object]:
    return [found["_id"] for found in await driver.execute(Find("plants"))]


async def test_a_write_that_is_cancelled_in_the_queue_never_happens(
    driver: SQLiteDriver, clock: HookedClock
) -> None:
    begun, going_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert going_on.wait(TIMEOUT)

    clock.hook = wait
    first = write(driver, 1)
    assert await anyio.to_thread.run_sync(begun.wait, TIMEOUT)
    second, third = write(driver, 2), write(driver, 3)
    second.cancel()
    going_on.set()
    with anyio.fail_after(TIMEOUT):
        await asyncio.wait([first, second, third])
    assert second.cancelled()
    assert await stored(driver) == [1, 3]


async def test_a_write_that_is_cancelled_before_its_transaction_begins_never_happens(
    driver: SQLiteDriver, file_lock: sqlite3.Connection
) -> None:
    first, second = write(driver, 1), write(driver, 2)
    await anyio.sleep(0.02)  # the transaction waits for the lock of the file by now
    first.cancel()
    await anyio.to_thread.run_sync(file_lock.execute, "ROLLBACK")
    with anyio.fail_after(TIMEOUT):
        await second
    assert first.cancelled()
    assert await stored(driver) == [2]


async def test_more_writes_than_a_group_holds_are_all_answered(driver: SQLiteDriver) -> None:
    count = 2 * MAX_GROUP + 10
    with anyio.fail_after(TIMEOUT):
        await asyncio.gather(*(write(driver, uid) for uid in range(count)))
    assert await stored(driver) == list(range(count))


async def test_a_transaction_that_fails_is_rolled_back(
    driver: SQLiteDriver, clock: HookedClock
) -> None:
    def fail() -> None:
        raise LookupError("the clock failed")

    clock.hook = fail
    first, second = write(driver, 1), write(driver, 2)
    with anyio.fail_after(TIMEOUT):
        for failed in (first, second):
            with pytest.raises(LookupError):
                await failed
        await write(driver, 3)
    assert await stored(driver) == [3]


async def test_a_transaction_keeps_other_writers_out_from_its_beginning(
    driver: SQLiteDriver, clock: HookedClock, path: Path
) -> None:
    refused: list[str] = []

    def write_too() -> None:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                refused.append(str(error))

    clock.hook = write_too
    await write(driver, 1)
    assert refused == ["database is locked"]
