"""The contract of a driver on notes in an outbox: written with the changes that they record."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    EVERYTHING,
    Compare,
    Delete,
    Find,
    Insert,
    NotedChange,
    OutboxNote,
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
    OUTBOX,
    RECEIPTS,
    THINGS,
    by_id,
    ids,
    insert,
    thing,
)
from aiostorage.testing.contract.helpers import cut, gather

__all__ = ["OutboxNoteLaws"]

FIELDS = ("group", "_id")


def _note(*changes: NotedChange) -> OutboxNote:
    return OutboxNote(OUTBOX, changes)


async def _rows(driver: Driver) -> list[tuple[Any, Any, Any, Any]]:
    """Return the content of the rows."""
    found = await driver.execute(Find(OUTBOX))
    return [(row["experiment"], row["trial"], row["change"], row["worker"]) for row in found]


class OutboxNoteLaws:
    """What a note writes, and that it is written with the operations before it, or not at all."""

    async def test_a_note_tells_what_has_changed(
        self, driver: Driver, resolution: timedelta
    ) -> None:
        await insert(driver, thing("a"), thing("b"))
        before = cut(await driver.now(), resolution)
        results = await driver.transact(
            (
                Find(THINGS, by_id("b"), {"group": True}),
                Take(THINGS, EVERYTHING, {"x": 1}),
                Update(THINGS, by_id("b"), {"group": "h"}),
                Insert(THINGS, (thing("c"),)),
                Delete(THINGS, by_id("nowhere")),
                Update(THINGS, by_id("nowhere"), {"x": 1}),
                _note(
                    NotedChange(1, "reserved", fields=FIELDS, worker="w"),
                    NotedChange(0, "changed", fields=FIELDS, replaced={"group": "h"}),
                    NotedChange(3, "inserted", ("g", "c")),
                    NotedChange(4, "deleted", ("g", "nowhere")),
                    NotedChange(5, "changed", ("g", "nowhere")),
                    NotedChange(3, "inserted", ("g", "c")),
                ),
            )
        )
        assert results == [
            [{"_id": "b", "group": "g"}],
            [thing("a", x=1)],
            1,
            None,
            0,
            0,
            None,
        ]
        assert sorted(await _rows(driver), key=repr) == [
            ("g", "a", "reserved", "w"),
            ("g", "b", "changed", None),
            ("g", "c", "inserted", None),
            ("h", "b", "changed", None),
        ]
        after = await driver.now()
        for row in await driver.execute(Find(OUTBOX)):
            assert before <= row["time"] <= after

    async def test_one_change_with_its_note(self, driver: Driver) -> None:
        await insert(driver, thing("a"), thing("b"))
        take = Take(THINGS, EVERYTHING, {"x": 1})
        took = await driver.transact((take, _note(NotedChange(0, "reserved", fields=FIELDS))))
        assert took == [[thing("a", x=1)], None]
        changed = _note(NotedChange(0, "changed", ("g", "b")))
        assert await driver.transact((Update(THINGS, by_id("b"), {"x": 2}), changed)) == [1, None]
        assert await driver.transact((Update(THINGS, by_id("z"), {"x": 2}), changed)) == [0, None]
        expected = [("g", "a", "reserved", None), ("g", "b", "changed", None)]
        assert await _rows(driver) == expected

    async def test_a_receipt_before_a_note(self, driver: Driver) -> None:
        await insert(driver, thing("a"))
        await driver.transact(
            (
                Find(THINGS, EVERYTHING, {"group": True}),
                Delete(THINGS, EVERYTHING),
                Receipt(RECEIPTS, "k", StoreTime(60.0), skipped=1),
                _note(NotedChange(0, "deleted", fields=FIELDS)),
            )
        )
        (receipt,) = await driver.execute(Find(RECEIPTS))
        assert receipt["answers"] == [1]
        assert await _rows(driver) == [("g", "a", "deleted", None)]
        nothing = (
            Find(THINGS, EVERYTHING, {"group": True}),
            Delete(THINGS, EVERYTHING),
            Receipt(RECEIPTS, "l", StoreTime(60.0), skipped=1),
            _note(NotedChange(0, "deleted", fields=FIELDS)),
        )
        assert await driver.transact(nothing) == [[], 0, None, None]
        assert len(await _rows(driver)) == 1

    async def test_a_note_goes_with_the_rest(self, driver: Driver) -> None:
        await insert(driver, {"_id": 1, "name": "a"}, collection=NAMES)
        done, note = Insert(THINGS, (thing(1),)), _note(NotedChange(0, "inserted", ("g", "1")))
        taken = Insert(NAMES, ({"_id": 2, "name": "a"},))
        with pytest.raises(DuplicateKeyError):
            await driver.transact((done, taken, note))
        await insert(driver, thing(1))
        with pytest.raises(DuplicateKeyError):
            await driver.transact((done, note))
        assert await _rows(driver) == []

    async def test_many_at_once_note_what_they_took(self, driver: Driver, other: Driver) -> None:
        await insert(driver, *(thing(str(number), at=None, rank=0) for number in range(12)))
        free = Compare("rank", "eq", 0)

        async def take(number: int) -> list[Any]:
            changes = {"rank": 1, "by": number}
            one = Take(THINGS, free, changes, applied=Compare("by", "eq", number))
            note = _note(NotedChange(0, "reserved", fields=FIELDS, worker=str(number)))
            found, _ = await (driver, other)[number % 2].transact((one, note))
            return [("g", document["_id"], "reserved", str(number)) for document in found]

        took = await gather(map(take, range(16)))
        expected = [row for rows in took for row in rows]
        assert len(expected) == 12
        assert sorted(await _rows(driver)) == sorted(expected)

    async def test_cancelled_with_a_note(self, driver: Driver) -> None:
        number = 0

        async def call() -> None:
            nonlocal number
            number += 1
            done = Insert(THINGS, (thing(str(number)),))
            await driver.transact((done, _note(NotedChange(0, "inserted", ("g", str(number))))))

        async def check() -> None:
            there = str(number) in await ids(driver)
            assert (("g", str(number), "inserted", None) in await _rows(driver)) is there

        assert await cancelled_at_every_await(call, check) > 0, NEVER_AWAITS
