"""The contract of a driver on insertions under the next free keys: consecutive, and each once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    And,
    Compare,
    Document,
    Find,
    Insert,
    InsertNext,
    NotedChange,
    Operation,
    OutboxNote,
    StoreTime,
)
from aiostorage.protocols import Driver
from aiostorage.testing.cancellation import cancelled_at_every_await
from aiostorage.testing.contract.driver_documents import (
    NAMES,
    NEVER_AWAITS,
    OUTBOX,
    RECEIPTS,
    by_id,
    insert,
)
from aiostorage.testing.contract.helpers import cut, gather

__all__ = ["InsertNextLaws"]

PLACES = 8


def _named(uid: Any, **fields: Any) -> Document:
    return {"_id": uid, "name": "n", "kept": {"list": [uid]}, **fields}


def _next(*documents: Document, first: int = 0) -> tuple[Operation[Any], Operation[Any]]:
    """Make the operations that insert documents under the next versions from `first` on."""
    versions = range(first, first + PLACES)
    among = Compare("version", "in", tuple(versions))
    taken = And((Compare("name", "eq", "n"), among))
    places = tuple({"version": version, "kept.number": version} for version in versions)
    return Find(NAMES, taken, {"version": True}), InsertNext(NAMES, documents, "version", places)


async def _versions(driver: Driver) -> list[tuple[Any, Any]]:
    """Return the version of each document by its id."""
    found = await driver.execute(Find(NAMES, Compare("name", "eq", "n")))
    assert all(one["kept"]["number"] == one["version"] for one in found if "kept" in one)
    return sorted((one["version"], one["_id"]) for one in found)


class InsertNextLaws:
    """Which keys the documents get, and that a key is given once, whoever asks at the same time."""

    async def test_documents_get_the_next_keys(self, driver: Driver) -> None:
        document = _named("a")
        assert await driver.transact(_next(document, _named("b"))) == [[], None]
        assert document == _named("a"), "it is the caller's"
        (found, nothing) = await driver.transact(_next(_named("c"), first=1))
        assert (found, nothing) == ([{"_id": "b", "version": 1}], None)
        assert await _versions(driver) == [(0, "a"), (1, "b"), (2, "c")]
        (stored,) = await driver.execute(Find(NAMES, by_id("c")))
        assert stored == _named("c", version=2, kept={"list": ["c"], "number": 2})

    async def test_a_key_is_behind_all_that_are_taken(self, driver: Driver) -> None:
        await insert(driver, {"_id": "x", "name": "n", "version": 4}, collection=NAMES)
        await insert(driver, {"_id": "y", "name": "other", "version": 6}, collection=NAMES)
        await driver.transact(_next(_named("a")))
        assert await _versions(driver) == [(4, "x"), (5, "a")]

    async def test_too_few_keys_are_none(self, driver: Driver) -> None:
        await insert(driver, {"_id": "x", "name": "n", "version": 6}, collection=NAMES)
        await driver.transact(_next(_named("a"), _named("b")))
        assert await _versions(driver) == [(6, "x")]
        await driver.transact(_next(_named("a")))
        await driver.transact(_next(_named("b")))
        assert await _versions(driver) == [(6, "x"), (7, "a")]

    async def test_an_id_that_is_taken(self, driver: Driver) -> None:
        await driver.transact(_next(_named("a")))
        with pytest.raises(DuplicateKeyError) as raised:
            await driver.transact(_next(_named("a")))
        error = raised.value
        assert (error.collection, error.fields, error.values) == (NAMES, ("_id",), ("a",))
        assert await _versions(driver) == [(0, "a")]

    async def test_documents_go_with_the_rest(self, driver: Driver, resolution: timedelta) -> None:
        await insert(driver, {"_id": 1, "name": "taken", "version": 1}, collection=NAMES)
        taken = Insert(NAMES, ({"_id": 2, "name": "taken", "version": 1},))
        with pytest.raises(DuplicateKeyError):
            await driver.transact((*_next(_named("a"), _named("b")), taken))
        assert await _versions(driver) == []
        timed = InsertNext(
            RECEIPTS, ({"_id": "r", "expires": StoreTime(60.0)},), "n", ({"n": 1}, {"n": 2})
        )
        before = cut(await driver.now(), resolution)
        await driver.transact((Find(RECEIPTS, limit=0), timed))
        (record,) = await driver.execute(Find(RECEIPTS))
        assert record["n"] == 1
        passed = record["expires"] - timedelta(seconds=60)
        assert before <= passed <= await driver.now()

    async def test_a_note_tells_what_was_inserted(self, driver: Driver) -> None:
        await driver.transact(_next(_named("a")))
        look, numbered = _next(_named("b"), _named("c"))
        assert isinstance(numbered, InsertNext)
        fields = ("name", "version")
        changes = [
            NotedChange(1, kind, fields=fields, worker=worker, inserted=(numbered, place))
            for place, (kind, worker) in enumerate((("inserted", None), ("reserved", "w")))
        ]
        note = OutboxNote(OUTBOX, tuple(changes))
        await driver.transact((look, numbered, note))
        rows = await driver.execute(Find(OUTBOX))
        told = [(row["experiment"], row["trial"], row["change"], row["worker"]) for row in rows]
        assert sorted(told) == [("n", 1, "inserted", None), ("n", 2, "reserved", "w")]

    async def test_many_at_once_get_a_key_each(self, driver: Driver, other: Driver) -> None:
        async def attempt(number: int) -> None:
            mine = (driver, other)[number % 2]
            while True:
                try:
                    await mine.transact(_next(_named(f"{number}")))
                except DuplicateKeyError as error:
                    if "version" not in error.fields:
                        raise
                    # the engine has no transactions
                else:
                    return

        await gather(map(attempt, range(PLACES)))
        keys: Sequence[tuple[Any, Any]] = await _versions(driver)
        assert [version for version, _ in keys] == list(range(PLACES))
        assert sorted(uid for _, uid in keys) == [f"{number}" for number in range(PLACES)]

    async def test_cancelled_under_a_next_key(self, driver: Driver) -> None:
        number = there = 0

        async def call() -> None:
            nonlocal number
            number += 1
            await driver.transact(_next(_named(f"{number}"), first=max(0, there - 2)))

        async def check() -> None:
            nonlocal there
            keys = await _versions(driver)
            there = len(keys)
            assert [version for version, _ in keys] == list(range(len(keys)))

        assert await cancelled_at_every_await(call, check) > 0, NEVER_AWAITS
