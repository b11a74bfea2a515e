"""Operations carried out on a connection, in its thread: one by one, or a group in one commit.

Jobs of a group that follow each other and are alike, as the reservations of a search are, and its
heartbeats, share their statements, too. The outcomes are those of the jobs one by one: if one of
them fails or finds nothing, what they did together is rolled back, and each goes by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final, cast

from aiostorage._core.change_log.log_rows import (
    UNKNOWN,
    Keys,
    LoggedChange,
    entries_of,
    is_logged,
    keys_of,
    known_before,
)
from aiostorage._core.change_log.numbered_log import (
    BEGINNING,
    ID_SUFFIXES,
    cursor_behind,
    log_page,
    parsed_cursor,
    raise_expired,
)
from aiostorage._core.follow_ups.receipts import insertion_of
from aiostorage._core.shared_takes import are_alike, excludes_itself
from aiostorage.drivers.sqlite.clock import TICK, Moment, StoreClock
from aiostorage.drivers.sqlite.columns import to_text
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.sql import Table
from aiostorage.drivers.sqlite.sql_functions import DamagedDocument
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    Condition,
    Count,
    Delete,
    Document,
    Find,
    FollowUp,
    Insert,
    InsertNext,
    LogPage,
    Operation,
    Take,
    Update,
    only_reads,
)

__all__ = [
    "Job",
    "Tables",
    "commit",
    "found_rows",
    "moment",
    "page",
    "read",
    "read_all",
    "read_log",
    "run",
]

Tables = Mapping[str, Table]

_LOGGED: Final = attrgetter("logged")
_LOG: Final = attrgetter("log")


@dataclass(slots=True, eq=False)
class Job:
    """Operations that are carried out all or none, and the future of the caller that waits."""

    operations: Sequence[Operation[Any]]
    future: asyncio.Future[Any]
    single: bool = False
    results: list[Any] | None = None
    error: BaseException | None = None
    begun: bool = False
    logged: list[LoggedChange] = field(default_factory=list)

    def begin(self) -> bool:
        """Mark the job as begun; return False if its caller was cancelled before."""
        if self.future.cancelled():
            return False
        self.begun = True  # a caller that is cancelled from now on sees that
        return not self.future.cancelled()


def moment(clock: StoreClock) -> Moment:
    """Return the present moment."""
    wall = clock.wall()
    if clock.zero is None:
        return Moment(wall, clock.earlier + time.monotonic_ns() // 1_000_000)
    return Moment(wall, clock.earlier + (wall - clock.zero) // TICK)


def commit(
    connection: Connection, tables: Tables, jobs: Sequence[Job], clock: StoreClock, *, syncs: bool
) -> None:
    """Carry out jobs in one transaction, each in its own savepoint, and set their outcomes.

    A job whose caller was cancelled before the transaction began is left out. With `syncs`, all of
    it is on disk afterwards.
    """
    try:
        try:
            connection.statement("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.begin_transaction(lambda: all(job.future.cancelled() for job in jobs))
        now = moment(clock)
        for alike in _alike(tables, jobs) if len(jobs) > 1 else (jobs,):
            begun = [job for job in alike if job.begin()]
            if len(begun) < 2 or not _carry_out_together(connection, tables, begun, now):
                for job in begun:
                    _carry_out(connection, tables, job, now)
        changes = list(chain.from_iterable(map(_LOGGED, jobs)))
        if changes:
            log = next(filter(None, map(_LOG, tables.values())))
            (last,) = connection.statement(log.last).fetchone()
            time_and_suffix = to_text(now.wall), ID_SUFFIXES.getrandbits(32)
            entries = entries_of(log.logged, changes, last + 1, *time_and_suffix)
            connection.executemany(log.insert, map(log.arranged, entries))
        connection.end_transaction()
    finally:
        connection.back_out()
    if syncs:
        connection.sync()


def _alike(tables: Tables, jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Divide jobs, in order: those in a row that may share statements come together."""
    together: list[Job] = []
    first: Take | Update | None = None
    for job in jobs:
        one = _sharing(job)
        if first is None or one is None or not _may_share(first, one):
            if together:
                yield together
            together, first = [], one
            if isinstance(one, Update) and not tables[one.collection].names_one(one.where):
                first = None
        together.append(job)
    if together:
        yield together


