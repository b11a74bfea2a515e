"""The import of experiments into a storage: it writes what its plan says, and counts afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.ids import new_id
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage.errors import BackendError, EncodingError
from aiostorage.operations import Document
from aiostorage.orion.import_plan import (
    ImportPlanner,
    Outcome,
    PlannedBenchmark,
    PlannedExperiment,
)
from aiostorage.orion.imported_experiment import BadRecords, ImportedExperiment
from aiostorage.orion.progress import CollectionCounts, Progress, TransferCounts

__all__ = ["Importer"]

BATCH_SIZE: Final = 250
"""The number of trials that are inserted in one transaction."""


class Importer:
    """One import, which can `run` once.

    Parameters
    ----------
    storage
        The destination.
    origin
        The source of the experiments, for messages.
    decode_state
        Makes the state of an algorithm from the ``state`` of `ImportedExperiment.lock`. It is
        called in a thread.
    overwrite
        Replace what differs instead of refusing it.
    progress
        Called in the event loop whenever there is progress.
    bad
        What becomes of records that cannot be stored, and of those that were skipped already.
    """

    def __init__(
        self,
        storage: Storage,
        origin: str,
        decode_state: Callable[[Any], Any],
        *,
        overwrite: bool,
        progress: Callable[[Progress], None] | None,
        bad: BadRecords | None = None,
    ) -> None:
        self._storage = storage
        self._collections = CollectionAccess(storage)
        self._bad = bad or BadRecords()
        self._planner = ImportPlanner(
            storage, origin, decode_state, overwrite=overwrite, bad=self._bad
        )
        self._progress = progress or (lambda _: None)
        self._experiments: list[PlannedExperiment] = []
        self._benchmarks: list[PlannedBenchmark] = []

    async def run(
        self,
        experiments: Sequence[ImportedExperiment],
        benchmarks: Sequence[Document],
        orphans: int = 0,
    ) -> TransferCounts:
        """Copy everything. Nothing is written unless all of it can be.

        Raises
        ------
        DuplicateKeyError
            The storage has something of the same name that differs, and nothing was written.
        EncodingError
            The state of an algorithm cannot be decoded, or not be stored here. Nothing was written.
        BackendError
            The final count found that something is missing.
        """
        self._experiments = await self._planner.plan_experiments(experiments)
        self._benchmarks = await self._planner.plan_benchmarks(benchmarks)
        await self._write_experiments()
        await self._write_benchmarks()
        await self._write_trials()
        await self._verify()
        return TransferCounts(
            experiments=_counts(planned.outcome for planned in self._experiments),
            trials=self._count_trials(),
            benchmarks=_counts(planned.outcome for planned in self._benchmarks),
            algorithms=_counts(
                planned.outcome
                for planned in self._experiments
                if planned.source.lock.get("state") is not None
                and (planned.state is not None or planned.outcome == "present")
            ),
            orphans=orphans,
            skipped=tuple(self._bad.skipped),
            interrupted=sum(
                trial["id"] in planned.source.interrupted
                for planned in self._experiments
                for trial in planned.missing
            ),
        )

    # ----------------------------------------------------------------------------- writing

    async def _write_experiments(self) -> None:
        todo = [planned for planned in self._experiments if planned.outcome != "present"]
        for done, planned in enumerate(todo):
            self._progress(Progress(EXPERIMENTS, done, len(todo)))
            if planned.outcome == "replaced":
                await self._storage.delete_experiment(uid=planned.uid)
            lock = planned.source.lock
            # Never locked: a holder in the source does not hold the lock here.
            experiment = await self._storage.create_experiment(
                planned.config, 0, planned.state, lock.get("heartbeat")
            )
            configuration = lock.get("configuration")
            if configuration and configuration != experiment.algorithm:
                await self._collections.update(
                    ALGO, {"experiment": planned.uid}, {"configuration": configuration}
                )
        self._progress(Progress(EXPERIMENTS, len(todo), len(todo)))

    async def _write_benchmarks(self) -> None:
        todo = [planned for planned in self._benchmarks if planned.outcome != "present"]
        for planned in todo:
            if planned.outcome == "replaced":
                await self._storage.delete_benchmark({"name": planned.document["name"]})
            await self._storage.create_benchmark(planned.document)
        self._progress(Progress(BENCHMARKS, len(todo), len(todo)))

    async def _write_trials(self) -> None:
        total = sum(len(planned.missing) for planned in self._experiments)
        done = 0
        not_empty = await self._count(TRIALS) > 0
        for planned in self._experiments:
            trials = iter(list(planned.missing))
            while batch := list(islice(trials, BATCH_SIZE)):
                self._progress(Progress(TRIALS, done, total))
                taken = await self._taken_ids(batch) if not_empty else set()
                for trial in batch:
                    trial["experiment"] = planned.uid
                    if trial["_id"] in taken:
                        trial["_id"] = new_id()
                try:
                    await self._collections.insert(TRIALS, batch)
                except EncodingError:  # one of them is larger than the engine takes
                    await self._write_singly(planned, batch)
                done += len(batch)
        self._progress(Progress(TRIALS, done, total))

    async def _write_singly(self, planned: PlannedExperiment, batch: Sequence[Document]) -> None:
        """Write trials one by one, so that the one is named that the engine refuses."""
        ids = {"$in": [trial["id"] for trial in batch]}
        query = {"experiment": planned.uid, "id": ids}
        there = {one["id"] for one in await self._collections.find(TRIALS, query, {"id": 1})}
        for trial in batch:
            if trial["id"] in there:
                continue
            written = False
            with self._bad.named(TRIALS, f"trial {trial['id']} of {planned.source.title}"):
                await self._collections.insert(TRIALS, [trial])
                written = True
            if not written:
                planned.missing.remove(trial)
                del planned.source.trials[trial["id"]]

    async def _taken_ids(self, batch: Sequence[Document]) -> set[Any]:
        query = {"_id": {"$in": [trial["_id"] for trial in batch]}}
        found = await self._collections.find(TRIALS, query, {"_id": 1})
        return {document["_id"] for document in found}

    # --------------------------------------------------------------------------- verifying

    async def _verify(self) -> None:
        """Count what is stored now; workers may have added to it."""
        for planned in self._experiments:
            title, expected = planned.source.title, planned.kept + len(planned.missing)
            if not await self._count(EXPERIMENTS, _id=planned.uid):
                raise BackendError(f"{title} was written, but is not there")
            written = planned.outcome != "present"
            if written and not await self._count(ALGO, experiment=planned.uid):
                raise BackendError(f"the algorithm of {title} was written, but is not there")
            found = await self._count(TRIALS, experiment=planned.uid)
            if found < expected:
                raise BackendError(f"{title} should have {expected} trials now, but has {found}")
        for benchmark in self._benchmarks:
            name = benchmark.document["name"]
            if not await self._count(BENCHMARKS, name=name):
                raise BackendError(f"benchmark {name!r} was written, but is not there")

    async def _count(self, collection: str, **query: Any) -> int:
        return await self._collections.count(collection, query)

    def _count_trials(self) -> CollectionCounts:
        counts = CollectionCounts()
        for planned in self._experiments:
            written = len(planned.missing)
            if planned.outcome == "replaced":
                counts = replace(counts, replaced=counts.replaced + written)
            else:
                present = counts.present + len(planned.source.trials) - written
                counts = replace(counts, copied=counts.copied + written, present=present)
        return counts


def _counts(outcomes: Iterable[Outcome]) -> CollectionCounts:
    counter: Counter[str] = Counter(outcomes)
    return CollectionCounts(**counter)
