"""`export_optuna`: studies become those of one of Optuna's own storages.

Such a storage shows a study as soon as it is created, and has no transactions over several trials.
So trials are written in the order of their numbers, each at once, and an export continues where the
trials of the destination end, if those are the first of the study.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import anyio.to_thread
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy  # what `BaseStorage` returns; it has no public name
from optuna.trial import FrozenTrial

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.kinds import check_values
from aiostorage._core.layout import TRIALS
from aiostorage._core.storage import Storage
from aiostorage.errors import DuplicateKeyError, EncodingError, IncompleteCopy
from aiostorage.optuna.optuna_places import opened_place, place_name, translated
from aiostorage.optuna.study_document import frozen_study
from aiostorage.optuna.study_ids import trial_uid_of
from aiostorage.optuna.study_imports import STUDY_MOVES
from aiostorage.optuna.study_records import StudyRecords
from aiostorage.optuna.study_source import chosen_studies, trial_pages
from aiostorage.optuna.trial_document import frozen_trial
from aiostorage.optuna.trial_records import TrialRecords
from aiostorage.transfer.record_sources import PAGE
from aiostorage.transfer.transfer_reports import (
    MovedExperiment,
    MoveOutcome,
    MoveProgress,
    MoveReport,
    StudyResolve,
)

__all__ = ["export_optuna"]

BATCH: Final = 50
"""Trials that are written before it is looked whether the caller has been cancelled."""

ROUNDED: Final = timedelta(seconds=1)
"""How coarsely a database may keep times, such as MySQL's."""


async def export_optuna(
    storage: Storage,
    target: str | os.PathLike[str] | BaseStorage,
    *,
    studies: Collection[str] | None = None,
    resolve: StudyResolve | None = None,
    dry_run: bool = False,
    progress: Callable[[MoveProgress], None] | None = None,
) -> MoveReport:
    """Copy studies to one of Optuna's own storages.

    All of a study is copied, as `import_optuna` does it. Experiments that are not studies are left
    out.

    Optuna's storages show a study while it is still growing. When an export was interrupted, call
    it again: a study whose trials are the first of the one here is completed, and one that is equal
    stays as it is. At the end, all trials are read again and compared.

    Parameters
    ----------
    storage
        The source, which is not changed. Its workers should have ended.
    target
        The URL of a database, as SQLAlchemy has it; the path of a journal; ``redis://…`` for a
        journal in Redis; or a storage of Optuna. A target that does not exist is created.
    studies
        The names of the studies to export. Default: all.
    resolve
        What to do if the target has another study of the same name: ``ignore`` keeps what is
        there, ``overwrite`` deletes it first. Default: refuse the export.
    dry_run
        Read, compare and report, but write nothing to a study. Tables and files are made.
    progress
        Called in the event loop whenever there is progress.

    Returns
    -------
    MoveReport
        What was done.

    Raises
    ------
    DuplicateKeyError
        There is another study of that name, and `resolve` does not say what to do about it. Nothing
        was written.
    InvalidArgument
        An argument is of the wrong kind, or there is no study with one of the names.
    ConfigurationError, NotADatabaseError, SchemaVersionError
        The target is not one of Optuna's storages, or cannot be created.
    EncodingError
        A trial of a study is missing, which Optuna's storages cannot express.
    BackendError
        The storage or the target failed.
    IncompleteCopy
        The target lacks records that were written.
    """
    given = {"storage": storage, "studies": studies, "resolve": resolve, "dry_run": dry_run}
    check_values("export_optuna", STUDY_MOVES, {**given, "progress": progress})
    source = _OurStudies(storage)
    chosen = await source.studies(studies)
    location = place_name(target)
    async with opened_place(target, writing=True) as opened:
        export = _Export(source, opened, location, progress or (lambda _: None))
        planned = await export.plan(chosen, resolve)
        if not dry_run:
            await export.write([one for one in planned if one.is_written])
    return MoveReport(
        source=storage.location,
        destination=location,
        experiments=tuple(
            MovedExperiment(one.study.study_name, 1, one.outcome, 1, one.trials) for one in planned
        ),
        trials=sum(one.trials - one.there for one in planned if one.is_written),
        dry_run=dry_run,
    )


