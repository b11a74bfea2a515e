"""The contract of a driver on transactions, pages, changes and its lifetime."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from aiostorage.errors import DuplicateKeyError, StorageClosedError
from aiostorage.operations import (
    EVERYTHING,
    Compare,
    Count,
    Delete,
    Find,
    Insert,
    Operation,
    StoreTime,
    Take,
    Update,
)
from aiostorage.protocols import Driver
from aiostorage.testing.cancellation import cancelled_at_every_await
from aiostorage.testing.contract.driver_documents import (
    LAYOUT,
    NAMES,
    NEVER_AWAITS,
    THINGS,
    ids,
    insert,
    thing,
)
from aiostorage.testing.contract.helpers import gather

__all__ = ["ChangeLaws", "DriverLifetimeLaws", "OpenDriver", "PageLaws", "TransactionLaws"]

OpenDriver = Callable[[], Awaitable[Driver]]
"""Opens one more driver; closed after the test."""


class TransactionLaws:
    """All or nothing, one after the other."""

    async def test_transact_answers_all_results(self, driver: Driver) -> None:
        results = await driver.transact(
            (
                Insert(THINGS, (thing(1), thing(2))),
                Count(THINGS),
                Update(THINGS, EVERYTHING, {"x": 1}),
                Find(THINGS, Compare("_id", "eq", 1)),
                Take(THINGS, EVERYTHING, {"x": 2}),
                Delete(THINGS, Compare("x", "eq", 2)),
                Count(THINGS),
            )
        )
        assert results == [None, 2, 2, [thing(1, x=1)], [thing(1, x=2)], 1, 1]

    async def test_what_is_passed_and_returned_is_the_callers(self, driver: Driver) -> None:
        inner: list[Any] = [{"a": [1]}]
        mine = thing(1, x={"deep": inner}, at=StoreTime())
        insertion = Insert(THINGS, (mine,))
        await driver.execute(insertion)
        assert mine == thing(1, x={"deep": inner}, at=StoreTime())  # nothing was filled in
        inner[0]["a"].append("later")
        mine["x"]["other"] = 1
        expected = {"deep": [{"a": [1]}]}
        [found] = await driver.execute(Find(THINGS))
        assert found["x"] == expected
        found["x"]["deep"].clear()
        for write in (Update, Take):
            changed: dict[str, Any] = {"x": {"deep": [{"a": [1]}]}, "at": StoreTime()}
            result = await driver.execute(write(THINGS, EVERYTHING, changed))
            assert changed["at"] == StoreTime()
            changed["x"]["deep"].clear()
            if isinstance(result, list):
                result[0]["x"].clear()
            assert [d["x"] for d in await driver.execute(Find(THINGS))] == [expected]
        [page], _ = await driver.page(Find(THINGS), None, 1)
        page["x"].clear()
        assert [d["x"] for d in await driver.execute(Find(THINGS))] == [expected]

    async def test_transact_all_or_none(self, driver: Driver) -> None:
        documents = [thing(n, rank=n) for n in range(4)]
        await insert(driver, *documents)
        await insert(driver, {"_id": 1, "name": "a"}, collection=NAMES)
        with pytest.raises(DuplicateKeyError) as raised:
            await driver.transact(
                (
                    Insert(THINGS, (thing(9),)),
                    Update(THINGS, Compare("_id", "eq", 0), {"rank": 7, "x.y": 1}),
                    Take(THINGS, Compare("_id", "eq", 3), {"group": "other"}),
                    Delete(THINGS, Compare("_id", "eq", 1)),
                    Insert(NAMES, ({"_id": 2, "name": "a"},)),
                    Delete(THINGS, EVERYTHING),
                )
            )
        assert raised.value.collection == NAMES
        assert await driver.execute(Find(THINGS)) == documents
        assert await driver.execute(Find(THINGS, order=("rank",))) == documents
        where = Compare("group", "eq", "g")
        assert await driver.execute(Find(THINGS, where, order=("at",))) == documents
        assert await driver.execute(Count(NAMES)) == 1

    async def test_a_failure_does_not_take_others_along(self, driver: Driver) -> None:
        await insert(driver, {"_id": 0, "name": "taken"}, collection=NAMES)

        async def write(n: int) -> bool:
            name = "taken" if n % 3 == 0 else f"n{n}"
            first = Insert(THINGS, (thing(n),))
            second = Insert(NAMES, ({"_id": n + 1, "name": name},))
            try:
                await driver.transact((first, second))
            except DuplicateKeyError:
                return False
            return True

        succeeded = await gather(map(write, range(60)))
        assert succeeded == [n % 3 != 0 for n in range(60)]
        assert sorted(await ids(driver)) == [n for n in range(60) if n % 3]
        assert await driver.execute(Count(NAMES)) == 41

    async def test_writes_at_the_same_time(self, driver: Driver, other: Driver) -> None:
        await insert(driver, thing("counter", n=0), *map(thing, range(50)))
        taken: list[Any] = []

        async def work(number: int) -> None:
            mine = (driver, other)[number % 2]
            where = Compare("free", "exists", False)
            while documents := await mine.execute(Take(THINGS, where, {"free": number}, limit=2)):
                taken.extend(document["_id"] for document in documents)

        await gather(map(work, range(8)))
        assert Counter(taken) == Counter(["counter", *range(50)])

    async def test_a_change_is_seen_by_who_comes_after(self, driver: Driver, other: Driver) -> None:
        for number in range(20):
            await insert((driver, other)[number % 2], thing(number))
            for reader in (driver, other):
                assert await reader.execute(Count(THINGS)) == number + 1


class PageLaws:
    """Pages, and changes while they are turned."""

    async def test_pages(self, driver: Driver) -> None:
        assert await driver.page(Find(THINGS), None, 3) == ([], None)
        await insert(driver, *(thing(n, rank=n % 2) for n in range(10)))
        for size in (1, 3, 5, 9, 10, 11):
            for where, expected in (
                (EVERYTHING, list(range(10))),
                (Compare("rank", "eq", 1), [1, 3, 5, 7, 9]),
                (Compare("none", "eq", 1), []),
            ):
                found: list[Any] = []
                cursor: object | None = None
                while True:
                    find = Find(THINGS, where, selection={"rank": True})
                    documents, cursor = await driver.page(find, cursor, size)
                    assert len(documents) <= size
                    found += documents
                    if cursor is None:
                        break
                assert [d["_id"] for d in found] == expected
                assert all(set(d) == {"_id", "rank"} for d in found)

    async def test_pages_while_others_write(self, driver: Driver, other: Driver) -> None:
        await insert(driver, *(thing(n, rank=1) for n in range(30)))
        seen: list[Any] = []
        cursor: object | None = None
        page = 0
        while True:
            documents, cursor = await driver.page(Find(THINGS), cursor, 4)
            seen += [d["_id"] for d in documents]
            if cursor is None:
                break
            if page < 10:
                await insert(other, thing(100 + page))
                gone = Compare("_id", "in", (page, 29 - page))
                await other.execute(Delete(THINGS, gone))
                await other.execute(Update(THINGS, EVERYTHING, {"rank": -page, "x": page}))
            page += 1
        assert len(set(seen)) == len(seen)
        assert set(range(10, 20)) <= set(seen)


class ChangeLaws:
    """Waiting for a change."""

    async def test_without_a_version_it_answers_at_once(self, driver: Driver) -> None:
        with anyio.fail_after(2):
            await driver.wait_for_change(THINGS, None, 60)

    async def test_it_returns_at_the_latest(self, driver: Driver) -> None:
        version = await driver.wait_for_change(THINGS, None, 1)
        start = anyio.current_time()
        with anyio.fail_after(5):
            await driver.wait_for_change(THINGS, version, 0.1)
            await driver.wait_for_change(THINGS, version, 0)
        assert anyio.current_time() - start < 3

    async def test_a_change_since_the_version(self, driver: Driver, other: Driver) -> None:
        for number, writer in enumerate((driver, other)):
            version = await driver.wait_for_change(THINGS, None, 1)
            await insert(writer, thing(number))
            with anyio.fail_after(5):
                later = await driver.wait_for_change(THINGS, version, 60)
            assert later != version

    async def test_a_change_while_it_waits(self, driver: Driver, other: Driver) -> None:
        for number, writer in enumerate((driver, other)):
            version = await driver.wait_for_change(THINGS, None, 1)
            waiting = asyncio.create_task(driver.wait_for_change(THINGS, version, 60))
            await anyio.sleep(0.05)
            await insert(writer, thing(number))
            with anyio.fail_after(5):
                await waiting


class DriverLifetimeLaws:
    """Opened, closed, cancelled."""

    async def test_it_is_a_driver(self, driver: Driver) -> None:
        assert isinstance(driver, Driver)
        assert driver.name
        assert driver.location

    async def test_opened_again(self, driver: Driver) -> None:
        await insert(driver, thing(1))
        await driver.open(LAYOUT)
        assert await ids(driver) == [1]

    async def test_closed(self, driver: Driver, open_driver: OpenDriver, shared: bool) -> None:
        await insert(driver, thing(1))
        await driver.aclose()
        await driver.aclose()
        operations: tuple[Operation[Any], ...] = (Count(THINGS), Insert(THINGS, (thing(2),)))
        for operation in operations:
            with pytest.raises(StorageClosedError):
                await driver.execute(operation)
        with pytest.raises(StorageClosedError):
            await driver.transact(operations)
        with pytest.raises(StorageClosedError):
            await driver.page(Find(THINGS), None, 1)
        again = await open_driver()
        assert await ids(again) == ([1] if shared else [])

    async def test_closing_finishes_what_is_under_way(self, driver: Driver) -> None:
        calls = [asyncio.create_task(insert(driver, thing(n))) for n in range(20)]
        await asyncio.sleep(0)
        with anyio.fail_after(10):
            await driver.aclose()
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(r is None or isinstance(r, StorageClosedError) for r in results)

    async def test_cancelled(self, driver: Driver) -> None:
        number = 0

        async def call() -> None:
            nonlocal number
            number += 1
            pair = (thing(f"a{number}"), thing(f"b{number}"))
            await driver.transact(tuple(Insert(THINGS, (document,)) for document in pair))

        async def check() -> None:
            found = await ids(driver)
            assert (f"a{number}" in found) is (f"b{number}" in found)
            await insert(driver, thing(f"c{number}"))

        assert await cancelled_at_every_await(call, check) > 0, NEVER_AWAITS

    async def test_many_cancelled_among_many(self, driver: Driver) -> None:
        tasks = [asyncio.create_task(insert(driver, thing(n))) for n in range(60)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        found = set(await ids(driver))
        for n, result in enumerate(results):
            assert result is None or isinstance(result, asyncio.CancelledError)
            assert n in found or result is not None
