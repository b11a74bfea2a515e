"""The progress of a transfer between two stores, and the counts of what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiostorage._core.kinds import FLAG, FUNCTION, PATH, Kind, having, option, optional

__all__ = ["TRANSFER", "CollectionCounts", "Progress", "TransferCounts"]

TRANSFER: Final[Mapping[str, Kind]] = {
    "source": option(PATH),
    "destination": option(PATH),
    "storage": having("a Storage", "_gateway", "fetch_experiments"),
    "overwrite": FLAG,
    "progress": optional(FUNCTION),
}
"""What the arguments of a transfer may be."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a transfer with one collection.

    Attributes
    ----------
    collection
        ``experiments``, ``benchmarks`` or ``trials``. Before these comes ``read`` if the source is
        a database; it counts all the documents that are read from it.
    done, total
        The number of documents that are done, and of those that have to be written or read.
    """

    collection: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class CollectionCounts:
    """The numbers of documents of one collection, by what the transfer did with them.

    Attributes
    ----------
    copied
        New in the destination.
    present
        In the destination already, and left unchanged.
    replaced
        Written in place of others.
    """

    copied: int = 0
    present: int = 0
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class TransferCounts:
    """What a transfer did, by collection.

    Attributes
    ----------
    experiments, trials, benchmarks
        The documents of each collection.
    algorithms
        States of algorithms. An experiment whose algorithm was never asked for a trial has none.
    orphans
        Trials of the source that belong to none of its experiments. They are left out.
    interrupted
        Those of the written trials that are reserved in the source. No worker has them in the
        destination, so they are interrupted there: the next workers take them up.
    """

    experiments: CollectionCounts = CollectionCounts()
    trials: CollectionCounts = CollectionCounts()
    benchmarks: CollectionCounts = CollectionCounts()
    algorithms: CollectionCounts = CollectionCounts()
    orphans: int = 0
    interrupted: int = 0
