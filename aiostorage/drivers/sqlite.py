"""SQLite: the embedded engine, one file that many tasks and processes share.

One connection writes, a few read beside it (write-ahead log). Operations that wait for the writer
at the same time become one transaction, each in its own savepoint, and every caller is answered
after the commit: with many tasks one fsync serves them all. Whatever an operation needs happens in
one trip to the connection's thread, so no transaction is ever open between two awaits, and a
cancelled caller cannot leave one behind.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import aiosqlite
import anyio

from aiostorage._core.codec import dump_document, load_document
from aiostorage._core.projection import apply_changes, select
from aiostorage.drivers._sqlite_compile import MATCH, SET, Table
from aiostorage.drivers._sqlite_place import check_place
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    ConfigurationError,
    DuplicateKeyError,
    NotADatabaseError,
    PermissionDenied,
    SchemaVersionError,
    StorageClosedError,
    TemporaryBackendError,
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

APPLICATION_ID: Final = 0x61696F73
"""``PRAGMA application_id`` of our files: "aios"."""

READERS: Final = 2
"""Connections that read, so that a long scan does not hold up a short look."""

GROUP: Final = 256
"""Operations that share one commit, at most."""

POLL: Final = (0.002, 0.02)
"""Seconds between two looks for a commit of another process: at first, and after a while."""

_inherited: list[Any] = []
"""Connections of a parent process. SQLite forbids a child to use or even close them."""


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
        self._writer: _Thread | None = None
        self._readers: list[_Thread] = []
        self._queue: list[_Job] = []
        self._flusher: asyncio.Task[None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self._path.absolute(),
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
            _inherited.append((self._writer, self._readers, self._flusher, self._queue))
            self._forget()
        if self._writer is not None:
            return
        await anyio.to_thread.run_sync(check_place, self._path)
        tables = {c.name: Table(c) for c in layout.collections}
        writer = await self._connect()
        try:
            await writer.call(lambda c: self._prepare(c, layout.version, tables))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await writer.close()
            raise
        self._tables, self._writer = tables, writer

    async def aclose(self) -> None:
        """See `aiostorage.protocols.Driver.aclose`."""
        if self._pid != os.getpid():
            return
        writer, readers = self._writer, self._readers
        self._writer, self._readers = None, []
        with anyio.CancelScope(shield=True):
            while self._flusher is not None:
                await asyncio.wait([self._flusher])
            for thread in [*readers, *([writer] if writer else [])]:
                await thread.close()

    async def _connect(self) -> _Thread:
        thread = _Thread(self._path, self._busy_timeout)
        await thread.open(f"PRAGMA synchronous = {self._synchronous}")
        return thread

    def _prepare(self, connection: _Connection, version: int, tables: dict[str, Table]) -> None:
        """Create the tables of a new file, check those of an old one."""
        if sqlite3.sqlite_version_info < (3, 35):
            raise ConfigurationError(f"SQLite 3.35 or newer is needed, not {sqlite3.sqlite_version}")
        if self._recognised(connection, version):
            return
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigurationError(
                f"the file system of {self._path} cannot carry SQLite's write-ahead log "
                f"(journal mode {mode!r}); put the file on a local disk"
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._recognised(connection, version):  # nobody was faster
                for table in tables.values():
                    for statement in table.schema():
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version:d}")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        finally:
            connection.back_out()

    def _recognised(self, connection: _Connection, version: int) -> bool:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if application == APPLICATION_ID:
            if found > version:
                raise SchemaVersionError(
                    f"{self._path} was laid out by a newer aiostorage (schema {found}, this one "
                    f"knows {version}); upgrade the package"
                )
            if found < version:
                raise SchemaVersionError(
                    f"{self._path} has schema {found}, this aiostorage needs {version}; "
                    "see the release notes on how to upgrade it"
                )
            return True
        if application or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise NotADatabaseError(f"{self._path} is a SQLite database of something else")
        return False

    # ---------------------------------------------------------------------------- operations

    async def execute(self, operation: Operation[T]) -> T:
        """See `aiostorage.protocols.Driver.execute`."""
        if isinstance(operation, Find | Count):
            return cast(T, await self._read(lambda c: self._run(c, operation, self._clock())))
        return cast(T, (await self._write((operation,)))[0])

    async def transact(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """See `aiostorage.protocols.Driver.transact`."""
        return await self._write(tuple(operations))

    async def page(
        self, find: Find, after: object | None, size: int
    ) -> tuple[list[Document], object | None]:
        """See `aiostorage.protocols.Driver.page`."""

        def read(connection: _Connection) -> tuple[list[Document], object | None]:
            table, start = self._tables[find.collection], cast(int, after or 0)
            sql = table.page(find.where, start, size, self._clock(), connection.keep)
            rows = connection.rows(sql)
            documents = [select(table.document(row, 1), find.selection) for row in rows]
            return documents, (rows[-1][0] if len(rows) == size else None)

        return await self._read(read)

    async def now(self) -> datetime:
        """See `aiostorage.protocols.Driver.now`: this machine's clock."""
        return self._clock()

    async def wait_for_change(self, collection: str, since: object | None, timeout: float) -> object:  # noqa: ARG002, ASYNC109
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

    def _run(self, connection: _Connection, operation: Operation[Any], now: datetime) -> Any:
        """Carry out one operation; the transaction, if it needs one, is open."""
        table, keep = self._tables[operation.collection], connection.keep
        try:
            match operation:
                case Take():
                    rows = connection.rows(table.take(operation, now, keep))
                    documents = [(row[0], table.document(row, 1)) for row in rows]
                    if len(documents) > 1:
                        documents.sort(key=lambda d: (*_sort_key(d[1], operation.order), d[0]))
                    return [document for _, document in documents]
                case Update():
                    return connection.run(table.update(operation, now, keep)).rowcount
                case Insert():
                    for document in operation.documents:
                        # a retried transaction needs the document once more
                        connection.run(table.insert(dict(document), now))
                    return None
                case Find():
                    rows = connection.rows(table.find(operation, now, keep))
                    return [select(table.document(row), operation.selection) for row in rows]
                case Count():
                    return connection.rows(table.count(operation, now, keep))[0][0]
                case Delete():
                    return connection.run(table.delete(operation, now, keep)).rowcount
                case _:
                    raise TypeError(f"unknown operation {operation!r}")
        except sqlite3.IntegrityError as error:
            fields = table.unique_fields(str(error))
            if not fields:
                raise
            values: tuple[Any, ...] = ()
            if isinstance(operation, Insert):
                values = tuple(document.get(name) for name in fields)
            raise DuplicateKeyError(collection=table.name, fields=fields, values=values) from error

    # -------------------------------------------------------------------------------- reading

    async def _read(self, function: Callable[[_Connection], T], *, first: bool = False) -> T:
        self._check_open()
        reader = self._readers[0] if self._readers else None
        if not first and reader is not None and reader.busy:
            reader = min(self._readers, key=lambda r: r.busy)
        if reader is None or (reader.busy and not first and len(self._readers) < READERS):
            reader = await self._connect()
            if len(self._readers) >= READERS or self._writer is None:  # meanwhile
                with anyio.CancelScope(shield=True):
                    await reader.close()
                return await self._read(function, first=first)
            self._readers.append(reader)
        return await reader.call(function)

    def _check_open(self) -> _Thread:
        if self._writer is None:
            raise StorageClosedError(f"{self!r} is not open")
        return self._writer

    # -------------------------------------------------------------------------------- writing

    async def _write(self, operations: tuple[Operation[Any], ...]) -> list[Any]:
        self._check_open()
        job = _Job(operations, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await job.future  # when this is cancelled before the job has begun, it never will

    async def _flush(self) -> None:
        """Carry out what waits, group by group."""
        jobs: list[_Job] = []
        try:
            while self._queue:
                jobs, self._queue = self._queue[:GROUP], self._queue[GROUP:]
                try:
                    writer = self._check_open()
                    await writer.call(lambda c, jobs=jobs: self._commit(c, jobs))  # type: ignore[misc]
                except Exception as error:  # noqa: BLE001  each caller gets it
                    _fail(jobs, error)
                for job in jobs:
                    job.answer()
        except BaseException as error:  # the event loop is being taken down
            jobs, self._queue = jobs + self._queue, []
            _fail(jobs, error)
            for job in jobs:
                job.answer()
            raise
        finally:
            self._flusher = None

    def _commit(self, connection: _Connection, jobs: list[_Job]) -> None:
        """Carry out jobs in one transaction, so that each happens wholly or not at all."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            now = self._clock()
            for job in jobs:
                if not job.future.cancelled():
                    self._carry_out(connection, job, now)
            connection.execute("COMMIT")
        finally:
            connection.back_out()

    def _carry_out(self, connection: _Connection, job: _Job, now: datetime) -> None:
        one = len(job.operations) == 1 and _is_one_statement(job.operations[0])
        try:
            if not one:  # one statement is atomic by itself
                connection.execute("SAVEPOINT job")
            job.results = [self._run(connection, o, now) for o in job.operations]
        except Exception as error:
            if not connection.in_transaction:  # SQLite gave up the whole transaction
                raise
            job.error = connection.cause_of(error)
            if not one:
                connection.execute("ROLLBACK TO job")
        finally:
            if not one and connection.in_transaction:
                connection.execute("RELEASE job")


class _Job:
    """Operations that wait for the writer, and the future of whoever waits for them."""

    __slots__ = ("error", "future", "operations", "results")

    def __init__(self, operations: tuple[Operation[Any], ...], future: asyncio.Future[list[Any]]) -> None:
        self.operations = operations
        self.future = future
        self.results: list[Any] | None = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        if self.future.done():
            return
        if self.error is None and self.results is not None:
            self.future.set_result(self.results)
        elif isinstance(self.error, AioStorageError):
            self.future.set_exception(self.error)
        elif isinstance(self.error, Exception):
            self.future.set_exception(_translated(self.error))
        else:
            self.future.set_exception(TemporaryBackendError("the write was interrupted", ambiguous=True))


def _fail(jobs: list[_Job], error: BaseException) -> None:
    for job in jobs:
        job.error = error


class _Connection(sqlite3.Connection):
    """A connection that also carries out functions, each in one trip to its thread.

    aiosqlite has no public way to run a function in a connection's thread, but hands whatever
    `execute_fetchall` is given to `execute`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: list[Any] = []
        self._error: Exception | None = None
        self._loaded: tuple[str, Document] = ("", {})
        self.create_function(MATCH, 2, self._match, deterministic=True)
        self.create_function(SET, 2, self._set, deterministic=True)

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        """Execute a statement, or call a function with this connection."""
        if callable(sql):
            return _Outcome(sql(self))
        return super().execute(sql, parameters)

    def keep(self, value: Any) -> int:
        """Keep what a function of the next statement needs."""
        self._kept.append(value)
        return len(self._kept) - 1

    def run(self, statement: tuple[str, list[Any]]) -> sqlite3.Cursor:
        """Execute a compiled statement that answers no rows."""
        try:
            return super().execute(*statement)
        except sqlite3.OperationalError as error:
            raise self.cause_of(error) from error
        finally:
            if self._kept:
                self._kept.clear()

    def rows(self, statement: tuple[str, list[Any]]) -> list[tuple[Any, ...]]:
        """Execute a compiled statement and fetch all: an open cursor would hold the lock."""
        try:
            return super().execute(*statement).fetchall()
        except sqlite3.OperationalError as error:
            raise self.cause_of(error) from error
        finally:
            if self._kept:
                self._kept.clear()

    def back_out(self) -> None:
        """Roll back what is open, if anything is."""
        if self.in_transaction:
            super().execute("ROLLBACK")

    def cause_of(self, error: Exception) -> Exception:
        """Answer what one of our functions raised, which SQLite does not pass on."""
        cause, self._error = self._error, None
        return cause or error

    def _match(self, key: int, doc: str) -> bool:
        try:
            text, document = self._loaded
            if text != doc:
                document = load_document(doc)
                self._loaded = doc, document
            return cast(bool, self._kept[key](document))
        except Exception as error:
            self._error = error
            raise

    def _set(self, key: int, doc: str) -> str:
        try:
            document = load_document(doc)
            apply_changes(document, self._kept[key])
            return dump_document(document)
        except Exception as error:
            self._error = error
            raise


class _Outcome:
    """What a function answered, in the shape of a cursor."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def fetchall(self) -> Any:
        return self._value


class _Thread:
    """A connection and the thread it lives in."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self.busy = 0
        self._proxy = _in_daemon_thread(
            lambda: aiosqlite.connect(
                path, isolation_level=None, factory=_Connection, timeout=busy_timeout
            )
        )

    async def open(self, *pragmas: str) -> None:
        with _translating():
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.close(descriptor)
            try:
                await self._proxy
                for pragma in pragmas:
                    await self.call(lambda c, pragma=pragma: c.execute(pragma).fetchall())  # type: ignore[misc]
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self.close()
                raise

    async def call(self, function: Callable[[_Connection], T]) -> T:
        self.busy += 1
        try:
            with _translating():
                return cast(T, await self._proxy.execute_fetchall(cast(str, function)))
        finally:
            self.busy -= 1

    async def close(self) -> None:
        with _translating():
            await self._proxy.close()


def _in_daemon_thread(make: Callable[[], T]) -> T:
    """Call `make` in a daemon thread: the threads it makes are daemons too.

    aiosqlite's thread is none by itself, and an unclosed connection keeps the interpreter from
    exiting. SQLite survives that its thread just stops.
    """
    made: list[T] = []
    thread = threading.Thread(target=lambda: made.append(make()), daemon=True)
    thread.start()
    thread.join()
    return made[0]


def _data_version(connection: _Connection) -> int:
    return cast(int, connection.execute("PRAGMA data_version").fetchone()[0])


def _is_one_statement(operation: Operation[Any]) -> bool:
    return not isinstance(operation, Insert) or len(operation.documents) == 1


def _sort_key(document: Document, order: tuple[str, ...]) -> list[tuple[bool, Any]]:
    return [(document.get(name) is not None, document.get(name)) for name in order]


_TEMPORARY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT}
_DENIED: Final = {
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_AUTH,
}


def _translated(error: Exception) -> Exception:
    """Answer our error for one of sqlite3's, or of the file system's."""
    match error:
        case AioStorageError():
            return error
        case sqlite3.Error():
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _TEMPORARY:
                return TemporaryBackendError(f"SQLite: {error}")
            if code in _DENIED:
                return PermissionDenied(f"SQLite: {error}")
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                return NotADatabaseError(f"SQLite: {error}")
            return BackendError(f"SQLite: {error}")
        case PermissionError():
            return PermissionDenied(str(error))
        case OSError():
            return BackendError(str(error))
        case ValueError() if "onnection" in str(error):  # aiosqlite's, of a closed connection
            return StorageClosedError()
        case _:
            return error


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except AioStorageError:
        raise
    except Exception as error:
        ours = _translated(error)
        if ours is error:
            raise
        raise ours from error
