"""The queue for an algorithm lock: first come, first served among the waiters that are alive.

Within a process the waiters for one experiment queue in memory, and only the first of them asks
the store. Between processes they queue by tickets in the store. A ticket expires soon unless its
process renews it, so a dead waiter does not block the others for long.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, Final

import anyio

from aiostorage._core.cancellation import wait_until_done
from aiostorage._core.documents import equal
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.layout import WAITERS
from aiostorage.errors import AioStorageError
from aiostorage.operations import (
    And,
    Compare,
    Delete,
    Document,
    Find,
    Insert,
    Or,
    StoreTime,
    Update,
)

__all__ = ["Place", "ProcessQueues", "Tickets"]

NOW: Final = StoreTime()

MAX_TICKET_LIFETIME: Final = 5.0
"""Seconds after which a ticket expires unless it is renewed, at most; else a third of a lease."""

MAX_COUNTED_WAITERS: Final = 50
"""How many waiters are counted, at most."""


class ProcessQueues:
    """The callers of this process, queued by experiment."""

    def __init__(self) -> None:
        self._queues: dict[tuple[int, Any], deque[Place]] = {}

    @contextmanager
    def place(self, uid: Any) -> Iterator[Place]:
        """Give a place at the end of the queue for a lock; after the body it is left."""
        key = os.getpid(), uid
        queue = self._queues.setdefault(key, deque())
        place = Place(queue)
        try:
            yield place
        finally:
            place.leave()
            if not queue and self._queues.get(key) is queue:
                del self._queues[key]


class Place:
    """One caller's place in the queue of its process.

    The first in the queue has the turn: it asks the store for the lock, and keeps the turn for as
    long as it holds it. The second may be its heir, who gets the lock straight from it.

    Attributes
    ----------
    has_turn, turn
        Whether this caller is the first, and the event of becoming it.
    near
        The event that this caller is the second, and the first holds the lock.
    holds
        Whether this caller holds the lock.
    unopposed
        Whether no other process was waiting when this caller looked; False if it has not looked.
    record
        The record of the lock, if the caller before has handed it over; else None.
    ticket
        The token of this caller's ticket in the store, if it has needed one to get the lock.
    """

    __slots__ = (
        "_left",
        "_promise",
        "_queue",
        "has_turn",
        "holds",
        "near",
        "record",
        "ticket",
        "turn",
        "unopposed",
    )

    def __init__(self, queue: deque[Place]) -> None:
        self._queue = queue
        self.turn = asyncio.Event()
        self.near = asyncio.Event()
        self._promise: asyncio.Future[None] | None = None
        self.holds = self._left = False
        self.has_turn = self.unopposed = False
        self.record: Document | None = None
        self.ticket: str | None = None
        queue.append(self)
        self._wake_first()

    async def wait(self, timeout: float, look: Callable[[str | None], Awaitable[int]]) -> None:
        """Wait for the turn, or for the timeout.

        Parameters
        ----------
        timeout
            Seconds to wait.
        look
            Returns how many waiters have a ticket besides this one, which is that of the caller
            before. It is called while that one holds the lock: who comes to the store later than
            this is behind us.
        """
        try:
            with anyio.move_on_after(timeout):
                await self.near.wait()
                if not self.has_turn:
                    with suppress(AioStorageError):  # the turn will show whether the engine answers
                        self.unopposed = not await look(self._queue[0].ticket)
                await self.turn.wait()
        finally:
            if self._promise is not None:  # the lock may be ours in a moment
                await wait_until_done(self._promise)

    def hold(self, ticket: str | None) -> None:
        """Note that this caller holds the lock, and which ticket it has."""
        self.holds, self.ticket = True, ticket
        self._wake_first()

    def heir(self) -> Place | None:
        """Return the next caller, if it may have the lock before all other processes."""
        heir = self._queue[1] if len(self._queue) > 1 else None
        return heir if heir is not None and heir.unopposed else None

    def promise(self) -> None:
        """Make this caller wait until the lock has been handed over to it, or has not."""
        self._promise = asyncio.get_running_loop().create_future()

    def resolve(self, record: Document | None) -> None:
        """Resolve the promise: with the record of the lock, or with None, which takes it back."""
        promise, self._promise = self._promise, None
        if promise is not None:
            if record is not None:
                self.record = record
                self._queue[0].leave()
            promise.set_result(None)

    def leave(self) -> None:
        """Leave the queue, unless that has happened."""
        if not self._left:
            self._left = True
            self._queue.remove(self)
            self._wake_first()

    def _wake_first(self) -> None:
        """Tell the first caller that it has the turn, and the second that it is near."""
        queue = self._queue
        if queue:
            first = queue[0]
            first.has_turn = True
            first.turn.set()
            first.near.set()
            if len(queue) > 1 and first.holds:
                queue[1].near.set()


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
        tokens = await self._alive(uid)
        return tokens.index(token) if token in tokens else len(tokens)

    async def others(self, uid: Any, token: str | None) -> int:
        """Return the number of living waiters besides the one with this token."""
        tokens = await self._alive(uid)
        return len(tokens) - (token in tokens)

    async def _alive(self, uid: Any) -> list[str]:
        """Return the tokens of the living waiters, the oldest first."""
        alive = And((Compare("experiment", "eq", uid), Compare("expires", "gt", NOW)))
        queue = Find(WAITERS, alive, {"_id": True}, ("since",), MAX_COUNTED_WAITERS)
        return list(map(itemgetter("_id"), await self._gateway.execute(queue)))

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
