"""Short calls in the thread of a facade's event loop: no other thread has to be woken.

A search by key takes SQLite 20 µs, and the way to the thread of a connection and back 70 µs, twice
as much while other processes want the processor. An event loop with tasks of its user must not wait
for a disk, even for a moment; in that of a facade, one caller waits for the answer anyway.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final, TypeVar

import anyio.to_thread

from aiostorage._core.facade_loop import has_one_caller
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.sql import Table
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

__all__ = ["Declined", "ShortCalls"]

T = TypeVar("T")

TURN: Final = 0.001
"""Seconds of such calls in a row, at most, before the event loop does something else."""

PATIENCE: Final = 0.002
"""Seconds that one waits for other processes' transactions, at most."""

MAX_DOCUMENTS: Final = 64
"""Documents that a short operation reads or writes, at most."""


class Declined(Exception):
    """Another process has the file for longer than a short call waits; nothing was done."""


class ShortCalls:
    """A connection for short calls, in the thread of the event loop; opened with the first one.

    Parameters
    ----------
    file
        The file.
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

    def allows(self, operations: Sequence[Operation[Any]] = ()) -> bool:
        """Return whether operations may be carried out here and now."""
        file = self._file
        if file is None or file.lacks_log or not has_one_caller():
            return False
        if self._since is None:
            self._since = monotonic()
            asyncio.get_running_loop().call_soon(self._has_turned)
        elif monotonic() - self._since > TURN:
            return False
        return all(map(self._is_short, operations))

    def _has_turned(self) -> None:
        self._since = None

    def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with the connection.

        Raises
        ------
        Declined
            Another thread has to do it, which may wait for longer.
        """
        try:
            if self._connection is None:
                self._connection = self._opened()
            result: T = self._connection.execute(function).fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Declined from error
            raise
        return result

    def _opened(self) -> Connection:
        assert self._file is not None  # noqa: S101  `allows` has checked it
        connection = Connection(self._file, PATIENCE, self._pragmas)
        connection.execute(Connection.poll)
        return connection

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
            case Find(limit=limit) | Take(limit=limit) if limit is not None:
                if limit <= MAX_DOCUMENTS and self._tables[operation.collection].has_columns_of(
                    operation.where
                ):
                    return True
            case Find() | Take() | Count() | Update() | Delete():
                pass
            case _:
                return False
        most = self._tables[operation.collection].most_matches(operation.where)
        return most is not None and most <= MAX_DOCUMENTS
