"""Transactions that are cancelled at each of their awaits, as a time limit does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from aiostorage.drivers.mongodb.client import Client
from aiostorage.drivers.mongodb.settings import ClientLibrary, read_settings
from aiostorage.drivers.mongodb.shared_clients import connect
from aiostorage.testing import Deployment
from aiostorage.testing.cancellation import cancelled_at_every_await

pytestmark = pytest.mark.anyio

IDS = (1, 2)
SECONDS = 5.0
"""For one call, which a server that waits for an unfinished transaction exceeds."""

T = TypeVar("T")

REFUSED = 73
"""The code of an error that is not transient."""


class ActionFailed(Exception):
    """Raised in the middle of a transaction."""


@pytest.fixture(autouse=True)
def no_swallowed_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyMongo wait as on Python 3.12: before, `asyncio.wait_for` swallows cancellations."""

    async def wait_for(work: Awaitable[T], timeout: float | None) -> T:
        async with asyncio.timeout(timeout):
            return await work

    monkeypatch.setattr(asyncio, "wait_for", wait_for)


@pytest.fixture
async def client(
    library: ClientLibrary, mongodb_replica_set: Deployment, mongodb_emptied_database: str
) -> AsyncIterator[Client]:
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    use = await connect(read_settings(url, library, None, SECONDS, {}, read_only=False))
    yield use.client
    await use.release()


@pytest.fixture
async def documents(
    mongodb_replica_set: Deployment, mongodb_emptied_database: str
) -> AsyncIterator[Any]:
    """Give the collection that is written, past the library."""
    url = mongodb_replica_set.url_for(mongodb_emptied_database)
    other: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
    async with other:
        yield other.get_default_database()["written"]


async def insert(client: Client, session: Any) -> None:
    for one in IDS:
        await client.collections["written"].insert_one({"_id": one}, session=session)


async def fail(client: Client, session: Any) -> None:
    await insert(client, session)
    raise ActionFailed


async def refused(client: Client, session: Any) -> None:
    await insert(client, session)
    raise OperationFailure("refused", REFUSED)


def long(client: Client, action: Callable[[Client, Any], Awaitable[None]]) -> Awaitable[None]:
    async def in_loop(session: Any) -> None:
        await action(client, session)

    return client.in_transaction(in_loop)


def short(client: Client, action: Callable[[Client, Any], Awaitable[None]]) -> Awaitable[None]:
    return client.in_short_transaction(action)


@pytest.mark.parametrize("action", [insert, fail, refused])
@pytest.mark.parametrize("way", [long, short])
async def test_at_every_await(
    client: Client,
    documents: Any,
    way: Callable[..., Awaitable[None]],
    action: Callable[[Client, Any], Awaitable[None]],
) -> None:
    """Nothing but the cancellation is raised, and no transaction stays open on the server."""

    async def call() -> None:
        with client.bound(SECONDS), suppress(ActionFailed, OperationFailure):
            await way(client, action)

    async def check() -> None:
        # the server lets nobody write what an unfinished transaction has written
        deleted = await documents.delete_many({"_id": {"$in": IDS}})
        assert deleted.deleted_count in ((0, len(IDS)) if action is insert else (0,))
        await documents.insert_many([{"_id": one} for one in IDS])
        await documents.delete_many({})

    assert await cancelled_at_every_await(call, check, hows=("pending", "answered", "twice")) > 0
