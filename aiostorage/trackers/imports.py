"""The import of a tracker's runs into a storage, a batch at a time."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.event_log import EventLog
from aiostorage._core.kinds import FUNCTION, TEXT, check_values, having, option, optional
from aiostorage.errors import ConfigurationError, DuplicateKeyError
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trackers.imported_runs import ImportedRun, trial_of
from aiostorage.trackers.protocol import Tracker, TrackerRun, TrackerSource
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["ImportCounts", "import_runs"]

BATCH_SIZE: Final = 200
"""Runs that are written together."""

events: Final = EventLog("tracker")


@dataclass(slots=True)
class ImportCounts:
    """What an import has done.

    Attributes
    ----------
    read
        Runs that were read.
    imported
        Trials that were written, or completed.
    present
        Runs that an earlier call had already imported.
    same_params
        Runs left out, since the experiment has a trial with their params.
    unfinished
        Trials that are interrupted because their runs were not over.
    without_objective
        Trials that are broken because their finished runs have no objective.
    resumed
        Whether an earlier call had begun.
    """

    read: int = 0
    imported: int = 0
    present: int = 0
    same_params: int = 0
    unfinished: int = 0
    without_objective: int = 0
    resumed: bool = False


_KINDS: Final = {
    "tracker": option(having("a Tracker", "name", "location", "open")),
    "experiment": TEXT,
    "storage": having("a storage", "fetch_experiments", "register_trials"),
    "name": optional(TEXT),
    "objective": optional(TEXT),
    "progress": optional(FUNCTION),
}


async def import_runs(
    tracker: Tracker,
    experiment: str,
    storage: AsyncStorageProtocol,
    *,
    name: str | None = None,
    objective: str | None = None,
    progress: Callable[[ImportCounts], None] | None = None,
) -> ImportCounts:
    """Import the runs of an experiment of a tracker as trials.

    A call that was interrupted, even by a killed process, is continued by the next one. That one
    also imports the runs that were added since, and none twice. Runs with params that the
    experiment already has are left out, since a storage has one trial for the same params; but a
    completed run replaces one that is not completed.

    Parameters
    ----------
    tracker
        A tracker that is a `TrackerSource`, too. It is opened, and not closed.
    experiment
        The name or the key of the experiment in the tracker.
    storage
        Where the trials go.
    name
        The name of the experiment in the storage. Default: `experiment`.
    objective
        The metric that is the objective; the others are statistics. Default: the one that is called
        ``objective``, or else the only one.
    progress
        Called in the event loop after each batch, always with the same object.

    Raises
    ------
    ConfigurationError
        The tracker's runs cannot be read.
    UnknownExperiment
        The tracker has no such experiment.
    TrackerError
        The tracker cannot be reached, or refuses to be read.
    InvalidResult
        A run has several metrics, and the caller does not say which is the objective.
    DuplicateKeyError
        The storage has an experiment of that name that does not come from there.
    """
    check_values(
        "import_runs",
        _KINDS,
        {
            "tracker": tracker,
            "experiment": experiment,
            "storage": storage,
            "name": name,
            "objective": objective,
            "progress": progress,
        },
    )
    if not isinstance(tracker, TrackerSource):
        raise ConfigurationError(f"runs cannot be read from {tracker.name} at {tracker.location}")
    return await _Import(tracker, tracker, experiment, storage, name or experiment, objective).run(
        progress
    )


@dataclass(slots=True)
class _Import:
    tracker: Tracker
    source: TrackerSource
    experiment: str
    storage: AsyncStorageProtocol
    name: str
    objective: str | None
    counts: ImportCounts = field(default_factory=ImportCounts)

    @property
    def origin(self) -> dict[str, str]:
        return {"tracker": self.tracker.location, "experiment": self.experiment}

    async def run(self, progress: Callable[[ImportCounts], None] | None) -> ImportCounts:
        await anyio.to_thread.run_sync(self.tracker.open)
        uid, last = await self._find()
        runs = self.source.read_runs(self.experiment, last)
        while batch := await anyio.to_thread.run_sync(_take, runs):
            # before the experiment is made: there may be an error in it
            made = [trial_of(run, uid, self.objective) for run in batch]
            if uid is None:
                uid = await self._create()
            for imported in made:
                imported.trial.experiment = uid
            await self._write(uid, made)
            # only now: whoever is killed before this reads these runs again
            note: dict[str, Any] = {"metadata.imported.last": batch[-1].key}
            await self.storage.update_experiment(uid=uid, **note)
            self.counts.read += len(batch)
            if progress is not None:
                progress(self.counts)
        if uid is None:
            events.warning(
                "no_runs",
                "the experiment %(experiment)r has no runs: nothing was imported",
                experiment=self.experiment,
            )
        return self.counts

    async def _find(self) -> tuple[Any, str | None]:
        """Return the experiment of an earlier call and the run that it has come to."""
        found = await self.storage.fetch_experiments({"name": self.name})
        if not found:
            return None, None
        metadata = found[-1].get("metadata")
        imported = metadata.get("imported") if isinstance(metadata, Mapping) else None
        if not isinstance(imported, Mapping) or len(found) > 1 or not self._is_origin(imported):
            raise DuplicateKeyError(
                f"the storage has an experiment {self.name!r} that was not imported from "
                f"{self.experiment!r} of {self.tracker.location}; choose another name",
                collection="experiments",
                fields=("name",),
                values=(self.name,),
            )
        self.counts.resumed = True
        return found[0]["_id"], imported.get("last")

    def _is_origin(self, imported: Mapping[str, Any]) -> bool:
        return all(imported.get(key) == value for key, value in self.origin.items())

    async def _create(self) -> Any:
        metadata = {
            "user": _user(),
            "datetime": datetime.now(UTC),
            "imported": {**self.origin, "last": None},
        }
        config = {"name": self.name, "version": 1, "metadata": metadata}
        return (await self.storage.create_experiment(config)).id

    async def _write(self, uid: Any, made: Sequence[ImportedRun]) -> None:
        ids = [imported.trial.id for imported in made]
        found = await self.storage.fetch_trials(uid=uid, where={"id": {"$in": ids}})
        known: dict[str, Trial] = {trial.id: trial for trial in found or ()}
        new: dict[str, ImportedRun] = {}
        for imported in made:
            trial = imported.trial
            there = known.get(trial.id)
            if there is None:
                earlier = new.get(trial.id)
                if earlier is not None:
                    self.counts.same_params += 1
                if earlier is None or _is_better(trial, earlier.trial):
                    new[trial.id] = imported
            elif there.id_override == imported.key:
                self.counts.present += 1
            elif _is_better(trial, there) and await self._replace(uid, there, trial):
                self.counts.imported += 1
                known[trial.id] = trial
            else:
                self.counts.same_params += 1
        if new:
            await self.storage.register_trials([imported.trial for imported in new.values()])
        self.counts.imported += len(new)
        self.counts.unfinished += sum(imported.unfinished for imported in new.values())
        self.counts.without_objective += sum(
            imported.without_objective for imported in new.values()
        )

    async def _replace(self, uid: Any, there: Trial, trial: Trial) -> bool:
        """Complete a trial that another run with the same params has left."""
        changes = trial.to_dict()
        fields = ("status", "results", "start_time", "end_time")
        return bool(
            await self.storage.update_trial(
                uid=there.id,
                experiment_uid=uid,
                where={"status": there.status},
                **{name: changes[name] for name in fields},
            )
        )


def _take(runs: Iterator[TrackerRun]) -> list[TrackerRun]:
    return list(islice(runs, BATCH_SIZE))


def _is_better(trial: Trial, other: Trial) -> bool:
    unsuccessful = (TrialStatus.INTERRUPTED, TrialStatus.BROKEN)
    return trial.status == TrialStatus.COMPLETED and other.status in unsuccessful


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"
