"""The queue for an algorithm lock: first come, first served among the waiters that are alive.

Within a process the waiters for one experiment queue in memory, and only the first of them asks
the store. Between processes they queue by tickets in the store. A ticket expires soon unless its
process renews it, so a dead waiter does not block the others for long.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any, Final

import anyio

from aiostorage._core.documents import equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.layout import WAITERS
from aiostorage.operations import And, Compare, Delete, Find, Insert, Or, StoreTime, Update

__all__ = ["ProcessQueues", "Tickets"]

NOW: Final = StoreTime()

MAX_TICKET_LIFETIME: Final = 5.0
"""Seconds after which a ticket expires unless it is renewed, at most; else a third of a lease."""

MAX_COUNTED_WAITERS: Final = 50
"""How many waiters are counted, at most."""


class ProcessQueues:
    """The waiters of this process, queued by experiment."""

    def __init__(self) -> None:
        self._queues: dict[tuple[int, Any], _Queue] = {}

    @asynccontextmanager
    async def turn(
        self, uid: Any, timeout: float, timed_out: Callable[[], Any]
    ) -> AsyncIterator[None]:
        """Wait for the turn of this task, and keep it for the body.

        Parameters
        ----------
        timeout
            Seconds to wait.
        timed_out
            Coroutine function that returns the error to raise after the timeout.
        """
        key = os.getpid(), uid
        queue = self._queues.setdefault(key, _Queue())
        queue.users += 1
        try:
            try:
                queue.first.acquire_nowait()
            except anyio.WouldBlock:
                with anyio.move_on_after(timeout) as scope:
                    await queue.first.acquire()
                if scope.cancelled_caught:
                    raise await timed_out() from None
            try:
                yield
            finally:
                queue.first.release()
        finally:
            queue.users -= 1
            if not queue.users:
                self._queues.pop(key, None)


class _Queue:
    """The waiters for one experiment; the one that has acquired `first` is the first."""

    __slots__ = ("first", "users")

    def __init__(self) -> None:
        self.first = anyio.Semaphore(1)
        self.users = 0


class Tickets:
    """Tickets in the store, by which processes queue.

    Parameters
    ----------
    lease
        Seconds of the lock's lease.
    """

    def __init__(self, gateway: Gateway, lease: float) -> None:
        self._gateway = gateway
        lifetime = min(MAX_TICKET_LIFETIME, lease / 3)
        self._expires = StoreTime(lifetime)
        self.renewal_interval = lifetime / 3
        """Seconds between two renewals of a ticket."""

    async def ahead(self, uid: Any, token: str) -> int:
        """Return the number of living waiters that came before this one."""
        alive = And((Compare("experiment", "eq", uid), Compare("expires", "gt", NOW)))
        queue = Find(WAITERS, alive, {"_id": True}, ("since",), MAX_COUNTED_WAITERS)
        tokens = list(map(itemgetter("_id"), await self._gateway.execute(queue)))
        return tokens.index(token) if token in tokens else len(tokens)

    async def draw(self, uid: Any, token: str) -> None:
        """Join the queue."""
        ticket = {"_id": token, "experiment": uid, "since": NOW, "expires": self._expires}
        await self._gateway.execute(Insert(WAITERS, (ticket,)))

    async def renew(self, uid: Any, token: str) -> None:
        """Keep the place in the queue; a ticket that has expired is drawn anew."""
        renewal = Update(WAITERS, equal(_id=token), {"expires": self._expires})
        if not await self._gateway.execute(renewal):
            await self.draw(uid, token)

    @staticmethod
    def leave(token: str) -> Delete:
        """Return the operation that leaves the queue; it removes expired tickets, too."""
        return Delete(WAITERS, Or((Compare("_id", "eq", token), Compare("expires", "lte", NOW))))
