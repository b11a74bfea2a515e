"""Storages that nobody closes: their connections and threads end, with one warning for each."""

from __future__ import annotations

import pytest

from .support import SQLiteStore, Starter, Store

SCRIPT = "worker_abandoned.py"

FEW = 3

PYMONGO = "client=pymongo"

LIVES = (
    *("in_loops_of_their_own", "in_one_loop", "in_loops_that_are_not_run", "in_cycles"),
    *("only_open_in_loops", "only_read_in_loops", "after_errors", "facades"),
)


@pytest.mark.parametrize("scenario", LIVES)
def test_all_of_it_ends(start: Starter, store: Store, scenario: str) -> None:
    count = 30 if isinstance(store, SQLiteStore) else 8
    worker = start(SCRIPT, scenario, store.url, count)
    left = list(map(int, worker.expect("left")))
    warned, *others = worker.expect("warned")
    if PYMONGO in store.url and scenario == "in_loops_that_are_not_run":
        worker.wait()  # PyMongo's own tasks complain that their loop was closed
    else:
        worker.succeed()
    assert max(left) <= FEW, left
    assert int(warned) == (0 if scenario == "facades" else count)
    if PYMONGO not in store.url:  # it leaves sockets to the garbage collector
        assert others == []
