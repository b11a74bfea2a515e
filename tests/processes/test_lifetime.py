"""How processes begin and end, fork, and fill the disk, with a storage open."""

from __future__ import annotations

import asyncio
import pickle
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aiostorage import LockedAlgorithmState, open_storage

from .support import PatientClock, Starter, Store, Worker, integrity
from .worker_lifetime import BATCH, LEASE, make_trials, names

SCRIPT = "worker_lifetime.py"

ENGINES = ("sqlite", "motor", "pymongo")

PROCESSES = 8
NEW_FILES = 8


def experiments(place: Store | Path) -> list[str]:
    """Return the names of all experiments."""
    url = f"sqlite:///{place}" if isinstance(place, Path) else place.url

    async def found() -> list[str]:
        async with open_storage(url) as storage:
            return await names(storage)

    return asyncio.run(found())


@pytest.fixture
def algorithm(store: Store) -> Store:
    """Make an experiment whose algorithm has a state."""

    async def make() -> None:
        async with open_storage(store.url) as storage:
            await storage.create_experiment({"name": "e"}, algo_state={"as": "it was"})

    asyncio.run(make())
    return store


def info(store: Store) -> LockedAlgorithmState:
    async def found() -> LockedAlgorithmState:
        async with open_storage(store.url) as storage:
            experiment = (await storage.fetch_experiments({}))[0]
            info = await storage.get_algorithm_lock_info(experiment)
        assert info is not None
        return info

    return asyncio.run(found())


# -------------------------------------------------------------------------------------- ends


def test_exit_with_an_unclosed_storage(start: Starter, store: Store) -> None:
    start(SCRIPT, "unclosed", store.url).succeed()
    assert experiments(store) == ["unclosed"]


def test_exit_while_somebody_waits(start: Starter, algorithm: Store, clock: PatientClock) -> None:
    worker = start(SCRIPT, "unclosed_while_waiting", algorithm.url)
    worker.expect("waits")
    waited = clock.now()
    worker.expect("over")
    worker.succeed()
    assert clock.now() - waited < 5 + algorithm.slack
    found = info(algorithm)
    assert (found.locked, found.state) == (False, {"as": "it was"})


def test_exit_while_a_thread_writes(start: Starter, path: Path) -> None:
    worker = start(SCRIPT, "unclosed_while_writing", path)
    assert worker.wait() == 3
    assert "Traceback" not in worker.stderr
    assert experiments(path) == ["unclosed"]


@pytest.mark.parametrize("scenario", ["exits", "exits_elsewhere"])
def test_sys_exit_with_the_lock(start: Starter, algorithm: Store, scenario: str) -> None:
    worker = start(SCRIPT, scenario, algorithm.url)
    worker.expect("holds")
    assert worker.wait() == 7
    assert "aiostorage/" not in worker.stderr
    found = info(algorithm)
    assert (found.locked, found.state) == (False, {"as": "it was"})


def test_ctrl_c_with_the_lock(start: Starter, algorithm: Store) -> None:
    worker = start(SCRIPT, "waits", algorithm.url)
    worker.expect("holds")
    worker.signal(signal.SIGINT)
    assert worker.wait() in (-signal.SIGINT, 128 + signal.SIGINT)
    assert worker.stderr.rstrip().endswith("KeyboardInterrupt")
    found = info(algorithm)
    assert (found.locked, found.state) == (False, {"as": "it was"})


def test_storage_goes_on_after_ctrl_c(start: Starter, algorithm: Store) -> None:
    worker = start(SCRIPT, "interrupted_and_goes_on", algorithm.url)
    worker.expect("holds")
    worker.signal(signal.SIGINT)
    assert worker.expect("state") == ["as"]
    worker.succeed()


def test_sigterm_with_the_lock(start: Starter, algorithm: Store, clock: PatientClock) -> None:
    worker = start(SCRIPT, "waits", algorithm.url)
    worker.expect("holds")

    async def take_over() -> tuple[object, float]:
        async with open_storage(algorithm.url) as storage:
            experiment = (await storage.fetch_experiments({}))[0]
            worker.signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait) == -signal.SIGTERM
            ended = clock.now()
            async with storage.acquire_algorithm_lock(
                experiment, timeout=20, retry_interval=0.1
            ) as found:
                return found.state, clock.now() - ended

    state, took = asyncio.run(take_over())
    assert state == {"as": "it was"}
    assert took < LEASE + algorithm.slack


# ---------------------------------------------------------------------------- several loops


def test_one_storage_in_several_loops(start: Starter, store: Store) -> None:
    worker = start(SCRIPT, "two_runs", store.url)
    assert worker.expect("held") == ["15"]
    worker.succeed()
    assert len(experiments(store)) == 30


def test_loops_that_end_with_calls_under_way(start: Starter, path: Path) -> None:
    worker = start(SCRIPT, "two_runs_with_calls_under_way", path)
    worker.expect("done")
    worker.succeed()
    # what was under way did not happen
    assert experiments(path) == ["after-0", "after-1", "after-2", "before"]


# ------------------------------------------------------------------------------------- forks


@pytest.mark.parametrize(
    ("store", "method"),
    # a child that is spawned has nothing of its parent but a pickle, whichever the client is
    [(store, "fork") for store in ENGINES] + [("sqlite", "spawn"), ("pymongo", "spawn")],
    indirect=["store"],
)
def test_multiprocessing(start: Starter, store: Store, method: str) -> None:
    worker = start(SCRIPT, "started", method, store.url)
    for _ in range(2):
        worker.expect("wrote")
    worker.tell()
    assert worker.expect("children") == ["0", "0"]
    assert worker.wait() == 0
    children = [f"child{n}-{i}" for n in range(2) for i in range(5)]
    late = [f"child{n}-late-{i}" for n in range(2) for i in range(5)]
    assert experiments(store) == sorted([*children, *late, "parent-0", "parent-1", "parent-2"])
    store.check()


