"""Filters with many values, odd values or many conditions find the same on every engine."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from aiostorage import Storage, UnsupportedQuery
from aiostorage._core.layout import LAYOUT as STORAGE
from aiostorage._core.queries.query import MAX_CONDITIONS, MAX_NESTING
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.errors import EncodingError
from aiostorage.operations import Compare, Count, Find, Insert
from aiostorage.protocols import Driver
from aiostorage.testing.contract.driver_documents import LAYOUT, THINGS
from aiostorage.testing.contract.helpers import case
from tests.contract.conftest import ONE_CLIENT

pytestmark = pytest.mark.anyio

NAMES = [
    "a",
    "a\0b",
    "a\0c",
    "\0",
    "\1",
    "\1\2",
    "\1\3",
    "\0\1\2",
    "\1\0\3",
    "\U0001f600",
    7,
    -(2**63),
]
MANY = [f"other {number}" for number in range(40)]


@pytest.fixture
async def storage(make_driver: Callable[[], Driver]) -> AsyncIterator[Storage]:
    async with Storage(make_driver()) as opened:
        yield opened


async def names(storage: Storage, query: dict[str, Any]) -> list[Any]:
    return [found["name"] for found in await storage.fetch_experiments(query)]


@ONE_CLIENT
async def test_each_value_of_a_list_finds_itself_alone(storage: Storage) -> None:
    for name in NAMES:
        await storage.create_experiment({"name": name})
    for name, many in product(NAMES, ([], MANY)):
        with case((name, many)):
            assert await names(storage, {"name": {"$in": [name, *many]}}) == [name]
            rest = [other for other in NAMES if other != name]
            assert await names(storage, {"name": {"$nin": [name, *many]}}) == rest
    for many in ([], MANY):
        assert await names(storage, {"name": {"$in": NAMES + many}}) == NAMES


@ONE_CLIENT
async def test_floats_in_a_list(storage: Storage) -> None:
    for name in ("x", 7, 2**63 - 1):
        await storage.create_experiment({"name": name})
    odd = [math.inf, -math.inf, math.nan, 0.5, 2.0**63, 1e300, None]
    many: list[str]
    for many in ([], MANY):
        assert await names(storage, {"name": {"$in": odd + many}}) == []
        assert await names(storage, {"name": {"$nin": odd + many}}) == ["x", 7, 2**63 - 1]
        assert await names(storage, {"name": {"$in": [7.0, *odd, *many]}}) == [7]


@ONE_CLIENT
async def test_deleting_by_a_list_deletes_nothing_else(storage: Storage) -> None:
    await storage.create_benchmark({"name": "a"})
    assert await storage.delete_benchmark({"name": {"$in": ["a\0b", *MANY]}}) == 0
    assert [found["name"] for found in await storage.fetch_benchmark({})] == ["a"]


@ONE_CLIENT
async def test_bytes_in_a_list(make_driver: Callable[[], Driver]) -> None:
    driver = make_driver()
    await driver.open(replace(LAYOUT, version=STORAGE.version))  # the module has one database
    try:
        stored = [b"", b"\0", b"\0\xff", b"a"]
        documents = tuple({"_id": n, "group": "g", "raw": raw} for n, raw in enumerate(stored))
        await driver.execute(Insert(THINGS, (*documents, {"_id": 9, "group": "g"})))
        values = (b"\0\xff", *(bytes([7, number]) for number in range(40)))
        found = await driver.execute(Find(THINGS, Compare("raw", "in", values)))
        assert [document["_id"] for document in found] == [2]
        assert await driver.execute(Count(THINGS, Compare("raw", "nin", values))) == 4
        assert await driver.execute(Count(THINGS, Compare("raw", "in", (b"", *values)))) == 2
    finally:
        await driver.aclose()


@ONE_CLIENT
async def test_a_nul_in_a_key_is_refused(storage: Storage) -> None:
    with pytest.raises(EncodingError, match="contains a NUL"):
        await storage.create_experiment({"name": "a", "x": {"b\0c": 1}})
    with pytest.raises(EncodingError, match="contains a NUL"):
        await storage.fetch_experiments({"x": {"b\0c": 1}})
    with pytest.raises(UnsupportedQuery, match="contain a NUL"):
        await storage.fetch_experiments({"x.b\0c": 1})
    assert await storage.fetch_experiments({}) == []


# -------------------------------------------------------------------------------------- limits


def nested(levels: int, leaf: dict[str, Any], *, leaf_first: bool) -> dict[str, Any]:
    never = {"name": "never"}
    for level in range(levels):
        parts = [leaf, never] if leaf_first else [never, leaf]
        leaf = {"$or" if level % 2 else "$and": parts}
    return leaf


def wide(count: int, operator: str) -> dict[str, Any]:
    return {operator: [{"version": {"$nin": [None, -number]}} for number in range(count)]}


LEAVES: list[dict[str, Any]] = [
    {"name": {"$nin": [None, *NAMES, *MANY]}},
    {"version": {"$nin": [None, *range(20)]}},
    {"x": {"$gte": 1}},
    {"_id": {"$lt": "a", "$exists": True}},
]


@ONE_CLIENT
async def test_the_deepest_filter(storage: Storage) -> None:
    await storage.create_experiment({"name": "found"})
    for leaf, leaf_first in product(LEAVES, (True, False)):
        with case((leaf, leaf_first)):
            assert await names(storage, nested(MAX_NESTING, leaf, leaf_first=leaf_first)) == []


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 300, 5000])
async def test_a_filter_that_is_too_deep(levels: int) -> None:
    """It is refused before an engine sees it."""
    async with Storage(MemoryDriver()) as storage:
        for leaf, leaf_first in product(LEAVES, (True, False)):
            deeper = nested(levels, leaf, leaf_first=leaf_first)
            with case((leaf, leaf_first)):
                with pytest.raises(UnsupportedQuery, match=f"deeper than {MAX_NESTING} levels"):
                    await storage.fetch_experiments(deeper)


@ONE_CLIENT
async def test_the_largest_filter(storage: Storage) -> None:
    experiment = await storage.create_experiment({"name": "found", "version": 1})
    for operator in ("$and", "$or"):
        assert await names(storage, wide(MAX_CONDITIONS, operator)) == ["found"]
        assert await storage.fetch_trials(experiment, where=wide(MAX_CONDITIONS, operator)) == []


@pytest.mark.parametrize("count", [MAX_CONDITIONS + 1, 1500, 20_000])
async def test_a_filter_that_is_too_large(count: int) -> None:
    """It is refused before an engine sees it."""
    async with Storage(MemoryDriver()) as storage:
        for operator in ("$and", "$or"):
            with pytest.raises(UnsupportedQuery, match=f"more than {MAX_CONDITIONS} conditions"):
                await storage.fetch_experiments(wide(count, operator))


@ONE_CLIENT
async def test_a_large_filter_of_long_lists(storage: Storage) -> None:
    await storage.create_experiment({"name": "found"})
    lists = [{"name": {"$nin": [f"a\0{number}", *MANY]}} for number in range(MAX_CONDITIONS)]
    assert await names(storage, {"$and": lists}) == ["found"]
    everywhere = [{"$or": [{"name": "found"}, {"x": number}]} for number in range(500)]
    assert await names(storage, {"$and": everywhere}) == ["found"]
    long = [0, *range(2, 50_000)]
    assert await names(storage, {"version": {"$nin": long}}) == ["found"]


@ONE_CLIENT
async def test_conditions_count_wherever_they_stand(storage: Storage) -> None:
    half = {f"x{number}": {"$gte": number, "$lt": 3} for number in range(MAX_CONDITIONS // 4)}
    both = {"$or": [half, dict(half)]}
    assert await storage.fetch_experiments(both) == []
    with pytest.raises(UnsupportedQuery, match="conditions"):
        await storage.fetch_experiments({"name": 1, **both})
    with pytest.raises(UnsupportedQuery, match="conditions"):
        await storage.fetch_experiments({"$or": [{}] * (MAX_CONDITIONS + 1)})