def _sharing(job: Job) -> Take | Update | None:
    """Return the only operation of a job, if others like it may share its statements."""
    if len(job.operations) != 1:
        return None
    one = job.operations[0]
    if isinstance(one, Take):
        return one if one.limit is not None and excludes_itself(one) else None
    return one if isinstance(one, Update) else None


def _may_share(first: Take | Update, other: Take | Update) -> bool:
    if isinstance(first, Take):
        return isinstance(other, Take) and are_alike(first, other)
    return (
        isinstance(other, Update)
        and first.collection == other.collection
        and first.changes.keys() == other.changes.keys()
    )


def _carry_out_together(
    connection: Connection, tables: Tables, jobs: Sequence[Job], now: Moment
) -> bool:
    """Carry out jobs that are alike, all or none; return whether that was possible."""
    operations: list[Any] = [job.operations[0] for job in jobs]
    table = tables[operations[0].collection]
    has_log = table.log is not None and table.logs
    logged = [job.logged if has_log else None for job in jobs]
    done = False
    connection.statement("SAVEPOINT job")
    try:
        if isinstance(operations[0], Take):
            results: list[Any] = _take_all(connection, table, operations, now, logged)
            done = True
        else:
            results = [1] * len(jobs)
            done = _update_all(connection, table, operations, now, logged)
    except Exception as error:  # each job finds its own error by itself
        if not connection.in_transaction:  # SQLite has rolled back the whole transaction
            raise
        connection.cause_of(error)
    finally:
        connection.kept.clear()
        if connection.in_transaction:
            if not done:
                connection.statement("ROLLBACK TO job")
            connection.statement("RELEASE job")
    if done:
        for job, result in zip(jobs, results, strict=True):
            job.results = [result]
    return done


def _carry_out(connection: Connection, tables: Tables, job: Job, now: Moment) -> None:
    # one statement is atomic by itself
    *reads, last = job.operations
    savepoint = not _is_one_statement(last) or bool(reads and not only_reads(reads))
    job.logged.clear()
    try:
        if savepoint:
            connection.statement("SAVEPOINT job")
        results: list[Any] = []
        for operation in job.operations:
            if isinstance(operation, FollowUp):
                operation = insertion_of(operation, results)  # noqa: PLW2901
            results.append(run(connection, tables, operation, now, job.logged))
        job.results = results
    except Exception as error:
        job.logged.clear()
        if not connection.in_transaction:  # SQLite has rolled back the whole transaction
            raise
        job.error = error
        if savepoint:
            connection.statement("ROLLBACK TO job")
    finally:
        if savepoint and connection.in_transaction:
            connection.statement("RELEASE job")


def _is_one_statement(operation: Operation[Any]) -> bool:
    """Return whether a single statement does all the writing: SQLite makes that atomic."""
    match operation:
        case Insert(documents=documents) | InsertNext(documents=documents):
            return len(documents) == 1
        case FollowUp():
            return False
        case Take(limit=limit):
            return limit == 1
        case _:
            return True


def run(
    connection: Connection,
    tables: Tables,
    operation: Operation[Any],
    now: Moment,
    changes: list[LoggedChange] | None = None,
) -> Any:
    """Carry out one operation; the transaction, if it needs one, is open.

    Parameters
    ----------
    changes
        Gets its changes that are to be logged; None if nothing is logged.
    """
    table, kept = tables[operation.collection], connection.kept
    if table.log is None or not table.logs:
        changes = None
    try:
        match operation:
            case Take():
                return _take_all(connection, table, [operation], now, [changes])[0]
            case Update():
                return _update(connection, table, operation, now, changes)
            case Insert():
                return _insert(connection, table, operation, now, changes)
            case Delete():
                return _delete(connection, table, operation, now, changes)
            case _:
                return _find(connection, table, operation, now)
    except sqlite3.IntegrityError as error:
        raise _duplicate(table, error, {}) from error
    except sqlite3.OperationalError as error:
        raise connection.cause_of(error) from error
    finally:
        if kept:
            kept.clear()


