"""SQLite: the embedded engine, one file that many tasks and processes share.

One connection writes, a few read beside it (write-ahead log). Operations that wait for the writer
at the same time become one transaction, each in its own savepoint, and every caller gets its result
after the commit: with many tasks, one fsync serves them all. Whatever an operation needs happens in
one trip to the connection's thread, so no transaction is ever open between two awaits, and a
cancelled caller cannot leave one behind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, TypeVar, cast

import anyio

from aiostorage._core.cancellation import shielded
from aiostorage._core.files.path_options import checked_path, checked_seconds
from aiostorage._core.kinds import choice, option
from aiostorage._core.process.abandoned import warn_unclosed
from aiostorage._core.slices import consumed
from aiostorage.drivers.sqlite.clock import StoreClock, utc_now
from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread
from aiostorage.drivers.sqlite.database_file import DatabaseFile
from aiostorage.drivers.sqlite.execution import (
    found_rows,
    moment,
    page,
    read,
    read_all,
    read_log,
)
from aiostorage.drivers.sqlite.file_checks import check_log, check_place, not_a_database
from aiostorage.drivers.sqlite.file_examination import FileExamination
from aiostorage.drivers.sqlite.file_upgrade import FileUpgrade
from aiostorage.drivers.sqlite.group_commit import GroupCommit
from aiostorage.drivers.sqlite.read_only_file import SQLiteReader
from aiostorage.drivers.sqlite.readers import Readers
from aiostorage.drivers.sqlite.short_calls import MAX_LOG_ROWS, ShortCalls, is_busy
from aiostorage.drivers.sqlite.sql import Table, tables_of
from aiostorage.drivers.sqlite.tables import prepare
from aiostorage.drivers.sqlite.translated_errors import raise_translated
from aiostorage.errors import (
    NotADatabaseError,
    StorageClosedError,
)
from aiostorage.findings import EngineReport, Finding, Repair
from aiostorage.operations import (
    Count,
    Document,
    Find,
    Layout,
    LogPage,
    Operation,
    only_reads,
)
from aiostorage.upgrades import UpgradeProgress, UpgradeReport, UpgradeStep, silent

__all__ = ["SQLiteDriver", "Synchronous"]

T = TypeVar("T")

Synchronous = Literal["FULL", "NORMAL"]

PREPARATION: Final = "PRAGMA synchronous = NORMAL"
"""What prepares a connection: `Connection.sync` does what ``FULL`` would do, after the commit."""

_SYNCHRONOUS: Final = option(choice("FULL", "NORMAL"))

MIN_POLL_INTERVAL: Final = 0.002
MAX_POLL_INTERVAL: Final = 0.02
"""Seconds between two checks for a commit of another process: at first, and after a while."""

_inherited: list[Any] = []
"""Connections of a parent process, never dropped: their finalisers would warn of lost threads."""


class SQLiteDriver:
    """Documents in one SQLite file.

    Parameters
    ----------
    path
        The file; made with mode 0600 when it is missing. Its directory must exist.
    synchronous
        ``FULL``: a write that has returned survives a power cut. ``NORMAL``: it survives the death
        of the process, but a power cut may lose the last commits (the file stays sound); several
        times faster when few tasks write at a time. See SQLite's ``PRAGMA synchronous``.
    busy_timeout
        Seconds that one attempt waits for other processes' transactions; the retry policy decides
        about further attempts.
    clock
        Returns the time, in UTC. It then decides what the machine's own clock decides by default:
        which heartbeats, leases and tickets are old. All who share a file take the same clock.

    Attributes
    ----------
    creates
        Whether opening makes the file when it is missing; if not, opening fails then.
    logs
        See `aiostorage.protocols.LoggingDriver`.
    """

    name = "sqlite"
    resolution: timedelta = timedelta(microseconds=1)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: float = 5.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        _SYNCHRONOUS.check("sqlite", "synchronous", synchronous)
        self._path = checked_path(self.name, path, beside=len("-journal"))
        self._synchronous = synchronous
        self._busy_timeout = checked_seconds(self.name, "busy_timeout", busy_timeout)
        self._clock = StoreClock(clock)
        self._file: DatabaseFile | None = None
        self.on_group: Callable[[int, int], None] | None = None
        """Called for each write: how many share it, and how many wait."""
        self.creates: bool = True
        self._logs = True
        self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        self._pid = os.getpid()
        self._tables: dict[str, Table] = {}
        self._writer: GroupCommit | None = None
        self._readers = Readers(self._connect)
        self._short = ShortCalls(None, {})

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self._path.absolute(),  # a copy may be opened in another directory
            "synchronous": self._synchronous,
            "busy_timeout": self._busy_timeout,
            "creates": self.creates and self._file is None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        creates = state.pop("creates", True)
        self.__init__(**state)  # type: ignore[misc]  # a copy is opened anew
        self.creates = creates

    def __del__(self) -> None:
        if getattr(self, "_writer", None) is not None and self._pid == os.getpid():
            # now, since whoever records warnings keeps this object
            self._writer, self._readers = None, Readers(self._connect)
            warn_unclosed(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def logs(self) -> bool:  # noqa: D102  see the class
        return self._logs

    @logs.setter
    def logs(self, value: bool) -> None:
        self._logs = value
        for table in self._tables.values():
            table.logs = value

    # ------------------------------------------------------------------------ open and close

    async def open(self, layout: Layout) -> None:
        """See `aiostorage.protocols.Driver.open`."""
        if self._pid != os.getpid():
            _inherited.append((self._writer, self._readers, self._short))
            self._reset_after_fork()
        if self._writer is not None:
            return
        # connections are opened later as well, when the working directory may be another one
        self._path = await anyio.to_thread.run_sync(self._path.absolute)
        await anyio.to_thread.run_sync(check_place, self._path)
        tables = tables_of(layout)
        first, file = self._file is None, self._file or DatabaseFile(self._path, self.creates)
        if first:
            await anyio.to_thread.run_sync(check_log, self._path)

        given_up = threading.Event()
        syncs = self._synchronous == "FULL"

        def lay_out(connection: Connection) -> None:
            connection.unwanted = given_up.is_set
            prepare(connection, self._path, layout.version, list(tables.values()))
            self._clock.begin(connection)
            file.note_tables(connection)
            connection.poll()
            if syncs:
                connection.sync()

        self._file = file
        thread = self._connect()
        try:
            await thread.call(lay_out, given_up.set)
            await thread.drain()  # it forgets the call, which refers to this driver
        except BaseException as error:
            await shielded(None, thread.close)
            if first:
                self._file = None
            if isinstance(error, NotADatabaseError) and error.__cause__ is not None:
                cause = error.__cause__
                raise await anyio.to_thread.run_sync(not_a_database, self._path, cause) from error
            raise
        self._tables = tables
        self._short = ShortCalls(None if file.lacks_log else file, tables, PREPARATION)
        self._writer = GroupCommit(
            thread, tables, self._clock, syncs, self._short, on_group=self.on_group
        )
        self.logs = self._logs

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        if self._pid != os.getpid():
            return
        writer, readers, short = self._writer, self._readers, self._short
        self._writer, self._readers = None, Readers(self._connect)
        self._short = ShortCalls(None, {})

        async def close() -> None:
            await short.aclose()
            await readers.aclose()
            if writer is not None:
                await writer.aclose()
            self._file = None

        await shielded(None, close)

    async def upgrade(
        self,
        layout: Layout,
        steps: Sequence[UpgradeStep],
        *,
        backup: bool | str | os.PathLike[str] = True,
        dry_run: bool = False,
        progress: UpgradeProgress = silent,
    ) -> UpgradeReport:
        """See `aiostorage.protocols.UpgradableDriver.upgrade`."""
        path = await anyio.to_thread.run_sync(self._path.absolute)
        if await anyio.Path(path.parent).exists():  # else there is no file to upgrade
            await anyio.to_thread.run_sync(check_place, path)
            await anyio.to_thread.run_sync(check_log, path)
        upgrade = FileUpgrade(
            path, self._busy_timeout, layout, steps, self._clock, backup, dry_run, progress
        )
        return await upgrade.carry_out()

    def reader(self) -> SQLiteReader:
        """See `aiostorage.protocols.ExaminableDriver.reader`."""
        return SQLiteReader(self._path, self._busy_timeout, self._clock.wall)

    async def examine(self, layout: Layout) -> EngineReport:
        """See `aiostorage.protocols.ExaminableDriver.examine`."""
        return await (await self._examination()).examine(layout)

    async def repair(self, layout: Layout, findings: Sequence[Finding]) -> list[Repair]:
        """See `aiostorage.protocols.ExaminableDriver.repair`."""
        return await (await self._examination()).repair(layout, findings)

    async def _examination(self) -> FileExamination:
        path = await anyio.to_thread.run_sync(self._path.absolute)
        return FileExamination(path, self._busy_timeout, self._clock.wall)

    def _connect(self) -> ConnectionThread:
        if self._file is None:
            raise StorageClosedError(f"{self!r} is not open")
        return ConnectionThread(self._file, self._busy_timeout, PREPARATION)

    # ---------------------------------------------------------------------------- operations

    def execute(self, operation: Operation[T]) -> Awaitable[T]:
        """See `aiostorage.protocols.Driver.execute`."""
        writer = self._opened()
        if isinstance(operation, Find | Count):
            call = partial(read, tables=self._tables, operation=operation, clock=self._clock)
            return self._read(call, (operation,))
        return cast(Awaitable[T], writer.write((operation,), single=True))

    def transact(self, operations: Sequence[Operation[Any]]) -> Awaitable[list[Any]]:
        """See `aiostorage.protocols.Driver.transact`."""
        writer = self._opened()
        if only_reads(operations):
            call = partial(read_all, tables=self._tables, operations=operations, clock=self._clock)
            return self._read(call, operations)
        return writer.write(operations)

    async def _read(
        self, call: Callable[[Connection], T], operations: Sequence[Operation[Any]] = ()
    ) -> T:
        """Call a function that carries out these operations, and only reads."""
        connection = self._short.connection(operations)
        if connection is not None:
            try:
                return cast(T, connection.execute(call).fetchall())
            except Exception as error:  # noqa: BLE001  raised again, translated
                if not is_busy(error):
                    raise_translated(error)
        return await self._readers.read(call)

    def never_began(self, operation: Operation[Any]) -> bool:
        """Return whether the operation of a caller that was cancelled never began."""
        return self._writer is not None and self._writer.never_began(operation)

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""
        self._opened()
        table, start = self._tables[find.collection], cast(int, after or 0)
        clock = self._clock
        return await self._readers.read(
            lambda c: page(c, table, find, after=start, size=size, now=moment(clock))
        )

    async def slices(self, find: Find, size: int) -> Iterator[list[Document]]:
        """See `aiostorage.protocols.SlicingDriver.slices`."""
        self._opened()
        table, clock = self._tables[find.collection], self._clock
        rows = await self._readers.read(lambda c: found_rows(c, table, find, moment(clock)))
        # tuples of plain values, unlike documents, cost the garbage collector nothing
        parts = consumed(rows, size)
        return (table.documents(part, selection=find.selection) for part in parts)

    async def read_log(self, log: str, owner: Any, after: str | None, limit: int) -> LogPage:
        """See `aiostorage.protocols.LoggingDriver.read_log`."""
        self._opened()
        table = self._tables[log]
        call = partial(read_log, table=table, owner=owner, after=after, limit=limit)
        return await (self._read(call) if limit <= MAX_LOG_ROWS else self._readers.read(call))

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock.wall()

    async def wait_for_change(
        self,
        collection: str,  # noqa: ARG002  one version for all
        since: object | None,
        timeout: float,
    ) -> object:
        """See `aiostorage.protocols.Driver.wait_for_change`: polls for commits of any process."""
        deadline = anyio.current_time() + timeout
        delay = MIN_POLL_INTERVAL
        while True:
            self._opened()
            # each connection counts the others' commits, so it has to be the same one always
            version: object = await self._readers.read(_data_version, first=True)
            left = deadline - anyio.current_time()
            if version != since or left <= 0:
                return version
            await anyio.sleep(min(delay, left))
            delay = min(delay * 1.5, MAX_POLL_INTERVAL)

    def _opened(self) -> GroupCommit:
        if self._writer is None:
            raise StorageClosedError(f"{self!r} is not open")
        return self._writer


def _data_version(connection: Connection) -> object:
    # opened anew after a fork, a connection counts anew
    return connection.openings, connection.execute("PRAGMA data_version").fetchone()[0]
