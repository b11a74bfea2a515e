"""Reservations, and whole cycles: a trial from its reservation to its completion."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from benchmarks.definitions import Side, Workload
from benchmarks.sides import bare_mongodb, optuna_peers, orion_peers, plain_sqlite
from benchmarks.sides import ours as our
from benchmarks.workloads.making import OURS, bare, before, optuna, orion, ours, plain

__all__ = [
    "CYCLES",
    "FACADE",
    "MEMORY",
    "MONGODB",
    "NO_HISTORY",
    "PROCESSES",
    "QUEUE",
    "RESERVATIONS",
    "STUDY",
]

SIZE = 10_000
CYCLE = "A cycle is a trial's way through the storage: reserved, a heartbeat, completed."
STUDY = "a study's trial"
QUEUE = "enqueued"
ALONE = "storage alone"
_normal = partial(our.cycles, synchronous="NORMAL")
_unlogged = partial(our.reservations, history="off")
_plain_reservations = plain_sqlite.reservations
_plain_cycles = plain_sqlite.cycles
_study = partial(optuna_peers.cycles, way="study")
_alone = partial(optuna_peers.cycles, way="storage")
_enqueued = partial(optuna_peers.cycles, way="enqueued")

RESERVATIONS = Workload(
    "reserve",
    "Reserving trials on SQLite",
    f"Each call gets the oldest pending trial of {SIZE:,} for its caller alone.",
    "reservations",
    (
        ours("sqlite", "64 tasks", our.reservations, 1280, tasks=64, size=SIZE),
        ours("sqlite", "64 tasks, no history", _unlogged, 1280, tasks=64, size=SIZE),
        ours("sqlite", "1 task", our.reservations, 320, size=SIZE),
        before("sqlite", "64 tasks", our.reservations, 1280, tasks=64, size=SIZE),
        plain(
            "one transaction, no history",
            partial(_plain_reservations, commits="one", history=False),
            1280,
            size=SIZE,
        ),
        plain(
            "one transaction",
            partial(_plain_reservations, commits="one", history=True),
            1280,
            size=SIZE,
        ),
        plain(
            "a commit each",
            partial(_plain_reservations, commits="each", history=True),
            640,
            size=SIZE,
        ),
    ),
    (OURS["sqlite"], "64 tasks"),
)

CYCLES = Workload(
    "cycle",
    "Cycles on SQLite and in files",
    f"{CYCLE} The store has {SIZE:,} trials at the beginning.",
    "cycles",
    (
        ours("sqlite", "64 tasks", our.cycles, 1280, tasks=64, size=SIZE),
        ours("sqlite", "1 task", our.cycles, 320, size=SIZE),
        ours("sqlite", "8 tasks", our.cycles, 640, tasks=8, size=SIZE),
        ours("sqlite", "256 tasks", our.cycles, 1280, tasks=256, size=SIZE),
        ours("sqlite", "64 tasks, NORMAL", _normal, 1280, tasks=64, size=SIZE),
        ours("sqlite", "1 task, NORMAL", _normal, 320, size=SIZE),
        before("sqlite", "64 tasks", our.cycles, 1280, tasks=64, size=SIZE),
        before("sqlite", "1 task", our.cycles, 320, size=SIZE),
        plain(
            "a commit each",
            partial(_plain_cycles, commits="each", history=True),
            320,
            size=SIZE,
        ),
        plain(
            "one transaction",
            partial(_plain_cycles, commits="one", history=True),
            1280,
            size=SIZE,
        ),
        optuna("journal", STUDY, _study, 200, size=SIZE),
        optuna("journal", ALONE, _alone, 200, size=SIZE),
        optuna("journal", QUEUE, _enqueued, 20, size=SIZE),
        optuna("rdb", STUDY, _study, 10, size=SIZE),
        optuna("rdb", ALONE, _alone, 10, size=SIZE),
        optuna("rdb", QUEUE, _enqueued, 1, size=SIZE),
        orion("pickleddb", "1 caller", orion_peers.cycles, 1, size=SIZE),
    ),
    (OURS["sqlite"], "64 tasks"),
)

MEMORY = Workload(
    "memory",
    "Cycles in memory",
    f"{CYCLE} The store has {SIZE:,} trials at the beginning.",
    "cycles",
    (
        ours("memory", "1 task", our.cycles, 1280, size=SIZE),
        ours("memory", "64 tasks", our.cycles, 1280, tasks=64, size=SIZE),
        before("memory", "1 task", our.cycles, 1280, size=SIZE),
        optuna("memory", STUDY, _study, 1280, size=SIZE),
        optuna("memory", ALONE, _alone, 1280, size=SIZE),
        optuna("memory", QUEUE, _enqueued, 100, size=SIZE),
        orion("ephemeraldb", "1 caller", orion_peers.cycles, 5, size=SIZE),
    ),
    (OURS["memory"], "1 task"),
)

PROCESSES = Workload(
    "processes",
    "Cycles of several processes on one file",
    f"{CYCLE} The processes share a store with {SIZE:,} trials.",
    "cycles",
    (
        ours("sqlite", "8 processes of 8 tasks", our.cycles, 160, tasks=8, processes=8, size=SIZE),
        ours("sqlite", "4 processes of 8 tasks", our.cycles, 320, tasks=8, processes=4, size=SIZE),
        ours("sqlite", "1 process of 8 tasks", our.cycles, 640, tasks=8, size=SIZE),
        ours("sqlite", "1 process of 1 task", our.cycles, 320, size=SIZE),
        ours("sqlite", "4 processes of 1 task", our.cycles, 80, processes=4, size=SIZE),
        ours("sqlite", "8 processes of 1 task", our.cycles, 40, processes=8, size=SIZE),
        optuna("journal", f"8 processes, {STUDY}", _study, 20, processes=8, size=SIZE),
        optuna("rdb", f"8 processes, {STUDY}", _study, 2, processes=8, size=SIZE),
        orion("pickleddb", "4 processes", orion_peers.cycles, 1, processes=4, size=1000),
    ),
    (OURS["sqlite"], "8 processes of 8 tasks"),
    rounds=4,
)

FACADE = Workload(
    "facade",
    "Cycles of a caller without an event loop",
    f"{CYCLE} One thread calls the facade; the store has {SIZE:,} trials.",
    "cycles",
    (
        ours("sqlite", "facade, 1 thread", our.cycles_by_facade, 320, size=SIZE),
        ours("sqlite", "awaited, 1 task", our.cycles, 320, size=SIZE),
        ours("memory", "facade, 1 thread", our.cycles_by_facade, 640, size=SIZE),
        optuna("journal", STUDY, _study, 200, size=SIZE),
    ),
    (OURS["sqlite"], "facade, 1 thread"),
)

MONGODB_SIZE = 4000
NO_HISTORY = ", no history"
_SHAPES = (
    ("1 task", 1, 1, 60),
    ("8 tasks", 8, 1, 160),
    ("64 tasks", 64, 1, 320),
    ("8 processes of 8 tasks", 8, 8, 80),
)


def _beside_bare(library: Literal["motor", "pymongo"]) -> Iterator[Side]:
    for history, more in ((True, ""), (False, NO_HISTORY)):
        own = our.cycles if history else partial(our.cycles, history="off")
        their = partial(bare_mongodb.cycles, history=history)
        for case, tasks, processes, count in _SHAPES:
            # transactions of a bare client that are under way at the same time abort each other
            fewer = count // 4 if history and tasks > 1 else count
            for make, begin, number in ((ours, own, count), (bare, their, max(fewer, tasks))):
                yield make(
                    library,
                    f"{case}{more}",
                    begin,
                    number,
                    tasks=tasks,
                    processes=processes,
                    size=MONGODB_SIZE,
                )


MONGODB = Workload(
    "mongodb-cycle",
    "Cycles on MongoDB",
    f"{CYCLE} The server is a replica set of one member; a write waits until it is on disk. "
    "With a history, a reservation or a completion and its row are a transaction.",
    "cycles",
    (
        *_beside_bare("motor"),
        *_beside_bare("pymongo"),
        orion("mongodb", "1 thread", orion_peers.cycles, 20, size=MONGODB_SIZE),
        orion("mongodb", "8 threads", orion_peers.cycles, 80, tasks=8, size=MONGODB_SIZE),
    ),
    (OURS["motor"], "64 tasks"),
    rounds=4,
)
