"""Group commit: what waits for the writer at the same time becomes one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from aiostorage.drivers.sqlite.connection import Connection, ConnectionThread, translated
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import Insert, Operation, Take

__all__ = ["GroupCommit"]

GROUP: Final = 256
"""Operations that share one commit, at most."""

Run = Callable[[Connection, Operation[Any], datetime], Any]


class GroupCommit:
    """The writing connection and those who wait for it.

    Parameters
    ----------
    thread
        The connection.
    run
        Carries out one operation inside the transaction that is open.
    clock
        Tells the time; one transaction has one.
    """

    def __init__(self, thread: ConnectionThread, run: Run, clock: Callable[[], datetime]) -> None:
        self._thread = thread
        self._run = run
        self._clock = clock
        self._queue: list[_Job] = []
        self._flusher: asyncio.Task[None] | None = None

    async def write(self, operations: tuple[Operation[Any], ...]) -> list[Any]:
        """Carry out operations, all or none; answer after the commit.

        Cancelled before its transaction has begun, it never happens.
        """
        job = _Job(operations, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await job.future

    async def aclose(self) -> None:
        """Finish what waits, and close the connection."""
        while self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher])
        await self._thread.close()

    async def _flush(self) -> None:
        """Carry out what waits, group by group."""
        jobs: list[_Job] = []
        try:
            while self._queue:
                jobs, self._queue = self._queue[:GROUP], self._queue[GROUP:]
                try:
                    await self._thread.call(lambda c, jobs=jobs: self._commit(c, jobs))  # type: ignore[misc]
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

    def _commit(self, connection: Connection, jobs: list[_Job]) -> None:
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

    def _carry_out(self, connection: Connection, job: _Job, now: datetime) -> None:
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

    def __init__(
        self, operations: tuple[Operation[Any], ...], future: asyncio.Future[list[Any]]
    ) -> None:
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
            self.future.set_exception(translated(self.error))
        else:
            self.future.set_exception(
                TemporaryBackendError("the write was interrupted", ambiguous=True)
            )


def _fail(jobs: list[_Job], error: BaseException) -> None:
    for job in jobs:
        job.error = error


def _is_one_statement(operation: Operation[Any]) -> bool:
    """Tell whether one statement does all the writing: SQLite makes it atomic by itself."""
    match operation:
        case Insert(documents=documents):
            return len(documents) == 1
        case Take(limit=limit):
            return limit == 1
        case _:
            return True
