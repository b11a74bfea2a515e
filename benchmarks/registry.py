"""The workloads of the report, in its order."""

from __future__ import annotations

from benchmarks.definitions import Workload
from benchmarks.workloads.calls import CALLS
from benchmarks.workloads.cycles import CYCLES, FACADE, MEMORY, MONGODB, PROCESSES, RESERVATIONS
from benchmarks.workloads.growth import GROWTH
from benchmarks.workloads.inserts import INSERTS
from benchmarks.workloads.locks import LOCKS, STATES
from benchmarks.workloads.reads import COUNTS, FETCHES, ITERATIONS
from benchmarks.workloads.startup import IMPORTS, SCRIPTS

__all__ = ["WORKLOADS"]

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        CYCLES,
        PROCESSES,
        RESERVATIONS,
        MEMORY,
        FACADE,
        MONGODB,
        INSERTS,
        COUNTS,
        FETCHES,
        ITERATIONS,
        LOCKS,
        STATES,
        CALLS,
        GROWTH,
        IMPORTS,
        SCRIPTS,
    )
}
