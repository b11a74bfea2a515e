"""A process that evaluates an objective, as the worker starts it, calls it and ends it."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, current_process
from typing import Any, Final, cast

from aiostorage._core.cancellation import run_to_completion, shielded
from aiostorage.errors import ConfigurationError
from aiostorage.work.daemon_threads import in_daemon_thread
from aiostorage.work.objective_server import READY, serve

__all__ = ["ObjectiveProcess", "ProcessDied", "check_main_module", "pickled_objective"]

CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks of whether the process is alive.

Usually its pipe is closed at once; but a process that the objective has started may keep it open.
"""

END_TIMEOUT: Final = 2.0
"""Seconds that the process has to end on its own, and as many again after SIGTERM."""

KILL_TIMEOUT: Final = 10.0
"""Seconds that the system has to end a killed process."""

log: Final = logging.getLogger("aiostorage.worker")

_FROM_OUTSIDE: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

MAIN_GUARD: Final = (
    "a script that evaluates in processes has to start its work under "
    '`if __name__ == "__main__":`, since each process imports the script'
)


class ProcessDied(RuntimeError):
    """The process that evaluated a trial has died; the message says how.

    Attributes
    ----------
    told_to_end
        Whether it was told to end, by SIGTERM, SIGINT or SIGHUP.
    """

    def __init__(self, code: int | None) -> None:
        self.told_to_end: bool = code is not None and -code in _FROM_OUTSIDE
        super().__init__(f"the process of the objective {_how(code)}")


def _how(code: int | None) -> str:
    if code is None:
        return "does not answer"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def pickled_objective(objective: Callable[..., Any]) -> bytes:
    """Return an objective in the form in which it is sent to a process.

    Raises
    ------
    ConfigurationError
        It cannot be sent: a lambda, or a function in another function.
    """
    try:
        return pickle.dumps(objective)
    except Exception as error:
        raise ConfigurationError(
            f"executor='process' needs an objective that another process can import, such as a "
            f"function at the top of a module: {error}"
        ) from error


def check_main_module() -> None:
    """Raise ConfigurationError in a process of an objective that only imports the script."""
    if getattr(current_process(), "_inheriting", False):
        raise ConfigurationError(MAIN_GUARD)


class ObjectiveProcess:
    """A process that evaluates one trial after another.

    Parameters
    ----------
    objective
        The result of `pickled_objective`.
    """

    def __init__(self, objective: bytes) -> None:
        self._objective = objective
        self._process: BaseProcess | None = None
        self._connection: Connection
        self._lifeline: Connection
        self._asking = threading.Lock()

    async def start(self) -> None:
        """Start the process unless it is running.

        Raises
        ------
        ConfigurationError
            It ended before it was ready.
        """
        if self._process is None:
            # to completion although the caller is cancelled: nothing else would end the process
            await run_to_completion(partial(in_daemon_thread, self._start))
            try:
                await in_daemon_thread(self._be_ready)
            except BaseException:
                await self.aclose(gently=False)
                raise

    async def evaluate(self, arguments: Mapping[str, Any]) -> Any:
        """Return what the objective returns, or raise what it raises.

        A cancelled call ends the process.

        Raises
        ------
        ProcessDied
            The process has died.
        """
        try:
            answer = await in_daemon_thread(partial(self._ask, pickle.dumps(dict(arguments))))
        except BaseException:
            await self.aclose(gently=False)
            raise
        return _result_of(answer)

    async def aclose(self, *, gently: bool = True) -> None:
        """End the process if it runs; `gently` gives it time to end on its own."""
        process, self._process = self._process, None
        if process is not None:
            end = partial(in_daemon_thread, partial(self._end, process, gently))
            await shielded(None, end)

    # ------------------------------------------------------------------------- in a thread

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        their_lifeline, self._lifeline = context.Pipe(duplex=False)
        process = context.Process(
            target=serve,
            args=(theirs, their_lifeline, self._objective),
            name="aiostorage-objective",
        )
        with theirs, their_lifeline:
            process.start()
        self._process = process

    def _be_ready(self) -> None:
        try:
            answer = self._ask(b"")
        except ProcessDied as error:
            raise ConfigurationError(
                f"no process could be started for the objective: {error}, and its output says why; "
                f"{MAIN_GUARD}"
            ) from error
        if answer != READY:
            raise ConfigurationError(
                f"a process cannot import the objective: {answer.decode(errors='replace')}"
            )

    def _ask(self, question: bytes) -> bytes:
        process = self._process
        if process is None:
            raise ProcessDied(None)
        with self._asking:
            try:
                if question:
                    self._connection.send_bytes(question)
                return self._answer(process)
            except (EOFError, OSError) as error:
                raise ProcessDied(_exit_code(process)) from error

    def _answer(self, process: BaseProcess) -> bytes:
        while True:
            ready = wait([self._connection, process.sentinel], CHECK_INTERVAL)
            if self._connection in ready:
                return self._connection.recv_bytes()
            if not process.is_alive():
                if self._connection.poll():
                    return self._connection.recv_bytes()
                raise EOFError

    def _end(self, process: BaseProcess, gently: bool) -> None:
        if gently:
            with suppress(OSError):
                self._connection.send_bytes(b"")
            process.join(END_TIMEOUT)
        if process.is_alive():
            process.terminate()
            process.join(END_TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join(KILL_TIMEOUT)
        if process.is_alive():
            log.warning(
                "process %s of an objective does not end although it was killed", process.pid
            )
            return
        with self._asking:  # a thread that is waiting for its answer notices that soon
            self._connection.close()
            self._lifeline.close()
        process.close()


def _exit_code(process: BaseProcess) -> int | None:
    process.join(END_TIMEOUT)
    return process.exitcode


def _result_of(answer: bytes) -> Any:
    """Return the result in an answer, or raise the error in it."""
    kind, value, text, trace = cast("tuple[str, Any, str, str]", pickle.loads(answer))  # noqa: S301  our own process
    if kind == "result":
        return pickle.loads(value)  # noqa: S301  as above
    try:
        error = pickle.loads(value)  # noqa: S301  as above
    except Exception:  # noqa: BLE001  an exception that cannot be unpickled
        error = None
    if not isinstance(error, Exception):  # or such as SystemExit, which would end the worker
        name, _, message = text.partition(": ")
        error = type(name, (RuntimeError,), {})(message)
    error.add_note(f"in a process of the objective:\n{trace.rstrip()}")
    raise error
