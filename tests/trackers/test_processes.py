"""Workers in processes that are killed, while the tracker is down for a while: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostorage import Storage, Trial, open_storage
from aiostorage._core.delivery.noting import NotingDriver
from tests.contract.conftest import UNCLOSED, sockets_collected
from tests.processes.support import Starter, starter
from tests.trackers.conftest import QUICK
from tests.trackers.file_tracker import FileTracker, Seen

__all__ = ["sockets_collected"]

pytestmark = [pytest.mark.anyio, UNCLOSED]

SCRIPT = Path(__file__).with_name("worker_tracked.py")

RANKS = {"new": 0, "reserved": 1, "completed": 2}


@pytest.fixture(params=["sqlite", "mongodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL"
    pytest.importorskip("pymongo")
    request.getfixturevalue("sockets_collected")
    replica_set = request.getfixturevalue("mongodb_replica_set")
    where = replica_set.url_for(request.getfixturevalue("mongodb_emptied_database"))
    return f"{where}{'&' if '?' in where else '?'}client=pymongo"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as start:
        yield start


async def until(condition: Callable[[], bool], within: float = 60) -> None:
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.02)


async def test_a_hundred_trials(url: str, start: Starter, seen: Seen) -> None:
    # one that notes what it does, and sends nothing
    storage = Storage(NotingDriver(open_storage(url)._gateway.driver))
    async with storage:
        experiment = await storage.create_experiment({"name": "tune"})

        async def register(*values: int) -> None:
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in values]
            await storage.register_trials(trials)

        def worker() -> None:
            workers.append(start(str(SCRIPT), url, experiment.id, seen.directory, 4))

        workers: list[Any] = []
        await register(*range(50))
        worker()
        worker()
        await until(lambda: sum(run.status == "completed" for run in seen.runs()) >= 10)
        seen.switch("down")
        await anyio.sleep(0.3)
        seen.switch("down", None)
        seen.switch("die")  # who sends is killed when it has made a run
        await register(*range(50, 100))
        await until(lambda: not (seen.directory / "die").exists())
        worker()
        counted = storage.count_completed_trials
        with anyio.fail_after(60):
            while await counted(experiment) < 100:
                await anyio.sleep(0.02)
        seen.switch("stop")
        await until(lambda: sum(not each.runs for each in workers) == 3)
        ended = [each.wait() for each in workers]
        assert sorted(ended) == [-9, 0, 0], [each.stderr for each in workers]
        stored = {trial.id: trial for trial in await storage.fetch_trials(experiment) or []}
    last = open_storage(url, tracker=FileTracker(seen.directory))
    assert last._mirror is not None
    last._mirror.deliverer.settings = QUICK
    async with last:
        await last.flush_tracker(30)
    runs = seen.runs()
    assert len({run.tags["trial"] for run in runs}) == len(runs) == len(stored) == 100
    for run in runs:
        trial = stored[run.tags["trial"]]
        assert run.status == trial.status == "completed"
        assert run.params == trial.params
        assert run.metrics == {"objective": trial.params["x"] ** 2}
        assert (run.start_time, run.end_time) == (trial.start_time, trial.end_time)
    attempts = [int(run.tags["attempt"]) for run in runs]
    assert set(attempts) <= {1, 2}
    assert attempts.count(2) <= 4  # those that the killed process had
    for _, sendings in groupby(sorted(seen.log(), key=lambda row: row[0]), key=lambda row: row[0]):
        order = [(attempt, RANKS[status]) for _, status, attempt in sendings]
        assert order == sorted(order)
    assert len(seen.senders()) >= 2
