"""Inserting trials."""

from __future__ import annotations

from functools import partial

from benchmarks.definitions import Workload
from benchmarks.sides import optuna_peers, orion_peers, plain_sqlite
from benchmarks.sides.ours_trials import inserts
from benchmarks.workloads.making import OURS, optuna, orion, ours, plain

__all__ = ["INSERTS"]

SIZE = 1000
_plain = partial(plain_sqlite.inserts, history=True)

INSERTS = Workload(
    "insert",
    "Inserting trials",
    f"New trials of 8 params each; the store has {SIZE:,} of them at the beginning.",
    "trials",
    (
        ours("sqlite", "64 tasks", inserts, 1280, tasks=64, size=SIZE),
        ours("sqlite", "1 task", inserts, 320, size=SIZE),
        ours("sqlite", "1,000 a call", partial(inserts, at_a_time=1000), 4000, size=SIZE),
        ours("memory", "1 task", inserts, 1000, size=SIZE),
        ours("motor", "64 tasks", inserts, 640, tasks=64, size=SIZE),
        plain("a commit each", partial(_plain, commits="each"), 640, size=SIZE),
        plain("one transaction", partial(_plain, commits="one"), 4000, size=SIZE),
        optuna("journal", "1 caller", optuna_peers.inserts, 200, size=SIZE),
        optuna("rdb", "1 caller", optuna_peers.inserts, 20, size=SIZE),
        optuna("memory", "1 caller", optuna_peers.inserts, 1000, size=SIZE),
        orion("pickleddb", "1 caller", orion_peers.inserts, 10, size=SIZE),
        orion("ephemeraldb", "1 caller", orion_peers.inserts, 200, size=SIZE),
        orion("mongodb", "1 caller", orion_peers.inserts, 100, size=SIZE),
    ),
    (OURS["sqlite"], "64 tasks"),
)
