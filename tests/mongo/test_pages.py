"""Pages of documents by insertion: the ids that are read in advance, and what they cost."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import pytest
from pymongo import MongoClient

from aiostorage.drivers.mongodb import MongoDBDriver, pages
from aiostorage.operations import Collection, Compare, Delete, Field, Find, Insert, Layout, Update
from aiostorage.testing import Deployment
from tests.mongo.conftest import LIBRARIES

pytestmark = pytest.mark.anyio

MANY = 40_000
BYTES_PER_DOCUMENT = 100
"""Memory that reading page by page may take for each document of the whole, at most."""

LAYOUT = Layout(1, (Collection("things", (Field("rank", "key"),)),))


@pytest.fixture
def url(mongodb_standalone: Deployment, mongodb_emptied_database: str) -> str:
    return mongodb_standalone.url_for(mongodb_emptied_database)


@pytest.fixture(params=LIBRARIES)
async def driver(request: pytest.FixtureRequest, url: str) -> AsyncIterator[MongoDBDriver]:
    driver = MongoDBDriver(url, client=request.param)
    await driver.open(LAYOUT)
    yield driver
    await driver.aclose()


@pytest.fixture
def few_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few ids in advance: 2 at first, then 4, then 5."""
    monkeypatch.setattr(pages, "MAX_FIRST_IDS", 2)
    monkeypatch.setattr(pages, "MAX_IDS", 5)


async def all_pages(driver: MongoDBDriver, find: Find, size: int) -> list[list[Any]]:
    """Return the ids on each page."""
    found: list[list[Any]] = []
    place: object | None = None
    while True:
        documents, place = await driver.page(find, place, size)
        found.append([document["_id"] for document in documents])
        if place is None:
            return found


@pytest.mark.usefixtures("few_ids")
@pytest.mark.parametrize("count", [1, 2, 3, 6, 11, 16, 23])
async def test_a_page_is_full_wherever_the_ids_end(driver: MongoDBDriver, count: int) -> None:
    ids = [f"thing {count - n}" for n in range(count)]  # not the order of the ids
    await driver.execute(Insert("things", tuple({"_id": uid, "rank": 0} for uid in ids)))
    for size in (1, 2, 3, 5, 7, 30):
        found = await all_pages(driver, Find("things"), size)
        assert list(chain.from_iterable(found)) == ids
        assert all(len(page) == size for page in found[:-1])


@pytest.mark.usefixtures("few_ids")
async def test_what_is_written_meanwhile_shifts_no_page(driver: MongoDBDriver) -> None:
    await driver.execute(Insert("things", tuple({"_id": n, "rank": 0} for n in range(40))))
    seen: list[Any] = []
    place: object | None = None
    for turn in range(100):
        documents, place = await driver.page(Find("things", Compare("rank", "eq", 0)), place, 3)
        seen += [document["_id"] for document in documents]
        if place is None:
            break
        if turn < 5:
            gone = (turn, *seen[-1:], 39 - turn)  # also the one at which the last page ended
            await driver.execute(Delete("things", Compare("_id", "in", gone)))
            await driver.execute(Update("things", Compare("_id", "eq", 30 - turn), {"rank": 1}))
            await driver.execute(Insert("things", ({"_id": 100 + turn, "rank": 0},)))
    assert place is None
    assert len(set(seen)) == len(seen)
    assert [uid for uid in seen if 15 <= uid < 25] == list(range(15, 25))
    assert not {30 - turn for turn in range(5)} & set(seen)


def fill(url: str) -> None:
    with MongoClient[Any](url) as client:
        things = client.get_default_database()["things"]
        for begin in range(0, MANY, 10_000):
            things.insert_many([{"rank": n} for n in range(begin, begin + 10_000)])


async def test_memory_does_not_grow_with_the_documents(url: str) -> None:
    await asyncio.to_thread(fill, url)
    driver = MongoDBDriver(url)
    await driver.open(LAYOUT)
    _, place = await driver.page(Find("things"), None, 1000)  # connections and codecs
    count = 1000
    tracemalloc.start()
    try:
        while place is not None:
            documents, place = await driver.page(Find("things"), place, 1000)
            count += len(documents)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await driver.aclose()
    assert count == MANY
    assert peak < BYTES_PER_DOCUMENT * MANY
