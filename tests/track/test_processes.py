"""Several processes on one Track file, some of which are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from aiostorage import Storage, Trial, open_storage
from aiostorage.drivers.track import TrackDriver
from tests.processes.support import DEADLINE, Starter, Worker, starter

WORKER = Path(__file__).with_name("worker_track.py")
TRIALS = 40
KILLS = 6


class Reader:
    """Parses a file again and again, as a program that knows nothing of it."""

    def __init__(self, path: Path) -> None:
        self.looks = 0
        self.failures: list[str] = []
        self._path = path
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopped.wait(0.003):
            self.looks += 1
            text = self._path.read_text("utf-8")
            try:
                json.loads(text, parse_constant=self.failures.append)
            except ValueError as error:
                self.failures.append(f"{error}: {text[:200]}")

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()


def prepared(path: Path) -> str:
    async def prepare() -> str:
        async with open_storage(f"track:///{path}") as storage:
            experiment = await storage.create_experiment({"name": "e"})
            trials = [Trial(experiment=experiment.id, params={"x": x}) for x in range(TRIALS)]
            await storage.register_trials(trials)
            return str(experiment.id)

    return asyncio.run(prepare())


def test_four_processes_that_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    uid = prepared(path)
    reader = Reader(path)
    choice = random.Random(1)
    with starter(tmp_path) as start:

        def begin(start: Starter = start) -> Worker:
            return start(str(WORKER), path, uid, TRIALS)

        workers = [begin() for _ in range(4)]
        everyone = list(workers)
        for _ in range(KILLS):
            time.sleep(choice.uniform(0.05, 0.35))
            killed = choice.randrange(4)
            workers[killed].kill()
            workers[killed] = begin()
            everyone.append(workers[killed])
        for worker in workers:
            worker.succeed()
        told = Counter(line for worker in everyone for line in lines(worker))
    reader.close()
    assert reader.failures == []
    assert reader.looks > 100
    assert set(told.values()) == {1}, "a trial was completed twice"

    async def check() -> None:
        async with open_storage(f"track:///{path}") as storage:
            trials = await storage.fetch_trials(uid=uid)
            assert trials is not None
            assert len(trials) == TRIALS
            assert {t.status for t in trials} == {"completed"}
            assert all(
                t.objective is not None and t.objective.value == t.params["x"] for t in trials
            )
            assert {f"done {t.id}" for t in trials} >= told.keys()
            assert len(told) >= TRIALS - KILLS * 2  # those who were killed may not have told
            info = await storage.get_algorithm_lock_info(uid=uid)
            assert info is not None
            assert not info.locked
            assert info.state >= TRIALS
            await storage.update_experiment(uid=uid, swept=True)

    asyncio.run(check())
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith("stderr")} == {
        "tune.json",
        "tune.json.lock",
    }


def lines(worker: Worker) -> list[str]:
    found = []
    while (line := worker.line()) is not None:
        found.append(line)
    return found


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    """The original library locks the same file; who waits too long says so."""
    from filelock import FileLock

    path = tmp_path / "tune.json"
    prepared(path)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(f"{path}.lock"):
            held.set()
            release.wait(DEADLINE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(DEADLINE)

    async def write() -> None:
        from aiostorage import RetryPolicy, TemporaryBackendError

        driver = TrackDriver(path, busy_timeout=0.05)
        async with Storage(driver, retry=RetryPolicy(attempts=1)) as storage:
            (experiment,) = await storage.fetch_experiments({})  # reading needs no lock
            with pytest.raises(TemporaryBackendError, match="another process holds that lock"):
                await storage.update_experiment(uid=experiment["_id"], a=1)
        async with open_storage(f"track:///{path}") as storage:
            writing = asyncio.create_task(storage.update_experiment(uid=experiment["_id"], a=1))
            await asyncio.sleep(0.05)
            assert not writing.done()
            release.set()
            assert await writing

    asyncio.run(write())
    thread.join()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    from aiostorage.drivers.track.file_lock import FileLock

    lock = FileLock(tmp_path / "f")
    lock.acquire(1, 0o600)
    ready, parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(parent)
        os.read(ready, 1)  # until the parent says so
        os._exit(0)
    # as if the parent were killed: its descriptor is closed without a word
    os.close(lock._descriptor)
    other = FileLock(tmp_path / "f")
    try:
        other.acquire(1, 0o600)
        other.release()
    finally:
        os.write(parent, b"x")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(parent)
        os.close(ready)


def test_a_forked_child_has_a_storage_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    uid = prepared(path)

    async def main() -> None:
        async with open_storage(f"track:///{path}") as storage:
            await storage.update_experiment(uid=uid, who="parent")
            child = await asyncio.to_thread(fork_and_write, storage)
            assert child == 0
            (experiment,) = await storage.fetch_experiments({})
            assert (experiment["who"], experiment["child"]) == ("parent", True)

    def fork_and_write(storage: Storage) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(storage.update_experiment(uid=uid, child=True))
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    asyncio.run(main())
