"""SQLite: the embedded engine, one file that many tasks and processes share.

One connection writes, a few read beside it (write-ahead log). Operations that wait for the writer
at the same time become one transaction, each in its own savepoint, and every caller is answered
after the commit: with many tasks one fsync serves them all. Whatever an operation needs happens in
one trip to the connection's thread, so no transaction is ever open between two awaits, and a
cancelled caller cannot leave one behind.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import anyio

from aiostorage._core.cancellation import shielded
from aiostorage._core.projection import select
from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread
from aiostorage.drivers.sqlite.file_checks import check_place, not_a_database
from aiostorage.drivers.sqlite.group_commit import GroupCommit
from aiostorage.drivers.sqlite.sql import Table
from aiostorage.drivers.sqlite.tables import prepare
from aiostorage.errors import (
    ConfigurationError,
    DuplicateKeyError,
    NotADatabaseError,
    StorageClosedError,
)
from aiostorage.operations import (
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Layout,
    Operation,
    Take,
    Update,
)

__all__ = ["SQLiteDriver", "Synchronous"]

T = TypeVar("T")

Synchronous = Literal["FULL", "NORMAL"]

READERS: Final = 2
"""Connections that read, so that a long scan does not hold up a short look."""

POLL: Final = (0.002, 0.02)
"""Seconds between two looks for a commit of another process: at first, and after a while."""

_inherited: list[Any] = []
"""Connections of a parent process. Their threads are gone; dropped, they would complain of that."""


class SQLiteDriver:
    """Documents in one SQLite file.

    Parameters
    ----------
    path
        The file; made with mode 0600 when it is missing. Its directory must exist.
    synchronous
        ``FULL``: what was answered survives a power cut. ``NORMAL``: it survives the death of the
        process, but a power cut may take the last commits along (the file stays sound); several
        times faster when few tasks write at a time. See SQLite's ``PRAGMA synchronous``.
    busy_timeout
        Seconds that one attempt waits for other processes' transactions; the retry policy decides
        about further attempts.
    clock
        Tells the time, in UTC.
    """

    name = "sqlite"
    resolution = timedelta(microseconds=1)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: float = 5.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError(f"synchronous is 'FULL' or 'NORMAL', not {synchronous!r}")
        if not 0 <= busy_timeout < 3600:
            raise ConfigurationError(f"busy_timeout is a number of seconds, not {busy_timeout!r}")
        self._path = Path(path)
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._tables: dict[str, Table] = {}
        self._writer: GroupCommit | None = None
        self._readers: list[ConnectionThread] = []

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self._path.absolute(),  # a copy may be opened in another directory
            "synchronous": self._synchronous,
            "busy_timeout": self._busy_timeout,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    # ------------------------------------------------------------------------ open and close

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        if self._pid != os.getpid():
            _inherited.append((self._writer, self._readers))
            self._forget()
        if self._writer is not None:
            return
        # connections are opened later as well, when the working directory may be another one
        self._path = await anyio.to_thread.run_sync(self._path.absolute)
        await anyio.to_thread.run_sync(check_place, self._path)
        tables = {c.name: Table(c) for c in layout.collections}
        thread = await self._connect()
        try:
            await thread.call(lambda c: prepare(c, self._path, layout.version, tables.values()))
        except BaseException as error:
            await shielded(None, thread.close)
            if isinstance(error, NotADatabaseError) and error.__cause__ is not None:
                raise await anyio.to_thread.run_sync(not_a_database, self._path) from error
            raise
        self._tables, self._writer = tables, GroupCommit(thread, self._run, self._clock)

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        if self._pid != os.getpid():
            return
        writer, readers = self._writer, self._readers
        self._writer, self._readers = None, []

        async def close() -> None:
            for thread in readers:
                await thread.close()
            if writer is not None:
                await writer.aclose()

        await shielded(None, close)

    async def _connect(self) -> ConnectionThread:
        thread = ConnectionThread(
            self._path, self._busy_timeout, f"PRAGMA synchronous = {self._synchronous}"
        )
        await thread.open()
        return thread

    # ---------------------------------------------------------------------------- operations

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        if isinstance(operation, Find | Count):
            return cast(T, await self._read(lambda c: self._run(c, operation, self._clock())))
        return cast(T, (await self._opened().write((operation,)))[0])

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        return await self._opened().write(tuple(operations))

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""

        def read(connection: Connection) -> tuple[list[Document], object | None]:
            table, start = self._tables[find.collection], cast(int, after or 0)
            sql = table.page(find.where, start, size, self._clock(), connection.keep)
            rows = connection.rows(sql)
            documents = _selected((table.document(row, 1) for row in rows), find.selection)
            return documents, (rows[-1][0] if len(rows) == size else None)

        return await self._read(read)

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock()

    async def wait_for_change(
        self,
        collection: str,  # noqa: ARG002  one mark for all
        since: object | None,
        timeout: float,
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`: looks for commits, of any process."""
        deadline = anyio.current_time() + timeout
        delay = POLL[0]
        while True:
            # a connection's own number, so always the same connection; its own commits don't count
            mark: object = await self._read(_data_version, first=True)
            left = deadline - anyio.current_time()
            if mark != since or left <= 0:
                return mark
            await anyio.sleep(min(delay, left))
            delay = min(delay * 1.5, POLL[1])

    def _run(self, connection: Connection, operation: Operation[Any], now: datetime) -> Any:
        """Carry out one operation; the transaction, if it needs one, is open."""
        table, keep = self._tables[operation.collection], connection.keep
        try:
            match operation:
                case Take():
                    return self._take(connection, table, operation, now)
                case Update():
                    return connection.run(table.update(operation, now, keep)).rowcount
                case Insert():
                    return self._insert(connection, table, operation, now)
                case Find():
                    rows = connection.rows(table.find(operation, now, keep))
                    return _selected(map(table.document, rows), operation.selection)
                case Count():
                    return connection.rows(table.count(operation, now, keep))[0][0]
                case Delete():
                    return connection.run(table.delete(operation, now, keep)).rowcount
                case _:
                    raise TypeError(f"unknown operation {operation!r}")
        except sqlite3.IntegrityError as error:
            raise _duplicate(table, error, {}) from error

    @staticmethod
    def _insert(connection: Connection, table: Table, insert: Insert, now: datetime) -> None:
        for document in insert.documents:
            try:
                # taken apart as a copy: a retried transaction needs the document once more
                connection.run(table.insert(dict(document), now))
            except sqlite3.IntegrityError as error:
                raise _duplicate(table, error, document) from error

    @staticmethod
    def _take(connection: Connection, table: Table, take: Take, now: datetime) -> list[Document]:
        documents = []
        for seq, *row in connection.rows(table.chosen(take, now, connection.keep)):
            statement, params = table.change(take.changes, now, connection.keep)
            connection.run((statement, [*params, seq]))
            documents.append(table.changed(table.document(row), take.changes, now))
        return documents

    # -------------------------------------------------------------------------------- reading

    async def _read(self, function: Callable[[Connection], T], *, first: bool = False) -> T:
        self._opened()
        reader = self._readers[0] if self._readers else None
        if not first and reader is not None and reader.busy:
            reader = min(self._readers, key=lambda r: r.busy)
        if reader is None or (reader.busy and not first and len(self._readers) < READERS):
            reader = await self._connect()
            if len(self._readers) >= READERS or self._writer is None:  # meanwhile
                await shielded(None, reader.close)
                return await self._read(function, first=first)
            self._readers.append(reader)
        return await reader.call(function)

    def _opened(self) -> GroupCommit:
        if self._writer is None:
            raise StorageClosedError(f"{self!r} is not open")
        return self._writer


def _selected(
    documents: Iterable[Document], selection: Mapping[str, bool] | None
) -> list[Document]:
    """Keep what a selection asks for; without one nothing is copied, for rows were just read."""
    if not selection:
        return list(documents)
    return [select(document, selection) for document in documents]


def _data_version(connection: Connection) -> object:
    # opened anew after a fork, a connection counts anew
    return connection.openings, connection.execute("PRAGMA data_version").fetchone()[0]


def _duplicate(table: Table, error: sqlite3.IntegrityError, document: Document) -> Exception:
    """Answer our error for a violated unique index."""
    fields = table.unique_fields(str(error))
    if not fields:
        return error
    values = tuple(document.get(name) for name in fields) if document else ()
    return DuplicateKeyError(collection=table.name, fields=fields, values=values)
