"""Jobs that share a transaction, carried out in the thread of the connection.

Jobs that follow each other and are alike, as the reservations of a search are, and its heartbeats,
share their statements, too. The outcomes are those of the jobs one by one: if one of them fails or
finds nothing, what they did together is rolled back, and each is carried out by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, Final

from aiostorage._core.log_rows import LoggedChange, entries_of
from aiostorage._core.numbered_log import MARKS
from aiostorage._core.receipts import insertion_of
from aiostorage._core.shared_takes import are_alike, excludes_itself
from aiostorage.drivers.sqlite.clock import Moment, StoreClock
from aiostorage.drivers.sqlite.column_values import to_text
from aiostorage.drivers.sqlite.connection import Connection
from aiostorage.drivers.sqlite.execution import Tables, moment, run, take_all, update_all
from aiostorage.operations import FollowUp, Insert, Operation, Take, Update

__all__ = ["Job", "commit"]

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


def commit(connection: Connection, tables: Tables, jobs: Sequence[Job], clock: StoreClock) -> None:
    """Carry out jobs in one transaction, each in its own savepoint, and set their outcomes.

    A job whose caller was cancelled before the transaction began is left out.
    """
    try:
        try:
            connection.statement("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.begin_transaction(lambda: all(job.future.cancelled() for job in jobs))
        now = moment(clock)
        for alike in _alike(tables, jobs):
            begun = [job for job in alike if job.begin()]
            if len(begun) < 2 or not _carry_out_together(connection, tables, begun, now):
                for job in begun:
                    _carry_out(connection, tables, job, now)
        changes = list(chain.from_iterable(map(_LOGGED, jobs)))
        if changes:
            log = next(filter(None, map(_LOG, tables.values())))
            (last,) = connection.statement(log.last).fetchone()
            time_and_mark = to_text(now.wall), MARKS.getrandbits(32)
            entries = entries_of(log.logged, changes, last + 1, *time_and_mark)
            connection.executemany(log.insert, map(log.arranged, entries))
        connection.end_transaction()
    finally:
        connection.back_out()


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
    is_logged = table.log is not None and table.logs
    logged = [job.logged if is_logged else None for job in jobs]
    done = False
    connection.statement("SAVEPOINT job")
    try:
        if isinstance(operations[0], Take):
            results: list[Any] = take_all(connection, table, operations, now, logged)
            done = True
        else:
            results = [1] * len(jobs)
            done = update_all(connection, table, operations, now, logged)
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
    savepoint = len(job.operations) != 1 or not _is_one_statement(job.operations[0])
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
        case Insert(documents=documents):
            return len(documents) == 1
        case Take(limit=limit):
            return limit == 1
        case _:
            return True
