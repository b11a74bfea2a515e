"""The contract of a driver on its operations: what each one does and returns."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from aiostorage._core.queries.ordering import values_of
from aiostorage._core.queries.query import matches
from aiostorage.errors import DuplicateKeyError, UnsupportedQuery
from aiostorage.operations import (
    EVERYTHING,
    After,
    And,
    Compare,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Or,
    SortBy,
    StoreTime,
    Take,
    Update,
)
from aiostorage.protocols import Driver, SlicingDriver
from aiostorage.testing.contract.driver_documents import (
    NAMES,
    START,
    THINGS,
    by_id,
    ids,
    insert,
    random_condition,
    random_document,
    thing,
)
from aiostorage.testing.contract.helpers import case, cut, same

__all__ = ["OperationLaws"]


class OperationLaws:
    """What the operations mean."""

    async def test_insert_find_count_delete(self, driver: Driver) -> None:
        documents = [thing(n, n=n, deep={"list": [n, {"k": None}]}) for n in range(5)]
        await insert(driver, *documents)
        assert await driver.execute(Find(THINGS)) == documents
        assert await driver.execute(Find(THINGS, limit=2)) == documents[:2]
        assert await driver.execute(Count(THINGS)) == 5
        where = Compare("n", "gte", 3)
        assert await driver.execute(Count(THINGS, where)) == 2
        assert await driver.execute(Delete(THINGS, where)) == 2
        assert await driver.execute(Delete(THINGS, where)) == 0
        assert await driver.execute(Find(THINGS)) == documents[:3]
        assert await driver.execute(Find(NAMES)) == []

    async def test_slices(self, driver: Driver) -> None:
        if not isinstance(driver, SlicingDriver):
            pytest.skip("this driver makes all documents at once")
        await insert(driver, *(thing(n, n=n % 3, deep=[{"list": [n]}]) for n in range(20)))
        finds = [
            *(Find(THINGS), Find(THINGS, Compare("n", "eq", 1), {"deep": True}), Find(NAMES)),
            *(
                Find(THINGS, order=(SortBy("rank", descending=True),), limit=7),
                Find(THINGS, limit=0),
            ),
        ]
        for find in finds:
            with case(find):
                slices = list(await driver.slices(find, 3))
                assert all(0 < len(part) <= 3 for part in slices)
                found = [document for part in slices for document in part]
                assert found == await driver.execute(find)
        slices_of_now = await driver.slices(Find(THINGS), 3)
        first = next(slices_of_now)
        first[0]["deep"].append("a change by the caller")
        await driver.execute(Update(THINGS, EVERYTHING, {"n": 9}))
        await driver.execute(Delete(THINGS, Compare("_id", "ne", first[0]["_id"])))
        rest = [document for part in slices_of_now for document in part]
        assert [document["n"] for document in (*first, *rest)] == [n % 3 for n in range(20)]
        assert (await driver.execute(Find(THINGS)))[0]["deep"] == [{"list": [0]}]

    async def test_nothing_to_insert(self, driver: Driver) -> None:
        await driver.execute(Insert(THINGS, ()))
        assert await driver.transact(()) == []

    async def test_a_missing_field_is_not_a_none(self, driver: Driver) -> None:
        documents = [thing(1, rank=None, at=None, raw=None, x=None), thing(2)]
        await insert(driver, *documents)
        assert await driver.execute(Find(THINGS)) == documents
        for name in ("rank", "at", "raw", "x"):
            assert await ids(driver, Compare(name, "exists", True)) == [1]
            assert await ids(driver, Compare(name, "eq", None)) == [1, 2]
        changes = {"rank": None, "x": None}
        assert await driver.execute(Update(THINGS, by_id(2), changes)) == 1
        assert await ids(driver, Compare("rank", "exists", True)) == [1, 2]
        assert await ids(driver, Compare("x", "exists", False)) == []

    async def test_copies(self, driver: Driver) -> None:
        await insert(driver, thing(1, deep={"list": [1]}))
        change = {"new": [1]}
        await driver.execute(Update(THINGS, by_id(1), {"change": change}))
        change["new"].append(2)
        found: list[Document] = [
            *await driver.execute(Find(THINGS)),
            *await driver.execute(Find(THINGS, selection={"deep": True, "change": True})),
            *await driver.execute(Take(THINGS, by_id(1), {"x": 1})),
            *(await driver.transact((Find(THINGS),)))[0],
            *(await driver.page(Find(THINGS), None, 5))[0],
        ]
        for document in found:
            assert document["deep"] == {"list": [1]}
            assert document["change"] == {"new": [1]}
            document["deep"]["list"].append(2)
            document["change"]["new"].append(2)
            document["group"] = "changed"
        (document,) = await driver.execute(Find(THINGS))
        assert document["deep"] == {"list": [1]}
        assert document["change"] == {"new": [1]}
        assert document["group"] == "g"

    async def test_order(self, driver: Driver) -> None:
        ranks = ["b", 2, None, "a", 1, -1, "", "B", None, 2]
        await insert(driver, *(thing(n, rank=rank) for n, rank in enumerate(ranks)))
        await insert(driver, thing(10))
        assert await ids(driver, order=("rank",)) == [2, 8, 10, 5, 4, 1, 9, 6, 7, 3, 0]
        assert await ids(driver, order=("rank",), limit=4) == [2, 8, 10, 5]
        assert await ids(driver) == list(range(11))
        for where in (Compare("group", "eq", "g"), Compare("rank", "in", (1, 2, "a"))):
            expected = [4, 1, 9, 3] if where.path == "rank" else [2, 8, 10, 5, 4, 1, 9, 6, 7, 3, 0]
            assert await ids(driver, where, order=("rank",)) == expected

    async def test_order_of_texts(self, driver: Driver) -> None:
        ranks = ["\U0001f600", "\uffff", "é", "z", "Z", "10", "9", -5, 2**53 + 1, 2**53]
        await insert(driver, *(thing(n, rank=rank) for n, rank in enumerate(ranks)))
        assert await ids(driver, order=("rank",)) == [7, 9, 8, 5, 6, 4, 3, 2, 1, 0]

    async def test_order_by_several_fields(self, driver: Driver, resolution: timedelta) -> None:
        step = max(resolution, timedelta(microseconds=1))
        rows = [(2, 1), (1, 2), (1, None), (2, 0), (1, 2), (None, 9)]
        await insert(
            driver,
            *(
                thing(n, rank=rank, at=None if at is None else START + at * step)
                for n, (rank, at) in enumerate(rows)
            ),
        )
        assert await ids(driver, order=("rank", "at")) == [5, 2, 1, 4, 3, 0]
        assert await ids(driver, order=("at", "rank")) == [2, 3, 0, 1, 4, 5]

    async def test_order_with_what_is_missing_last(
        self, driver: Driver, resolution: timedelta
    ) -> None:
        step = max(resolution, timedelta(microseconds=1))
        kind = Compare("type", "eq", "o")
        rows: list[tuple[Any, Any, Any]] = [
            (1, 3, [{"type": "o", "value": 2}]),
            ("a", None, [{"type": "s", "value": 9}, {"type": "o", "value": -1.5}]),
            (None, 1, []),
            (1, 2, [{"type": "o", "value": None}, {"type": "o", "value": 5}]),
            (None, 3, [5, {"type": "o", "value": float("inf")}]),
            (-7, 1, [{"type": "o", "value": float("nan")}]),
            ("", None, [{"type": "o", "value": 2.0}]),
            (2, 2, [{"type": "o", "value": True}]),
        ]
        documents = [
            thing(n, rank=rank, at=None if at is None else START + at * step, list=items)
            for n, (rank, at, items) in enumerate(rows)
        ]
        await insert(driver, *documents, thing(8))
        documents = await driver.execute(Find(THINGS))
        for order, expected in (
            ((SortBy("rank"),), [5, 0, 3, 7, 6, 1, 2, 4, 8]),
            ((SortBy("rank", descending=True),), [1, 6, 7, 0, 3, 5, 2, 4, 8]),
            ((SortBy("at", descending=True), "rank"), [4, 0, 3, 7, 2, 5, 8, 6, 1]),
            ((SortBy("list", element=kind),), [1, 0, 6, 4, 2, 3, 5, 7, 8]),
            ((SortBy("list", descending=True, element=kind),), [4, 0, 6, 1, 2, 3, 5, 7, 8]),
            (("at", SortBy("list", element=kind)), [1, 6, 8, 2, 5, 3, 7, 0, 4]),
            ((), list(range(9))),
        ):
            with case(order):
                assert await ids(driver, order=order) == expected
                assert await ids(driver, order=order, limit=4) == expected[:4]
                assert await ids(driver, order=order, selection={"group": True}) == expected
                for n, uid in enumerate(expected):
                    after = After(uid, values_of(documents[uid], order))
                    for limit in (None, 2):
                        found = await ids(driver, order=order, after=after, limit=limit)
                        assert found == expected[n + 1 :][:limit]
                    some = Compare("_id", "in", (1, 4, 5))
                    rest = [other for other in expected[n + 1 :] if other in (1, 4, 5)]
                    assert await ids(driver, some, order=order, after=after) == rest

    async def test_a_place_is_where_a_document_was(self, driver: Driver) -> None:
        await insert(driver, *(thing(n, rank=1) for n in range(5)))
        place = After(2, (1,))
        await driver.execute(Update(THINGS, by_id(2), {"rank": 9}))
        await insert(driver, thing(7, rank=0), thing(8, rank=1))
        for order in (("rank",), (SortBy("rank"),)):
            assert await ids(driver, order=order, after=place) == [3, 4, 8, 2]
        assert await ids(driver, by_id(3), order=("rank",), after=place) == [3]
        assert await ids(driver, by_id(1), order=("rank",), after=place) == []
        inside = await driver.transact((Find(THINGS, order=("rank",), after=place, limit=2),))
        assert [document["_id"] for document in inside[0]] == [3, 4]
        await driver.execute(Delete(THINGS, by_id(2)))
        assert await ids(driver, order=("rank",), after=place) == []
        assert await ids(driver, order=("rank",), after=After(2, (0,))) == [0, 1, 3, 4, 8]

    async def test_duplicates(self, driver: Driver) -> None:
        await insert(driver, {"_id": 1, "name": "a", "version": 1}, collection=NAMES)
        await insert(driver, {"_id": 2, "name": "a", "version": None}, collection=NAMES)
        for document, fields in (
            ({"_id": 1, "name": "b", "version": 1}, ("_id",)),
            ({"_id": 3, "name": "a", "version": 1}, ("name", "version")),
            ({"_id": 3, "name": "a", "version": None}, ("name", "version")),
            ({"_id": 3, "name": "a"}, ("name", "version")),
        ):
            with pytest.raises(DuplicateKeyError) as raised:
                await insert(driver, document, collection=NAMES)
            assert raised.value.collection == NAMES
            assert raised.value.fields == fields
            assert raised.value.values == tuple(document.get(name) for name in fields)
        await insert(driver, {"_id": "1", "name": "a", "version": "1"}, collection=NAMES)
        with pytest.raises(DuplicateKeyError) as raised:
            await driver.execute(Update(NAMES, by_id(2), {"version": 1}))
        assert raised.value.fields == ("name", "version")
        assert await driver.execute(Update(NAMES, by_id(2), {"version": None})) == 1
        assert await driver.execute(Count(NAMES)) == 3

    async def test_insert_all_or_none(self, driver: Driver) -> None:
        await insert(driver, thing(5))
        with pytest.raises(DuplicateKeyError):
            await insert(driver, *map(thing, range(10)))
        with pytest.raises(DuplicateKeyError):
            await insert(driver, thing(7), thing(8), thing(7))
        assert await ids(driver) == [5]

    async def test_update(self, driver: Driver) -> None:
        await insert(driver, thing(1, a={"b": 1, "c": [1, 2]}), thing(2, a={"b": 1}))
        changes = {"a.b": 2, "a.new.deep": {"x": 1}, "top": [1], "rank": 3}
        assert await driver.execute(Update(THINGS, by_id(1), changes)) == 1
        assert await driver.execute(Find(THINGS)) == [
            thing(1, a={"b": 2, "c": [1, 2], "new": {"deep": {"x": 1}}}, top=[1], rank=3),
            thing(2, a={"b": 1}),
        ]
        assert await driver.execute(Update(THINGS, by_id(1), {"a.c.1": "x", "a.c.3": "y"})) == 1
        found = await driver.execute(Find(THINGS, by_id(1)))
        assert found[0]["a"]["c"] == [1, "x", None, "y"]
        assert await driver.execute(Update(THINGS, EVERYTHING, {"a": {}})) == 2
        assert [d["a"] for d in await driver.execute(Find(THINGS))] == [{}, {}]
        assert await driver.execute(Update(THINGS, EVERYTHING, {})) == 2
        assert await driver.execute(Update(THINGS, by_id(9), {"a": 1})) == 0
        assert await driver.execute(Update(THINGS, by_id(1), {"group": "h", "rank": "r"})) == 1
        assert await ids(driver, Compare("group", "eq", "h")) == [1]

    async def test_update_that_is_impossible_changes_nothing(self, driver: Driver) -> None:
        documents = [thing(1, a={"b": 1}), thing(2, a=5), thing(3, a={"b": 1})]
        await insert(driver, *documents)
        for operation in (
            Update(THINGS, EVERYTHING, {"a.b": 2}),
            Take(THINGS, EVERYTHING, {"x": 1, "a.b": 2}, limit=None),
        ):
            with pytest.raises(UnsupportedQuery):
                await driver.execute(operation)
            assert await driver.execute(Find(THINGS)) == documents
        names = [{"_id": n, "name": "n", "version": n} for n in range(3)]
        await insert(driver, *names, collection=NAMES)
        with pytest.raises(DuplicateKeyError):  # by the second document
            await driver.execute(Take(NAMES, EVERYTHING, {"version": 9}, limit=None))
        assert await driver.execute(Find(NAMES)) == names

    async def test_reads_together(self, driver: Driver) -> None:
        await insert(driver, *(thing(n, rank=n % 2, at=START) for n in range(5)))
        second = Compare("rank", "eq", 1)
        results = await driver.transact(
            (
                Count(THINGS),
                Find(THINGS, second, {"rank": True}, limit=1),
                Count(THINGS, Compare("at", "lt", StoreTime(-10 * 365 * 86400))),
                Count(NAMES),
            )
        )
        assert results == [5, [{"_id": 1, "rank": 1}], 0, 0]
        assert await driver.transact((Count(THINGS, second),)) == [2]

    async def test_take(self, driver: Driver) -> None:
        for n, rank in enumerate((3, 1, None, 2, 1)):
            await insert(driver, thing(n, rank=rank, free=True))
        free = Compare("free", "eq", True)
        take = Take(THINGS, free, {"free": False, "by.whom": "me"}, order=("rank",))
        (taken,) = await driver.execute(take)
        assert taken == thing(2, rank=None, free=False, by={"whom": "me"})
        order = [[d["_id"] for d in await driver.execute(take)] for _ in range(5)]
        assert order == [[1], [4], [3], [0], []]
        await driver.execute(Update(THINGS, EVERYTHING, {"free": True}))
        for limit, expected in ((2, [2, 1]), (None, [4, 3, 0])):
            take = Take(THINGS, free, {"free": False}, order=("rank",), limit=limit)
            assert [d["_id"] for d in await driver.execute(take)] == expected
        take = Take(THINGS, EVERYTHING, {"rank": 0}, order=("rank",), limit=2)
        assert [d["_id"] for d in await driver.execute(take)] == [2, 1]
        assert [d["_id"] for d in await driver.execute(Take(THINGS, EVERYTHING, {"x": 1}))] == [0]

    async def test_take_empties_fields(self, driver: Driver, resolution: timedelta) -> None:
        values: list[dict[str, Any]] = [
            {"at": None, "list": []},
            {"at": None, "list": [1]},
            {"at": START, "list": []},
            {"at": START, "list": [{"a": []}]},
            {"at": None, "list": None},
            {"at": None, "list": {}},
            {"at": None},
            {"list": []},
            {},
        ]
        await insert(driver, *(thing(n, **value) for n, value in enumerate(values)))
        await driver.execute(Update(THINGS, by_id(7), {"at": START}))
        expected = [thing(n, at=None, list=[], rank=9) for n in range(len(values))]
        changes: dict[str, Any] = {"at": None, "list": [], "rank": 9}
        taken = await driver.execute(Take(THINGS, by_id(0), changes))
        taken += await driver.execute(Take(THINGS, EVERYTHING, changes, ("rank",), len(values)))
        assert sorted(taken[1:], key=lambda d: str(d["_id"])) == taken[:1] + expected[1:]
        assert await driver.execute(Find(THINGS)) == expected
        assert taken[0] == expected[0]
        assert await ids(driver, Compare("at", "exists", True)) == list(range(len(values)))
        assert await driver.execute(Take(THINGS, by_id(99), changes)) == []

    async def test_store_time(self, driver: Driver, resolution: timedelta) -> None:
        before = cut(await driver.now(), resolution)
        assert before.utcoffset() == timedelta(0)
        await driver.transact(
            (
                Insert(THINGS, ({**thing(1), "at": StoreTime()},)),
                Insert(THINGS, (thing(2), thing(3))),
                Update(THINGS, by_id(2), {"at": StoreTime(60)}),
                Take(THINGS, by_id(3), {"at": StoreTime(-60)}),
            )
        )
        after = await driver.now()
        now, soon, past = (d["at"] for d in await driver.execute(Find(THINGS)))
        assert before <= now <= after
        assert soon - now == now - past == timedelta(seconds=60)
        assert await ids(driver, Compare("at", "gt", StoreTime(30))) == [2]
        assert await ids(driver, Compare("at", "lte", StoreTime(-30))) == [3]
        assert await driver.execute(Count(THINGS, Compare("at", "lte", StoreTime()))) == 2
        (taken,) = await driver.execute(Take(THINGS, by_id(1), {"at": StoreTime(90)}))
        assert timedelta(seconds=89) < taken["at"] - now < timedelta(seconds=100)
        where = And((by_id(1), Or((Compare("at", "gt", StoreTime(1000)), by_id(9)))))
        assert await driver.execute(Delete(THINGS, where)) == 0

    async def test_clocked_field(self, driver: Driver, resolution: timedelta) -> None:
        now, hour = cut(await driver.now(), resolution), timedelta(hours=1)
        documents = [thing(1, beat=now + hour), thing(2, beat=now - hour), thing(3, beat=None)]
        await insert(driver, *documents, thing(4))
        await driver.execute(Insert(THINGS, ({**thing(5), "beat": StoreTime()},)))
        assert await ids(driver, Compare("beat", "lte", StoreTime(-1800))) == [2]
        assert await ids(driver, Compare("beat", "lt", StoreTime(1800))) == [2, 5]
        assert await ids(driver, Compare("beat", "gte", StoreTime(1800))) == [1]
        assert await ids(driver, Compare("beat", "ne", StoreTime(1800))) == [1, 2, 3, 4, 5]
        assert await ids(driver, Compare("beat", "gt", now - hour)) == [1, 5]
        assert await ids(driver, order=("beat",)) == [3, 4, 2, 5, 1]
        assert await ids(driver, by_id(2), order=("group", "beat")) == [2]
        group = Compare("group", "eq", "g")
        assert await ids(driver, group, order=("beat",), limit=3) == [3, 4, 2]
        # whoever moves a time back makes it as old as that
        for changes, lost in (({"beat": now - 2 * hour}, [1, 2]), ({"beat": None}, [2])):
            assert await driver.execute(Update(THINGS, by_id(1), changes)) == 1
            assert await ids(driver, Compare("beat", "lte", StoreTime(-1800))) == lost
        taken = Take(THINGS, Compare("beat", "lte", StoreTime(5)), {"beat": now}, order=("beat",))
        assert await driver.execute(taken) == [thing(2, beat=now)]
        found = [thing(1, beat=None), thing(2, beat=now), documents[2], thing(4)]
        where = Compare("_id", "lt", 5)
        assert await driver.execute(Find(THINGS, where)) == found
        assert await driver.execute(Find(THINGS, where, {"raw": False})) == found
        assert (await driver.transact((Find(THINGS, where),)))[0] == found
        assert (await driver.page(Find(THINGS, where), None, 9))[0] == found

    async def test_conditions_mean_what_the_core_says(
        self, driver: Driver, resolution: timedelta, condition_seeds: Iterable[int]
    ) -> None:
        for seed in condition_seeds:
            with case(f"seed {seed}"):
                await _compare_conditions(driver, resolution, seed)
                await driver.execute(Delete(THINGS, EVERYTHING))


async def _compare_conditions(driver: Driver, resolution: timedelta, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  not a secret
    documents = [random_document(chance, n, resolution) for n in range(25)]
    await insert(driver, *documents)
    found = await driver.execute(Find(THINGS))
    assert same(found, documents)
    for _ in range(25):
        where = random_condition(chance, resolution)
        expected = [d["_id"] for d in documents if matches(d, where)]
        assert await ids(driver, where) == expected, where
        assert await driver.execute(Count(THINGS, where)) == len(expected), where
        page, _ = await driver.page(Find(THINGS, where), None, 100)
        assert [d["_id"] for d in page] == expected, where
        changed, inside = await driver.transact(
            (Update(THINGS, where, {"mark": "x"}), Find(THINGS, where))
        )
        assert (changed, [d["_id"] for d in inside]) == (len(expected), expected), where
        taken = await driver.execute(Take(THINGS, where, {"mark": "y"}, limit=3))
        assert [d["_id"] for d in taken] == expected[:3], where
    where = random_condition(chance, resolution)
    expected = [d["_id"] for d in documents if not matches(d, where)]
    await driver.execute(Delete(THINGS, where))
    assert await ids(driver) == expected, where
