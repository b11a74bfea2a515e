"""The reports of dumps, loads and copies: their progress, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aiostorage._core.kinds import (
    FLAG,
    FUNCTION,
    Kind,
    choice,
    having,
    option,
    optional,
)

__all__ = [
    "MOVES",
    "DumpReport",
    "MoveOutcome",
    "MoveProgress",
    "MoveReport",
    "MovedExperiment",
    "Resolve",
    "StudyResolve",
    "TableReport",
]

Resolve: TypeAlias = Literal["ignore", "overwrite", "bump"]
"""What to do if the destination has another experiment of the same name and version.

``ignore`` keeps the one in the destination, ``overwrite`` replaces it, and ``bump`` gives the new
one the next free version.
"""

StudyResolve: TypeAlias = Literal["ignore", "overwrite"]
"""The same of studies, which have no versions."""

MoveOutcome: TypeAlias = Literal["copied", "present", "ignored", "overwritten", "bumped"]
"""What happened to an experiment or a benchmark; ``present``: an equal one was there already."""

_STORAGE: Final = having("a Storage", "_gateway", "fetch_experiments")
MOVES: Final[Mapping[str, Kind]] = {
    "storage": _STORAGE,
    "source": _STORAGE,
    "destination": _STORAGE,
    "resolve": option(optional(choice("ignore", "overwrite", "bump"))),
    "experiments": optional(
        Kind(
            "names of experiments (a list of str)",
            lambda value: (
                isinstance(value, list | tuple | set | frozenset)
                and all(isinstance(name, str) for name in value)
            ),
        )
    ),
    "dry_run": FLAG,
    "overwrite": FLAG,
    "keep_reservations": FLAG,
    "progress": optional(FUNCTION),
}
"""The permitted arguments of dumps, loads and copies."""


@dataclass(frozen=True, slots=True)
class MoveProgress:
    """The progress of a dump, a load or a copy.

    Attributes
    ----------
    stage
        ``reading``, ``writing`` or ``checking``.
    done
        The number of records so far.
    total
        The number of all records; None if it is not known yet.
    """

    stage: Literal["reading", "writing", "checking"]
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class DumpReport:
    """The content of a dump.

    Attributes
    ----------
    source
        The location of the storage.
    destination
        The file; None for a stream.
    experiments, trials, locks, benchmarks
        The number of records of each kind. An experiment has a lock, which holds the state of its
        algorithm, unless it was deleted.
    orphans
        Trials that belong to no experiment. They are left out.
    sha256
        The hash of all lines but the last.
    """

    source: str
    destination: str | None
    experiments: int
    trials: int
    locks: int
    benchmarks: int
    orphans: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TableReport:
    """The content of a table of trials.

    Attributes
    ----------
    source
        The location of the storage.
    destination
        The file; None for a stream.
    trials
        The number of rows.
    columns
        The names of the columns.
    """

    source: str
    destination: str | None
    trials: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MovedExperiment:
    """The outcome for one experiment.

    Attributes
    ----------
    name, version
        Its name and version in the source; a missing version is 1.
    outcome
        ``copied``; ``present``, if the destination had an equal one already; or, if it had another
        one, ``ignored``, ``overwritten`` or ``bumped``.
    new_version
        Its version in the destination.
    trials
        The number of its trials in the source.
    """

    name: str
    version: int
    outcome: MoveOutcome
    new_version: int
    trials: int


@dataclass(frozen=True, slots=True)
class MoveReport:
    """The result of a load or a copy, or of its dry run.

    Attributes
    ----------
    source, destination
        The locations from which and to which records were copied.
    experiments
        The outcome for each experiment.
    trials
        The number of trials that belong to the experiments that were written.
    benchmarks
        The number of benchmarks that were written.
    present_benchmarks
        The number of benchmarks that stayed as they are in the destination.
    interrupted
        How many of these trials are reserved in the source, and interrupted in the destination.
    unlocked
        The number of locks that are held in the source, and free in the destination.
    orphans
        Trials of the source that belong to no experiment. They are left out.
    checksum
        The hash of all records that were written, which is the same for these records in the
        destination; it does not depend on their order. None if nothing was written.
    dry_run
        Whether nothing was written.
    """

    source: str
    destination: str
    experiments: tuple[MovedExperiment, ...] = ()
    trials: int = 0
    benchmarks: int = 0
    present_benchmarks: int = 0
    interrupted: int = 0
    unlocked: int = 0
    orphans: int = 0
    checksum: str | None = None
    dry_run: bool = False
