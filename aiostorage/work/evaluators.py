"""Where an objective runs: in the event loop, in a thread, or in a process."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

from aiostorage._core.reasons import text_of
from aiostorage.work.calls import is_async
from aiostorage.work.daemon_threads import in_daemon_thread
from aiostorage.work.objective_server import call_anywhere, end_fork

__all__ = ["Evaluator", "Executor", "ObjectiveExit", "evaluators_of", "not_cancelled"]

Executor: TypeAlias = Literal["auto", "loop", "thread", "process"]


class ObjectiveExit(RuntimeError):
    """The objective raised something that is not an `Exception`, such as SystemExit."""


class Evaluator(Protocol):
    """Evaluates one trial after another for one task of a worker."""

    async def start(self) -> None:
        """Get ready; called before each trial."""

    async def evaluate(self, arguments: dict[str, Any]) -> Any:
        """Return what the objective returns, or raise what it raises."""

    async def aclose(self) -> None:
        """Release everything that was started."""


def not_cancelled(cause: asyncio.CancelledError) -> ObjectiveExit:
    """Return the error for a cancellation that nobody has asked for, which is its cause."""
    error = ObjectiveExit("CancelledError, though the objective was not cancelled")
    error.__cause__ = cause
    return error


def evaluators_of(objective: Callable[..., Any], executor: Executor) -> Callable[[], Evaluator]:
    """Return a factory of evaluators for an objective.

    Raises
    ------
    ConfigurationError
        It is to run in processes, but they cannot import it.
    """
    if executor == "auto":
        executor = "loop" if is_async(objective) else "thread"
    if executor == "process":
        from aiostorage.work.objective_process import (  # noqa: PLC0415  few need multiprocessing
            ObjectiveProcess,
            pickled_objective,
        )

        return partial(ObjectiveProcess, pickled_objective(objective))
    return partial(_LoopEvaluator if executor == "loop" else _ThreadEvaluator, objective)


class _HereEvaluator:
    """Runs the objective in this process: there is nothing to start."""

    def __init__(self, objective: Callable[..., Any]) -> None:
        self._objective = objective

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class _LoopEvaluator(_HereEvaluator):
    async def evaluate(self, arguments: dict[str, Any]) -> Any:
        process = os.getpid()
        try:
            result = self._objective(**arguments)
            if inspect.isawaitable(result):
                result = await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise not_cancelled(error) from error
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, BaseExceptionGroup) and task is not None and task.cancelling():
                raise
            raise _exit_of(error) from error
        end_fork(process)  # it would be a second worker
        return result


class _ThreadEvaluator(_HereEvaluator):
    async def evaluate(self, arguments: dict[str, Any]) -> Any:
        def run() -> Any:
            try:
                return call_anywhere(self._objective, arguments)
            except Exception:
                raise
            except BaseException as error:
                raise _exit_of(error) from error

        waiting: Awaitable[Any] = in_daemon_thread(run)
        return await waiting


def _exit_of(error: BaseException) -> ObjectiveExit:
    text = text_of(error)
    return ObjectiveExit(f"{type(error).__name__}: {text}" if text else type(error).__name__)
