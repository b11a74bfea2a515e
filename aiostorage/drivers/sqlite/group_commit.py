"""Group commit: jobs that wait for the writer at the same time become one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from aiostorage._core.process.facade_loop import FACADE_LOOP
from aiostorage.drivers.sqlite.clock import StoreClock
from aiostorage.drivers.sqlite.connection import ConnectionThread
from aiostorage.drivers.sqlite.execution import Job, Tables, commit
from aiostorage.drivers.sqlite.short_calls import ShortCalls, is_busy
from aiostorage.drivers.sqlite.translated_errors import translated
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.operations import Operation

__all__ = ["GroupCommit"]

MAX_GROUP: Final = 256
"""Jobs that share one commit, at most."""


class GroupCommit:
    """The writing connection and the jobs that wait for it.

    Parameters
    ----------
    thread
        The connection.
    tables
        The tables, by collection.
    clock
        Tells the moment; one transaction has one.
    syncs
        Whether a job has ended only when it is on disk.
    short
        Carries out short jobs in the thread of the event loop.
    on_group
        Called for each transaction: how many jobs share it, and how many wait.
    """

    def __init__(
        self,
        thread: ConnectionThread,
        tables: Tables,
        clock: StoreClock,
        syncs: bool,
        short: ShortCalls,
        *,
        on_group: Callable[[int, int], None] | None = None,
    ) -> None:
        self._thread = thread
        self._commit = partial(commit, tables=tables, clock=clock, syncs=syncs)
        self._short = short
        self._on_group = on_group
        self._queue: list[Job] = []
        self._under_way: list[Job] = []
        self._flusher: asyncio.Task[None] | None = None

    def write(
        self, operations: Sequence[Operation[Any]], *, single: bool = False
    ) -> asyncio.Future[Any]:
        """Carry out operations, all or none; the results come after the commit.

        If the future is cancelled before the transaction has begun, it never happens. With `single`
        its result is that of the only operation, else a list.
        """
        loop = asyncio.get_running_loop()
        job = Job(operations, loop.create_future(), single)
        if self._flusher is not None and not self._flusher.done():
            self._queue.append(job)
            return job.future
        connection = self._short.connection(operations)
        if connection is not None:
            try:
                connection.execute(partial(self._commit, jobs=(job,)))
            except Exception as error:  # noqa: BLE001  the caller gets it
                job.error = error
            if job.error is None or not is_busy(job.error):
                if self._on_group is not None:
                    self._on_group(1, 0)
                waiting = FACADE_LOOP.waiting
                if waiting is not None and waiting.interrupted:
                    loop.call_soon(_answer, job)  # the caller is cancelled before
                else:
                    _answer(job)
                return job.future
            job.error = None
        self._queue.append(job)
        self._flusher = asyncio.create_task(self._flush())
        return job.future

    def never_began(self, operation: Operation[Any]) -> bool:
        """Return whether a job whose future was cancelled never began, and never will."""
        jobs = [
            job
            for job in (*self._queue, *self._under_way)
            if any(one is operation for one in job.operations)
        ]
        return bool(jobs) and not any(job.begun for job in jobs)

    async def aclose(self) -> None:
        """Finish the jobs that wait, and close the connection."""
        while self._flusher is not None and not self._flusher.done():
            await asyncio.wait([self._flusher])
        await self._thread.close()

    async def _flush(self) -> None:
        """Carry out the jobs that wait, group by group."""
        jobs: list[Job] = []
        try:
            while self._queue:
                jobs, self._queue = self._queue[:MAX_GROUP], self._queue[MAX_GROUP:]
                self._under_way = jobs
                if self._on_group is not None:
                    self._on_group(len(jobs), len(self._queue))
                try:
                    await self._thread.submit(partial(self._commit, jobs=jobs))
                except Exception as error:  # noqa: BLE001  each caller gets it
                    _fail(jobs, error)
                    await self._thread.drain()
                for job in jobs:
                    _answer(job)
                jobs.clear()  # the thread keeps the list until its next call
        except BaseException as error:  # the event loop is being taken down
            jobs, self._queue = jobs + self._queue, []
            _fail(jobs, error)
            for job in jobs:
                _answer(job)
            await self._thread.drain()
            raise


def _fail(jobs: list[Job], error: BaseException) -> None:
    for job in jobs:
        job.error = error


def _answer(job: Job) -> None:
    """Give the caller of a job its results, or the error."""
    if job.future.done():
        return
    if job.error is None and job.results is not None:
        job.future.set_result(job.results[0] if job.single else job.results)
    elif isinstance(job.error, AioStorageError):
        job.future.set_exception(job.error)
    elif isinstance(job.error, Exception):
        job.future.set_exception(translated(job.error))
    else:
        job.future.set_exception(TemporaryBackendError("the write was interrupted", ambiguous=True))
