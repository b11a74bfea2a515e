"""The progress of a transfer between two stores, and the counts of what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiostorage._core.kinds import FLAG, FUNCTION, PATH, Kind, having, option, optional

__all__ = ["TRANSFER", "CollectionCounts", "Progress", "SkippedRecord", "TransferCounts"]

TRANSFER: Final[Mapping[str, Kind]] = {
    "source": option(PATH),
    "destination": option(PATH),
    "storage": having("a Storage", "_gateway", "fetch_experiments"),
    "overwrite": FLAG,
    "skip_bad": FLAG,
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
class SkippedRecord:
    """A record that was left out because it cannot be stored.

    Attributes
    ----------
    collection
        ``experiments``, ``trials``, ``benchmarks``, or ``algo`` for the state of an algorithm.
    record
        Which one, such as ``trial 1f… of experiment 'tune' v1``.
    path
        The place of the value in it, such as ``params[0].value``; empty when unknown.
    reason
        Why it cannot be stored, with the record and the place.
    trials
        The number of trials that were left out together with an experiment.
    """

    collection: str
    record: str
    path: str
    reason: str
    trials: int = 0


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
        How many of the written trials are reserved in the source. No worker has them in the
        destination, so they are interrupted there: the next workers take them up.
    skipped
        Records that were left out because they cannot be stored; only with ``skip_bad``.
    """

    experiments: CollectionCounts = CollectionCounts()
    trials: CollectionCounts = CollectionCounts()
    benchmarks: CollectionCounts = CollectionCounts()
    algorithms: CollectionCounts = CollectionCounts()
    orphans: int = 0
    interrupted: int = 0
    skipped: tuple[SkippedRecord, ...] = ()
