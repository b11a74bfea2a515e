"""Makes the files in this folder; README.md says how.

    python make.py CHECKOUT

where CHECKOUT is a copy of https://github.com/Delaunay/track, patched as README.md says.
"""

from __future__ import annotations

import asyncio
import os
import sys
import types
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def by_orion() -> None:
    """Let Oríon's own Track storage write: what an experiment of Oríon's leaves."""
    from orion.core.worker.trial import Trial
    from orion.storage.track import Track

    Path("by_orion.json").unlink(missing_ok=True)
    storage = Track("file://by_orion.json?objective=loss")
    config: dict[str, Any] = {
        "name": "tune",
        "version": 2,
        "space": {"lr": "loguniform(1e-5, 1)", "net.depth": "uniform(1, 8, discrete=True)"},
        "algorithm": {"random": {"seed": 1}},
        "metadata": {"user": "somebody", "datetime": datetime(2020, 1, 9, 12)},  # noqa: DTZ001
        "refers": {},
    }
    storage.create_experiment(config)
    experiment = types.SimpleNamespace(id=config["_id"], name="tune", version=2)
    for number in range(5):
        trial = Trial(
            experiment=experiment.id,
            params=[
                {"name": "lr", "type": "real", "value": 0.1 * (number + 1)},
                {"name": "net.depth", "type": "integer", "value": number + 1},
                {"name": "kind", "type": "categorical", "value": "ab"[number % 2]},
            ],
        )
        trial.exp_working_dir = None
        storage.register_trial(trial)
    client = storage.backend
    for number, status in enumerate(("completed", "broken", "interrupted", "reserved")):
        trial = storage.reserve_trial(experiment)
        for step in range(12):
            client.log_trial_metrics(trial.storage, step=step, loss=10.0 - step - number)
        client.log_trial_metrics(trial.storage, accuracy=0.5 + number / 10)
        if status != "reserved":
            storage.set_trial_status(trial, status, was="reserved")
    last = storage.fetch_trials_by_status(experiment, "reserved")[0]
    storage.update_heartbeat(last)


def by_track() -> None:
    """Let Track write alone: what a script leaves that knows no Oríon."""
    structure = import_module("track.structure")

    Path("by_track.json").unlink(missing_ok=True)
    client = import_module("track").TrackClient("file://by_track.json")
    client.set_project(structure.Project(name="alone"))
    client.set_group(structure.TrialGroup(name="first", project_id="alone"))
    for depth in (1, 2):
        client.new_trial(force=True, parameters={"depth": depth, "opt": {"lr": 0.5}})
        client.start()
        for epoch in range(12):
            with client.chrono("epoch"):
                client.log_metrics(step=epoch, loss=float(depth - epoch))
        client.log_metrics(last=float("nan"))
        client.finish()


def rewritten() -> None:
    """Let aiostorage write, then let Track load it and write it again."""
    from aiostorage import Trial, open_storage
    from aiostorage.trial import Param

    Path("written.json").unlink(missing_ok=True)

    async def write() -> None:
        async with open_storage("track:///written.json") as storage:
            experiment = await storage.create_experiment(
                {"name": "tune", "space": {"a.b": "uniform(0, 1)"}, "at": datetime.now(UTC)}
            )
            for x in range(4):
                params = [Param("a.b", "real", x / 7), Param("raw", "categorical", b"\0\1")]
                await storage.register_trial(Trial(experiment=experiment.id, params=params))
            first = await storage.reserve_trial(experiment)
            second = await storage.reserve_trial(experiment)
            assert first is not None
            assert second is not None
            await storage.complete_trial(first, {"loss": float("inf"), "other": 2})
            async with storage.acquire_algorithm_lock(experiment) as algorithm:
                algorithm.set_state({"seed": 1})
            await storage.create_benchmark({"name": "b", "dotted": {"a.b": 1}})

    asyncio.run(write())
    database = import_module("track.persistence.storage").load_database("written.json")
    database.commit(file_name_override="rewritten.json")
    Path("written.json.lock").unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv[1]).absolute()))
    os.chdir(HERE)
    by_orion()
    by_track()
    rewritten()
