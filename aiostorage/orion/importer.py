"""Puts experiments of another store into ours: looks first, then writes what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.ids import new_id
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage.errors import BackendError, DuplicateKeyError, EncodingError
from aiostorage.operations import Document
from aiostorage.orion.conversion import (
    Study,
    differing_field,
    differing_trial,
    same_benchmark,
    with_references,
)
from aiostorage.orion.progress import Count, Counts, Progress

__all__ = ["Importer"]

BATCH: Final = 250
"""Trials that are inserted in one transaction."""


@dataclass(slots=True)
class _Target:
    """What has to be done for one study."""

    study: Study
    config: Document
    verdict: str
    """What happens to the experiment: a field of `Count`."""
    missing: list[Document] = field(default_factory=list)
    before: int = 0
    """Trials that stay in the destination."""
    state: Any = None
    """The state of the algorithm, if it has to be written."""

    @property
    def uid(self) -> Any:
        return self.config["_id"]


class Importer:
    """One import; `run` it once.

    Parameters
    ----------
    origin
        Where the studies come from, for people to read.
    state_of
        Makes the state of an algorithm of what its record in `Study.lock` holds.
    """

    def __init__(
        self,
        storage: Storage,
        origin: str,
        state_of: Callable[[Any], Any],
        *,
        overwrite: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._storage = storage
        self._collections = CollectionAccess(storage)
        self._origin = origin
        self._state_of = state_of
        self._overwrite = overwrite
        self._progress = progress or (lambda _: None)
        self._targets: list[_Target] = []
        self._benchmarks: list[tuple[Document, str]] = []

    async def run(
        self, studies: Sequence[Study], benchmarks: Sequence[Document], orphans: int = 0
    ) -> Counts:
        """Copy; nothing is written before it is known that all of it may be."""
        await self._look(studies)
        await self._look_at_benchmarks(benchmarks)
        await self._write_experiments()
        await self._write_benchmarks()
        await self._write_trials()
        await self._verify()
        return Counts(
            experiments=_counted(target.verdict for target in self._targets),
            trials=self._count_trials(),
            benchmarks=_counted(verdict for _, verdict in self._benchmarks),
            algorithms=_counted(
                target.verdict
                for target in self._targets
                if target.study.lock.get("state") is not None
            ),
            orphans=orphans,
        )

    # ----------------------------------------------------------------------------- looking

    async def _look(self, studies: Sequence[Study]) -> None:
        stored = {
            (config["name"], _version(config)): config
            for config in await self._storage.fetch_experiments({})
        }
        ids = await self._ids(studies, stored)
        for study in studies:
            config = with_references(study.config, ids[study.uid], ids)
            found = stored.get(study.key)
            target = _Target(study, config, "copied" if found is None else "present")
            target.missing = list(study.trials.values())
            if found is not None:
                await self._compare(target, found)
            if target.verdict != "present":
                await self._decode_state(target)
            self._targets.append(target)

    async def _ids(
        self, studies: Sequence[Study], stored: Mapping[Any, Document]
    ) -> dict[Any, Any]:
        """Settle which experiment gets which ``_id``; one that is there keeps the one it has."""
        records = await self._collections.find(ALGO, {}, {"experiment": 1})
        taken = {config["_id"] for config in stored.values()}
        taken.update(record["experiment"] for record in records)  # also what lost its experiment
        ids = {study.uid: stored[study.key]["_id"] for study in studies if study.key in stored}
        for study in studies:
            if study.uid in ids:
                continue
            uid = study.config["_id"]
            if uid in taken or await self._count(TRIALS, experiment=uid):
                uid = new_id()
            taken.add(uid)
            ids[study.uid] = uid
        return ids

    async def _compare(self, target: _Target, stored: Mapping[str, Any]) -> None:
        """Leave what is there alone or, if that is wanted, note that it has to go."""
        title = target.study.title
        name = differing_field(target.config, stored)
        if name is not None:
            if not self._overwrite:
                raise self._refusal(EXPERIMENTS, title, f"with another {name}")
            target.verdict = "replaced"
            return
        selection = {"id": 1, "status": 1, "results": 1}
        there = await self._collections.find(TRIALS, {"experiment": target.uid}, selection)
        target.before = len(there)
        for document in there:
            trial = target.study.trials.get(document["id"])
            how = None if trial is None else differing_trial(trial, document)
            if how is not None and not self._overwrite:
                raise self._refusal(TRIALS, f"trial {document['id']} of {title}", f"but is {how}")
            if how is not None:
                target.verdict, target.before = "replaced", 0
                return
        known = {document["id"] for document in there}
        target.missing = [t for uid, t in target.study.trials.items() if uid not in known]

    async def _decode_state(self, target: _Target) -> None:
        encoded = target.study.lock.get("state")
        try:
            target.state = await anyio.to_thread.run_sync(self._state_of, encoded)
            # only this says whether the storage's codec can hold it
            await self._storage._lock_records.document(target.uid, {}, 0, target.state)  # noqa: SLF001
        except EncodingError as error:
            raise EncodingError(
                f"the algorithm's state of {target.study.title}: {error}", path=error.path
            ) from error

    async def _look_at_benchmarks(self, benchmarks: Sequence[Document]) -> None:
        stored = {found["name"]: found for found in await self._storage.fetch_benchmark({})}
        taken = {found["_id"] for found in stored.values()}
        for benchmark in benchmarks:
            found = stored.get(benchmark["name"])
            verdict = "copied"
            if found is not None:
                verdict = "present" if same_benchmark(benchmark, found) else "replaced"
            if verdict == "replaced" and not self._overwrite:
                raise self._refusal(BENCHMARKS, f"benchmark {benchmark['name']!r}", "but differs")
            uid = new_id() if benchmark["_id"] in taken else benchmark["_id"]
            if found is not None:
                uid = found["_id"]
            self._benchmarks.append(({**benchmark, "_id": uid}, verdict))

    def _refusal(self, collection: str, title: str, how: str) -> DuplicateKeyError:
        return DuplicateKeyError(
            f"{title} of {self._origin} is in {self._storage.location} already, {how}; nothing was "
            "written (overwrite replaces the whole of it)",
            collection=collection,
        )

    # ----------------------------------------------------------------------------- writing

    async def _write_experiments(self) -> None:
        todo = [target for target in self._targets if target.verdict != "present"]
        for done, target in enumerate(todo):
            self._progress(Progress(EXPERIMENTS, done, len(todo)))
            if target.verdict == "replaced":
                await self._storage.delete_experiment(uid=target.uid)
            lock = target.study.lock
            # never locked: whoever held it in the other store does not hold it here
            experiment = await self._storage.create_experiment(
                target.config, 0, target.state, lock.get("heartbeat")
            )
            configuration = lock.get("configuration")
            if configuration and configuration != experiment.algorithm:
                await self._collections.update(
                    ALGO, {"experiment": target.uid}, {"configuration": configuration}
                )
        self._progress(Progress(EXPERIMENTS, len(todo), len(todo)))

    async def _write_benchmarks(self) -> None:
        todo = [entry for entry in self._benchmarks if entry[1] != "present"]
        for benchmark, verdict in todo:
            if verdict == "replaced":
                await self._storage.delete_benchmark({"name": benchmark["name"]})
            await self._storage.create_benchmark(benchmark)
        self._progress(Progress(BENCHMARKS, len(todo), len(todo)))

    async def _write_trials(self) -> None:
        total = sum(len(target.missing) for target in self._targets)
        done = 0
        shared = await self._count(TRIALS) > 0
        for target in self._targets:
            trials = iter(target.missing)
            while batch := list(islice(trials, BATCH)):
                self._progress(Progress(TRIALS, done, total))
                taken = await self._taken(batch) if shared else set()
                for trial in batch:
                    trial["experiment"] = target.uid
                    if trial["_id"] in taken:
                        trial["_id"] = new_id()
                await self._collections.insert(TRIALS, batch)
                done += len(batch)
        self._progress(Progress(TRIALS, done, total))

    async def _taken(self, batch: Sequence[Document]) -> set[Any]:
        query = {"_id": {"$in": [trial["_id"] for trial in batch]}}
        found = await self._collections.find(TRIALS, query, {"_id": 1})
        return {document["_id"] for document in found}

    # --------------------------------------------------------------------------- verifying

    async def _verify(self) -> None:
        """Count what is there now; workers may have added to it."""
        for target in self._targets:
            title, wanted = target.study.title, target.before + len(target.missing)
            if not await self._count(EXPERIMENTS, _id=target.uid):
                raise BackendError(f"{title} was written, but is not there")
            if target.verdict != "present" and not await self._count(ALGO, experiment=target.uid):
                raise BackendError(f"the algorithm of {title} was written, but is not there")
            found = await self._count(TRIALS, experiment=target.uid)
            if found < wanted:
                raise BackendError(f"{title} should have {wanted} trials now, but has {found}")
        for benchmark, _ in self._benchmarks:
            if not await self._count(BENCHMARKS, name=benchmark["name"]):
                raise BackendError(f"benchmark {benchmark['name']!r} was written, but is not there")

    async def _count(self, collection: str, **query: Any) -> int:
        return await self._collections.count(collection, query)

    def _count_trials(self) -> Count:
        count = Count()
        for target in self._targets:
            written = len(target.missing)
            if target.verdict == "replaced":
                count = replace(count, replaced=count.replaced + written)
            else:
                present = count.present + len(target.study.trials) - written
                count = replace(count, copied=count.copied + written, present=present)
        return count


def _counted(verdicts: Iterable[str]) -> Count:
    listed = list(verdicts)
    return Count(**{name: listed.count(name) for name in ("copied", "present", "replaced")})


def _version(config: Mapping[str, Any]) -> int:
    version = config.get("version")
    return 1 if version is None else version
