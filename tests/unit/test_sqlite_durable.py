"""What is acknowledged on SQLite is on disk, though other processes may write meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from aiostorage import Storage
from aiostorage.drivers.sqlite import SQLiteDriver, connection
from aiostorage.errors import BackendError
from aiostorage.testing.contract.helpers import make_trial

pytestmark = pytest.mark.anyio

DEADLINE = 20.0


class Disk:
    """What is on disk: the files as they were when the log was last synced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved = path.with_name("saved")
        self.saved.mkdir()
        self.syncs = 0
        self.before: Callable[[], object] = lambda: None
        self._sync = connection.fdatasync

    def fdatasync(self, descriptor: int) -> None:
        self.before()
        self._sync(descriptor)
        self.syncs += 1
        # another process copies them, since to close a file here would drop SQLite's locks on it
        names = [str(one) for one in self.path.parent.glob(f"{self.path.name}*")]
        names = [name for name in names if not name.endswith("-shm")]
        subprocess.run(["cp", *names, str(self.saved)], check=True, timeout=DEADLINE)

    def names_after_a_power_cut(self) -> set[str]:
        """Return the ids of the trials that are there when the machine has stopped and started."""
        there = self.saved.with_name("there")
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(self.saved, there)
        with closing(sqlite3.connect(there / self.path.name)) as database:
            return {name for (name,) in database.execute("SELECT id FROM trials")}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path / "store.db")
    monkeypatch.setattr(connection, "fdatasync", disk.fdatasync)
    return disk


async def test_each_acknowledged_write_survives_a_power_cut(disk: Disk) -> None:
    async with Storage(SQLiteDriver(disk.path)) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
        for n in range(3):
            trials = [make_trial(experiment, 10 * n + x) for x in range(3)]
            await asyncio.gather(*map(storage.register_trial, trials))
            there = await anyio.to_thread.run_sync(disk.names_after_a_power_cut)
            assert there >= {trial.id for trial in trials}
        assert len(there) == 9


async def test_a_new_file_has_its_tables_on_disk(disk: Disk) -> None:
    async with Storage(SQLiteDriver(disk.path)):
        assert await anyio.to_thread.run_sync(disk.names_after_a_power_cut) == set()


async def test_one_sync_for_a_group_and_none_for_what_changes_nothing(disk: Disk) -> None:
    async with Storage(SQLiteDriver(disk.path)) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
        await storage.reserve_trial(experiment)
        disk.syncs = 0
        assert await storage.reserve_trial(experiment) is None
        assert disk.syncs == 0
        trials = [make_trial(experiment, x) for x in range(20)]
        await asyncio.gather(*map(storage.register_trial, trials))
        assert disk.syncs == 1


async def test_normal_does_not_sync(disk: Disk) -> None:
    async with Storage(SQLiteDriver(disk.path, synchronous="NORMAL")) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
        await storage.register_trial(make_trial(experiment, 1))
    assert disk.syncs == 0


async def test_what_may_not_be_on_disk_is_not_acknowledged(disk: Disk) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    async with Storage(SQLiteDriver(disk.path)) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
        disk.before = fail
        trials = [make_trial(experiment, x) for x in range(3)]
        failed = await asyncio.gather(*map(storage.register_trial, trials), return_exceptions=True)
        assert {type(one) for one in failed} == {BackendError}
        assert "power cut: [Errno 5] Input/output error" in str(failed[0])
        disk.before = lambda: None
        disk.syncs = 0
        assert await storage.reserve_trial(experiment) is not None
        assert disk.syncs == 1


async def test_a_call_that_changes_nothing_waits_for_what_failed_before(disk: Disk) -> None:
    """Its answer may rest on that."""

    def fail() -> None:
        raise OSError(5, "Input/output error")

    async with Storage(SQLiteDriver(disk.path)) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
        trial = make_trial(experiment, 1)
        disk.before = fail
        with pytest.raises(BackendError):
            await storage.register_trial(trial)
        disk.before = lambda: None
        assert await storage.count_trials(experiment) == 1
        assert await storage.update_trials(experiment, where={"id": "none"}, status="new") == 0
        there = await anyio.to_thread.run_sync(disk.names_after_a_power_cut)
        assert there == {trial.id}


@pytest.fixture
def held() -> Iterator[threading.Event]:
    held = threading.Event()
    yield held
    held.set()


async def test_others_write_while_one_waits_for_the_disk(disk: Disk, held: threading.Event) -> None:
    async with (
        Storage(SQLiteDriver(disk.path)) as one,
        Storage(SQLiteDriver(disk.path, synchronous="NORMAL", busy_timeout=0.1)) as other,
    ):
        experiment = await one.create_experiment({"name": "e", "version": 1})
        first, second = make_trial(experiment, 1), make_trial(experiment, 2)
        waiting = threading.Event()

        def wait() -> None:
            waiting.set()
            assert held.wait(DEADLINE)

        disk.before = wait
        writing = asyncio.create_task(one.register_trial(first))
        assert await anyio.to_thread.run_sync(waiting.wait, DEADLINE)
        await other.register_trial(second)
        found = await other.fetch_trials(experiment) or []
        assert {trial.id for trial in found} == {first.id, second.id}
        assert not writing.done()
        held.set()
        await writing


async def test_a_file_with_a_journal_is_synced_by_sqlite(disk: Disk) -> None:
    """As with a file that ``VACUUM INTO`` has made."""
    async with Storage(SQLiteDriver(disk.path)) as storage:
        experiment = await storage.create_experiment({"name": "e", "version": 1})
    await anyio.to_thread.run_sync(_take_the_log_from, disk.path)
    disk.syncs = 0
    driver = SQLiteDriver(disk.path)
    async with Storage(driver) as storage:
        await storage.register_trial(make_trial(experiment, 1))
        assert driver._writer is not None
        pragma = "PRAGMA synchronous"
        level = await driver._writer._thread.call(lambda c: c.execute(pragma).fetchone()[0])
    assert (level, disk.syncs) == (2, 0)


def _take_the_log_from(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)


FORKED = """
import os, sys
from aiostorage import open_storage
from aiostorage.drivers.sqlite import connection
from aiostorage.sync import SyncStorage
from aiostorage.testing.contract.helpers import make_trial

storage = SyncStorage(open_storage("sqlite:///" + sys.argv[1]))
experiment = storage.create_experiment({"name": "e", "version": 1})
pid = os.fork()
sync, synced = connection.fdatasync, []
connection.fdatasync = lambda log: (sync(log), synced.append(os.fstat(log).st_ino))
storage.register_trial(make_trial(experiment, 1 if pid else 2))
assert synced[-1] == os.stat(sys.argv[1] + "-wal").st_ino, synced
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    storage.close()
os._exit(0)
"""


async def test_after_a_fork_both_sync_their_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "store.db")]
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, timeout=DEADLINE, capture_output=True, check=False)
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    async with Storage(SQLiteDriver(tmp_path / "store.db")) as storage:
        await storage.create_experiment({"name": "e", "version": 1})
        assert await anyio.to_thread.run_sync(_descriptors_of, "store.db-wal") > 0
    assert await anyio.to_thread.run_sync(_descriptors_of, "store.db") == 0


def _descriptors_of(name: str) -> int:
    count = 0
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):
            count += name in str(link.readlink())
    return count
