"""Short calls in the thread of a facade's event loop: no other thread has to be woken.

A search by key takes SQLite 20 µs, and the way to the thread of a connection and back 70 µs, twice
as much while other processes want the processor. An event loop with tasks of its user must not wait
for a disk, even for a moment; in that of a facade, one caller waits for the answer anyway.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.process.facade_loop import FACADE_LOOP
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.sql import Table
from aiostorage.errors import BackendError
from aiostorage.operations import (
    Count,
    Delete,
    Find,
    Insert,
    InsertNext,
    Operation,
    Receipt,
    Take,
    Update,
)

__all__ = ["MAX_LOG_ROWS", "ShortCalls", "is_busy"]

MAX_BLOCKING_SECONDS: Final = 0.001
"""Seconds of short calls in a row, at most, before the event loop does something else."""

BUSY_TIMEOUT: Final = 0.002
"""Seconds that a short call waits for transactions of other processes, at most."""

MAX_DOCUMENTS: Final = 64
"""Documents that a short operation reads or writes, at most."""

MAX_LOG_ROWS: Final = 500
"""Rows of the log that a short call reads, at most."""

CROWDED_SECONDS: Final = 1.0
"""Seconds for which callers that waited at the same time are expected to do so again."""

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class ShortCalls:
    """A connection for short calls, in the thread of the event loop; opened with the first one.

    Parameters
    ----------
    file
        The file; with None no call is short.
    tables
        The tables, by collection.
    pragmas
        Statements that prepare the connection.
    """

    def __init__(
        self, file: DatabaseFile | None, tables: Mapping[str, Table], *pragmas: str
    ) -> None:
        self._file = file
        self._tables = tables
        self._pragmas = pragmas
        self._connection: Connection | None = None
        self._since: float | None = None

    def connection(self, operations: Sequence[Operation[Any]] = ()) -> Connection | None:
        """Return the connection for operations that may be carried out here and now, at once.

        None if they may not. While another process has the file, the connection raises an error
        that `is_busy`; then nothing was done, and another thread, which may wait, has to do it.
        """
        waiting = FACADE_LOOP.waiting
        if waiting is None or self._file is None:
            return None
        now = monotonic()
        if len(waiting) > 1 or now - waiting.crowded < CROWDED_SECONDS:
            return None
        if self._since is None:
            self._since = now
            asyncio.get_running_loop().call_soon(self._has_turned)
        elif now - self._since > MAX_BLOCKING_SECONDS:
            return None
        for operation in operations:
            if not self._is_short(operation):
                return None
        if self._connection is None:
            # an error is found again by the thread that has to do it then
            with suppress(sqlite3.Error, OSError, BackendError):
                self._connection = Connection(self._file, BUSY_TIMEOUT, self._pragmas, polls=True)
        return self._connection

    def _has_turned(self) -> None:
        self._since = None

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            await anyio.to_thread.run_sync(connection.close)

    def _is_short(self, operation: Operation[Any]) -> bool:
        match operation:
            case Receipt():
                return True
            case Insert(documents=documents) | InsertNext(documents=documents):
                return len(documents) <= MAX_DOCUMENTS
            case Find(limit=limit) | Take(limit=limit):
                most = math.inf if limit is None else limit
            case Count() | Update() | Delete():
                most = math.inf
            case _:
                return False
        table = self._tables[operation.collection]
        return table.most_read(operation.where, most) <= MAX_DOCUMENTS


def is_busy(error: BaseException) -> bool:
    """Return whether another process has had the file for longer than a short call waits."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _BUSY
