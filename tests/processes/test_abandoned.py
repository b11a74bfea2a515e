"""Storages that are never closed: their connections and threads end, with one warning for each.

Each scenario is played on all stores at once, for much of its time is spent waiting.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .support import Starter, Store, on_each

SCRIPT = "worker_abandoned.py"

COUNT = 7
MAX_LEFT = 3

PYMONGO = "client=pymongo"

LIVES = (
    *("in_loops_of_their_own", "in_one_loop", "in_loops_that_are_not_run", "in_cycles"),
    *("only_open_in_loops", "only_read_in_loops", "after_errors", "facades"),
)


@pytest.mark.parametrize("scenario", LIVES)
def test_all_of_it_ends(start: Starter, stores: list[Store], scenario: str) -> None:
    def play(store: Store) -> None:
        worker = start(SCRIPT, scenario, store.url, COUNT)
        left = list(map(int, worker.expect("left")))
        warned, *others = worker.expect("warned")
        if PYMONGO in store.url and scenario == "in_loops_that_are_not_run":
            worker.wait()  # PyMongo's own tasks complain that their loop was closed
        else:
            worker.succeed()
        assert max(left) <= MAX_LEFT, left
        assert int(warned) == (0 if scenario == "facades" else COUNT)
        if PYMONGO not in store.url:  # it leaves sockets to the garbage collector
            assert others == []

    on_each(stores, play)


EXITS = """
import asyncio, ctypes, gc, sys, time
from aiostorage import Storage
from aiostorage.drivers.sqlite import SQLiteDriver

async def main(path):
    driver = SQLiteDriver(path, synchronous="NORMAL")
    storage = Storage(driver)
    await storage.open()
    thread = driver._writer._thread
    await thread.call(lambda connection: connection.execute("PRAGMA wal_autocheckpoint = 0"))
    experiment = await storage.create_experiment({"name": "e"})
    async with storage.acquire_algorithm_lock(experiment) as algorithm:
        algorithm.set_state(bytes(60_000_000))  # the last one to close the file moves it there

asyncio.run(main(sys.argv[1]))
gc.collect()
time.sleep(0.02)  # it is being closed in its thread
libc = ctypes.CDLL(None)
libc.on_exit(libc.sleep, None)  # which gets the exit code: time for a thread to go on
sys.exit(1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="on_exit is glibc's")
def test_the_exit_waits_for_what_is_being_closed(start: Starter, tmp_path: Path) -> None:
    """Else SQLite would call into an interpreter that is gone."""
    worker = start("-c", EXITS, tmp_path / "store.db")
    assert (worker.wait(), worker.stderr) == (1, "")
