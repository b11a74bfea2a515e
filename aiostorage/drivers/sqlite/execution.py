"""Operations carried out on a connection, in its thread: one by one, or a group in one commit."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiostorage._core.numbered_log import (
    BEGINNING,
    cursor_behind,
    log_page,
    parsed_cursor,
    raise_expired,
)
from aiostorage._core.receipts import insertion_of
from aiostorage.drivers.sqlite.clock import TICK, Moment, StoreClock
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.sql import Sql, Table, to_text
from aiostorage.drivers.sqlite.sql_functions import DamagedDocument
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    Count,
    Delete,
    Document,
    Find,
    FollowUp,
    Insert,
    LogPage,
    Operation,
    Take,
    Update,
)

__all__ = ["Job", "Tables", "commit", "moment", "page", "read", "read_all", "read_log", "run"]

Tables = Mapping[str, Table]


@dataclass(slots=True, eq=False)
class Job:
    """Operations that happen all or none, and the future of the caller that waits for them."""

    operations: Sequence[Operation[Any]]
    future: asyncio.Future[Any]
    single: bool = False
    results: list[Any] | None = None
    error: BaseException | None = None
    begun: bool = False

    def begin(self) -> bool:
        """Return whether to carry it out: its caller is not cancelled."""
        if self.future.cancelled():
            return False
        self.begun = True  # whoever cancels it from now on sees that
        return not self.future.cancelled()


def moment(clock: StoreClock) -> Moment:
    """Return the present moment; read here, since every call needs it, and another file is far."""
    wall = clock.wall()
    if clock.zero is None:
        return Moment(wall, clock.earlier + time.monotonic_ns() // 1_000_000)
    return Moment(wall, clock.earlier + (wall - clock.zero) // TICK)


def commit(connection: Connection, tables: Tables, jobs: Sequence[Job], clock: StoreClock) -> None:
    """Carry out jobs in one transaction, each in its own savepoint, and note what became of them.

    A job whose caller was cancelled before the transaction began is left out.
    """
    try:
        try:
            connection.statement("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.begin_transaction(lambda: all(job.future.cancelled() for job in jobs))
        now = moment(clock)
        for job in jobs:
            if job.begin():
                _carry_out(connection, tables, job, now)
        connection.end_transaction()
    finally:
        connection.back_out()


def _carry_out(connection: Connection, tables: Tables, job: Job, now: Moment) -> None:
    # one statement is atomic by itself
    savepoint = len(job.operations) != 1 or not _is_one_statement(job.operations[0])
    try:
        if savepoint:
            connection.statement("SAVEPOINT job")
        results: list[Any] = []
        for operation in job.operations:
            if isinstance(operation, FollowUp):
                operation = insertion_of(operation, results)  # noqa: PLW2901
            results.append(run(connection, tables, operation, now))
        job.results = results
    except Exception as error:
        if not connection.in_transaction:  # SQLite gave up the whole transaction
            raise
        job.error = error
        if savepoint:
            connection.statement("ROLLBACK TO job")
    finally:
        if savepoint and connection.in_transaction:
            connection.statement("RELEASE job")


def _is_one_statement(operation: Operation[Any]) -> bool:
    """Return whether one statement does all the writing: SQLite makes it atomic by itself."""
    match operation:
        case Insert(documents=documents):
            return len(documents) == 1
        case Take(limit=limit):
            return limit == 1
        case _:
            return True


def run(connection: Connection, tables: Tables, operation: Operation[Any], now: Moment) -> Any:
    """Carry out one operation; the transaction, if it needs one, is open."""
    table, kept = tables[operation.collection], connection.kept
    try:
        match operation:
            case Take():
                return _take(connection, table, operation, now)
            case Update():
                return _update(connection, table, operation, now)
            case Insert():
                return _insert(connection, table, operation, now)
            case Find():
                # all rows at once: an open cursor would keep the read transaction open
                rows = connection.statement(*table.find(operation, now, kept)).fetchall()
                return table.documents(rows, selection=operation.selection)
            case Count():
                return connection.statement(*table.count(operation, now, kept)).fetchone()[0]
            case Delete():
                return _logged(connection, table, *table.delete(operation, now, kept))
            case _:
                raise TypeError(f"unknown operation {operation!r}")
    except sqlite3.IntegrityError as error:
        raise _duplicate(table, error, {}) from error
    except sqlite3.OperationalError as error:
        raise connection.cause_of(error) from error
    finally:
        if kept:
            kept.clear()


def read(
    connection: Connection,
    tables: Tables,
    operation: Operation[Any],
    clock: StoreClock,
) -> Any:
    """Carry out one operation that only reads, at the time of the clock."""
    return run(connection, tables, operation, moment(clock))


def read_all(
    connection: Connection,
    tables: Tables,
    operations: Sequence[Operation[Any]],
    clock: StoreClock,
) -> list[Any]:
    """Carry out operations that only read, on one state of the file, at one time of the clock."""
    connection.statement("BEGIN")  # the first read takes the snapshot; no writer is kept out
    try:
        now = moment(clock)
        return [run(connection, tables, operation, now) for operation in operations]
    finally:
        connection.back_out()


def page(
    connection: Connection, table: Table, find: Find, *, after: int, size: int, now: Moment
) -> tuple[list[Document], int | None]:
    """Return a page of documents, and the cursor for the next one."""
    kept = connection.kept
    try:
        sql = table.page(find.where, after, size, now, kept)
        rows = connection.statement(*sql).fetchall()
    except sqlite3.OperationalError as error:
        raise connection.cause_of(error) from error
    finally:
        kept.clear()
    documents = table.documents(rows, 1, find.selection)
    return documents, (rows[-1][0] if len(rows) == size else None)


def _logged(connection: Connection, table: Table, change: Sql, logging: Sequence[Sql]) -> int:
    """Carry out a change, after what logs it; return how many rows it has changed.

    If the change fails, nothing is logged: a change without a savepoint is atomic by itself.
    """
    if not logging:
        return connection.statement(*change).rowcount
    added = sum(connection.statement(*statement).rowcount for statement in logging)
    try:
        return connection.statement(*change).rowcount
    except sqlite3.Error:
        if added and table.log is not None and connection.in_transaction:
            connection.statement(table.log.undo, [added])
        raise


def read_log(
    connection: Connection, table: Table, owner: Any, after: str | None, limit: int
) -> LogPage:
    """Return a page of a log; see `aiostorage.protocols.LoggingDriver.read_log`."""
    last = connection.statement(*table.last_row()).fetchone()
    end = None if last is None else cursor_behind(*last)
    if after is None:
        return LogPage((), end or BEGINNING)
    number, uid = parsed_cursor(after) if after else (0, "")
    rows = connection.statement(*table.rows_behind("owner", owner, number, limit)).fetchall()
    found = [
        (row[0], document) for row, document in zip(rows, table.documents(rows, 1), strict=True)
    ]
    if after:
        # after the rows were read: they are deleted from the beginning, so all were there
        row = connection.statement(*table.first_row(number)).fetchone()
        there = row is not None and cursor_behind(*row) == after
        if not (there or (number == 0 and not uid and (row is None or row[0] == 1))):
            raise_expired(after)
    return log_page(found, limit, after or BEGINNING, last)


def _insert(connection: Connection, table: Table, insert: Insert, now: Moment) -> None:
    log = table.log if table.logs else None
    for document in insert.documents:
        logging = [] if log is None else log.document(None, document, to_text(now.wall))
        try:
            # a copy is taken apart: if the transaction is retried, it needs the document again
            _logged(connection, table, table.insert(dict(document), now), logging)
        except sqlite3.IntegrityError as error:
            raise _duplicate(table, error, document) from error


def _update(connection: Connection, table: Table, update: Update, now: Moment) -> int:
    kept = connection.kept
    try:
        return _logged(connection, table, *table.update(update, now, kept))
    except sqlite3.OperationalError as error:
        cause = connection.cause_of(error)
        if not isinstance(cause, DamagedDocument):
            raise cause from error
    # the statement has changed nothing; a row that another program has damaged does not match
    kept.clear()
    return _logged(connection, table, *table.update(update, now, kept, whole=True))


def _take(connection: Connection, table: Table, take: Take, now: Moment) -> list[Document]:
    rows = connection.statement(*table.chosen(take, now, connection.kept)).fetchall()
    documents, statements, logging = table.changed(rows, take, now, connection.kept)
    for statement, log in zip(statements, logging, strict=True):
        _logged(connection, table, statement, log)
    return documents


def _duplicate(table: Table, error: sqlite3.IntegrityError, document: Document) -> Exception:
    """Return our error for a violated unique index."""
    fields = table.unique_fields(str(error))
    if not fields:
        return error
    values = tuple(document.get(name) for name in fields) if document else ()
    return DuplicateKeyError(collection=table.name, fields=fields, values=values)
