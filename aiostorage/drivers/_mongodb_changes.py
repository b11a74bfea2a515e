"""Who waits for a change: one change stream for a process, fanned out in memory.

A stream costs the server a cursor and, with motor, one of the ten threads that all of its calls
share. So the drivers of a process on one database have one stream together, which runs only while
somebody waits, and looks only at the collections that somebody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

import anyio

from aiostorage.drivers._mongodb_client import Client
from aiostorage.drivers._mongodb_errors import translated
from aiostorage.errors import AioStorageError

__all__ = ["Changes"]

log = logging.getLogger("aiostorage")

POLL: Final = 0.05
"""Seconds between two looks where there is no stream."""

SAFETY: Final = 5.0
"""Seconds after which who waits looks for himself, even if the stream tells of nothing."""

IDLE: Final = 10.0
"""Seconds for which a stream runs on although nobody waits."""

RESTART: Final = 1.0
"""Seconds before a stream that broke is tried again."""


class Changes:
    """Marks of what has happened to collections.

    A mark is a count of changes seen; a break of the stream counts as one.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._counts: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._waiting = 0
        self._last_wait = 0.0
        self._task: asyncio.Task[None] | None = None
        self._watched: frozenset[str] = frozenset()
        self._ready = asyncio.Event()

    async def wait(self, collection: str, since: object | None, timeout: float) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        if not self._client.replicated:
            if since is not None:
                await anyio.sleep(min(timeout, POLL))
            return object()
        self._waiting += 1
        try:
            with anyio.move_on_after(min(timeout, SAFETY) if since is not None else SAFETY):
                await self._watch(collection)
                while self._counts[collection] == since:
                    await self._changed.wait()
            if since == self._counts.get(collection):
                return object()  # it may have changed for all we know: the next wait looks again
            return self._counts.get(collection)
        finally:
            self._waiting -= 1
            self._last_wait = self._client.loop.time()

    async def _watch(self, collection: str) -> None:
        """Have the stream look at a collection, and wait until it does."""
        if collection not in self._counts:
            self._counts[collection] = 0
        if self._task is None or self._task.done() or collection not in self._watched:
            await self.stop()
            self._watched = frozenset(self._counts)
            self._ready = asyncio.Event()
            self._task = self._client.loop.create_task(self._run(self._watched, self._ready))
        await self._ready.wait()

    async def stop(self) -> None:
        """End the stream."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=RESTART)  # a library may swallow a cancellation

    async def _run(self, watched: frozenset[str], ready: asyncio.Event) -> None:
        pipeline: list[dict[str, Any]] = [
            {"$match": {"ns.coll": {"$in": sorted(watched)}}},
            {"$project": {"ns.coll": 1}},
        ]
        while not self._unwanted():
            try:
                with translated(self._client.settings.location, writing=False):
                    async for change in self._client.changes(pipeline, self._unwanted):
                        if change is None:
                            self._tell(watched)  # nobody knows what happened before
                            ready.set()
                        else:
                            self._tell([change["ns"]["coll"]])
            except AioStorageError as error:
                # those who wait look for themselves now and then
                log.info("the change stream of %s broke: %s", self._client.settings.location, error)
                self._tell(watched)
                ready.set()
                await asyncio.sleep(RESTART)

    def _unwanted(self) -> bool:
        return not self._waiting and self._client.loop.time() - self._last_wait > IDLE

    def _tell(self, collections: Iterable[str]) -> None:
        for name in collections:
            self._counts[name] = self._counts.get(name, 0) + 1
        self._changed.set()
        self._changed = asyncio.Event()
