"""What a call of the facade costs above the async call that it makes."""

from __future__ import annotations

from benchmarks.definitions import Workload
from benchmarks.sides.ours_trials import awaited_counts, called_counts
from benchmarks.workloads.making import OURS, ours

__all__ = ["CALLS"]

CALLS = Workload(
    "call",
    "A call of the facade above the async call",
    "`count_completed_trials` in an empty store, which is among the cheapest of calls.",
    "calls",
    (
        ours("sqlite", "facade", called_counts, 500),
        ours("sqlite", "awaited", awaited_counts, 500),
        ours("memory", "facade", called_counts, 1000),
        ours("memory", "awaited", awaited_counts, 1000),
    ),
    (OURS["sqlite"], "awaited"),
    per_second=False,
    rounds=10,
)
