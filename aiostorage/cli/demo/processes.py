"""The worker processes: starting them, reading their events, and ending them."""

from __future__ import annotations

import json
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from aiostorage.cli.demo.events import Event
from aiostorage.cli.demo.run_state import RunState
from aiostorage.cli.demo.worker_process import BOOTSTRAP, STOP_TIMEOUT
from aiostorage.protocols import AsyncStorageProtocol, Uid
from aiostorage.trial import TrialStatus

__all__ = ["WorkerProcesses"]

PROCESS_FINISH_TIMEOUT: Final = 10.0
"""Seconds that the other processes may go on after one has found that the run is done."""

TERM_TIMEOUT: Final = 1.0
"""Seconds that a process has to end after SIGTERM."""

STDERR_TIMEOUT: Final = 0.2
"""Seconds that stderr is read after a process has ended: its own children may hold it open."""

KILL_AFTER_SHARE: Final = 0.25
"""The part of the trials that is completed before a process is killed."""

KILL_POLL_INTERVAL: Final = 0.05
"""Seconds between two attempts to kill a process, and in which its last events are read."""

MAX_EVENT_BYTES: Final = 2**20


@dataclass(slots=True)
class WorkerProcess:
    """A process that has been started.

    Parameters
    ----------
    tail
        The last lines that it wrote to stderr.
    """

    number: int
    process: Process
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class WorkerProcesses:
    """Processes that work on one experiment.

    Parameters
    ----------
    job
        The argument of `aiostorage.cli.demo.worker_process.main`, without the number of workers and
        the module search path.
    processes, workers
        The number of processes, and of workers in each.
    state
        Records what they report.
    debug
        Show at once what they write to stderr.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        *,
        processes: int,
        workers: int,
        state: RunState,
        debug: bool = False,
    ) -> None:
        self._job = {**job, "workers": workers, "path": [str(path) for path in sys.path]}
        self._count = processes
        self._workers = workers
        self._state = state
        self._debug = debug
        self._started: dict[int, WorkerProcess] = {}
        self._run_ended = anyio.Event()
        self._may_kill = anyio.Event()

    async def run(self) -> None:
        """Start the processes and wait until all have ended; if cancelled, end them."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._limit_overtime, group.cancel_scope)
                async with anyio.create_task_group() as listeners:
                    for number in range(1, self._count + 1):
                        worker = await self._start(number)
                        listeners.start_soon(self._listen, worker)
                group.cancel_scope.cancel()
        finally:
            await self._end()

    async def kill_one(self, storage: AsyncStorageProtocol, experiment: Uid) -> None:
        """Kill the last process while it evaluates trials, once a part of the trials is completed.

        It is stopped first (SIGSTOP), so that it dies with exactly the trials that the storage has
        for it.
        """
        number, state = self._count, self._state
        await self._may_kill.wait()
        process = self._started[number].process
        while process.returncode is None:
            try:
                _send(process, signal.SIGSTOP)
                await anyio.sleep(KILL_POLL_INTERVAL)
                reserved = await _reserved(storage, experiment, state.evaluating(number))
                if reserved:
                    _send(process, signal.SIGKILL)
                    state.process_killed(number, reserved)
                    return
            finally:
                _send(process, signal.SIGCONT)
            await anyio.sleep(KILL_POLL_INTERVAL)

    # ------------------------------------------------------------------------- one process

    async def _start(self, number: int) -> WorkerProcess:
        # -P: files in the current directory must not shadow modules
        process = await anyio.open_process([sys.executable, "-P", "-c", BOOTSTRAP])
        worker = self._started[number] = WorkerProcess(number, process)
        self._state.process_started(number, process.pid, self._workers)
        if process.stdin is not None:
            with suppress(anyio.BrokenResourceError):  # it has died already; `_listen` reports it
                await process.stdin.send(json.dumps(self._job).encode() + b"\n")
        return worker

    async def _listen(self, worker: WorkerProcess) -> None:
        """Record what a process reports, until it has ended."""
        process = worker.process
        async with anyio.create_task_group() as group:
            if process.stderr is not None:
                group.start_soon(self._keep_tail, worker, process.stderr)
            if process.stdout is not None:
                async for line in _lines(process.stdout):
                    event = Event.from_line(line)
                    if event is not None:
                        self._state.handle(worker.number, event)
                        self._check_progress()
            code = await process.wait()
            group.cancel_scope.deadline = anyio.current_time() + STDERR_TIMEOUT
        state = self._state.processes[worker.number]
        if code and not state.error and worker.tail:
            state.error = worker.tail[-1]
        self._state.process_ended(worker.number, code)
        if code == 0:
            self._run_ended.set()

    def _check_progress(self) -> None:
        state = self._state
        is_far_enough = len(state.completed_by) >= KILL_AFTER_SHARE * state.trials
        if is_far_enough and state.evaluating(self._count):
            self._may_kill.set()

    async def _keep_tail(self, worker: WorkerProcess, stream: ByteReceiveStream) -> None:
        async for line in _lines(stream):
            text = line.decode(errors="replace")
            worker.tail.append(text)
            if self._debug:
                self._state.notes.append(f"process {worker.number}: {text}")

    # ----------------------------------------------------------------------- all processes

    async def _limit_overtime(self, everything: anyio.CancelScope) -> None:
        await self._run_ended.wait()
        await anyio.sleep(PROCESS_FINISH_TIMEOUT)
        everything.cancel()

    async def _end(self) -> None:
        """Close the stdin of the processes, then send SIGTERM, then SIGKILL."""
        workers = self._started.values()
        living = [w.process for w in workers if w.process.returncode is None]
        with anyio.CancelScope(shield=True):
            for process in living:
                if process.stdin is not None:
                    await process.stdin.aclose()
            for timeout, number in (
                (STOP_TIMEOUT, signal.SIGTERM),
                (TERM_TIMEOUT, signal.SIGKILL),
            ):
                with anyio.move_on_after(timeout):
                    for process in living:
                        await process.wait()
                for process in living:
                    _send(process, number)
            for worker in workers:
                await worker.process.aclose()


def _send(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.send_signal(number)


async def _reserved(
    storage: AsyncStorageProtocol, experiment: Uid, tokens: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the ids of the trials that the storage has as reserved with these tokens."""
    trials = await storage.fetch_trials_by_status({"_id": experiment}, TrialStatus.RESERVED)
    return tuple(
        trial.id for trial in trials if trial.worker and tokens.get(trial.id) == trial.worker
    )


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[bytes]:
    """Iterate over the lines of a stream; skip what is longer than an event."""
    buffered = BufferedByteReceiveStream(stream)
    while True:
        try:
            yield await buffered.receive_until(b"\n", MAX_EVENT_BYTES)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            return
        except anyio.DelimiterNotFound:
            await buffered.receive(MAX_EVENT_BYTES)
