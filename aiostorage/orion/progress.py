"""What a transfer between two stores tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Count", "Counts", "Progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer has come with one collection.

    Attributes
    ----------
    collection
        ``experiments``, ``benchmarks`` or ``trials``; before them ``read``, where the source is a
        database, for all that is read from it.
    done, total
        How many documents are done, of how many that have to be written or read.
    """

    collection: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the documents of one collection.

    Attributes
    ----------
    copied
        New in the destination.
    present
        There already, and left as they were.
    replaced
        Written in the place of others.
    """

    copied: int = 0
    present: int = 0
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What a transfer did, by collection.

    Attributes
    ----------
    algorithms
        States of algorithms; an experiment that never asked its algorithm has none.
    orphans
        Trials of the source that belong to no experiment of it; they are left out.
    """

    experiments: Count = Count()
    trials: Count = Count()
    benchmarks: Count = Count()
    algorithms: Count = Count()
    orphans: int = 0
