"""How the time of a reservation grows with the number of trials in the store."""

from __future__ import annotations

from benchmarks.definitions import Workload
from benchmarks.sides.ours import reservations
from benchmarks.workloads.making import OURS, ours

__all__ = ["GROWTH"]

GROWTH = Workload(
    "growth",
    "Reserving trials, by the number of trials in the store",
    "One task reserves.",
    "reservations",
    (
        ours("sqlite", "1,000 trials", reservations, 140, size=1000),
        ours("sqlite", "10,000 trials", reservations, 140, size=10_000),
        ours("sqlite", "100,000 trials", reservations, 140, size=100_000, apart=True),
        ours(
            "sqlite",
            "1,000,000 trials",
            reservations,
            140,
            size=1_000_000,
            apart=True,
            store="million",
        ),
    ),
    (OURS["sqlite"], "1,000 trials"),
    per_second=False,
)
