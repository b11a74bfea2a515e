"""Experiments that Oríon has stored without a version, on every engine, are version 1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from aiostorage import DuplicateKeyError, Experiment, Storage, SyncStorage
from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.versions import selects_version, version_as_read
from aiostorage.operations import EVERYTHING, And, Compare, Condition, Or
from aiostorage.protocols import Driver
from aiostorage.testing.contract.helpers import case

pytestmark = pytest.mark.anyio


@pytest.fixture
async def storage(make_driver: Callable[[], Driver]) -> AsyncIterator[Storage]:
    """Give a storage in which Oríon has stored two experiments without a version."""
    async with Storage(make_driver(), fill_version=False) as theirs:
        await theirs.create_experiment({"name": "a"})
        await theirs.create_experiment({"name": "b", "version": None})
        await theirs.create_experiment({"name": "c", "version": 2})
        found = await theirs.fetch_experiments({}, {"_id": 0})
        assert found == [{"name": "a"}, {"name": "b", "version": None}, {"name": "c", "version": 2}]
        assert await theirs.fetch_experiments({"version": 1}) == []
        async with Storage(make_driver()) as ours:
            yield ours


async def names(storage: Storage, query: dict[str, Any]) -> list[str]:
    return [found["name"] for found in await storage.fetch_experiments(query)]


async def test_it_is_read_as_version_1(storage: Storage) -> None:
    found = await storage.fetch_experiments({})
    assert [Experiment.from_config(one).version for one in found] == [1, 1, 2]
    assert [one["version"] for one in found] == [1, 1, 2]
    assert await storage.fetch_experiments({}, {"_id": 0, "version": 1}) == [
        {"version": 1},
        {"version": 1},
        {"version": 2},
    ]
    for selection in ({"_id": 0, "name": 1}, {"_id": 0, "version": 0}):
        found = await storage.fetch_experiments({"name": "a"}, selection)
        assert found == [{"name": "a"}]
    raw = await CollectionAccess(storage).find("experiments", {"name": "a"})
    assert "version" not in raw[0]  # what Oríon has written stays as it is


QUERIES: list[tuple[dict[str, Any], str]] = [
    ({"version": 1}, "ab"),
    ({"version": 1.0}, "ab"),
    ({"version": {"$ne": 1}}, "c"),
    ({"version": 2}, "c"),
    ({"version": {"$ne": 2}}, "ab"),
    ({"version": {"$in": [1, 3]}}, "ab"),
    ({"version": {"$nin": [1, 3]}}, "c"),
    ({"version": {"$in": [*range(1, 60)]}}, "abc"),
    ({"version": {"$gt": 0}}, "abc"),
    ({"version": {"$gte": 1, "$lt": 2}}, "ab"),
    ({"version": {"$lte": 1}, "name": "a"}, "a"),
    ({"$or": [{"version": 1}, {"name": "c"}]}, "abc"),
    ({"$and": [{"version": {"$lt": 2}}, {"name": "b"}]}, "b"),
    ({"version": "1"}, ""),
    ({"version": None}, "ab"),  # what is stored
    ({"version": {"$in": [None, 2]}}, "abc"),
    ({"version": {"$exists": False}}, "a"),
]


async def test_it_is_found_as_version_1(storage: Storage) -> None:
    for query, found in QUERIES:
        with case(query):
            assert await names(storage, query) == list(found)


async def test_there_is_no_other_version_1(storage: Storage) -> None:
    configs: list[dict[str, Any]] = [{"name": "a"}, {"name": "b", "version": 1}]
    for config in configs:
        with pytest.raises(DuplicateKeyError) as raised:
            await storage.create_experiment(dict(config))
        assert raised.value.fields == ("name", "version")
        assert raised.value.values == (config["name"], 1)
    await storage.create_experiment({"name": "a", "version": 3})
    assert await names(storage, {}) == ["a", "b", "c", "a"]


async def test_it_is_updated_as_version_1(storage: Storage) -> None:
    [config] = await storage.fetch_experiments({"name": "a"})
    assert await storage.update_experiment(config, where={"version": 1}, x=1)
    assert not await storage.update_experiment(config, where={"version": {"$ne": 1}}, x=2)
    assert await storage.fetch_experiments({"name": "a"}) == [{**config, "x": 1}]


def test_the_facade_does_the_same(make_driver: Callable[[], Driver]) -> None:
    async def store() -> None:
        async with Storage(make_driver(), fill_version=False) as theirs:
            await theirs.create_experiment({"name": "a"})

    anyio.run(store)
    with SyncStorage(Storage(make_driver())) as storage:
        [found] = storage.fetch_experiments({"version": 1})
        assert found["version"] == 1
        with pytest.raises(DuplicateKeyError):
            storage.create_experiment({"name": "a"})
        assert storage.create_experiment({"name": "b"}).version == 1


def test_conditions_that_need_no_change_stay() -> None:
    name = Compare("name", "eq", 1)
    kept: tuple[Condition, ...] = (
        EVERYTHING,
        name,
        Compare("version", "eq", 2),
        Compare("version", "ne", 2),
        Compare("version", "gt", 1),
        Compare("version", "nin", (2, 3)),
        Compare("version", "eq", None),
        Compare("version.x", "eq", 1),
    )
    for condition in kept:
        assert version_as_read(condition) == condition
    one = Compare("version", "eq", 1)
    either = Or((one, Compare("version", "eq", None)))
    assert version_as_read(And((name, one))) == And((name, either))


def test_which_selections_have_the_version() -> None:
    for selection in (None, {}, {"version": True}, {"name": False}, {"_id": False}, {"_id": True}):
        expected = selection != {"_id": True}
        assert selects_version(selection) is expected
    assert not selects_version({"name": True})
    assert not selects_version({"_id": True, "version": False})
    assert selects_version({"_id": False, "version": True})
