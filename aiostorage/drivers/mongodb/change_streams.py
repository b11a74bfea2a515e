"""Who waits for a change: one change stream for a process, fanned out in memory.

A stream costs the server a cursor and, with motor, one of the ten threads that all of its calls
share. So the drivers of a process on one database have one stream together, which runs only while
somebody waits, and looks only at the collections that somebody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from aiostorage.drivers.mongodb.client import Client, cancellations
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import AioStorageError

__all__ = ["Changes"]

log: logging.Logger = logging.getLogger("aiostorage")

POLL: Final = 0.05
"""Seconds between two looks where there is no stream."""

SAFETY: Final = 5.0
"""Seconds after which who waits looks for himself, even if the stream tells of nothing."""

IDLE: Final = 10.0
"""Seconds for which a stream runs on although nobody waits."""

GRACE: Final = 1.0
"""Seconds for a stream to end by itself; twice as long as it takes to notice."""

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
        self._stream: _Stream | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self, collection: str, since: object | None, timeout: float) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        if not self._client.replicated:
            if since is not None:
                await anyio.sleep(min(timeout, POLL))
            return object()
        self._waiting += 1
        try:
            with anyio.move_on_after(SAFETY if since is None else min(timeout, SAFETY)):
                await self._watch(collection).ready.wait()
                while self._counts[collection] == since:
                    await self._changed.wait()
            if since == self._counts[collection]:
                return object()  # it may have changed for all we know: the next wait looks again
            return self._counts[collection]
        finally:
            self._waiting -= 1
            self._last_wait = self._client.loop.time()

    async def stop(self) -> None:
        """End the stream."""
        self._stream = None
        if self._tasks:  # by itself, so that no cursor stays open on the server
            _, late = await asyncio.wait(self._tasks, timeout=GRACE)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _watch(self, collection: str) -> _Stream:
        """Answer a stream that looks at a collection, among those that it is wanted for."""
        self._counts.setdefault(collection, 0)
        stream = self._stream
        if stream is None or stream.over or collection not in stream.collections:
            # the one before ends by itself: a cursor that is cancelled stays open on the server
            stream = self._stream = _Stream(frozenset(self._counts))
            task = self._client.loop.create_task(self._run(stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return stream

    async def _run(self, stream: _Stream) -> None:
        pipeline: list[dict[str, Any]] = [
            {"$match": {"ns.coll": {"$in": sorted(stream.collections)}}},
            {"$project": {"ns.coll": 1}},
        ]
        location = self._client.settings.location

        def unwanted() -> bool:
            idle = not self._waiting and self._client.loop.time() - self._last_wait > IDLE
            cancelled = cancellations() > 0  # a library may have swallowed it
            stream.over = idle or cancelled or stream is not self._stream
            return stream.over

        try:
            while not unwanted():
                try:
                    with translated(location, writing=False):
                        async for change in self._client.changes(pipeline, unwanted):
                            if change is None:
                                self._tell(stream.collections)  # who knows what happened before
                                stream.ready.set()
                            else:
                                self._tell([change["ns"]["coll"]])
                except AioStorageError as error:
                    # those who wait look for themselves now and then
                    log.info("the change stream of %s broke: %s", location, error)
                    self._tell(stream.collections)
                    stream.ready.set()
                    await asyncio.sleep(RESTART)
        finally:
            stream.over = True
            stream.ready.set()

    def _tell(self, collections: Iterable[str]) -> None:
        for name in collections:
            self._counts[name] += 1
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass
class _Stream:
    """A change stream: what it looks at, whether it has begun, and whether it has ended."""

    collections: frozenset[str]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
