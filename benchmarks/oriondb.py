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

__all__ = ["Compared", "Holder", "available", "hunts", "opened", "operations"]

THREADS: Final = 8
PROCESSES: Final = 4


@dataclass(frozen=True)
class Compared:
    """One figure of both: seconds of a hunt, or operations a second."""

    what: str
    pickleddb: float
    aiostorage: float


def available() -> bool:
    """Tell whether Oríon can be imported."""
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


def operations(directory: Path, sizes: tuple[int, ...], seconds: float) -> list[Compared]:
    """Measure reservations a second through Oríon's storage protocol, for so many seconds each.

    One caller at a time at each size, then several at the first size. PickledDB never waits for the
    disk, so aiostorage is measured with ``NORMAL`` too, which waits for it now and then.
    """
    compared = []
    for size in sizes:
        config = _pickleddb(directory / f"one-{size}.pkl")
        theirs = _one(config, _filled(config, size), seconds)
        for synchronous in ("FULL", "NORMAL"):
            config = _aiostorage(directory / f"one-{size}-{synchronous}.db", synchronous)
            ours = _one(config, _filled(config, size), seconds)
            compared.append(
                Compared(f"reservations/s at {size:,} trials, {synchronous}", theirs, ours)
            )
    size = sizes[0]
    for who, rate in ((f"{THREADS} threads", _threads), (f"{PROCESSES} processes", _processes)):
        config = _pickleddb(directory / f"{who}.pkl")
        theirs = rate(config, _filled(config, size), seconds)
        config = _aiostorage(directory / f"{who}.db")
        ours = rate(config, _filled(config, size), seconds)
        compared.append(Compared(f"reservations/s at {size:,} trials, FULL, {who}", theirs, ours))
    return compared


@dataclass
class Holder:
    """All that a storage wants of an experiment."""

    id: Any

    @property
    def _id(self) -> Any:
        return self.id


def _filled(config: Config, size: int) -> Holder:
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
    # registered in one go, which PickledDB has beside the protocol only
    storage._db.write("trials", [trial.to_dict() for trial in trials])  # noqa: SLF001
    os.sync()  # what came before has left much to write, and a commit would wait for it
    return Holder(experiment["_id"])


def opened(config: Config) -> Any:
    """Open a storage of Oríon's."""
    from orion.storage.base import setup_storage  # noqa: PLC0415

    return setup_storage(dict(config))


def _reserve(storage: Any, holder: Holder, seconds: float) -> int:
    """Reserve until the time is over or nothing is left; answer how many."""
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end and storage.reserve_trial(holder) is not None:
        done += 1
    return done


def _one(config: Config, holder: Holder, seconds: float) -> float:
    storage = opened(config)
    storage.reserve_trial(holder)
    begin = time.perf_counter()
    done = _reserve(storage, holder, seconds)
    return done / (time.perf_counter() - begin)


def _threads(config: Config, holder: Holder, seconds: float) -> float:
    """Let the threads of one process share a storage."""
    storage = opened(config)
    storage.reserve_trial(holder)
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        callers = [pool.submit(_reserve, storage, holder, seconds) for _ in range(THREADS)]
        done = sum(caller.result() for caller in callers)
    return done / (time.perf_counter() - begin)


def _processes(config: Config, holder: Holder, seconds: float) -> float:
    """Let processes share a file, each with a storage of its own."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES + 1), context.Queue()
    processes = [
        context.Process(target=_member, args=(config, holder.id, seconds, start, answers))
        for _ in range(PROCESSES)
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
    storage, holder = opened(config), Holder(uid)
    storage.count_broken_trials(holder)  # everything is imported and open
    start.wait()
    answers.put(_reserve(storage, holder, seconds))


# ----------------------------------------------------------------------------------- hunts


def hunts(directory: Path, trials: int, workers: int) -> list[Compared]:
    """Measure ``orion hunt`` with a script that does nothing but report.

    Answers the seconds of the whole command, and those of them that it waited for the storage. What
    is left is Oríon's own: it copies the state of the algorithm, which has every trial in it,
    several times for each trial.
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
        Compared(what, theirs[0], ours[0]),
        Compared(f"{what}: in the storage", theirs[1], ours[1]),
    ]


def _hunt(directory: Path, config: Config, arguments: list[str]) -> tuple[float, float]:
    """Answer the seconds that it took, and those that it waited for the storage."""
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
