"""The server's clock in conditions: what is not a time is neither early nor late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiostorage.drivers.memory import MemoryDriver
from aiostorage.drivers.mongodb import MongoDBDriver
from aiostorage.operations import (
    And,
    Collection,
    Compare,
    Count,
    Field,
    Find,
    Insert,
    Layout,
    StoreTime,
    Update,
)
from aiostorage.protocols import Driver
from aiostorage.testing import Deployment
from tests.mongo.conftest import UNCLOSED

pytestmark = [pytest.mark.anyio, UNCLOSED, pytest.mark.usefixtures("sockets_collected")]

BEATS = Layout(1, (Collection("beats", fields=(Field("at", "time"),)),))

HOUR = timedelta(hours=1)

NO_TIMES: dict[str, Any] = {
    "null": None,
    "number": 5,
    "text": "2000-01-01",
    "dict": {"a": 1},
    "list": [],
    "bytes": b"a",
    "bool": False,
}

COMPARISONS = ["eq", "ne", "gt", "gte", "lt", "lte"]


def documents() -> tuple[dict[str, Any], ...]:
    """Return documents whose times are early, late or missing, or no times at all."""
    now = datetime.now(UTC)
    times = {"early": now - HOUR, "late": now + HOUR}
    return (
        {"_id": "missing", "other": {}},
        {"_id": "null", "at": None, "other": {"at": None}},
        *({"_id": uid, "at": time, "other": {"at": time}} for uid, time in times.items()),
        *({"_id": f"other {uid}", "other": {"at": value}} for uid, value in NO_TIMES.items()),
    )


@pytest.fixture
async def driver(
    mongodb_standalone: Deployment, mongodb_emptied_database: str
) -> AsyncIterator[Driver]:
    driver = MongoDBDriver(mongodb_standalone.url_for(mongodb_emptied_database), client="pymongo")
    await driver.open(BEATS)
    await driver.execute(Insert("beats", documents()))
    yield driver
    await driver.aclose()


@pytest.mark.parametrize("path", ["at", "other.at"])
async def test_what_is_no_time_is_not_compared(driver: Driver, path: str) -> None:
    memory = MemoryDriver()
    await memory.open(BEATS)
    await memory.execute(Insert("beats", documents()))
    for op in COMPARISONS:
        where = Compare(path, op, StoreTime())  # type: ignore[arg-type]  # one of the operators
        expected = [found["_id"] for found in await memory.execute(Find("beats", where))]
        found = [found["_id"] for found in await driver.execute(Find("beats", where))]
        assert found == expected, op
        assert await driver.execute(Count("beats", where)) == len(expected), op
    await memory.aclose()


async def test_what_is_no_time_is_not_early(driver: Driver) -> None:
    early = Compare("other.at", "lte", StoreTime())
    assert [found["_id"] for found in await driver.execute(Find("beats", early))] == ["early"]
    assert await driver.execute(Update("beats", And((early,)), {"swept": True})) == 1
