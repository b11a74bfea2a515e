"""Counting and fetching trials."""

from __future__ import annotations

from functools import partial

from benchmarks.definitions import Workload
from benchmarks.sides import optuna_peers, orion_peers, ours_trials, plain_sqlite
from benchmarks.workloads.making import OURS, optuna, orion, ours, plain

__all__ = ["COUNTS", "FETCHED", "FETCHES", "ITERATIONS", "MILLION"]

SIZE = 10_000
FETCHED = 100_000
MILLION = 1_000_000
_counts = ours_trials.awaited_counts
_fetch = partial(ours_trials.reads, read=ours_trials.fetch)
_iterate = partial(ours_trials.reads, read=ours_trials.iterate)
_project = partial(ours_trials.reads, read=ours_trials.project)

COUNTS = Workload(
    "count",
    "Counting trials",
    f"The number of completed trials among {SIZE:,}.",
    "counts",
    (
        ours("sqlite", "1 task", _counts, 500, size=SIZE),
        ours("memory", "1 task", _counts, 500, size=SIZE),
        ours("motor", "1 task", _counts, 200, size=SIZE),
        plain("1 thread", plain_sqlite.counts, 2000, size=SIZE),
        optuna("journal", "1 caller", optuna_peers.counts, 20, size=SIZE),
        optuna("rdb", "1 caller", optuna_peers.counts, 1, size=SIZE),
        optuna("memory", "1 caller", optuna_peers.counts, 20, size=SIZE),
        orion("pickleddb", "1 caller", orion_peers.counts, 1, size=SIZE),
        orion("ephemeraldb", "1 caller", orion_peers.counts, 20, size=SIZE),
        orion("mongodb", "1 caller", orion_peers.counts, 50, size=SIZE),
    ),
    (OURS["sqlite"], "1 task"),
)

FETCHES = Workload(
    "fetch",
    "Fetching trials",
    f"All of {FETCHED:,} trials, unless another number is given.",
    "trials",
    (
        ours("sqlite", "fetch_trials", _fetch, 1, size=FETCHED, apart=True, store="many"),
        ours("sqlite", "iter_trials", _iterate, 1, size=FETCHED, apart=True, store="many"),
        ours(
            "sqlite", "iter_trials, 2 fields", _project, 1, size=FETCHED, apart=True, store="many"
        ),
        ours("memory", "fetch_trials", _fetch, 1, size=FETCHED),
        ours("motor", "fetch_trials", _fetch, 1, size=FETCHED, apart=True, store="many"),
        orion("ephemeraldb", "fetch_trials", orion_peers.fetches, 1, size=FETCHED),
        orion("pickleddb", "fetch_trials", orion_peers.fetches, 1, size=FETCHED, apart=True),
        optuna("journal", "get_all_trials, 10,000", optuna_peers.fetches, 1, size=SIZE, apart=True),
        optuna("memory", "get_all_trials, 10,000", optuna_peers.fetches, 1, size=SIZE),
        optuna("rdb", "get_all_trials, 10,000", optuna_peers.fetches, 1, size=SIZE, apart=True),
    ),
    (OURS["sqlite"], "fetch_trials"),
    rounds=3,
)

ITERATIONS = Workload(
    "iterate",
    "Iterating over a million trials",
    f"`iter_trials` over {MILLION:,} trials; what counts is the memory that it takes.",
    "trials",
    (
        ours("sqlite", "iter_trials", _iterate, 1, size=MILLION, apart=True, store="million"),
        ours("motor", "iter_trials", _iterate, 1, size=MILLION, apart=True, store="million"),
    ),
    (OURS["sqlite"], "iter_trials"),
    rounds=1,
    warm_up=False,
)
