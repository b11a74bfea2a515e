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
from aiostorage.cli.demo.events import Event, Kind
from aiostorage.cli.demo.problem import Problem, ProblemSpec
from aiostorage.cli.demo.workers import Crew
from aiostorage.errors import AioStorageError
from aiostorage.factory import open_storage

__all__ = ["BOOT", "main"]

BOOT: Final = """\
import json, signal, sys
signal.signal(signal.SIGINT, lambda *_: None)
job = json.loads(sys.stdin.buffer.readline())
sys.path[:] = job["path"]
from aiostorage.cli.demo.worker_process import main
main(job)
"""
"""What a child runs. The job comes on stdin, since arguments are for all to see and URLs have
passwords; Ctrl-C is the parent's business; and modules are looked for where the parent does."""

PATIENCE: Final = 5.0
"""Seconds that a child has to end once its parent has closed the child's stdin, or died."""


def main(job: Mapping[str, Any]) -> None:
    """Do a job, and tell the parent on stdout how it goes.

    Parameters
    ----------
    job
        What `aiostorage.cli.demo.processes.Fleet` made.
    """
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a user's objective prints must not get in between
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def report(event: Event) -> None:
        with suppress(BrokenPipeError):  # the parent has died; `_follow_parent` knows
            channel.write(event.to_line())

    code = 1
    try:
        problem = ProblemSpec.from_dict(job["problem"]).problem()
        storage = open_storage(job["url"], **job["settings"])
        code = anyio.run(_run, job, problem, storage, report)
    except BaseException as error:  # noqa: BLE001  the parent tells it
        traceback.print_exc()
        report(Event(Kind.FAILED, error=_line_of(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    if code or _busy_threads():
        os._exit(code)  # an abandoned evaluation would be waited for


async def _run(
    job: Mapping[str, Any], problem: Problem, storage: Storage, report: Callable[[Event], None]
) -> int:
    with anyio.CancelScope() as scope:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            with suppress(RuntimeError):  # it is over already
                loop.call_soon_threadsafe(scope.cancel)

        threading.Thread(target=_follow_parent, args=(stop,), daemon=True).start()
        async with storage:
            await Crew(
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
    while os.read(0, 1024):  # not sys.stdin, whose lock would be in the interpreter's way at exit
        pass
    stop()
    time.sleep(PATIENCE)
    os._exit(1)  # the event loop, or somebody's clean-up, hangs


def _busy_threads() -> bool:
    """Tell whether some thread would keep the interpreter from ending soon."""
    end = time.monotonic() + 1.0
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
