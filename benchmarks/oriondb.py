"""Oríon on aiostorage beside Oríon on its own PickledDB; needs Oríon 0.2.7 and Python 3.11."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Compared", "Holder", "available", "fill", "hunts", "operations"]


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


def _storages(directory: Path, name: str) -> dict[str, Mapping[str, Any]]:
    return {
        "pickleddb": {
            "type": "legacy",
            "database": {"type": "pickleddb", "host": str(directory / f"{name}.pkl")},
        },
        "aiostorage": {
            "type": "aiostorage",
            "database": {"url": f"sqlite:///{directory / f'{name}.db'}"},
        },
    }


def operations(directory: Path, sizes: tuple[int, ...], seconds: float) -> list[Compared]:
    """Measure reservations a second through Oríon's storage protocol, for so many seconds each."""
    from orion.storage.base import setup_storage  # noqa: PLC0415

    compared = []
    for size in sizes:
        rates = {}
        for kind, config in _storages(directory, f"operations-{size}").items():
            storage = setup_storage(dict(config))
            holder = Holder(fill(storage, "bench", size))
            storage.reserve_trial(holder)
            done, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < seconds and done < size - 1:
                storage.reserve_trial(holder)
                done += 1
            rates[kind] = done / (time.perf_counter() - begin)
        compared.append(Compared(f"reservations/s at {size:,} trials", **rates))
    return compared


def fill(storage: Any, name: str, count: int) -> Any:
    """Make an experiment with pending trials in a storage of Oríon's; answer its id."""
    from orion.core.worker.trial import Trial  # noqa: PLC0415

    experiment: dict[str, Any] = {"name": name, "version": 1, "algorithm": {}}
    storage.create_experiment(experiment)
    trials = [
        Trial(
            experiment=experiment["_id"],
            params=[{"name": "/x", "type": "integer", "value": number}],
        )
        for number in range(count)
    ]
    # registered in one go, which PickledDB has beside the protocol only
    storage._db.write("trials", [trial.to_dict() for trial in trials])  # noqa: SLF001
    return experiment["_id"]


@dataclass
class Holder:
    """All that a storage wants of an experiment."""

    id: Any

    @property
    def _id(self) -> Any:
        return self.id


def hunts(directory: Path, trials: int, workers: int) -> Compared:
    """Measure ``orion hunt`` with a script that does nothing but report."""
    script = directory / "nothing.sh"
    script.write_text(
        "#!/bin/sh\n"
        """echo '[{"name":"o","type":"objective","value":1.0}]' > "$ORION_RESULTS_PATH"\n"""
    )
    script.chmod(0o755)
    seconds = {}
    for kind, config in _storages(directory, "hunt").items():
        database = config["database"]
        lines = [f"    {name}: {value}" for name, value in database.items()]
        file = directory / f"{kind}.yaml"
        file.write_text("\n".join(["storage:", f"  type: {config['type']}", "  database:", *lines]))
        command = [sys.executable, "-W", "ignore", "-c", "from orion.core.cli import main; main()"]
        command += ["hunt", "-n", "bench", "-c", str(file), "--exp-max-trials", str(trials)]
        command += ["--n-workers", str(workers), str(script), "-x~uniform(-5,5)"]
        begin = time.perf_counter()
        subprocess.run(
            command, cwd=directory, env=os.environ, check=True, capture_output=True, timeout=1800
        )
        seconds[kind] = time.perf_counter() - begin
    return Compared(f"seconds of a hunt, {trials} trials, {workers} workers", **seconds)