def _find(connection: Connection, table: Table, operation: Operation[Any], now: Moment) -> Any:
    kept = connection.kept
    match operation:
        case Find():
            # all rows at once: an open cursor would keep the read transaction open
            rows = _rows(connection, *table.find(operation, now, kept))
            return table.documents(rows, selection=operation.selection)
        case Count():
            return connection.statement(*table.count(operation, now, kept)).fetchone()[0]
        case _:
            raise TypeError(f"unknown operation {operation!r}")


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
    connection.statement("BEGIN")  # the first read takes the snapshot; no writer is blocked
    try:
        now = moment(clock)
        return [run(connection, tables, operation, now) for operation in operations]
    finally:
        connection.back_out()


@contextmanager
def _functions_of(connection: Connection) -> Iterator[list[Any]]:
    """Give the list for what the SQL functions of a query need, and raise their own errors."""
    try:
        yield connection.kept
    except sqlite3.OperationalError as error:
        raise connection.cause_of(error) from error
    finally:
        connection.kept.clear()


def found_rows(
    connection: Connection, table: Table, find: Find, now: Moment
) -> list[tuple[Any, ...]]:
    """Return the rows of a `Find`, for `Table.documents`."""
    with _functions_of(connection) as kept:
        # all rows at once: an open cursor would keep the read transaction open
        return _rows(connection, *table.find(find, now, kept))


def page(
    connection: Connection, table: Table, find: Find, *, after: int, size: int, now: Moment
) -> tuple[list[Document], int | None]:
    """Return a page of documents, and the cursor for the next one."""
    with _functions_of(connection) as kept:
        rows = _rows(connection, *table.page(find.where, after, size, now, kept))
    documents = table.documents(rows, 1, find.selection)
    return documents, (rows[-1][0] if len(rows) == size else None)


def read_log(
    connection: Connection, table: Table, owner: Any, after: str | None, limit: int
) -> LogPage:
    """Return a page of a log; see `aiostorage.protocols.LoggingDriver.read_log`."""
    last = next(iter(_rows(connection, *table.last_row())), None)
    end = None if last is None else cursor_behind(*last)
    if after is None:
        return LogPage((), end or BEGINNING)
    number, uid = parsed_cursor(after) if after else (0, "")
    rows = _rows(connection, *table.rows_behind("owner", owner, number, limit))
    found = [
        (row[0], document) for row, document in zip(rows, table.documents(rows, 1), strict=True)
    ]
    if after:
        # after the rows were read: they are deleted from the beginning, so all were there
        row = next(iter(_rows(connection, *table.first_row(number))), None)
        there = row is not None and cursor_behind(*row) == after
        if not (there or (number == 0 and not uid and (row is None or row[0] == 1))):
            raise_expired(after)
    if found and (last is None or found[-1][0] > last[0]):  # committed between the two reads
        last = found[-1][0], found[-1][1]["_id"]
    return log_page(found, limit, after or BEGINNING, last)


def _insert(
    connection: Connection,
    table: Table,
    insert: Insert,
    now: Moment,
    changes: list[LoggedChange] | None,
) -> None:
    for document in insert.documents:
        try:
            # a copy is taken apart: if the transaction is retried, it needs the document again
            done = connection.statement(*table.insert(dict(document), now))
        except sqlite3.IntegrityError as error:
            raise _duplicate(table, error, document) from error
        if changes is not None and table.log is not None:
            seq = done.lastrowid or UNKNOWN
            changes.append((seq, None, keys_of(document, table.log.logged)))


def _update(
    connection: Connection,
    table: Table,
    update: Update,
    now: Moment,
    changes: list[LoggedChange] | None,
) -> int:
    kept, log = connection.kept, table.log
    found: list[tuple[int, Keys]] = []
    if changes is not None and log is not None:
        known = known_before(log.logged, update)
        if known is None:
            found = _looked_up(connection, table, update.where, now)
        else:
            found = list(zip(repeat(UNKNOWN), known, strict=False))
    try:
        matched: int = connection.statement(*table.update(update, now, kept)).rowcount
    except sqlite3.OperationalError as error:
        cause = connection.cause_of(error)
        if not isinstance(cause, DamagedDocument):
            raise cause from error
        # the statement has changed nothing; a row that another program has damaged does not match
        kept.clear()
        if found:
            found = _looked_up(connection, table, update.where, now, whole=True)
        matched = connection.statement(*table.update(update, now, kept, whole=True)).rowcount
    if matched and changes is not None:
        for subject, keys in found:
            changes.append((subject, keys, update))
    return matched


