"""The worker processes: started, listened to, and ended one by one."""

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
from aiostorage.cli.demo.run_state import Board
from aiostorage.cli.demo.worker_process import BOOT, PATIENCE
from aiostorage.protocols import AsyncStorageProtocol, Uid

__all__ = ["Fleet"]

OVERTIME: Final = 10.0
"""Seconds that processes may go on when one of them has found the run to be done."""

KILL_AT: Final = 0.25
"""The part of the trials that is completed before a process is killed."""

LINE: Final = 2**20
"""Bytes of an event, at most."""


@dataclass(slots=True)
class _Child:
    number: int
    process: Process
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    """The last lines that it wrote to stderr."""


class Fleet:
    """Processes that work on one experiment.

    Parameters
    ----------
    job
        What `aiostorage.cli.demo.worker_process.main` gets, but for the path of modules.
    processes, workers
        How many processes, and how many workers in each.
    board
        Is told what they report.
    debug
        Show at once what they write to stderr.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        *,
        processes: int,
        workers: int,
        board: Board,
        debug: bool = False,
    ) -> None:
        self._job = {**job, "workers": workers, "path": [str(path) for path in sys.path]}
        self._processes = processes
        self._workers = workers
        self._board = board
        self._debug = debug
        self._children: dict[int, _Child] = {}
        self._done = anyio.Event()
        self._ripe = anyio.Event()

    async def run(self) -> None:
        """Start the processes and wait until all have ended; if cancelled, end them."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._end_overtime, group.cancel_scope)
                async with anyio.create_task_group() as listeners:
                    for number in range(1, self._processes + 1):
                        child = await self._start(number)
                        listeners.start_soon(self._listen, child)
                group.cancel_scope.cancel()
        finally:
            await self._end()

    async def kill_one(self, storage: AsyncStorageProtocol, experiment: Uid) -> None:
        """Kill the last process, once a part of the trials is done and it is in the middle of some.

        It is stopped first, so that what the storage has for it is what it dies with.
        """
        number, board = self._processes, self._board
        await self._ripe.wait()
        process = self._children[number].process
        while process.returncode is None:
            try:
                _send(process, signal.SIGSTOP)
                await anyio.sleep(0.05)  # what it has reported is read
                has = await _reserved(storage, experiment, board.evaluating(number))
                if has:
                    _send(process, signal.SIGKILL)
                    board.was_killed(number, has)
                    return
            finally:
                _send(process, signal.SIGCONT)
            await anyio.sleep(0.05)

    # ------------------------------------------------------------------------- one process

    async def _start(self, number: int) -> _Child:
        # -P: what stands in the current directory is no module of ours
        process = await anyio.open_process([sys.executable, "-P", "-c", BOOT])
        child = self._children[number] = _Child(number, process)
        self._board.joined(number, process.pid, self._workers)
        if process.stdin is not None:
            with suppress(anyio.BrokenResourceError):  # it has died already, and is listened to
                await process.stdin.send(json.dumps(self._job).encode() + b"\n")
        return child

    async def _listen(self, child: _Child) -> None:
        """Pass on what a process reports, until it has ended."""
        process = child.process
        async with anyio.create_task_group() as group:
            if process.stderr is not None:
                group.start_soon(self._keep_tail, child, process.stderr)
            if process.stdout is not None:
                async for line in _lines(process.stdout):
                    event = Event.from_line(line)
                    if event is not None:
                        self._board.handle(child.number, event)
                        self._look_at_progress()
            code = await process.wait()
            # somebody that it has started may hold its stderr still
            group.cancel_scope.deadline = anyio.current_time() + 0.2
        view = self._board.processes[child.number]
        if code and not view.error and child.tail:
            view.error = child.tail[-1]
        self._board.left(child.number, code)
        if code == 0:
            self._done.set()

    def _look_at_progress(self) -> None:
        board = self._board
        enough = len(board.completed_by) >= KILL_AT * board.trials
        if enough and board.evaluating(self._processes):
            self._ripe.set()

    async def _keep_tail(self, child: _Child, stream: ByteReceiveStream) -> None:
        async for line in _lines(stream):
            text = line.decode(errors="replace")
            child.tail.append(text)
            if self._debug:
                self._board.notes.append(f"process {child.number}: {text}")

    # ------------------------------------------------------------------------- all of them

    async def _end_overtime(self, everything: anyio.CancelScope) -> None:
        await self._done.wait()
        await anyio.sleep(OVERTIME)
        everything.cancel()

    async def _end(self) -> None:
        """Ask processes to end, then make them."""
        living = [c.process for c in self._children.values() if c.process.returncode is None]
        with anyio.CancelScope(shield=True):
            for process in living:
                if process.stdin is not None:
                    await process.stdin.aclose()
            for patience, last_word in ((PATIENCE, signal.SIGTERM), (1.0, signal.SIGKILL)):
                with anyio.move_on_after(patience):
                    for process in living:
                        await process.wait()
                for process in living:
                    _send(process, last_word)
            for child in self._children.values():
                await child.process.aclose()


def _send(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.send_signal(number)


async def _reserved(
    storage: AsyncStorageProtocol, experiment: Uid, tokens: Mapping[str, str]
) -> tuple[str, ...]:
    """Answer which trials the storage has as reserved under their tokens."""
    trials = await storage.fetch_trials_by_status({"_id": experiment}, "reserved")
    return tuple(
        trial.id for trial in trials if trial.worker and tokens.get(trial.id) == trial.worker
    )


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[bytes]:
    """Iterate over the lines of a stream."""
    buffered = BufferedByteReceiveStream(stream)
    while True:
        try:
            yield await buffered.receive_until(b"\n", LINE)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            return
        except anyio.DelimiterNotFound:
            await buffered.receive(LINE)
