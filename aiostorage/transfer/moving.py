"""`load_storage` and `copy_storage`: records go into a storage, and are compared afterwards."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.kinds import PATH, check_values, option
from aiostorage._core.layout import SCRATCH
from aiostorage._core.storage import Storage
from aiostorage.errors import ConfigurationError
from aiostorage.transfer.move_plan import Move, MovePlan, MovePlanner
from aiostorage.transfer.move_writer import MoveWriter
from aiostorage.transfer.record_sources import DumpSource, RecordSource, StoreSource
from aiostorage.transfer.transfer_reports import (
    MOVES,
    MovedExperiment,
    MoveProgress,
    MoveReport,
    Resolve,
)

__all__ = ["copy_storage", "load_storage", "move_records"]


async def load_storage(
    file: str | os.PathLike[str],
    storage: Storage,
    *,
    resolve: Resolve | None = None,
    keep_reservations: bool = False,
    dry_run: bool = False,
    progress: Callable[[MoveProgress], None] | None = None,
) -> MoveReport:
    """Load a dump into a storage.

    The whole file is read and checked before anything is written. An experiment appears in the
    storage when it is complete, in one transaction with the state of its algorithm. A load that
    was interrupted continues when it is called again, and the result is the same. Records that
    already exist and are equal stay; so a second load writes nothing.

    Records keep their ``_id`` unless another record has it. The workers of the dumped store do not
    use this one: trials that are reserved in the dump are interrupted in the storage, so that the
    next worker takes them up, and locks are free.

    Parameters
    ----------
    file
        The dump, compressed or not.
    storage
        The destination. No worker may use the experiments that are loaded before this ends.
    resolve
        What to do if the storage has another experiment of the same name and version, or another
        benchmark of the same name. ``ignore`` keeps the one in the storage; ``overwrite`` replaces
        it as a whole; ``bump`` gives the loaded experiment the next version. Default: refuse the
        load.
    keep_reservations
        Leave reserved trials and held locks as they are in the dump. Then the trials count as lost
        when their heartbeat is old enough.
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
        There is another record of that name, and `resolve` does not say what to do. Nothing was
        written. Or a new experiment has got the ``_id`` of a loaded one meanwhile: that one was not
        written, and a second load gives it another ``_id``.
    NotADatabaseError
        The file is not a dump, or it is damaged. Nothing was written.
    SchemaVersionError
        A newer aiostorage made the file. Nothing was written.
    EncodingError
        A record cannot be stored. Nothing was written, unless only the engine refuses the record,
        for example for its size; then its experiment does not appear in the storage.
    ConfigurationError
        There is no such file, the storage has a tracker, or an option is invalid.
    BackendError
        The engine failed.
    IncompleteCopy
        The records in the storage are not those that were written.
    """
    given = {"file": file, "storage": storage, "resolve": resolve, "dry_run": dry_run}
    kinds = {**MOVES, "file": option(PATH)}
    check_values(
        "load_storage",
        kinds,
        {**given, "keep_reservations": keep_reservations, "progress": progress},
    )
    return await move_records(
        DumpSource(Path(file)),
        storage,
        resolve=resolve,
        keep_reservations=keep_reservations,
        dry_run=dry_run,
        progress=progress,
    )


async def copy_storage(
    source: Storage,
    destination: Storage,
    *,
    experiments: Collection[str] | None = None,
    resolve: Resolve | None = None,
    keep_reservations: bool = False,
    dry_run: bool = False,
    progress: Callable[[MoveProgress], None] | None = None,
) -> MoveReport:
    """Copy a store, or some of its experiments, into another one of any engine.

    It does the same as a dump and `load_storage`, without a file between them: nothing is written
    unless everything can be, an experiment appears when it is complete, and a copy that was
    interrupted continues when it is called again. At the end, the counts and the hashes of all
    records that were written are compared on both sides.

    Parameters
    ----------
    source
        The store to copy, which is not changed. Its workers should have ended: changes that they
        make during the copy may be missing in it.
    destination
        Another store. No worker may use the experiments that are copied before this ends.
    experiments
        Which experiments: a name means all its versions, ``"name@2"`` one of them. Default: all of
        them, and the benchmarks.
    resolve, keep_reservations, dry_run, progress
        See `load_storage`.

    Returns
    -------
    MoveReport
        What was done.

    Raises
    ------
    ConfigurationError
        Both are the same store, or the destination has a tracker.
    InvalidArgument
        An argument is of the wrong kind, or there is no experiment with one of the names.
    DuplicateKeyError, EncodingError, BackendError, IncompleteCopy
        See `load_storage`.
    """
    given = {"source": source, "destination": destination, "experiments": experiments}
    more = {"resolve": resolve, "dry_run": dry_run, "keep_reservations": keep_reservations}
    check_values("copy_storage", MOVES, {**given, **more, "progress": progress})
    records = StoreSource(source, experiments)
    await records.check_names()
    await anyio.to_thread.run_sync(_check_places, source, destination)  # it looks at files
    check = partial(_check_two_stores, source, destination)
    return await move_records(
        records,
        destination,
        resolve=resolve,
        keep_reservations=keep_reservations,
        dry_run=dry_run,
        progress=progress,
        check=check,
    )


async def move_records(
    source: RecordSource,
    storage: Storage,
    *,
    resolve: Resolve | None,
    keep_reservations: bool,
    dry_run: bool,
    progress: Callable[[MoveProgress], None] | None,
    check: Callable[[], Awaitable[None]] | None = None,
    has_versions: bool = True,
) -> MoveReport:
    """Move the records of a source into a storage.

    Parameters
    ----------
    source
        It has to give the same records each time that it is read, also when the move continues
        after an interruption.
    storage, resolve, keep_reservations, dry_run, progress
        See `load_storage`.
    check
        Called before anything is written.
    has_versions
        Whether moved experiments may get another version.

    Raises
    ------
    DuplicateKeyError, EncodingError, ConfigurationError, BackendError, IncompleteCopy
        See `load_storage`.
    """
    if storage._mirror is not None:  # noqa: SLF001  an adapter of this package
        raise ConfigurationError(
            f"{storage.location} was opened with a tracker, which is not told of what is loaded; "
            "open it without, and run `aiostorage tracker-sync --all` afterwards"
        )
    report = progress or (lambda _: None)
    move = Move(source, storage, resolve, keep_reservations, report, has_versions)
    plan = await MovePlanner(move).plan()
    if check is not None and not dry_run:
        await check()
    checksum = None
    if not dry_run and plan.is_needed:
        writer = MoveWriter(move, plan)
        await writer.write()
        checksum = await writer.check()
    return _report(source, storage, plan, checksum, dry_run=dry_run)


def _report(
    source: RecordSource, storage: Storage, plan: MovePlan, checksum: str | None, *, dry_run: bool
) -> MoveReport:
    written = [planned for planned in plan.experiments.values() if planned.is_written]
    return MoveReport(
        source=source.location,
        destination=storage.location,
        experiments=tuple(
            MovedExperiment(
                *planned.key,
                outcome=planned.outcome,
                new_version=planned.key[1] if planned.version is None else planned.version,
                trials=planned.trials,
            )
            for planned in plan.experiments.values()
        ),
        trials=sum(planned.trials for planned in written),
        benchmarks=len(plan.benchmarks),
        present_benchmarks=plan.present_benchmarks,
        interrupted=sum(planned.interrupted for planned in written),
        unlocked=sum(planned.unlocked for planned in written),
        orphans=source.orphans,
        checksum=checksum,
        dry_run=dry_run,
    )


def _check_places(source: Storage, destination: Storage) -> None:
    """Refuse two storages that are the same store by their locations alone."""
    drivers = [storage._gateway.driver for storage in (source, destination)]  # noqa: SLF001
    same = drivers[0] is drivers[1]
    if not same and drivers[0].name == drivers[1].name != "memory":
        same = os.path.realpath(source.location) == os.path.realpath(destination.location)
    if same:
        raise _is_one(destination)


async def _check_two_stores(source: Storage, destination: Storage) -> None:
    """Refuse one store under two names: a record written by one name is found by the other."""
    mark = f"copy {uuid4().hex}"
    there = CollectionAccess(destination)
    await there.insert(SCRATCH, [{"_id": mark}])
    try:
        found = await CollectionAccess(source).count(SCRATCH, {"_id": mark})
    finally:
        await there.delete(SCRATCH, {"_id": mark})
    if found:
        raise _is_one(destination)


def _is_one(destination: Storage) -> ConfigurationError:
    return ConfigurationError(
        f"the source and the destination are one and the same store, {destination.location}; "
        "nothing was written"
    )