def _update_all(
    connection: Connection,
    table: Table,
    updates: Sequence[Update],
    now: Moment,
    logged: Sequence[list[LoggedChange] | None],
) -> bool:
    """Carry out updates of one document each by one statement.

    The parameters are those of `_take_all`.

    Returns
    -------
    bool
        Whether each of them has found its document. If not, nothing is said about any of them.
    """
    kept, log = connection.kept, table.log
    parameters: list[list[Any]] = []
    statement = ""
    for update, changes in zip(updates, logged, strict=True):
        if changes is not None and log is not None:
            known = known_before(log.logged, update)
            if known is None:
                return False
            for keys in known:
                changes.append((UNKNOWN, keys, update))
        sql, values = table.update(update, now, kept)
        if statement and sql != statement:
            return False
        statement = sql
        parameters.append(values)
    done: int = connection.executemany(statement, parameters).rowcount
    return done == len(updates)


def _delete(
    connection: Connection,
    table: Table,
    delete: Delete,
    now: Moment,
    changes: list[LoggedChange] | None,
) -> int:
    if changes is not None:
        found = _looked_up(connection, table, delete.where, now)
        changes += [(seq, keys, None) for seq, keys in found]
    return connection.statement(*table.delete(delete, now, connection.kept)).rowcount


def _rows(connection: Connection, sql: str, params: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return all rows of a query; text that is not UTF-8 is bytes in them."""
    try:
        return connection.statement(sql, params).fetchall()
    except sqlite3.OperationalError as error:
        return _rows_in_spite_of(error, connection, sql, params)


def _rows_in_spite_of(
    error: Exception, connection: Connection, sql: str, params: Iterable[Any]
) -> list[tuple[Any, ...]]:
    if not str(error).startswith("Could not decode to UTF-8"):
        raise error
    connection.text_factory = _text_or_bytes
    try:
        return connection.statement(sql, params).fetchall()
    finally:
        connection.text_factory = str


def _text_or_bytes(found: bytes) -> str | bytes:
    try:
        return found.decode()
    except UnicodeDecodeError:
        return found


def _looked_up(
    connection: Connection, table: Table, where: Condition, now: Moment, *, whole: bool = False
) -> list[tuple[int, Keys]]:
    """Return the numbers of the documents that match, and their keys, before they are changed.

    With `whole`, only of those whose text can be decoded.
    """
    log, kept = table.log, connection.kept
    assert log is not None  # noqa: S101  checked by the caller
    condition, params = table.matching(where, now, kept, whole=whole)
    found = _rows(connection, log.select(condition), params)
    kept.clear()
    return [(row[0], row[1:]) for row in found]


def _take_all(
    connection: Connection,
    table: Table,
    takes: Sequence[Take],
    now: Moment,
    logged: Sequence[list[LoggedChange] | None],
) -> list[list[Document]]:
    """Carry out takes that are alike by one search; the first documents go to the first take.

    Parameters
    ----------
    logged
        Gets the changes of each take that are to be logged; None if nothing is logged.
    """
    wanted = None if takes[0].limit is None else sum(cast(int, take.limit) for take in takes)
    query = table.chosen(takes[0], wanted, now, connection.kept)
    try:
        rows = connection.statement(*query).fetchall()
    except sqlite3.OperationalError as error:
        rows = _rows_in_spite_of(error, connection, *query)
    results: list[list[Document]] = []
    statements: dict[str, list[list[Any]]] = {}
    begin = 0
    for take, changes in zip(takes, logged, strict=True):
        own = rows[begin:] if take.limit is None else rows[begin : begin + take.limit]
        begin += len(own)
        log = table.log
        if changes is not None and log is not None:
            new = take.changes
            if log.logged.state in new or is_logged(log.logged, new):
                for row in own:
                    changes.append((row[0], log.of_row(row), take))
        results.append(table.changed(own, take.changes, now, connection.kept, statements))
    for sql, params in statements.items():
        connection.executemany(sql, params)
    return results


def _duplicate(table: Table, error: sqlite3.IntegrityError, document: Document) -> Exception:
    """Return our error for a violated unique index."""
    fields = table.unique_fields(str(error))
    if not fields:
        return error
    values = tuple(document.get(name) for name in fields) if document else ()
    return DuplicateKeyError(collection=table.name, fields=fields, values=values)