def test_forks_while_busy(start: Starter, store: Store) -> None:
    worker = start(SCRIPT, "forks_while_busy", store.url)
    assert worker.expect("children") == ["0"] * 6
    assert worker.wait() == 0
    found = experiments(store)
    for child in range(6):
        assert {f"child{child}-{n}" for n in (*range(5), "late")} <= set(found)
    store.check()


def test_pickled(start: Starter, store: Store) -> None:
    async def main() -> str:
        async with open_storage(store.url) as storage:
            await storage.create_experiment({"name": "original"})
            return pickle.dumps(storage).hex()

    start(SCRIPT, "unpickled", asyncio.run(main())).succeed()
    assert experiments(store) == ["original", "unpickled"]


# ------------------------------------------------------------------------------- first opens


def test_many_open_a_new_file(start: Starter, path: Path) -> None:
    workers = [start(SCRIPT, "opens", path, f"w{n}") for n in range(PROCESSES)]
    for worker in workers:
        worker.expect("ready")
    for _ in range(NEW_FILES):
        for worker in workers:
            worker.tell("go")
        for worker in workers:
            worker.expect("opened")
    for worker in workers:
        worker.tell("end")
    for worker in workers:
        worker.succeed()
    for number in range(NEW_FILES):
        file = Path(f"{path}-{number}")
        assert experiments(file) == sorted(f"w{n}" for n in range(PROCESSES))
        assert integrity(file) == "ok"


def test_killed_in_the_first_open(start: Starter, path: Path) -> None:
    worker = start(SCRIPT, "killed_while_opening", path)
    steps = int(worker.expect("killed")[0])
    worker.succeed()
    assert steps > 20
    assert {integrity(file) for file in path.parent.glob("shared.db-*[0-9]")} == {"ok"}


def test_opened_by_others_while_looking_at_it(start: Starter, path: Path) -> None:
    """A file that was empty a moment ago is not refused as another program's database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # as one leaves it that is killed then
    slow = start(SCRIPT, "opens_slowly", path)
    slow.expect("looks")
    start(SCRIPT, "adds", path, "quick").wait()
    slow.tell()
    assert slow.expect("sees") == ["quick", "slow"]
    slow.succeed()


def test_opening_it_again_takes_no_lock_off_the_file(start: Starter, path: Path) -> None:
    """To close any descriptor of a file drops all locks that the process has on it.

    Then another process that closes the file holds itself for the last one, and deletes the log.
    """

    async def main() -> None:
        async with open_storage(f"sqlite:///{path}") as storage:
            await storage.create_experiment({"name": "1"})
            assert await names(storage) == ["1"]  # by a connection that was opened for it
            async with open_storage(f"sqlite:///{path}") as second:
                assert await names(second) == ["1"]
            for number in range(2, 7):
                if number % 2:
                    await storage.create_experiment({"name": str(number)})
                else:
                    other = await asyncio.to_thread(start, SCRIPT, "adds", path, number)
                    seen = await asyncio.to_thread(other.expect, "sees")
                    assert seen == [str(n) for n in range(1, number + 1)]
                    await asyncio.to_thread(other.succeed)
                assert await names(storage) == [str(n) for n in range(1, number + 1)]

    asyncio.run(main())
    assert integrity(path) == "ok"


# --------------------------------------------------------------------------------- disk full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"mount is not possible here: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def filled(worker: Worker, path: Path) -> None:
    for _ in range(2):
        assert worker.expect("full")[0] == "BackendError"
    batches = int(worker.expect("stored")[0])
    worker.succeed()
    assert batches > 1
    assert integrity(path) == "ok"


def test_file_too_large(start: Starter, path: Path) -> None:
    filled(start(SCRIPT, "disk_full", path, ""), path)


def test_disk_full(start: Starter, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    path = small_disk / "full.db"
    filled(start(SCRIPT, "disk_full", path, ballast), path)


# ----------------------------------------------------------------------------------- readers


def test_iterating_while_others_write(start: Starter, path: Path) -> None:
    async def prepare() -> set[str]:
        async with open_storage(f"sqlite:///{path}") as storage:
            experiment = await storage.create_experiment({"name": "e"})
            trials = await storage.register_trials(make_trials(experiment.id, range(30 * BATCH)))
            return {str(trial.id) for trial in trials}

    async def iterate(seen: list[str]) -> None:
        async with open_storage(f"sqlite:///{path}") as storage:
            experiment = (await storage.fetch_experiments({}))[0]
            async for trial in storage.iter_trials(experiment, batch_size=20):
                assert trial.status in ("new", "reserved", "completed")
                assert bool(trial.results) == (trial.status == "completed")
                seen.append(str(trial.id))

    before = asyncio.run(prepare())
    writers = [start(SCRIPT, "writes", path, f"w{n}") for n in range(4)]
    for writer in writers:
        writer.expect("writes")
    seen: list[str] = []
    asyncio.run(iterate(seen))
    for writer in writers:
        assert writer.runs
        writer.tell()
    for writer in writers:
        writer.succeed()
    assert len(seen) == len(set(seen))
    assert before <= set(seen)
    assert integrity(path) == "ok"
