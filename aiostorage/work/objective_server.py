"""The code that runs in a process that evaluates an objective."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from aiostorage._core.reasons import text_of

__all__ = ["READY", "call_anywhere", "end_fork", "serve"]

READY: Final = b"ready"


def serve(connection: Connection, lifeline: Connection, objective: bytes) -> None:
    """Evaluate the objective on request, until the worker closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which ends this
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    try:
        function = pickle.loads(objective)  # noqa: S301  from the worker
    except Exception as error:  # noqa: BLE001  the worker says so
        traceback.print_exc()
        connection.send_bytes(f"{type(error).__name__}: {error}".encode(errors="replace"))
        return
    connection.send_bytes(READY)
    process = os.getpid()
    with suppress(EOFError, OSError):
        while question := connection.recv_bytes():
            answer = _answer(function, question)
            end_fork(process)  # it would answer, too, and take the next question away
            connection.send_bytes(answer)


def end_fork(process: int) -> None:
    """End this process if it is not the one that an objective was called in, but a copy of it."""
    if os.getpid() != process:
        os._exit(0)


def _end_with(lifeline: Connection) -> None:
    """End this process when the worker has died, whatever the objective is doing."""
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()
    os._exit(1)


def _answer(function: Callable[..., Any], question: bytes) -> bytes:
    try:
        arguments = pickle.loads(question)  # noqa: S301  from the worker
        return pickle.dumps(("result", pickle.dumps(call_anywhere(function, arguments)), "", ""))
    except BaseException as error:  # noqa: BLE001  it is raised again over there
        text = f"{type(error).__name__}: {text_of(error)}"
        return pickle.dumps(("error", _pickled(error), text, traceback.format_exc()))


def _pickled(error: BaseException) -> bytes:
    """Return a pickled exception, or an empty one if the worker could not unpickle it."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301  our own
    except Exception:  # noqa: BLE001  its text does
        return b""
    return pickled


def call_anywhere(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function in a thread without an event loop; run an awaitable result in a new loop."""
    result = function(**arguments)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
