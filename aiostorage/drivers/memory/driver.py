"""Memory: dicts in this process, for tests, dry runs and single-process work.

A stored document is never changed in place: a write replaces it by a new one. So a reader may copy
what it has found slice by slice, without blocking the event loop, while others write.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from heapq import merge
from itertools import chain, islice
from typing import Any, Final, TypeVar, cast

import anyio
import anyio.lowlevel

from aiostorage._core.driver_options import hide_credentials
from aiostorage._core.in_memory.steady_clock import SteadyClock, utc_now
from aiostorage._core.in_memory.table import DocumentTable, sort_key_by, tables_of
from aiostorage._core.in_memory.table_log import read_table_log
from aiostorage._core.in_memory.table_operations import AllOrNone, run_all
from aiostorage._core.queries.projection import select
from aiostorage._core.queries.query import compile_condition
from aiostorage._core.slices import consumed
from aiostorage.errors import ConfigurationError, StorageClosedError
from aiostorage.operations import (
    Count,
    Document,
    Find,
    Layout,
    LogPage,
    Operation,
)
from aiostorage.upgrades import UpgradeProgress, UpgradeReport, UpgradeStep, silent

__all__ = ["MemoryDriver", "driver_from_options"]

T = TypeVar("T")

MAX_SLICE: Final = 500
"""Documents that are read in one turn of the event loop, at most."""


class MemoryDriver:
    """Documents in dicts. A pickled copy has its own copy of the documents.

    Parameters
    ----------
    clock
        Returns the time, in UTC. It then decides what ``time.monotonic`` decides by default: which
        heartbeats, leases and tickets are old.

    Attributes
    ----------
    logs
        See `aiostorage.protocols.LoggingDriver`.
    turn_interval
        Seconds for which calls may go on without a turn of the event loop. A turn takes longer than
        some calls, but a loop of calls must not keep others from their turn.
    """

    name = "memory"
    turn_interval: float = 0.001
    location = "memory://"
    resolution: timedelta = timedelta(microseconds=1)

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = SteadyClock(clock)
        self.logs: bool = True
        self._tables: dict[str, DocumentTable] = {}
        self._open = False
        self._turned = -math.inf
        self._turning: asyncio.AbstractEventLoop | None = None
        self._versions = 0
        self._changed: asyncio.Event | None = None
        """What those wait for who wait for a change, if anyone does."""

    def __getstate__(self) -> dict[str, Any]:
        return {"tables": self._tables, "ahead": self._clock().ahead}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self._clock = SteadyClock(utc_now, state["ahead"])
        self._tables = state["tables"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        self._tables = tables_of(layout) | self._tables
        self._open = True

    async def upgrade(
        self,
        layout: Layout,
        steps: Sequence[UpgradeStep],  # noqa: ARG002  every store is new
        *,
        backup: bool | str | os.PathLike[str] = True,  # noqa: ARG002  as above
        dry_run: bool = False,
        progress: UpgradeProgress = silent,  # noqa: ARG002  as above
    ) -> UpgradeReport:
        """See `aiostorage.protocols.UpgradableDriver.upgrade`: there is nothing to do."""
        return UpgradeReport(self.location, None, layout.version, dry_run=dry_run)

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        self._open = False
        self._wake()

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        if isinstance(operation, Find):
            return cast(T, await self._find(operation))
        if isinstance(operation, Count):
            return cast(T, await self._count(operation))
        if time.monotonic() >= self._turned + self.turn_interval:
            await self._turn()
        return cast(T, self._carry_out((operation,))[0])

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        if time.monotonic() >= self._turned + self.turn_interval:
            await self._turn()
        return self._carry_out(operations)

    async def _turn(self) -> None:
        """Let the event loop turn. Until it has, the calls of all other tasks do so, too."""
        loop = asyncio.get_running_loop()
        if self._turning is not loop:  # an earlier one may have ended amid a turn
            self._turning, self._turned = loop, -math.inf
            loop.call_soon(self._has_turned)
        await asyncio.sleep(0)

    def _has_turned(self) -> None:
        self._turning, self._turned = None, time.monotonic()

    def _carry_out(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        now = self._clock()
        if not self._open:
            raise StorageClosedError(f"{self!r} is not open")
        with AllOrNone() as undo:
            results = run_all(self._tables, operations, now, undo, logs=self.logs)
        if undo:
            self._versions += 1
            self._wake()
        return results

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        table = self._table(find)
        match = compile_condition(table.clocked.resolved(find.where, self._clock()))
        documents: list[Document] = []
        for seq in range(cast(int, after or 0) + 1, table.last + 1):
            if seq % MAX_SLICE == 0:
                await asyncio.sleep(0)
            document = table.documents.get(seq)
            if document is not None and match(document):
                documents.append(table.clocked.hide(select(document, find.selection)))
                if len(documents) == size:
                    return documents, seq
        await anyio.lowlevel.checkpoint()
        return documents, None

    async def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """See `aiostorage.protocols.LoggingDriver.read_log`."""
        await anyio.lowlevel.checkpoint()
        if not self._open:
            raise StorageClosedError(f"{self!r} is not open")
        return read_table_log(self._tables[log], owner, after, limit)

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock.wall()

    async def wait_for_change(
        self,
        collection: str,  # noqa: ARG002  one version for all
        since: object | None,
        timeout: float,
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`."""
        await anyio.lowlevel.checkpoint()
        if since == self._versions:
            if self._changed is None:
                self._changed = asyncio.Event()
            with anyio.move_on_after(timeout):
                await self._changed.wait()
        return self._versions

    async def slices(self, find: Find, size: int) -> Iterator[list[Document]]:
        """See `aiostorage.protocols.SlicingDriver.slices`."""
        table, selection = self._table(find), find.selection
        hide = table.clocked.hide
        parts = consumed(await self._matches(table, find), size)
        return ([hide(select(document, selection)) for document in part] for part in parts)

    async def _find(self, find: Find) -> list[Document]:
        documents: list[Document] = []
        for part in await self.slices(find, MAX_SLICE):
            if documents:
                await asyncio.sleep(0)
            documents += part
        return documents

    async def _matches(self, table: DocumentTable, find: Find) -> list[Document]:
        """Return the stored documents that match, in order; they are not to be changed."""
        where = table.clocked.resolved(find.where, self._clock())
        match = compile_condition(where)
        candidates, order = table.candidates(where, find.order)
        key = sort_key_by(order)
        is_behind = table.behind(find.after, find.order) if find.after else None
        snapshot = list(candidates)
        runs: list[list[Document]] = []
        left = find.limit
        for start in range(0, len(snapshot) or 1, MAX_SLICE):
            if start or time.monotonic() >= self._turned + self.turn_interval:
                await self._turn()
            run = list(filter(match, snapshot[start : start + MAX_SLICE]))
            if is_behind is not None:
                run = list(filter(is_behind, run))
            if order:
                run.sort(key=key)
            runs.append(run)
            if left is not None and not order and (left := left - len(run)) <= 0:
                break
        # each run is sorted by itself: to sort all of them at once would block the event loop
        merged = merge(*runs, key=key) if order else chain.from_iterable(runs)
        in_order = islice(merged, find.limit)
        found = list(islice(in_order, MAX_SLICE))
        while part := list(islice(in_order, MAX_SLICE)):
            await asyncio.sleep(0)
            found += part
        return found

    async def _count(self, count: Count) -> int:
        if time.monotonic() >= self._turned + self.turn_interval:
            await self._turn()
        table = self._table(count)
        where = table.clocked.resolved(count.where, self._clock())
        match = compile_condition(where)
        snapshot = list(table.candidates(where, ())[0])
        found = 0
        for start in range(0, len(snapshot), MAX_SLICE):
            if start:
                await asyncio.sleep(0)
            found += sum(map(match, snapshot[start : start + MAX_SLICE]))
        return found

    def _table(self, operation: Operation[Any]) -> DocumentTable:
        if not self._open:
            raise StorageClosedError(f"{self!r} is not open")
        return self._tables[operation.collection]


def driver_from_options(*, url: str | None = None) -> MemoryDriver:
    """Return an empty engine.

    Raises
    ------
    ConfigurationError
        The URL says more than ``memory://``.
    """
    if url not in (None, "memory://", "memory:///"):
        shown = hide_credentials(url or "")
        raise ConfigurationError(f"a storage in memory has no name and no options: {shown!r}")
    return MemoryDriver()
