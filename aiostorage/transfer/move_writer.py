"""The writing part of a load or a copy: it carries out the plan, and compares afterwards.

An experiment is written last, together with its lock and the last of its trials. Until then its
trials are not seen, since they belong to no experiment; a second load finds them and goes on.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, SETTINGS, TRIALS
from aiostorage._core.taken_ids import note_of_taken_id
from aiostorage.errors import BackendError, DuplicateKeyError, IncompleteCopy
from aiostorage.operations import Compare, Delete, Document, Insert, Operation
from aiostorage.transfer.checksums import Checksum, same_document
from aiostorage.transfer.move_plan import (
    Move,
    MovePlan,
    PlannedExperimentMove,
    derived_id,
    set_free,
)
from aiostorage.transfer.record_sources import PAGE_SIZE, StoreSource
from aiostorage.transfer.transfer_reports import MoveProgress

__all__ = ["MoveWriter"]

BATCH_SIZE: Final = 500
"""Trials that are inserted in one transaction."""

REWRITING: Final = frozenset({"track"})
"""Engines that write the whole store in each transaction: an experiment is written in one."""


@dataclass(slots=True)
class _Open:
    """An experiment that is being written.

    Attributes
    ----------
    resumes
        Whether an earlier load has left trials of it.
    waiting
        Trials that have yet to be written.
    seen
        The ids of all its trials in the destination; only if it `resumes`.
    """

    planned: PlannedExperimentMove
    resumes: bool
    lock: Document | None = None
    waiting: list[Document] = field(default_factory=list)
    seen: set[Any] = field(default_factory=set)
    trials: int = 0


class MoveWriter:
    """Writes a source into a storage, once.

    Parameters
    ----------
    plan
        What to write.
    """

    def __init__(self, move: Move, plan: MovePlan) -> None:
        self._move = move
        self._collections = CollectionAccess(move.destination)
        self._gateway = move.destination._gateway  # noqa: SLF001  an adapter of this package
        self._whole = self._gateway.driver.name in REWRITING
        self._plan = plan
        self._uids = plan.uids
        self._expected = Checksum(move.resolution)
        self._empty = True
        self._total = 0

    async def write(self) -> None:
        """Write all records of the plan.

        Raises
        ------
        BackendError
            An experiment has vanished from the source.
        """
        written = [p for p in self._plan.experiments.values() if p.is_written]
        self._total = sum(one.trials + 2 for one in written) + len(self._plan.benchmarks)
        self._move.report(MoveProgress("writing", 0, self._total))
        self._empty = await self._collections.count(TRIALS, {}) == 0
        if written:
            await self._write_experiments(written)
        await self._write_benchmarks()

    async def _write_experiments(self, written: list[PlannedExperimentMove]) -> None:
        left = {id(planned) for planned in written}
        current: _Open | None = None
        async for collection, documents in self._move.source.pages():
            if collection == BENCHMARKS:
                continue
            if collection == EXPERIMENTS:
                if current is not None:
                    await self._finish(current)
                current = None
                planned = self._plan.experiments.get(documents[0]["_id"])
                if planned is not None and planned.is_written:
                    left.discard(id(planned))
                    current = await self._begin(planned)
            elif current is not None and collection == ALGO:
                (current.lock,) = documents
            elif current is not None:
                await self._add(current, documents)
        if current is not None:
            await self._finish(current)
        if left:
            raise BackendError(
                f"{len(left)} experiments have vanished from {self._move.source.location} "
                "meanwhile; load again"
            )

    async def _begin(self, planned: PlannedExperimentMove) -> _Open:
        if planned.replaces is not None:
            await self._move.destination.delete_experiment(uid=planned.replaces)
        await self._take_id(planned)
        left_over = 0
        if not self._empty:
            left_over = await self._collections.count(TRIALS, {"experiment": planned.uid})
        return _Open(planned, left_over > 0)

    async def _take_id(self, planned: PlannedExperimentMove) -> None:
        """Make sure that the trials which are there by this id are those of an earlier load."""
        uid = planned.uid
        if type(uid) is int:
            with suppress(DuplicateKeyError):  # an earlier load has taken it, or it is taken
                await self._gateway.execute_once(Insert(SETTINGS, (note_of_taken_id(uid),)))
        if await self._collections.count(EXPERIMENTS, {"_id": uid}):
            raise DuplicateKeyError(
                f"{self._move.destination.location} has a new experiment by the id {uid!r}, which "
                f"{planned.key[0]!r} was to get; nothing of that one was written. Load again: it "
                "gets another id",
                collection=EXPERIMENTS,
                fields=("_id",),
                values=(uid,),
            )

    async def _add(self, current: _Open, documents: list[Document]) -> None:
        taken: set[Any] = set()
        if not self._empty:
            taken = await self._taken(documents, current.planned.uid)
        trials = await anyio.to_thread.run_sync(
            partial(self._prepare, current.planned, TRIALS, documents, taken)
        )
        current.trials += len(trials)
        if current.resumes:
            current.seen.update(trial["_id"] for trial in trials)
            trials = await self._missing(trials)
        current.waiting += trials
        while len(current.waiting) > BATCH_SIZE and not self._whole:
            batch, current.waiting = current.waiting[:BATCH_SIZE], current.waiting[BATCH_SIZE:]
            await self._gateway.execute_once(Insert(TRIALS, tuple(batch)))
            self._told()

    async def _finish(self, current: _Open) -> None:
        """Write the experiment, its lock and the last of its trials: now it can be seen."""
        planned = current.planned
        if current.resumes:
            await self._delete_others(planned.uid, current.seen)
        (config,) = self._prepare(planned, EXPERIMENTS, [planned.config], set())
        # the first one is the last that a server without transactions carries out
        operations: list[Operation[Any]] = [Insert(EXPERIMENTS, (config,))]
        if current.waiting:
            operations.append(Insert(TRIALS, tuple(current.waiting)))
        # without its experiment, one is left by a deletion without cascade, or by a crash
        await self._collections.delete(ALGO, {"experiment": planned.uid})
        if current.lock is not None:
            uid = current.lock["_id"]
            taken = {uid} if await self._collections.count(ALGO, {"_id": uid}) else set()
            locks = self._prepare(planned, ALGO, [current.lock], taken)
            operations.append(Insert(ALGO, tuple(locks)))
        await self._gateway.transact_once(operations)
        self._told()

    def _prepare(
        self,
        planned: PlannedExperimentMove,
        collection: str,
        documents: list[Document],
        taken: set[Any],
    ) -> list[Document]:
        """Return records in the form that they will have in the destination."""
        made = []
        for document in documents:
            record = dict(document)
            if not self._move.keep_reservations:
                set_free(collection, record)
            if collection == EXPERIMENTS:
                self._rename(record, planned)
            else:
                record["experiment"] = planned.uid
                if record["_id"] in taken:
                    record["_id"] = derived_id(collection, record["_id"], planned.uid)
            made.append(record)
        self._expected.add(collection, made)
        return made

    def _rename(self, config: Document, planned: PlannedExperimentMove) -> None:
        config["_id"] = planned.uid
        if planned.version != config.get("version"):
            config["version"] = planned.version
        refers = config.get("refers")
        if isinstance(refers, dict):
            ancestors = {
                n: refers[n] for n in ("root_id", "parent_id") if refers.get(n) is not None
            }
            mapped = {name: self._uids.get(uid, uid) for name, uid in ancestors.items()}
            config["refers"] = {**refers, **mapped}

    async def _taken(self, documents: list[Document], uid: Any) -> set[Any]:
        """Return the ids that trials of other experiments have."""
        query = {"_id": {"$in": [one["_id"] for one in documents]}, "experiment": {"$ne": uid}}
        found = await self._collections.find(TRIALS, query, {"_id": 1})
        return {one["_id"] for one in found}

    async def _missing(self, trials: list[Document]) -> list[Document]:
        """Return the trials that an earlier load has not written; those that it wrote stay."""
        query = {"_id": {"$in": [trial["_id"] for trial in trials]}}
        there = {one["_id"]: one for one in await self._collections.find(TRIALS, query)}
        missing, others = [], []
        for trial in trials:
            found = there.get(trial["_id"])
            if found is not None and same_document(TRIALS, trial, found, self._move.resolution):
                continue
            missing.append(trial)
            if found is not None:
                others.append(trial["_id"])
        if others:  # it was written from an earlier state of the source
            await self._gateway.execute_once(Delete(TRIALS, Compare("_id", "in", tuple(others))))
        return missing

    async def _delete_others(self, uid: Any, seen: set[Any]) -> None:
        """Delete trials of the incomplete experiment that are not in the source."""
        others: list[Any] = []
        async for page in self._collections.pages(TRIALS, {"experiment": uid}, PAGE_SIZE):
            others += (one["_id"] for one in page if one["_id"] not in seen)
        for start in range(0, len(others), PAGE_SIZE):
            ids = tuple(others[start : start + PAGE_SIZE])
            await self._gateway.execute_once(Delete(TRIALS, Compare("_id", "in", ids)))

    async def _write_benchmarks(self) -> None:
        for benchmark, replaces in self._plan.benchmarks:
            self._expected.add(BENCHMARKS, [benchmark])
            if replaces is not None:
                await self._collections.delete(BENCHMARKS, {"_id": replaces})
            await self._gateway.execute_once(Insert(BENCHMARKS, (benchmark,)))
            self._told()

    def _told(self) -> None:
        self._move.report(
            MoveProgress("writing", min(self._expected.count, self._total), self._total)
        )

    # ------------------------------------------------------------------------------ the check

    async def check(self) -> str:
        """Read the written records again, and return their hash.

        Raises
        ------
        IncompleteCopy
            The destination does not have these records.
        """
        found = Checksum(self._move.resolution)
        total = self._expected.count
        store = StoreSource(self._move.destination)
        for planned in self._plan.experiments.values():
            if not planned.is_written:
                continue
            async for collection, documents in store.of_experiment(planned.uid):
                await anyio.to_thread.run_sync(found.add, collection, documents)
                self._move.report(MoveProgress("checking", min(found.count, total), total))
        for benchmark, _ in self._plan.benchmarks:
            query = {"name": benchmark["name"]}
            found.add(BENCHMARKS, await self._collections.find(BENCHMARKS, query))
        self._move.report(MoveProgress("checking", total, total))
        if found != self._expected:
            raise IncompleteCopy(
                f"{self._move.destination.location} does not have what was written: "
                f"{found.count:,} records are there instead of {total:,}, or their values differ. "
                "Workers may have changed them meanwhile; if not, load again with overwrite"
            )
        return found.text.partition(":")[2]
