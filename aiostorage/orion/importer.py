"""The import of experiments into a storage: first a plan, then the writes that it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

import anyio.to_thread

from aiostorage._core.ids import new_id
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage.errors import BackendError, DuplicateKeyError, EncodingError
from aiostorage.operations import Document
from aiostorage.orion.differences import differing_field, differing_trial, same_benchmark
from aiostorage.orion.imported_experiment import ImportedExperiment
from aiostorage.orion.progress import CollectionCounts, Progress, TransferCounts
from aiostorage.orion.references import replace_ids

__all__ = ["Importer"]

BATCH_SIZE: Final = 250
"""The number of trials that are inserted in one transaction."""

_Outcome: TypeAlias = Literal["copied", "present", "replaced"]
"""What the import does with a document: a field of `CollectionCounts`."""


@dataclass(slots=True)
class _PlannedExperiment:
    """What the import has to do for one experiment."""

    source: ImportedExperiment
    config: Document
    """The document, with the ids that it has in the destination."""
    outcome: _Outcome
    missing: list[Document] = field(default_factory=list)
    """Trials that have to be written."""
    kept: int = 0
    """The number of trials that stay in the destination."""
    state: Any = None
    """The state of the algorithm, if it has to be written."""

    @property
    def uid(self) -> Any:
        return self.config["_id"]


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
    """

    def __init__(
        self,
        storage: Storage,
        origin: str,
        decode_state: Callable[[Any], Any],
        *,
        overwrite: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._storage = storage
        self._collections = storage.collections
        self._origin = origin
        self._decode_state = decode_state
        self._overwrite = overwrite
        self._progress = progress or (lambda _: None)
        self._experiments: list[_PlannedExperiment] = []
        self._benchmarks: list[tuple[Document, _Outcome]] = []

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
        await self._plan_experiments(experiments)
        await self._plan_benchmarks(benchmarks)
        await self._write_experiments()
        await self._write_benchmarks()
        await self._write_trials()
        await self._verify()
        return TransferCounts(
            experiments=_counts(planned.outcome for planned in self._experiments),
            trials=self._count_trials(),
            benchmarks=_counts(outcome for _, outcome in self._benchmarks),
            algorithms=_counts(
                planned.outcome
                for planned in self._experiments
                if planned.source.lock.get("state") is not None
            ),
            orphans=orphans,
        )

    # ---------------------------------------------------------------------------- planning

    async def _plan_experiments(self, experiments: Sequence[ImportedExperiment]) -> None:
        stored = {
            (config["name"], _version(config)): config
            for config in await self._storage.fetch_experiments({})
        }
        ids = await self._choose_ids(experiments, stored)
        for source in experiments:
            config = replace_ids(source.config, ids[source.uid], ids)
            found = stored.get(source.key)
            planned = _PlannedExperiment(source, config, "copied" if found is None else "present")
            planned.missing = list(source.trials.values())
            if found is not None:
                await self._compare(planned, found)
            if planned.outcome != "present":
                await self._plan_state(planned)
            self._experiments.append(planned)

    async def _choose_ids(
        self, experiments: Sequence[ImportedExperiment], stored: Mapping[Any, Document]
    ) -> dict[Any, Any]:
        """Choose the ``_id`` of each experiment. One that is stored already keeps its ``_id``."""
        records = await self._collections.find(ALGO, {}, {"experiment": 1})
        taken = {config["_id"] for config in stored.values()}
        taken.update(record["experiment"] for record in records)  # also of deleted experiments
        ids = {
            source.uid: stored[source.key]["_id"] for source in experiments if source.key in stored
        }
        for source in experiments:
            if source.uid in ids:
                continue
            uid = source.config["_id"]
            if uid in taken or await self._count(TRIALS, experiment=uid):
                uid = new_id()
            taken.add(uid)
            ids[source.uid] = uid
        return ids

    async def _compare(self, planned: _PlannedExperiment, stored: Mapping[str, Any]) -> None:
        """Plan to keep an experiment that is stored or, if it differs, replace or refuse it."""
        title = planned.source.title
        name = differing_field(planned.config, stored)
        if name is not None:
            if not self._overwrite:
                raise self._refusal(EXPERIMENTS, title, f"with another {name}")
            planned.outcome = "replaced"
            return
        selection = {"id": 1, "status": 1, "results": 1}
        present = await self._collections.find(TRIALS, {"experiment": planned.uid}, selection)
        for document in present:
            trial = planned.source.trials.get(document["id"])
            how = None if trial is None else differing_trial(trial, document)
            if how is not None and not self._overwrite:
                raise self._refusal(TRIALS, f"trial {document['id']} of {title}", f"but is {how}")
            if how is not None:
                planned.outcome = "replaced"
                return
        planned.kept = len(present)
        known = {document["id"] for document in present}
        planned.missing = [t for uid, t in planned.source.trials.items() if uid not in known]

    async def _plan_state(self, planned: _PlannedExperiment) -> None:
        encoded = planned.source.lock.get("state")
        try:
            planned.state = await anyio.to_thread.run_sync(self._decode_state, encoded)
            # Encode it: nothing else shows whether the storage's codec supports it.
            await self._storage._locks.record(planned.uid, {}, 0, planned.state)  # noqa: SLF001
        except EncodingError as error:
            raise EncodingError(
                f"the algorithm's state of {planned.source.title}: {error}", path=error.path
            ) from error

    async def _plan_benchmarks(self, benchmarks: Sequence[Document]) -> None:
        stored = {found["name"]: found for found in await self._storage.fetch_benchmark({})}
        taken = {found["_id"] for found in stored.values()}
        for benchmark in benchmarks:
            found = stored.get(benchmark["name"])
            outcome: _Outcome = "copied"
            if found is not None:
                outcome = "present" if same_benchmark(benchmark, found) else "replaced"
            if outcome == "replaced" and not self._overwrite:
                raise self._refusal(BENCHMARKS, f"benchmark {benchmark['name']!r}", "but differs")
            uid = new_id() if benchmark["_id"] in taken else benchmark["_id"]
            if found is not None:
                uid = found["_id"]
            self._benchmarks.append(({**benchmark, "_id": uid}, outcome))

    def _refusal(self, collection: str, title: str, how: str) -> DuplicateKeyError:
        return DuplicateKeyError(
            f"{title} of {self._origin} is in {self._storage.location} already, {how}; nothing was "
            "written (overwrite replaces the whole of it)",
            collection=collection,
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
        todo = [entry for entry in self._benchmarks if entry[1] != "present"]
        for benchmark, outcome in todo:
            if outcome == "replaced":
                await self._storage.delete_benchmark({"name": benchmark["name"]})
            await self._storage.create_benchmark(benchmark)
        self._progress(Progress(BENCHMARKS, len(todo), len(todo)))

    async def _write_trials(self) -> None:
        total = sum(len(planned.missing) for planned in self._experiments)
        done = 0
        not_empty = await self._count(TRIALS) > 0
        for planned in self._experiments:
            trials = iter(planned.missing)
            while batch := list(islice(trials, BATCH_SIZE)):
                self._progress(Progress(TRIALS, done, total))
                taken = await self._taken_ids(batch) if not_empty else set()
                for trial in batch:
                    trial["experiment"] = planned.uid
                    if trial["_id"] in taken:
                        trial["_id"] = new_id()
                await self._collections.insert(TRIALS, batch)
                done += len(batch)
        self._progress(Progress(TRIALS, done, total))

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
        for benchmark, _ in self._benchmarks:
            if not await self._count(BENCHMARKS, name=benchmark["name"]):
                raise BackendError(f"benchmark {benchmark['name']!r} was written, but is not there")

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


def _counts(outcomes: Iterable[_Outcome]) -> CollectionCounts:
    counter: Counter[str] = Counter(outcomes)
    return CollectionCounts(**counter)


def _version(config: Mapping[str, Any]) -> int:
    version = config.get("version")
    return 1 if version is None else version
