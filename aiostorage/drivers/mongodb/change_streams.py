"""Waiting for changes: one change stream for a process, fanned out in memory.

A stream costs the server a cursor and, with motor, one of the ten threads that all of its calls
share. So the drivers of a process on one database share one stream. It runs only while a caller
waits, and watches only the collections that callers wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from aiostorage._core.event_log import EventLog
from aiostorage.drivers.mongodb.client import Client, cancellations
from aiostorage.drivers.mongodb.server_errors import translated
from aiostorage.errors import AioStorageError

__all__ = ["Changes"]

events: Final = EventLog("connection")

POLL_INTERVAL: Final = 0.05
"""Seconds between two checks by a waiter where there is no stream."""

RECHECK_INTERVAL: Final = 5.0
"""Seconds after which a waiter checks on its own, even if the stream reports no change."""

MAX_IDLE_SECONDS: Final = 10.0
"""Seconds for which a stream goes on without a waiter."""

STOP_TIMEOUT: Final = 1.0
"""Seconds for a stream to end on its own; twice as long as it takes to notice."""

RESTART_DELAY: Final = 1.0
"""Seconds before a stream that broke is tried again."""


class Changes:
    """Versions of collections.

    A version is the number of changes seen; a break of the stream counts as one.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._versions: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._waiting = 0
        self._last_wait = 0.0
        self._stream: _Stream | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self, collection: str, since: object | None, timeout: float) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        if not self._client.replicated:
            if since is not None:
                await anyio.sleep(min(timeout, POLL_INTERVAL))
            return object()
        self._waiting += 1
        try:
            with anyio.move_on_after(
                RECHECK_INTERVAL if since is None else min(timeout, RECHECK_INTERVAL)
            ):
                await self._watch(collection).ready.wait()
                while self._versions[collection] == since:
                    await self._changed.wait()
            if since == self._versions[collection]:
                return object()  # equal to no version, so that the next wait returns at once
            return self._versions[collection]
        finally:
            self._waiting -= 1
            self._last_wait = self._client.loop.time()

    async def stop(self) -> None:
        """End the stream."""
        self._stream = None
        if self._tasks:  # by itself, so that no cursor stays open on the server
            _, late = await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _watch(self, collection: str) -> _Stream:
        """Return a stream that watches a collection and all those that were waited for before."""
        self._versions.setdefault(collection, 0)
        stream = self._stream
        if stream is None or stream.over or collection not in stream.collections:
            # the previous one ends on its own: a cancelled cursor stays open on the server
            stream = self._stream = _Stream(frozenset(self._versions))
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
            idle = (
                not self._waiting and self._client.loop.time() - self._last_wait > MAX_IDLE_SECONDS
            )
            cancelled = cancellations() > 0  # a library may have swallowed it
            stream.over = idle or cancelled or stream is not self._stream
            return stream.over

        try:
            while not unwanted():
                try:
                    with translated(location, writing=False):
                        async for change in self._client.changes(pipeline, unwanted):
                            if change is None:
                                self._report(stream.collections)  # a change may have come before it
                                stream.ready.set()
                            else:
                                self._report([change["ns"]["coll"]])
                except AioStorageError as error:
                    # the waiters check on their own now and then
                    events.info(
                        "change_stream_broke",
                        "the change stream of %(store)s broke: %(error)s",
                        store=location,
                        error=error,
                    )
                    self._report(stream.collections)
                    stream.ready.set()
                    await asyncio.sleep(RESTART_DELAY)
        except RuntimeError as error:
            if "cannot schedule new futures" not in str(error):
                raise
            events.debug(
                "interpreter_ends",
                "the interpreter ends, and motor's threads have ended: %(error)s",
                error=error,
            )
        finally:
            stream.over = True
            stream.ready.set()

    def _report(self, collections: Iterable[str]) -> None:
        for name in collections:
            self._versions[name] += 1
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass
class _Stream:
    """A change stream: what it watches, whether it has begun, and whether it has ended."""

    collections: frozenset[str]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
