"""The deliverer comes and goes with its storage: facades, copies, forks, loops, and exits."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiostorage import Storage, SyncStorage, Trial, open_storage
from tests.trackers.conftest import QUICK
from tests.trackers.file_tracker import FileTracker, Seen


def opened(tmp_path: Path, seen: Seen) -> Storage:
    tracker = FileTracker(seen.directory)
    storage = open_storage(f"sqlite:///{tmp_path}/store.db?synchronous=NORMAL", tracker=tracker)
    assert storage._mirror is not None
    storage._mirror.deliverer.settings = QUICK
    return storage


def ended(within: float = 5) -> bool:
    end = time.monotonic() + within
    while any(t.name == "aiostorage-tracker" for t in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def register(storage: SyncStorage, experiment: Any, *values: int) -> None:
    for x in values:
        storage.register_trial(Trial(experiment=experiment.id, params={"x": x}))


def test_the_facade(tmp_path: Path, seen: Seen) -> None:
    with SyncStorage(opened(tmp_path, seen)) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        register(storage, experiment, 1, 2)
        storage.flush_tracker(20)
        assert len(seen.runs()) == 2
        with storage.reserved_trial(experiment, export_environment=True) as trial:
            assert trial is not None
            variables = storage.tracker_environment(trial)
            assert os.environ["FILE_TRACKER_RUN"] == variables["FILE_TRACKER_RUN"]
            storage.complete_trial(trial, 0.5)
        assert "FILE_TRACKER_RUN" not in os.environ
    assert {run.status for run in seen.runs()} == {"completed", "new"}
    assert ended()


def test_a_pickled_copy(tmp_path: Path, seen: Seen) -> None:
    with SyncStorage(opened(tmp_path, seen)) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        storage.flush_tracker(20)
        copy = pickle.loads(pickle.dumps(storage))
    with copy:
        register(copy, experiment, 1)
        copy.flush_tracker(20)
    assert len(seen.runs()) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
def test_a_fork(tmp_path: Path, seen: Seen) -> None:
    with SyncStorage(opened(tmp_path, seen)) as storage:
        experiment = storage.create_experiment({"name": "tune"})
        storage.flush_tracker(20)

        def work() -> None:
            register(storage, experiment, 2)
            storage.flush_tracker(20)
            storage.close()

        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        register(storage, experiment, 1)
        child.join(30)
        assert child.exitcode == 0
        storage.flush_tracker(20)
    assert sorted(run.params["x"] for run in seen.runs()) == [1, 2]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
def test_a_fork_that_outlives_its_parent_sends(tmp_path: Path, seen: Seen) -> None:
    storage = SyncStorage(opened(tmp_path, seen))
    experiment = storage.create_experiment({"name": "tune"})
    storage.flush_tracker(20)
    context = multiprocessing.get_context("fork")
    closed = context.Event()

    def work() -> None:
        closed.wait(30)
        register(storage, experiment, 1)
        storage.flush_tracker(20)
        storage.close()

    child = context.Process(target=work)
    child.start()
    storage.close()
    closed.set()
    child.join(30)
    assert child.exitcode == 0
    assert seen.senders() == {child.pid}


def test_loops_one_after_the_other(tmp_path: Path, seen: Seen) -> None:
    storage = opened(tmp_path, seen)

    async def work(x: int) -> None:
        [config] = await storage.fetch_experiments({}) or [{"name": "tune"}]
        experiment = config if "_id" in config else await storage.create_experiment(config)
        uid = experiment["_id"] if isinstance(experiment, dict) else experiment.id
        await storage.register_trial(Trial(experiment=uid, params={"x": x}))
        await storage.flush_tracker(20)
        assert len(seen.runs()) == x

    with asyncio.Runner() as runner:
        runner.run(work(1))
    asyncio.run(work(2))

    async def end() -> None:
        await work(3)
        await storage.aclose()

    asyncio.run(end())
    assert ended()


@pytest.mark.filterwarnings("ignore:the storage:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_storage_that_nobody_closes(tmp_path: Path, seen: Seen) -> None:
    async def main() -> None:
        storage = opened(tmp_path, seen)
        await storage.create_experiment({"name": "tune"})
        await storage.flush_tracker(20)
        before = asyncio.all_tasks()
        del storage
        gc.collect()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if asyncio.all_tasks() < before or len(asyncio.all_tasks()) == 1:
                break
        assert len(asyncio.all_tasks()) == 1
        gc.collect()

    asyncio.run(main())
    gc.collect()
    assert ended()


@pytest.mark.parametrize("closes", [True, False])
def test_an_exit_while_the_tracker_hangs(tmp_path: Path, seen: Seen, closes: bool) -> None:
    seen.switch("hang", 30)
    code = (
        "from pathlib import Path\n"
        "from aiostorage import SyncStorage, open_storage\n"
        "from tests.trackers.file_tracker import FileTracker\n"
        f"tracker = FileTracker(Path({str(seen.directory)!r}))\n"
        f"url = 'sqlite:///{tmp_path}/store.db'\n"
        "storage = SyncStorage(open_storage(url, tracker=tracker, deliver_on_close=0.5))\n"
        "storage.create_experiment({'name': 'tune'})\n"
        "import time; time.sleep(0.4)\n" + ("storage.close()\n" if closes else "")
    )
    start = time.monotonic()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "1 changes" in done.stderr
    assert time.monotonic() - start < 15


def test_many_storages_in_one_process(tmp_path: Path, seen: Seen) -> None:
    storages = []
    for number in range(4):
        storage = open_storage(
            f"sqlite:///{tmp_path}/{number % 2}.db?synchronous=NORMAL",
            tracker=FileTracker(seen.directory),
        )
        assert storage._mirror is not None
        storage._mirror.deliverer.settings = replace(QUICK, lease=20)
        storages.append(storage)

    async def main() -> None:
        for number, storage in enumerate(storages):
            experiment = await storage.create_experiment({"name": f"tune {number}"})
            await storage.register_trial(Trial(experiment=experiment.id, params={"x": number}))
        await asyncio.gather(*(storage.flush_tracker(20) for storage in storages))
        assert len(seen.runs()) == 4
        await asyncio.gather(*(storage.aclose() for storage in storages))

    asyncio.run(main())
    assert ended()
