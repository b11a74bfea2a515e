"""The contract of a driver on receipts: the results of a transaction, noted together with it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    EVERYTHING,
    Compare,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Receipt,
    StoreTime,
    Take,
    Update,
)
from aiostorage.protocols import Driver
from aiostorage.testing.cancellation import cancelled_at_every_await
from aiostorage.testing.contract.driver_documents import (
    NAMES,
    NEVER_AWAITS,
    RECEIPTS,
    START,
    THINGS,
    by_id,
    ids,
    insert,
    thing,
)
from aiostorage.testing.contract.helpers import cut, gather, same

__all__ = ["ReceiptLaws"]


def _receipt(key: str = "k", *, repeated: bool = False) -> Receipt:
    """Make a receipt that expires after a minute."""
    return Receipt(RECEIPTS, key, StoreTime(60.0), repeated)


async def _answers(driver: Driver, key: str = "k") -> Any:
    """Return the results that are noted under a key; None without a receipt."""
    found = await driver.execute(Find(RECEIPTS, by_id(key)))
    return found[0]["answers"] if found else None


class ReceiptLaws:
    """What a receipt notes, and that it is written with the operations before it, or not at all."""

    async def test_a_receipt_notes_the_results(self, driver: Driver, resolution: timedelta) -> None:
        before = cut(await driver.now(), resolution)
        operations = (
            Insert(THINGS, (thing(1), thing(2))),
            Count(THINGS),
            Update(THINGS, EVERYTHING, {"x": 1}),
            Find(THINGS, by_id(1)),
            Take(THINGS, EVERYTHING, {"x": 2}),
            Delete(THINGS, Compare("x", "eq", 2)),
            Update(THINGS, by_id(7), {"x": 1}),
        )
        expected: list[Any] = [None, 2, 2, [thing(1, x=1)], [thing(1, x=2)], 1, 0]
        results = await driver.transact((*operations, _receipt(), Count(THINGS)))
        after = await driver.now()
        assert results == [*expected, None, 1]
        (record,) = await driver.execute(Find(RECEIPTS))
        assert set(record) == {"_id", "expires", "answers"}
        assert record["answers"] == expected
        assert before <= record["expires"] - timedelta(seconds=60) <= after
        assert await driver.execute(Delete(RECEIPTS, Compare("expires", "lte", StoreTime()))) == 0
        assert await driver.execute(Delete(RECEIPTS, Compare("expires", "lte", StoreTime(61)))) == 1

    async def test_a_receipt_notes_whole_documents(self, driver: Driver) -> None:
        document: Document = thing(
            1,
            at=START,
            raw=b"\xff\0",
            deep={"a.b": [None, -0.0, math.inf, {}], "$date": {"when": START, "n": 2**62}},
        )
        await insert(driver, document)
        taken, _ = await driver.transact((Take(THINGS, EVERYTHING, {"x": math.nan}), _receipt()))
        assert same(taken, [{**document, "x": math.nan}])
        assert same(await _answers(driver), [taken])
        await driver.execute(Update(THINGS, EVERYTHING, {"deep": {}}))
        taken[0]["deep"]["a.b"].clear()
        assert (await _answers(driver))[0][0]["deep"].keys() == {"a.b", "$date"}
        assert (await _answers(driver))[0][0]["deep"]["a.b"]

    async def test_nothing_done_leaves_no_receipt(self, driver: Driver) -> None:
        nothing = (
            Update(THINGS, EVERYTHING, {"x": 1}),
            Take(THINGS, EVERYTHING, {"x": 1}),
            Delete(THINGS, EVERYTHING),
        )
        assert await driver.transact((*nothing, _receipt())) == [0, [], 0, None]
        assert await _answers(driver) is None
        assert await driver.transact((*nothing, _receipt(repeated=True))) == [0, [], 0, None]
        assert await _answers(driver) == [0, [], 0]
        with pytest.raises(DuplicateKeyError):
            await driver.transact((Insert(THINGS, (thing(1),)), _receipt()))
        assert await ids(driver) == []

    @pytest.mark.parametrize("repeated", [False, True])
    async def test_a_key_that_is_taken(self, driver: Driver, repeated: bool) -> None:
        await driver.transact((Insert(THINGS, (thing(1),)), _receipt()))
        for operation in (
            Insert(THINGS, (thing(2),)),
            Update(THINGS, by_id(1), {"x": 1}),
            Update(THINGS, EVERYTHING, {"x": 1}),
            Take(THINGS, EVERYTHING, {"x": 1}),
            Delete(THINGS, EVERYTHING),
        ):
            with pytest.raises(DuplicateKeyError) as raised:
                await driver.transact((operation, _receipt(repeated=repeated)))
            error = raised.value
            assert (error.collection, error.fields, error.values) == (RECEIPTS, ("_id",), ("k",))
            assert await driver.execute(Find(THINGS)) == [thing(1)]
        assert await _answers(driver) == [None]

    async def test_a_receipt_goes_with_the_rest(self, driver: Driver) -> None:
        await insert(driver, {"_id": 1, "name": "a"}, collection=NAMES)
        taken = Insert(NAMES, ({"_id": 2, "name": "a"},))
        done = Insert(THINGS, (thing(1),))
        for operations in ((done, taken, _receipt()), (done, _receipt(), taken)):
            with pytest.raises(DuplicateKeyError) as raised:
                await driver.transact(operations)
            assert raised.value.collection == NAMES
            assert await _answers(driver) is None
            assert await ids(driver) == []

    async def test_one_of_many_attempts_happens(self, driver: Driver, other: Driver) -> None:
        async def attempt(number: int) -> str:
            mine = (driver, other)[number % 2]
            try:
                await mine.transact((Insert(THINGS, (thing(number),)), _receipt()))
            except DuplicateKeyError as error:
                return error.collection
            return THINGS

        done = await gather(map(attempt, range(8)))
        assert sorted(done) == [*[RECEIPTS] * 7, THINGS]
        assert await ids(driver) == [done.index(THINGS)]

    async def test_cancelled_with_a_receipt(self, driver: Driver) -> None:
        number = 0

        async def call() -> None:
            nonlocal number
            number += 1
            done = Insert(THINGS, (thing(number),))
            await driver.transact((done, _receipt(f"k{number}")))

        async def check() -> None:
            there = number in await ids(driver)
            assert (await _answers(driver, f"k{number}") == [None]) is there

        assert await cancelled_at_every_await(call, check) > 0, NEVER_AWAITS
