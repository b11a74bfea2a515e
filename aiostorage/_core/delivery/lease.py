"""The lease of the one deliverer of a store."""

from __future__ import annotations

import time
from typing import Final

import anyio

from aiostorage._core.delivery.outbox import Outbox
from aiostorage._core.ids import new_token
from aiostorage.errors import AioStorageError

__all__ = ["DeliveryLease", "LeaseLost"]

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseLost(AioStorageError):
    """Another process may have become the deliverer."""


class DeliveryLease:
    """The lease, as this process knows it.

    Parameters
    ----------
    outbox
        Where it is kept.
    seconds
        How long it lasts without being renewed.
    reserve
        Seconds of it that have to be left when a call to the tracker begins.
    """

    def __init__(self, outbox: Outbox, seconds: float, reserve: float) -> None:
        self.owner: str = new_token()
        self._outbox = outbox
        self._seconds = seconds
        self._reserve = reserve
        self._until = 0.0
        self._renewing = anyio.Lock()

    @property
    def left(self) -> float:
        """How many seconds it lasts at least; negative when it has run out."""
        return self._until - _now()

    @property
    def renewal_interval(self) -> float:
        """Seconds between two renewals."""
        return self._seconds / 4

    async def acquire(self) -> bool:
        """Become the deliverer, unless another one is alive."""
        begin = _now()
        holder = await self._outbox.lease_holder()  # to look costs less than to write
        if holder not in (None, self.owner):
            return False
        if not await self._outbox.acquire_lease(self.owner, self._seconds):
            return False
        self._until = begin + self._seconds
        return True

    async def renew(self) -> None:
        """Keep it; raise `LeaseLost` if it is not ours any more."""
        begin = _now()
        if not await self._outbox.renew_lease(self.owner, self._seconds):
            self._until = 0.0
            raise LeaseLost
        self._until = begin + self._seconds

    async def check(self) -> None:
        """See that it lasts for one more call to the tracker, or raise `LeaseLost`."""
        if self.left >= self._reserve:
            return
        async with self._renewing:
            if self.left < self._reserve:
                await self.renew()
        if self.left < self._reserve:
            raise LeaseLost("the engine took too long to renew the lease")

    async def release(self) -> None:
        """Give it up."""
        self._until = 0.0
        await self._outbox.release_lease(self.owner)


def _now() -> float:
    """Return the time of a clock that cannot be set, and that goes on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)
