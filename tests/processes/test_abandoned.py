"""Storages that are never closed: their connections and threads end, with one warning for each.

Each scenario is played on all stores at once, for much of its time is spent waiting.
"""

from __future__ import annotations

import pytest

from .support import Starter, Store, on_each

SCRIPT = "worker_abandoned.py"

COUNT = 7
FEW = 3

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
        assert max(left) <= FEW, left
        assert int(warned) == (0 if scenario == "facades" else COUNT)
        if PYMONGO not in store.url:  # it leaves sockets to the garbage collector
            assert others == []

    on_each(stores, play)
