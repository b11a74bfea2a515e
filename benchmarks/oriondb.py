"""Oríon on aiostorage beside Oríon on its own PickledDB; needs Oríon 0.2.7 and Python 3.11."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Comparison", "ExperimentId", "available", "hunts", "opened", "operations"]

THREAD_COUNT: Final = 8
PROCESS_COUNT: Final = 4


@dataclass(frozen=True)
class Comparison:
    """One figure for both storages: seconds of a hunt, or operations per second."""

    what: str
    pickleddb: float
    aiostorage: float

    @property
    def ratio(self) -> float:
        """The figure of aiostorage divided by that of PickledDB."""
        return self.aiostorage / self.pickleddb


def available() -> bool:
    """Return whether Oríon can be imported."""
    try:
        import orion.storage.base  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


Config = Mapping[str, Any]


def _pickleddb(file: Path) -> Config:
    return {"type": "legacy", "database": {"type": "pickleddb", "host": str(file)}}


def _aiostorage(file: Path, synchronous: str = "FULL") -> Config:
    database = {"url": f"sqlite:///{file}", "synchronous": synchronous}
    return {"type": "aiostorage", "database": database}


# ------------------------------------------------------------------------------ operations


def operations(directory: Path, sizes: tuple[int, ...], seconds: float) -> list[Comparison]:
    """Measure reservations per second through Oríon's storage protocol, for `seconds` each.

    One caller at a time with each size, then several with the first size. PickledDB never waits for
    the disk, so aiostorage is also measured with ``NORMAL``, which seldom waits for it.
    """
    compared = []
    for size in sizes:
        config = _pickleddb(directory / f"one-{size}.pkl")
        theirs = _one(config, _filled(config, size), seconds)
        for synchronous in ("FULL", "NORMAL"):
            config = _aiostorage(directory / f"one-{size}-{synchronous}.db", synchronous)
            ours = _one(config, _filled(config, size), seconds)
            compared.append(
                Comparison(f"reservations/s at {size:,} trials, {synchronous}", theirs, ours)
            )
    size = sizes[0]
    for who, rate in (
        (f"{THREAD_COUNT} threads", _threads),
        (f"{PROCESS_COUNT} processes", _processes),
    ):
        config = _pickleddb(directory / f"{who}.pkl")
        theirs = rate(config, _filled(config, size), seconds)
        config = _aiostorage(directory / f"{who}.db")
        ours = rate(config, _filled(config, size), seconds)
        compared.append(Comparison(f"reservations/s at {size:,} trials, FULL, {who}", theirs, ours))
    return compared


@dataclass
class ExperimentId:
    """All that a storage needs of an experiment."""

    id: Any

    @property
    def _id(self) -> Any:
        return self.id


def _filled(config: Config, size: int) -> ExperimentId:
    """Make an experiment with pending trials."""
    from orion.core.worker.trial import Trial  # noqa: PLC0415

    storage = opened(config)
    experiment: dict[str, Any] = {"name": "bench", "version": 1, "algorithm": {}}
    storage.create_experiment(experiment)
    trials = [
        Trial(
            experiment=experiment["_id"],
            params=[{"name": "/x", "type": "integer", "value": number}],
        )
        for number in range(size)
    ]
    # registered at once, which for PickledDB is possible only past the protocol
    storage._db.write("trials", [trial.to_dict() for trial in trials])  # noqa: SLF001
    os.sync()  # otherwise a commit would wait for what was written before
    return ExperimentId(experiment["_id"])


def opened(config: Config) -> Any:
    """Open one of Oríon's storages."""
    from orion.storage.base import setup_storage  # noqa: PLC0415

    return setup_storage(dict(config))


def _reserve(storage: Any, experiment: ExperimentId, seconds: float) -> int:
    """Reserve until the time is over or no trial is left; return the number of reservations."""
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end and storage.reserve_trial(experiment) is not None:
        done += 1
    return done


def _one(config: Config, experiment: ExperimentId, seconds: float) -> float:
    storage = opened(config)
    storage.reserve_trial(experiment)
    begin = time.perf_counter()
    done = _reserve(storage, experiment, seconds)
    return done / (time.perf_counter() - begin)


def _threads(config: Config, experiment: ExperimentId, seconds: float) -> float:
    """Return reservations per second of threads that share a storage."""
    storage = opened(config)
    storage.reserve_trial(experiment)
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREAD_COUNT) as pool:
        callers = [pool.submit(_reserve, storage, experiment, seconds) for _ in range(THREAD_COUNT)]
        done = sum(caller.result() for caller in callers)
    return done / (time.perf_counter() - begin)


def _processes(config: Config, experiment: ExperimentId, seconds: float) -> float:
    """Return reservations per second of processes that share a file, each with its own storage."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESS_COUNT + 1), context.Queue()
    processes = [
        context.Process(target=_member, args=(config, experiment.id, seconds, start, answers))
        for _ in range(PROCESS_COUNT)
    ]
    for process in processes:
        process.start()
    start.wait()
    begin = time.perf_counter()
    done: int = sum(answers.get() for _ in processes)
    taken = time.perf_counter() - begin
    for process in processes:
        process.join()
    return done / taken


def _member(config: Config, uid: Any, seconds: float, start: Any, answers: Any) -> None:
    storage, experiment = opened(config), ExperimentId(uid)
    storage.count_broken_trials(experiment)  # imports everything and opens the storage
    start.wait()
    answers.put(_reserve(storage, experiment, seconds))


# ----------------------------------------------------------------------------------- hunts


def hunts(directory: Path, trials: int, workers: int) -> list[Comparison]:
    """Measure ``orion hunt`` with a script that only reports a result.

    Return the seconds of the whole command, and those of them that it waited for the storage. The
    rest is Oríon's own: it copies the state of the algorithm, which contains every trial, several
    times for each trial.
    """
    script = directory / "nothing.sh"
    script.write_text(
        "#!/bin/sh\n"
        """echo '[{"name":"o","type":"objective","value":1.0}]' > "$ORION_RESULTS_PATH"\n"""
    )
    script.chmod(0o755)
    wanted = ["--exp-max-trials", str(trials), "--n-workers", str(workers)]
    command = [*wanted, str(script), "-x~uniform(-5,5)"]
    theirs = _hunt(directory, _pickleddb(directory / "hunt.pkl"), command)
    ours = _hunt(directory, _aiostorage(directory / "hunt.db"), command)
    what = f"seconds of a hunt, {trials} trials, {workers} workers"
    return [
        Comparison(what, theirs[0], ours[0]),
        Comparison(f"{what}: in the storage", theirs[1], ours[1]),
    ]


def _hunt(directory: Path, config: Config, arguments: list[str]) -> tuple[float, float]:
    """Return the seconds that it took, and those that it waited for the storage."""
    lines = [f"    {name}: {value}" for name, value in config["database"].items()]
    file, report = directory / "hunt.yaml", directory / "seconds"
    file.write_text("\n".join(["storage:", f"  type: {config['type']}", "  database:", *lines]))
    script = Path(__file__).with_name("hunt.py")
    command = [sys.executable, "-W", "ignore", str(script), str(report)]
    command += ["hunt", "-n", "bench", "-c", str(file), *arguments]
    os.sync()
    begin = time.perf_counter()
    subprocess.run(
        command, cwd=directory, env=os.environ, check=True, capture_output=True, timeout=1800
    )
    return time.perf_counter() - begin, float(report.read_text())
