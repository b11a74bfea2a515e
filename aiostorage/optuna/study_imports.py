"""`import_optuna`: the studies of one of Optuna's storages become experiments of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from optuna.storages import BaseStorage

from aiostorage._core.kinds import check_values, choice, option, optional
from aiostorage._core.storage import Storage
from aiostorage.optuna.optuna_places import opened_place, place_name
from aiostorage.optuna.study_source import StudySource
from aiostorage.transfer.moving import move_records
from aiostorage.transfer.transfer_reports import MOVES, MoveProgress, MoveReport, StudyResolve

__all__ = ["STUDY_MOVES", "import_optuna"]

STUDY_MOVES = {
    **MOVES,
    "studies": MOVES["experiments"],
    "resolve": option(optional(choice("ignore", "overwrite"))),
    "interrupt_running": MOVES["dry_run"],
}
"""What the arguments of moves from Optuna's storages and to them may be."""


async def import_optuna(
    source: str | os.PathLike[str] | BaseStorage,
    storage: Storage,
    *,
    studies: Collection[str] | None = None,
    resolve: StudyResolve | None = None,
    interrupt_running: bool = False,
    dry_run: bool = False,
    progress: Callable[[MoveProgress], None] | None = None,
) -> MoveReport:
    """Copy studies from one of Optuna's own storages.

    All of a study is copied: its directions and attributes, and its trials with their numbers,
    states, params, distributions, values, intermediate values, attributes and times. It has another
    study id.

    Nothing is written unless all of it can be, and a study appears in the storage when it is
    complete. An interrupted import continues when it is called again. Studies that already exist
    and are equal stay; so a second import writes nothing. At the end, the counts and the hashes of
    all records are compared.

    Parameters
    ----------
    source
        The URL of a database, as SQLAlchemy has it, such as ``sqlite:///optuna.db``; the path of a
        journal; ``redis://…`` for a journal in Redis; or a storage of Optuna. It is not changed.
        Its workers should have ended: changes that they make meanwhile may be missing.
    storage
        The destination.
    studies
        The names of the studies to import. Default: all.
    resolve
        What to do if the storage has another experiment of the same name: ``ignore`` keeps what
        is there, ``overwrite`` replaces all of it. Default: refuse the import.
    interrupt_running
        Let trials that run in the source wait in the storage, so that the next worker evaluates
        them. Default: they run here, too, until they are lost trials.
    dry_run
        Read, compare and report, but write nothing.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    MoveReport
        What was done.

    Raises
    ------
    DuplicateKeyError
        There is something else of that name, and `resolve` does not say what to do about it.
        Nothing was written.
    InvalidArgument
        An argument is of the wrong kind, or there is no study with one of the names.
    ConfigurationError, NotADatabaseError, SchemaVersionError
        There is no such source, or it is not one of Optuna's storages; or the storage has a
        tracker.
    EncodingError
        Something of a study cannot be stored. Nothing was written.
    BackendError
        The source or the storage failed.
    IncompleteCopy
        The storage lacks records that were written.
    """
    given = {"storage": storage, "studies": studies, "resolve": resolve, "dry_run": dry_run}
    more = {"interrupt_running": interrupt_running, "progress": progress}
    check_values("import_optuna", STUDY_MOVES, {**given, **more})
    async with opened_place(source) as opened:
        records = StudySource(opened, place_name(source), studies)
        await records.check_names()
        return await move_records(
            records,
            storage,
            resolve=resolve,
            keep_reservations=not interrupt_running,
            dry_run=dry_run,
            progress=progress,
            has_versions=False,
        )
