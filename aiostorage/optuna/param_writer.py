"""Writes the params of running trials that no other write has taken along, a moment later."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from aiostorage._core.cancellation import clean_up
from aiostorage._core.event_log import EventLog
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.optuna.known_study import KnownStudy
from aiostorage.optuna.unwritten_params import MAX_WRITE_DELAY, UnwrittenParams

__all__ = ["ParamWriter"]

events: Final = EventLog("optuna")

CLEAN_UP_TIMEOUT: Final = 5.0
"""Seconds for which params are written when the storage is closed, at most."""


class _Due(NamedTuple):
    """A trial whose params are to be written, when, and how."""

    time: float
    study: KnownStudy
    number: int
    write: Callable[[KnownStudy, int], Awaitable[None]]


class ParamWriter:
    """Has params written when they have waited for long enough; it runs in one event loop.

    Parameters
    ----------
    hold
        Starts a coroutine that is cancelled before the store is closed.
    """

    def __init__(
        self,
        hold: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
    ) -> None:
        self._hold = hold
        self._due: dict[UnwrittenParams, _Due] = {}
        self._failed: set[UnwrittenParams] = set()
        self._runs = False

    def add(
        self,
        study: KnownStudy,
        number: int,
        write: Callable[[KnownStudy, int], Awaitable[None]],
    ) -> None:
        """Have the params of a trial written, by `write`, that may be set from now on."""
        unwritten = study.unwritten[number]
        self._due[unwritten] = _Due(time.monotonic() + MAX_WRITE_DELAY, study, number, write)
        if not self._runs:
            self._runs = True
            self._hold(self._run)

    async def _run(self) -> None:
        try:
            while due := self._still_unwritten():
                if (seconds := due[0][1].time - time.monotonic()) > 0:
                    await asyncio.sleep(seconds)
                else:
                    await self._write_until(time.monotonic())
        except asyncio.CancelledError:  # the storage is about to be closed
            await clean_up(CLEAN_UP_TIMEOUT, lambda: self._write_until(math.inf), "writing params")
            raise
        finally:
            self._runs = False

    def _still_unwritten(self) -> list[tuple[UnwrittenParams, _Due]]:
        """Forget the params that were written with something else; return the others in order."""
        due = []
        for unwritten, one in list(self._due.items()):
            if one.study.unwritten.get(one.number) is unwritten:
                due.append((unwritten, one))
            else:
                self._forget(unwritten)
        return due

    async def _write_until(self, now: float) -> None:
        due = [unwritten for unwritten, one in self._still_unwritten() if one.time <= now]
        await asyncio.gather(*map(self._write, due))

    async def _write(self, unwritten: UnwrittenParams) -> None:
        one = self._due[unwritten]
        try:
            await one.write(one.study, one.number)
        except AioStorageError as error:
            # the next write of the trial takes them along, or raises what is wrong
            if unwritten not in self._failed:
                self._failed.add(unwritten)
                events.warning(
                    "not_written",
                    "trial %(number)s: its params are not written yet: %(error)s",
                    number=one.number,
                    error=error,
                )
            del self._due[unwritten]
            if isinstance(error, TemporaryBackendError):
                self._due[unwritten] = one._replace(time=time.monotonic() + MAX_WRITE_DELAY)
        else:
            self._forget(unwritten)

    def _forget(self, unwritten: UnwrittenParams) -> None:
        self._due.pop(unwritten, None)
        self._failed.discard(unwritten)
