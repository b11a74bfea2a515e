"""The plan of an import: what the storage has already, what is missing, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.ids import new_id
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import Document
from aiostorage.orion.differences import differing_field, differing_trial, same_benchmark
from aiostorage.orion.imported_experiment import BadRecords, ImportedExperiment
from aiostorage.orion.references import replace_ids

__all__ = ["ImportPlanner", "Outcome", "PlannedBenchmark", "PlannedExperiment"]

Outcome: TypeAlias = Literal["copied", "present", "replaced"]
"""What the import does with a document: a field of `CollectionCounts`."""


@dataclass(slots=True)
class PlannedExperiment:
    """What the import has to do for one experiment.

    Parameters
    ----------
    source
        The experiment, as the source has it.
    config
        Its document, with the ids that it has in the destination.
    outcome
        What happens to the document.
    missing
        The trials that have to be written.
    kept
        The number of trials that stay in the destination.
    state
        The state of the algorithm, if it has to be written.
    """

    source: ImportedExperiment
    config: Document
    outcome: Outcome
    missing: list[Document] = field(default_factory=list)
    kept: int = 0
    state: Any = None

    @property
    def uid(self) -> Any:
        """The ``_id`` in the destination."""
        return self.config["_id"]


@dataclass(frozen=True, slots=True)
class PlannedBenchmark:
    """What the import has to do for one benchmark."""

    document: Document
    outcome: Outcome


class ImportPlanner:
    """Compares a source with a storage, and writes nothing.

    Parameters
    ----------
    storage
        The destination.
    origin
        The source, for messages.
    decode_state
        Makes the state of an algorithm from the ``state`` of `ImportedExperiment.lock`. It is
        called in a thread.
    overwrite
        Plan to replace what differs instead of refusing it.
    bad
        What becomes of states that cannot be stored.
    """

    def __init__(
        self,
        storage: Storage,
        origin: str,
        decode_state: Callable[[Any], Any],
        *,
        overwrite: bool,
        bad: BadRecords | None = None,
    ) -> None:
        self._storage = storage
        self._bad = bad or BadRecords()
        self._collections = CollectionAccess(storage)
        self._origin = origin
        self._decode_state = decode_state
        self._overwrite = overwrite

    async def plan_experiments(
        self, experiments: Sequence[ImportedExperiment]
    ) -> list[PlannedExperiment]:
        """Return the plan for each experiment, in the same order.

        Raises
        ------
        DuplicateKeyError
            The storage has an experiment of the same name, or a trial, that differs.
        EncodingError
            The state of an algorithm cannot be decoded, or cannot be stored here.
        """
        stored = {
            (config["name"], _version(config)): config
            for config in await self._storage.fetch_experiments({})
        }
        ids = await self._choose_ids(experiments, stored)
        plan = []
        for source in experiments:
            config = replace_ids(source.config, ids[source.uid], ids)
            found = stored.get(source.key)
            planned = PlannedExperiment(source, config, "copied" if found is None else "present")
            planned.missing = list(source.trials.values())
            if found is not None:
                await self._compare(planned, found)
            if planned.outcome != "present":
                await self._plan_state(planned)
            plan.append(planned)
        return plan

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
            if uid in taken or await self._collections.count(TRIALS, {"experiment": uid}):
                uid = new_id()
            taken.add(uid)
            ids[source.uid] = uid
        return ids

    async def _compare(self, planned: PlannedExperiment, stored: Mapping[str, Any]) -> None:
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

    async def _plan_state(self, planned: PlannedExperiment) -> None:
        encoded = planned.source.lock.get("state")
        with self._bad.named(ALGO, f"the algorithm's state of {planned.source.title}"):
            state = await anyio.to_thread.run_sync(self._decode_state, encoded)
            # Encode it: nothing else shows whether the storage's codec supports it.
            records = self._storage._lock_records  # noqa: SLF001  there is no public way
            await records.document(planned.uid, {}, 0, state)
            planned.state = state

    async def plan_benchmarks(self, benchmarks: Sequence[Document]) -> list[PlannedBenchmark]:
        """Return the plan for each benchmark, in the same order.

        Raises
        ------
        DuplicateKeyError
            The storage has a benchmark of the same name that differs.
        """
        stored = {found["name"]: found for found in await self._storage.fetch_benchmark({})}
        taken = {found["_id"] for found in stored.values()}
        plan = []
        for benchmark in benchmarks:
            found = stored.get(benchmark["name"])
            outcome: Outcome = "copied"
            if found is not None:
                outcome = "present" if same_benchmark(benchmark, found) else "replaced"
            if outcome == "replaced" and not self._overwrite:
                raise self._refusal(BENCHMARKS, f"benchmark {benchmark['name']!r}", "but differs")
            uid = new_id() if benchmark["_id"] in taken else benchmark["_id"]
            if found is not None:
                uid = found["_id"]
            plan.append(PlannedBenchmark({**benchmark, "_id": uid}, outcome))
        return plan

    def _refusal(self, collection: str, title: str, how: str) -> DuplicateKeyError:
        return DuplicateKeyError(
            f"{title} of {self._origin} is in {self._storage.location} already, {how}; nothing was "
            "written (overwrite replaces the whole of it)",
            collection=collection,
        )


def _version(config: Mapping[str, Any]) -> int:
    version = config.get("version")
    return 1 if version is None else version