@dataclass(slots=True)
class _PlannedStudy:
    """What an export does with one study.

    Parameters
    ----------
    uid, study
        The ``_id`` of its experiment, and what it is to Optuna.
    trials
        How many it has.
    outcome
        What becomes of it.
    there
        How many of its trials the target has already.
    target_id
        The study id in the target, if it is there.
    """

    uid: Any
    study: FrozenStudy
    trials: int
    outcome: MoveOutcome = "copied"
    there: int = 0
    target_id: int | None = None

    @property
    def is_written(self) -> bool:
        return self.outcome in ("copied", "overwritten")


class _OurStudies:
    """The studies of a store, and their trials by number."""

    def __init__(self, storage: Storage) -> None:
        self.location: str = storage.location
        self._records = StudyRecords(storage)
        self._trials = TrialRecords(storage._gateway)  # noqa: SLF001  an adapter of this package
        self._collections = CollectionAccess(storage)

    async def studies(self, names: Collection[str] | None) -> list[_PlannedStudy]:
        configs = await self._records.all()
        found = list(map(frozen_study, configs))
        uids = {study.study_name: c["_id"] for study, c in zip(found, configs, strict=True)}
        return [
            _PlannedStudy(uid := uids[study.study_name], study, await self._count(uid))
            for study in chosen_studies(found, names, self.location)
        ]

    async def _count(self, uid: Any) -> int:
        numbered = {"experiment": uid, "optuna.number": {"$exists": True}}
        return await self._collections.count(TRIALS, numbered)

    async def trials(self, uid: Any, numbers: range) -> list[FrozenTrial]:
        """Return the trials that have these numbers, in their order.

        Raises
        ------
        EncodingError
            One of them is missing.
        """
        _, found = await self._trials.read_by_uid(uid, set(map(trial_uid_of, numbers)))
        trials = sorted(map(frozen_trial, found), key=lambda trial: trial.number)
        if [trial.number for trial in trials] != list(numbers):
            missing = sorted(set(numbers).difference(trial.number for trial in trials))
            raise EncodingError(
                f"{self.location} has no trial {missing[0] if missing else numbers.start} of a "
                "study, but later ones; Optuna's storages cannot leave out a number"
            )
        return trials


