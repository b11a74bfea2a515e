"""The algorithm lock, and the state that it protects."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.definitions import Side, Workload
from benchmarks.sides import orion_peers, ours_locks
from benchmarks.workloads.making import OURS, orion, ours

__all__ = ["LOCKS", "STATES"]

_handovers = ours_locks.handovers

LOCKS = Workload(
    "lock",
    "Handing the algorithm lock on",
    "From the moment when a holder is done until the next one, which was waiting, has the lock. "
    "The next one is another task or thread of the same process, or another process.",
    "hand-overs",
    (
        ours("sqlite", "1 process", _handovers, 40, tasks=2),
        ours("sqlite", "2 processes", _handovers, 20, processes=2),
        ours("memory", "1 process", _handovers, 40, tasks=2),
        ours("motor", "1 process", _handovers, 40, tasks=2),
        ours("motor", "2 processes", _handovers, 20, processes=2),
        orion("pickleddb", "1 process", orion_peers.handovers, 4, tasks=2),
        orion("pickleddb", "2 processes", orion_peers.handovers, 2, processes=2),
    ),
    (OURS["sqlite"], "1 process"),
    per_second=False,
)

_SIZES = (("1 KiB", 2**10, 40), ("1 MiB", 2**20, 10), ("50 MiB", 50 * 2**20, 1))
MAX_ORION_STATE = 2**24
"""Bytes from which Oríon cannot keep a state in MongoDB."""


def _states() -> Iterator[Side]:
    for name, size, count in _SIZES:
        for verb, write in (("set", True), ("get", False)):
            case = f"{verb} {name}"
            mine = partial(ours_locks.states, size=size, write=write)
            theirs = partial(orion_peers.states, size=size, write=write)
            yield ours("sqlite", case, mine, count)
            yield ours("motor", case, mine, count)
            yield orion("pickleddb", case, theirs, count)
            if size < MAX_ORION_STATE:
                yield orion("mongodb", case, theirs, count)


STATES = Workload(
    "state",
    "The state of an algorithm",
    "Bytes that cannot be compressed. To set them is to get the lock, set them, and release it.",
    "calls",
    tuple(_states()),
    (OURS["sqlite"], "set 1 KiB"),
    per_second=False,
    rounds=4,
)
