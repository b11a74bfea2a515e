"""A worker in one call, for scripts without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal, TypedDict, Unpack

import anyio

from aiostorage._core.kinds import Kind
from aiostorage._core.storage import Storage
from aiostorage.errors import ConfigurationError, RunningLoopError
from aiostorage.factory import open_storage, setup_storage
from aiostorage.protocols import ExperimentLike
from aiostorage.work.evaluators import Executor
from aiostorage.work.worker_report import WorkerEvent, WorkerReport
from aiostorage.work.working import Worker

__all__ = ["WorkerOptions", "run_worker"]


class WorkerOptions(TypedDict, total=False):
    """The options of a `Worker`."""

    tasks: int
    executor: Executor
    suggest: Callable[..., Any] | None
    max_trials: int | Literal[True] | None
    max_broken: int | Literal[True] | None
    max_attempts: int | None
    wait: float
    heartbeat: float | None
    grace: float
    signals: bool
    on_event: Callable[[WorkerEvent], None] | None
    progress: bool


def run_worker(
    storage: str | Mapping[str, Any] | Storage | None,
    experiment: str | Mapping[str, Any] | ExperimentLike,
    objective: Callable[..., Any],
    **options: Unpack[WorkerOptions],
) -> WorkerReport:
    """Open a storage, and run a `Worker` on it until there is nothing left to do.

    Parameters
    ----------
    storage
        A URL; a mapping as for `setup_storage`; None for the storage that is configured; or a
        `Storage` that is not open, with options of its own. It is closed at the end.
    experiment
        The name of an existing experiment, whose newest version is used; or a config, from which an
        experiment is created unless there is one with its name and version; or an experiment.
    objective
        As for `Worker`.
    options
        Those of `Worker`.

    Returns
    -------
    WorkerReport
        The counts of the worker, and why it ended.

    Raises
    ------
    ConfigurationError
        There is no experiment of this name; or as for `Worker` and `open_storage`.
    RunningLoopError
        An event loop runs in this thread: there, await ``Worker(…).run()``.
    BackendError
        The store cannot be reached.

    Examples
    --------
    >>> report = run_worker("sqlite:///tune.db", "tune", train, tasks=4)
    """
    _STORAGE.check("run_worker", "storage", storage)
    if options.get("executor") == "process":
        from aiostorage.work.objective_process import check_main_module  # noqa: PLC0415

        check_main_module()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RunningLoopError(
            "run_worker would block the event loop that runs in this thread; there, write "
            "`await Worker(storage, experiment, objective).run()`"
        )
    if isinstance(storage, str):
        storage = open_storage(storage)
    elif not isinstance(storage, Storage):
        storage = setup_storage(storage)
    return anyio.run(partial(_run, storage, experiment, objective, options))


async def _run(
    storage: Storage,
    experiment: str | Mapping[str, Any] | ExperimentLike,
    objective: Callable[..., Any],
    options: WorkerOptions,
) -> WorkerReport:
    async with storage:
        found = await _experiment_of(storage, experiment)
        return await Worker(storage, found, objective, **options).run()


async def _experiment_of(
    storage: Storage, experiment: str | Mapping[str, Any] | ExperimentLike
) -> ExperimentLike:
    """Return the experiment of a name, or of a config, which may have to be created."""
    if isinstance(experiment, str):
        found = await storage.fetch_experiments({"name": experiment})
        if not found:
            raise ConfigurationError(
                f"there is no experiment {experiment!r} at {storage.location}; pass a config, as "
                f'{{"name": {experiment!r}}}, to have it created'
            )
        return max(found, key=lambda config: config["version"])
    if isinstance(experiment, Mapping) and experiment.get("_id") is None:
        return await storage.get_or_create_experiment(experiment)
    return experiment


_STORAGE: Final = Kind(
    "a URL, a mapping, None or a Storage that is not open",
    lambda value: value is None or isinstance(value, str | Mapping | Storage),
    secret=True,
)