class _Export:
    """Writes studies into a storage of Optuna."""

    def __init__(
        self,
        source: _OurStudies,
        target: BaseStorage,
        location: str,
        report: Callable[[MoveProgress], None],
    ) -> None:
        self._source = source
        self._target = target
        self._location = location
        self._report = report

    # ---------------------------------------------------------------------------------- the plan

    async def plan(
        self, chosen: list[_PlannedStudy], resolve: StudyResolve | None
    ) -> list[_PlannedStudy]:
        """Compare the studies with those of the target.

        Raises
        ------
        DuplicateKeyError
            The target has another study of the same name, and nothing says what to do about it.
        """
        total, done = sum(one.trials for one in chosen), 0
        there = {s.study_name: s for s in await self._run(self._target.get_all_studies)}
        conflicts = []
        for planned in chosen:
            found = there.get(planned.study.study_name)
            if found is not None and not await self._place(planned, found, resolve):
                conflicts.append(planned.study.study_name)
            done += planned.trials
            self._report(MoveProgress("reading", done, total))
        if conflicts:
            named = ", ".join(map(repr, conflicts[:5]))
            more = f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else ""
            raise DuplicateKeyError(
                f"study {named}{more} of {self._source.location}: {self._location} has another one "
                "of that name; nothing was written. Choose what to do about it: ignore (keep what "
                "is there) or overwrite"
            )
        return chosen

    async def _place(
        self, planned: _PlannedStudy, found: FrozenStudy, resolve: StudyResolve | None
    ) -> bool:
        """Decide what becomes of a study of which the target has one; return whether it can."""
        planned.target_id = found._study_id  # noqa: SLF001  it has no public name
        is_begun = _begins(found, planned.study)
        if is_begun and (equal := await self._equal_trials(planned)) is not None:
            planned.there = equal
            if equal == planned.trials and _same_attributes(found, planned.study):
                planned.outcome = "present"
            return True
        if resolve is not None:
            planned.outcome = "ignored" if resolve == "ignore" else "overwritten"
        return resolve is not None

    async def _equal_trials(self, planned: _PlannedStudy) -> int | None:
        """Return how many trials the target has, if they are the first of the study."""
        assert planned.target_id is not None  # noqa: S101  for mypy: the target has the study
        pages = trial_pages(self._target, planned.target_id, self._location)
        count = 0
        while (page := await self._run(next, pages, None)) is not None:
            if count + len(page) > planned.trials:
                return None
            numbers = range(count, count + len(page))
            if not _same_trials(await self._source.trials(planned.uid, numbers), page):
                return None
            count += len(page)
        return count

    # ----------------------------------------------------------------------------------- writing

    async def write(self, planned: Sequence[_PlannedStudy]) -> None:
        """Write the studies, and compare them.

        Raises
        ------
        BackendError
            One of the storages failed.
        IncompleteCopy
            The target has something else.
        """
        total, done = sum(one.trials - one.there for one in planned), 0
        self._report(MoveProgress("writing", 0, total))
        for one in planned:
            study_id = await self._run(self._begin, one)
            for start in range(one.there, one.trials, PAGE):
                numbers = range(start, min(start + PAGE, one.trials))
                page = await self._source.trials(one.uid, numbers)
                for first in range(0, len(page), BATCH):
                    batch = page[first : first + BATCH]
                    await self._run(self._write_trials, study_id, batch)
                    done += len(batch)
                    self._report(MoveProgress("writing", done, total))
        checked = 0
        studies = {s.study_name: s for s in await self._run(self._target.get_all_studies)}
        for one in planned:
            there = studies.get(one.study.study_name)
            if (
                there is None
                or not _begins(there, one.study)
                or not _same_attributes(there, one.study)
                or await self._equal_trials(one) != one.trials
            ):
                raise self._incomplete(one.study.study_name)
            checked += one.trials
            self._report(MoveProgress("checking", checked, sum(p.trials for p in planned)))

    def _begin(self, planned: _PlannedStudy) -> int:
        """Make a study with its attributes, as far as it is not there; return its id."""
        study, target = planned.study, self._target
        if planned.outcome == "overwritten" and planned.target_id is not None:
            target.delete_study(planned.target_id)
            planned.target_id = None
        if planned.target_id is None:
            planned.target_id = target.create_new_study(study.directions, study.study_name)
        study_id = planned.target_id
        for wanted, there, write in (
            (
                study.user_attrs,
                target.get_study_user_attrs(study_id),
                target.set_study_user_attr,
            ),
            (
                study.system_attrs,
                target.get_study_system_attrs(study_id),
                target.set_study_system_attr,
            ),
        ):
            for name, value in wanted.items():
                if name not in there:
                    write(study_id, name, value)
        return study_id

    def _write_trials(self, study_id: int, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            made = self._target.create_new_trial(study_id, trial)
            if self._target.get_trial_number_from_id(made) != trial.number:
                raise self._incomplete(self._target.get_study_name_from_id(study_id))

    def _incomplete(self, name: str) -> IncompleteCopy:
        return IncompleteCopy(
            f"study {name!r} in {self._location} is not what was written: another process has "
            "changed it meanwhile; if not, export again with overwrite"
        )

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what blocks in a thread."""

        def call() -> Any:
            with translated(self._location):
                return function(*args)

        return await anyio.to_thread.run_sync(call)


# ---------------------------------------------------------------------------------- comparing


def _begins(there: FrozenStudy, wanted: FrozenStudy) -> bool:
    """Return whether a study may be an unfinished copy of another, by all but its trials."""
    return there.directions == wanted.directions and all(
        name in own and _text(own[name]) == _text(value)
        for own, found in (
            (wanted.user_attrs, there.user_attrs),
            (wanted.system_attrs, there.system_attrs),
        )
        for name, value in found.items()
    )


def _same_attributes(one: FrozenStudy, other: FrozenStudy) -> bool:
    return _text([one.user_attrs, one.system_attrs]) == _text(
        [other.user_attrs, other.system_attrs]
    )


def _same_trials(ours: Sequence[FrozenTrial], theirs: Sequence[FrozenTrial]) -> bool:
    return all(
        _content(one) == _content(other) and all(map(_same_moment, _moments(one), _moments(other)))
        for one, other in zip(ours, theirs, strict=True)
    )


def _content(trial: FrozenTrial) -> str:
    """Return all of a trial but its times and its id as text, in which a NaN equals itself."""
    return _text(
        {
            "number": trial.number,
            "state": trial.state.name,
            "values": trial.values,
            "params": trial.params,
            "distributions": {n: distribution_to_json(d) for n, d in trial.distributions.items()},
            "intermediate": trial.intermediate_values,
            "user": trial.user_attrs,
            "system": trial.system_attrs,
        }
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _moments(trial: FrozenTrial) -> Iterator[datetime | None]:
    yield trial.datetime_start
    yield trial.datetime_complete


def _same_moment(one: datetime | None, other: datetime | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= ROUNDED
