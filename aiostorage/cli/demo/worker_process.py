"""A worker process of the demo. `processes` starts it, with a job on stdin."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import anyio

from aiostorage import Storage
from aiostorage._core.named_store import NamedStore
from aiostorage.cli.demo.events import Event, EventKind
from aiostorage.cli.demo.problem import Problem, ProblemSpec
from aiostorage.cli.demo.workers import Workers
from aiostorage.errors import AioStorageError
from aiostorage.factory import storage_of

__all__ = ["BOOTSTRAP", "STOP_TIMEOUT", "main"]

BOOTSTRAP: Final = """\
import json, signal, sys
signal.signal(signal.SIGINT, lambda *_: None)
job = json.loads(sys.stdin.buffer.readline())
sys.path[:] = job["path"]
from aiostorage.cli.demo.worker_process import main
main(job)
"""
"""What a worker process runs.

The job comes on stdin: other users can read a process's arguments, and URLs have passwords. The
parent handles Ctrl-C. Modules are searched for where the parent does.
"""

STOP_TIMEOUT: Final = 5.0
"""Seconds that a process has to end after its parent has closed its stdin, or died."""

THREAD_TIMEOUT: Final = 1.0
"""Seconds that threads have to end at the end of the process."""


def main(job: Mapping[str, Any]) -> None:
    """Do a job, and report events on stdout.

    Parameters
    ----------
    job
        What `aiostorage.cli.demo.processes.WorkerProcesses` sent.
    """
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a user's objective prints must not mix with the events
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def report(event: Event) -> None:
        with suppress(BrokenPipeError):  # the parent has died; `_follow_parent` notices
            channel.write(event.to_line())

    code = 1
    try:
        problem = ProblemSpec.from_dict(job["problem"]).problem()
        storage = storage_of(NamedStore(job["store"], job["origin"]), **job["settings"])
        code = anyio.run(_run, job, problem, storage, report)
    except BaseException as error:  # noqa: BLE001  the parent shows it
        traceback.print_exc()
        report(Event(EventKind.FAILED, error=_line_of(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    if code or _has_busy_threads():
        os._exit(code)  # a normal exit would wait for an abandoned evaluation


async def _run(
    job: Mapping[str, Any], problem: Problem, storage: Storage, report: Callable[[Event], None]
) -> int:
    with anyio.CancelScope() as scope:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            with suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(scope.cancel)

        threading.Thread(target=_follow_parent, args=(stop,), daemon=True).start()
        async with storage:
            await Workers(
                storage,
                job["experiment"],
                problem,
                trials=job["trials"],
                workers=job["workers"],
                report=report,
            ).run()
    return int(scope.cancel_called)


def _follow_parent(stop: Callable[[], None]) -> None:
    """End when the parent closes our stdin, which its death does too."""
    while os.read(0, 1024):  # not sys.stdin: its lock would block the interpreter's exit
        pass
    stop()
    time.sleep(STOP_TIMEOUT)
    os._exit(1)  # the event loop or a clean-up hangs


def _has_busy_threads() -> bool:
    """Return whether a thread would keep the interpreter from ending soon."""
    end = time.monotonic() + THREAD_TIMEOUT
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join(max(end - time.monotonic(), 0.0))
            if thread.is_alive():
                return True
    return False


def _line_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error) or type(error).__name__
    return text if isinstance(error, AioStorageError) else f"{type(error).__name__}: {text}"
