"""Group commit: jobs that wait for the file at the same time share one replacement of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from aiostorage.drivers.track.file_lock import YIELD_DELAY
from aiostorage.drivers.track.pending_write import PendingWrite
from aiostorage.drivers.track.store import TrackStore
from aiostorage.errors import AioStorageError, BackendError, TemporaryBackendError
from aiostorage.operations import Operation

__all__ = ["SharedWrites"]

MAX_GROUP: Final = 256
"""Jobs that share one replacement, at most."""


class SharedWrites:
    """The jobs that wait for a file, and the thread that carries them out while there are any.

    The jobs may come from several event loops.

    Parameters
    ----------
    store
        The file.
    written
        Called in the thread after each replacement.
    on_group
        Called in the thread before each: how many jobs share it, and how many wait.
    """

    def __init__(
        self,
        store: TrackStore,
        written: Callable[[], None],
        on_group: Callable[[int, int], None] | None = None,
    ) -> None:
        self._store = store
        self._written = written
        self._on_group = on_group
        self._lock = threading.Lock()
        self._queue: list[PendingWrite] = []
        self._under_way: list[PendingWrite] = []
        self._thread: threading.Thread | None = None

    def write(
        self, operations: Sequence[Operation[Any]], *, single: bool = False
    ) -> asyncio.Future[Any]:
        """Carry out operations, all or none; the results come after the replacement.

        If the future is cancelled before the jobs of its group are carried out, it never happens.
        """
        loop = asyncio.get_running_loop()
        job = PendingWrite(operations, loop.create_future(), single)
        with self._lock:
            self._queue.append(job)
        loop.call_soon(self._start)  # when all that is ready to write has joined the queue
        return job.future

    def never_began(self, operation: Operation[Any]) -> bool:
        """Return whether a job whose future was cancelled never began, and never will."""
        with self._lock:
            jobs = [
                job
                for job in (*self._queue, *self._under_way)
                if any(one is operation for one in job.operations)
            ]
        return bool(jobs) and not any(job.begun for job in jobs)

    def drain(self) -> None:
        """Wait for the end of all jobs; for a thread."""
        self._start()
        while (thread := self._thread) is not None:
            thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._queue and self._thread is None:
                thread = threading.Thread(target=self._work, name="aiostorage-track", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the process may have no more of them
                    jobs, self._queue = self._queue, []
                    for job in jobs:
                        job.error = TemporaryBackendError(f"cannot write: {error}")
                        _notify(job)
                else:
                    self._thread = thread

    def _work(self) -> None:
        while True:
            with self._lock:
                jobs, self._queue = self._queue[:MAX_GROUP], self._queue[MAX_GROUP:]
                self._under_way = jobs
                if not jobs:
                    self._thread = None
                    return
            if self._on_group is not None:
                self._on_group(len(jobs), len(self._queue))
            waits = False
            try:
                waits = self._store.commit(jobs)
            except Exception as error:  # noqa: BLE001  each caller gets it
                for job in jobs:
                    job.error = error
            else:
                self._written()
            self._under_way = []
            for job in jobs:
                _notify(job)
            if waits:
                time.sleep(YIELD_DELAY)


def _notify(job: PendingWrite) -> None:
    with suppress(RuntimeError):  # its event loop is closed
        job.future.get_loop().call_soon_threadsafe(_answer, job)


def _answer(job: PendingWrite) -> None:
    """Give the caller of a job its results, or the error."""
    if job.future.done():
        return
    if isinstance(job.error, AioStorageError):
        job.future.set_exception(job.error)
    elif isinstance(job.error, OSError):
        job.future.set_exception(BackendError(f"the file cannot be written: {job.error}"))
    elif job.error is not None:
        job.future.set_exception(job.error)
    elif job.results is None:  # it was taken for cancelled
        job.future.set_exception(TemporaryBackendError("the write did not happen"))
    else:
        job.future.set_result(job.results[0] if job.single else job.results)
