"""Put the trials of many stores into a new one.

python merge.py sqlite:///all.db results/node-*.db
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from aiostorage import Storage, Trial, open_storage


async def add(target: Storage, experiment: str | int, file: Path) -> int:
    """Add the trials of a file; return their number."""
    with tempfile.TemporaryDirectory() as local:  # SQLite wants a local disk
        copy = shutil.copy(file, local)
        async with open_storage(f"sqlite:///{copy}") as source:
            [config] = await source.fetch_experiments({"name": "tune"})
            trials = await source.fetch_trials(config) or []
    await target.register_trials(
        [
            Trial(
                experiment=experiment,
                params=trial.params,
                status="interrupted" if trial.status == "reserved" else trial.status,
                results=trial.results,
                submit_time=trial.submit_time,
                start_time=trial.start_time,
                end_time=trial.end_time,
            )
            for trial in trials
        ]
    )
    return len(trials)


async def main(url: str, files: list[str]) -> None:
    """Merge all files."""
    async with open_storage(url) as target:
        experiment = await target.create_experiment({"name": "tune"})
        count = sum([await add(target, experiment.id, Path(file)) for file in files])
        completed = await target.count_completed_trials(experiment)
    print(f"{count} trials of {len(files)} files, {completed} completed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
