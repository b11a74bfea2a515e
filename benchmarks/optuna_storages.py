"""Optuna on its own storages and on ours: trials a second, and how a trial's cost grows."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final

from benchmarks.workload import stall_watched

__all__ = ["KINDS", "Growth", "Rate", "Waiting", "available", "growth", "rates", "waiting"]

KINDS: Final = ("aiostorage, SQLite", "RDB, SQLite", "journal", "in memory")
"""The storages; the last one is for one process alone."""

TASKS: Final = 64
WAIT: Final = 0.05
"""How many trials at a time, and for how many seconds the objective of each of them waits."""


@dataclass(frozen=True)
class Rate:
    """Trials a second of some processes on one storage, and processor time of each in ms."""

    kind: str
    sampler: str
    processes: int
    rate: float
    processor: float


@dataclass(frozen=True)
class Growth:
    """Processor time of a trial in ms, when so many are there already."""

    kind: str
    at: dict[int, float]


@dataclass(frozen=True)
class Waiting:
    """Coroutine objectives that wait: the time beside the least possible one, and the stall."""

    engine: str
    trials: int
    ratio: float
    processor: float
    stall: float


def available() -> bool:
    """Return whether Optuna is installed."""
    return find_spec("optuna") is not None


@dataclass(frozen=True)
class _Common:
    """What the processes of one rate share: when all are ready, and how much each has used."""

    ready: Barrier
    used: SimpleQueue[float]


def rates(directory: Path, count: int, processes: int) -> Iterator[Rate]:
    """Yield the rate of each storage with each sampler; RDB gets a tenth of the trials."""
    for sampler in ("random", "TPE"):
        for kind in KINDS:
            if processes > 1 and kind == "in memory":
                continue
            trials = count // 10 if kind.startswith("RDB") else count
            yield _rate(directory, kind, sampler, processes, max(trials // processes, 1))


def _rate(directory: Path, kind: str, sampler: str, processes: int, each: int) -> Rate:
    place = directory / f"{kind.partition(',')[0]}-{sampler}-{processes}"
    if processes == 1:
        _prepare(kind, place)
        study = _study(kind, place, sampler)
        begun, used = time.perf_counter(), time.process_time()
        _optimize(kind, study, each)
        took, processor = time.perf_counter() - begun, time.process_time() - used
        return Rate(kind, sampler, 1, each / took, processor / each * 1000)
    context = multiprocessing.get_context("fork")
    maker = context.Process(target=_prepare, args=(kind, place))
    maker.start()
    maker.join()
    common = _Common(context.Barrier(processes + 1), context.SimpleQueue())
    workers = [
        context.Process(target=_work, args=(kind, place, sampler, each, common))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    common.ready.wait()  # until all of them have imported everything, and opened the study
    begun = time.perf_counter()
    used = sum(common.used.get() for _ in workers)
    took = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    trials = each * processes
    return Rate(kind, sampler, processes, trials / took, used / trials * 1000)


def growth(directory: Path, marks: tuple[int, ...], trials: int = 50) -> Iterator[Growth]:
    """Yield what a trial of the random sampler costs when so many are there."""
    for kind in ("aiostorage, SQLite", "journal"):
        place = directory / f"{kind.partition(',')[0]}-growth"
        _prepare(kind, place)
        study = _study(kind, place, "random")
        at: dict[int, float] = {}
        done = 0
        for mark in marks:
            study.optimize(_objective, n_trials=mark - trials - done)
            used = time.process_time()
            study.optimize(_objective, n_trials=trials)
            at[mark] = (time.process_time() - used) / trials * 1000
            done = mark
        yield Growth(kind, at)


def waiting(directory: Path, trials: int) -> Iterator[Waiting]:
    """Yield how long `TASKS` coroutines take whose objective waits."""
    for engine, url in (
        ("memory", "memory://"),
        ("SQLite", f"sqlite:///{directory}/waiting.db"),
    ):
        yield asyncio.run(_waiting(engine, url, trials))


async def _waiting(engine: str, url: str, trials: int) -> Waiting:
    import optuna

    from aiostorage.optuna import AsyncTrial, OptunaStorage, optimize

    _quiet()
    study = optuna.create_study(
        storage=OptunaStorage(url), sampler=optuna.samplers.RandomSampler(seed=1)
    )

    async def objective(trial: AsyncTrial) -> float:
        x = await trial.suggest_float("x", -5, 5)
        y = await trial.suggest_float("y", -5, 5)
        await asyncio.sleep(WAIT)
        return x * x + y

    await optimize(study, objective, n_trials=TASKS, tasks=TASKS)  # everything is imported then
    async with stall_watched() as stall:
        begun, used = time.perf_counter(), time.process_time()
        await optimize(study, objective, n_trials=trials, tasks=TASKS)
        took, processor = time.perf_counter() - begun, time.process_time() - used
    ratio = took / (trials / TASKS * WAIT)
    return Waiting(engine, trials, ratio, processor / trials * 1000, stall())


def _objective(trial: Any) -> float:
    x: float = trial.suggest_float("x", -5, 5)
    y: float = trial.suggest_float("y", -5, 5)
    return x * x + y


def _quiet() -> None:
    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _prepare(kind: str, place: Path) -> None:
    import optuna

    _quiet()
    if kind != "in memory":
        optuna.create_study(storage=_storage(kind, place), study_name="bench")


def _storage(kind: str, place: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from aiostorage.optuna import OptunaStorage

    made: dict[str, Callable[[], Any]] = {
        "aiostorage, SQLite": lambda: OptunaStorage(f"sqlite:///{place}.db"),
        "RDB, SQLite": lambda: f"sqlite:///{place}.rdb",
        "journal": lambda: JournalStorage(JournalFileBackend(f"{place}.log")),
    }
    return made[kind]()


def _study(kind: str, place: Path, sampler: str) -> Any:
    import optuna

    _quiet()
    samplers = {"random": optuna.samplers.RandomSampler, "TPE": optuna.samplers.TPESampler}
    if kind == "in memory":
        return optuna.create_study(sampler=samplers[sampler]())
    return optuna.load_study(
        study_name="bench", storage=_storage(kind, place), sampler=samplers[sampler]()
    )


def _work(kind: str, place: Path, sampler: str, trials: int, common: _Common) -> None:
    """Carry out trials in a process, and say how much time of a processor they took."""
    study = _study(kind, place, sampler)
    common.ready.wait()
    used = time.process_time()
    _optimize(kind, study, trials)
    common.used.put(time.process_time() - used)


def _optimize(kind: str, study: Any, trials: int) -> None:
    for _ in range(3):  # SQLite under Optuna may be locked for longer than it waits
        try:
            study.optimize(_objective, n_trials=trials)
        except Exception as error:  # noqa: BLE001  whatever a storage raises
            print(f"{kind}: {type(error).__name__}", flush=True)
        else:
            return
