"""A file that is only read: nothing in it is changed, and no file is made beside it.

A connection that reads a database in write-ahead mode makes a log and its index where there are
none, and one that ends may empty the log. So a file without a log is read as one that does
not change; if it does change, that is noticed, and it is read anew. A log that the last process has
left without its index is copied together with the file, and the copy is read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import anyio.to_thread

from aiostorage._core.cancellation import shielded
from aiostorage._core.files.path_options import not_there
from aiostorage.drivers.sqlite.clock import StoreClock
from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.execution import moment, page, read
from aiostorage.drivers.sqlite.schema_changes import schema_of
from aiostorage.drivers.sqlite.sql import Table, tables_of
from aiostorage.errors import PermissionDenied, StorageClosedError, TemporaryBackendError
from aiostorage.operations import Count, Document, Find, Layout, Operation

__all__ = ["SQLiteReader"]

T = TypeVar("T")

MAX_ATTEMPTS: Final = 5
"""How often to read a file again if another process changes it meanwhile."""


class SQLiteReader:
    """The documents of a file, to be read alone.

    Parameters
    ----------
    path
        The file.
    busy_timeout
        Seconds that one attempt waits for other processes.
    wall
        Returns the time of day.
    """

    name = "sqlite"
    resolution: timedelta = timedelta(microseconds=1)

    def __init__(self, path: Path, busy_timeout: float, wall: Callable[[], datetime]) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._clock = StoreClock(wall)
        self._tables: dict[str, Table] = {}
        self._thread: ConnectionThread | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._state: object | None = None

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`; the file may have another layout."""
        if self._thread is None:
            self._tables = tables_of(layout)
            await self._connect()

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        await shielded(None, self._disconnect)

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        if not isinstance(operation, Find | Count):
            raise self._refusal()
        reading = partial(read, tables=self._tables, operation=operation, clock=self._clock)
        return cast(T, await self.call(reading))

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        return [await self.execute(operation) for operation in operations]

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        table, start = self._tables[find.collection], cast(int, after or 0)
        return await self.call(
            lambda c: page(c, table, find, after=start, size=size, now=moment(self._clock))
        )

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock.wall()

    async def wait_for_change(
        self,
        collection: str,  # noqa: ARG002  no caller waits here
        since: object | None,  # noqa: ARG002
        timeout: float,  # noqa: ARG002
    ) -> object:
        """Refuse to wait."""
        raise self._refusal()

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function that only reads with the connection, perhaps more than once."""
        for _ in range(MAX_ATTEMPTS):
            thread = self._opened()
            result, is_sound = await thread.call(lambda c: (function(c), self._is_unchanged()))
            await thread.drain()  # it forgets the call, which refers to this reader
            if is_sound:
                return result
            await self._disconnect()
            await self._connect()
        raise TemporaryBackendError(f"{self._path} is changed again and again while it is read")

    # --------------------------------------------------------------------------- connections

    async def _connect(self) -> None:
        thread = await anyio.to_thread.run_sync(self._make_thread)
        try:
            await thread.call(self._prepare)
            await thread.drain()
        except BaseException:
            self._thread = thread
            await self.aclose()
            raise
        self._thread = thread

    async def _disconnect(self) -> None:
        thread, self._thread = self._thread, None
        copy, self._copy = self._copy, None
        if thread is not None:
            await thread.close()
        if copy is not None:
            await anyio.to_thread.run_sync(copy.cleanup)

    def _make_thread(self) -> ConnectionThread:
        """Choose how the file is opened; it blocks."""
        self._path = self._path.absolute()
        if not self._path.exists():
            raise not_there(self._path)
        path, target = self._path, os.path.realpath(self._path)
        log, index, journal = (f"{target}-{suffix}" for suffix in ("wal", "shm", "journal"))
        self._state = None
        if _size(journal) or (_size(log) and not os.path.exists(index)):  # noqa: PTH110
            self._copy = tempfile.TemporaryDirectory(prefix="aiostorage-")
            path, query = Path(self._copy.name) / "copy.db", "mode=rw"
            for suffix in ("", "-wal", "-journal"):
                if os.path.exists(target + suffix):  # noqa: PTH110
                    shutil.copyfile(target + suffix, f"{path}{suffix}")
        elif os.path.exists(log) and os.path.exists(index):  # noqa: PTH110
            query = "mode=ro"
        else:
            query = "immutable=1"
            self._state = _state_of(target)
        file = DatabaseFile(path, creates=False, query=query)
        return ConnectionThread(file, self._busy_timeout)

    def _prepare(self, connection: Connection) -> None:
        there = schema_of(connection)
        for name, table in self._tables.items():
            if name not in there.tables:  # it counts as empty; this one is in no file
                connection.execute(
                    table.schema()[0].replace("CREATE TABLE", "CREATE TEMP TABLE", 1)
                )
        self._clock.read(connection)

    def _is_unchanged(self) -> bool:
        return self._state is None or _state_of(os.path.realpath(self._path)) == self._state

    def _opened(self) -> ConnectionThread:
        if self._thread is None:
            raise StorageClosedError(f"the reader of {self._path} is not open")
        return self._thread

    def _refusal(self) -> PermissionDenied:
        return PermissionDenied(f"{self._path} was opened for reading alone")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  a text is at hand
    except OSError:
        return 0


def _state_of(path: str) -> object:
    """Return a value that changes when a process writes to a file without a log."""
    found = os.stat(path)  # noqa: PTH116  as above
    return found.st_ino, found.st_size, found.st_mtime_ns, _size(f"{path}-wal")
