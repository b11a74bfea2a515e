"""The plan of a load or a copy: which records the destination has, and what happens to the others.

A record keeps its ``_id`` in the destination, unless another record there has it. The id that takes
its place is computed from the content, so that the same plan is made when a load continues after an
interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import anyio.to_thread

from aiostorage._core.collection_access import CollectionAccess
from aiostorage._core.documents import document_of
from aiostorage._core.layout import ALGO, BENCHMARKS, EXPERIMENTS, TRIALS
from aiostorage._core.storage import Storage
from aiostorage._core.versions import FIRST_VERSION, version_of
from aiostorage.errors import DuplicateKeyError, EncodingError
from aiostorage.operations import Document
from aiostorage.orion.conversion import interrupt_reserved
from aiostorage.transfer.checksums import Checksum, content_of
from aiostorage.transfer.dump_format import name_of, readable
from aiostorage.transfer.record_sources import PAGE_SIZE, RecordSource, StoreSource
from aiostorage.transfer.transfer_reports import MoveOutcome, MoveProgress, Resolve

__all__ = [
    "Move",
    "MovePlan",
    "MovePlanner",
    "PlannedExperimentMove",
    "derived_id",
    "set_free",
]


@dataclass(slots=True)
class PlannedExperimentMove:
    """The plan for one experiment.

    Parameters
    ----------
    config
        Its document in the source.
    content
        The hash of the content of its records, if the destination may have the same.
    trials
        The number of its trials.
    outcome, uid, version
        What will happen to it, and its ``_id`` and version in the destination.
    replaces
        The ``_id`` of the experiment in the destination that it replaces.
    """

    config: Document
    content: Checksum
    trials: int = 0
    interrupted: int = 0
    unlocked: int = 0
    outcome: MoveOutcome = "copied"
    uid: Any = None
    version: int | None = None
    replaces: Any = None

    @property
    def key(self) -> tuple[str, int]:
        """The name and the version in the source."""
        return self.config["name"], version_of(self.config)

    @property
    def is_written(self) -> bool:
        """Whether any part of it has to be written."""
        return self.outcome not in ("present", "ignored")


@dataclass(slots=True)
class MovePlan:
    """The plan of a whole load or copy.

    Attributes
    ----------
    experiments
        By the ``_id`` in the source.
    benchmarks
        The benchmarks to write, each with the ``_id`` of the one that it replaces.
    present_benchmarks
        The number of those that stay as they are in the destination.
    """

    experiments: dict[Any, PlannedExperimentMove] = field(default_factory=dict)
    benchmarks: list[tuple[Document, Any]] = field(default_factory=list)
    present_benchmarks: int = 0

    @property
    def is_needed(self) -> bool:
        """Whether anything has to be written."""
        return bool(self.benchmarks) or any(p.is_written for p in self.experiments.values())

    @property
    def uids(self) -> dict[Any, Any]:
        """The ids of the experiments in the destination by those in the source."""
        return {uid: planned.uid for uid, planned in self.experiments.items()}


def derived_id(*parts: Any) -> str:
    """Return the ``_id`` to use in place of one that is taken."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def set_free(collection: str, document: Document) -> bool:
    """Remove the worker from a record, as it does not use the copy; return whether it had one."""
    if collection == TRIALS:
        return interrupt_reserved(document)
    if collection == ALGO and (document.get("locked") or document.get("owner") is not None):
        document |= dict.fromkeys(("owner", "since", "expires"), None) | {"locked": 0}
        return True
    return False


@dataclass(frozen=True, slots=True)
class Move:
    """What a load or a copy was asked to do.

    Attributes
    ----------
    source, destination
        Where to read records, and where they will be written.
    resolve
        What to do with other records of the same names; None to refuse them.
    keep_reservations
        Whether reserved trials and held locks stay as they are.
    report
        Called with the progress.
    has_versions
        Whether what is moved may get another version.
    """

    source: RecordSource
    destination: Storage
    resolve: Resolve | None
    keep_reservations: bool
    report: Callable[[MoveProgress], None]
    has_versions: bool = True

    @property
    def resolution(self) -> timedelta:
        """How finely the destination keeps times."""
        return self.destination._gateway.driver.resolution  # noqa: SLF001  an adapter


class MovePlanner:
    """Reads a source and compares it with a storage; writes nothing."""

    def __init__(self, move: Move) -> None:
        self._move = move
        self._collections = CollectionAccess(move.destination)
        self._conflicts: list[str] = []

    async def plan(self) -> MovePlan:
        """Compare the source with the destination, and return the plan.

        Raises
        ------
        DuplicateKeyError
            The destination has another experiment or benchmark of the same name, and `resolve` does
            not say what to do with it; or a benchmark would have to get another version.
        EncodingError
            A record of the source cannot be stored.
        """
        plan, benchmarks = await self._read()
        stored = readable(
            EXPERIMENTS,
            await self._collections.find(EXPERIMENTS, {}),
            self._move.destination.location,
        )
        versions: dict[Any, set[int]] = {}
        for config in (*stored, *(one.config for one in plan.experiments.values())):
            versions.setdefault(config.get("name"), set()).add(version_of(config))
        taken = {config["_id"] for config in stored}
        names = {config.get("name") for config in stored}
        await self._hash(
            {
                uid: planned
                for uid, planned in plan.experiments.items()
                if planned.config["name"] in names or uid in taken
            }
        )
        for planned in plan.experiments.values():
            await self._place(planned, stored, versions, taken)
        await self._place_benchmarks(plan, benchmarks)
        if self._conflicts:
            raise self._refusal()
        return plan

    async def _read(self) -> tuple[MovePlan, list[Document]]:
        """Read the whole source, and check that each record can be stored."""
        plan, benchmarks = MovePlan(), list[Document]()
        total, done = await self._move.source.count(), 0
        self._move.report(MoveProgress("reading", 0, total))
        async for collection, documents in self._move.source.pages():
            planned: PlannedExperimentMove | None = None
            if collection == EXPERIMENTS:
                (config,) = documents
                planned = PlannedExperimentMove(config, Checksum(self._move.resolution))
                if config.get("_id") in plan.experiments:
                    raise EncodingError(f"{name_of(collection, config)}: another one has its _id")
                plan.experiments[config.get("_id")] = planned
            elif collection == BENCHMARKS:
                benchmarks += documents
            else:
                planned = plan.experiments[documents[0]["experiment"]]
            check = partial(self._check, collection, documents, planned)
            await anyio.to_thread.run_sync(check)
            done += len(documents)
            self._move.report(MoveProgress("reading", done, total))
        return plan, benchmarks

    def _check(
        self,
        collection: str,
        documents: list[Document],
        planned: PlannedExperimentMove | None,
    ) -> None:
        """Check that records can be stored, and count them."""
        for document in documents:
            try:
                document_of(collection, document)
            except ValueError as error:  # an EncodingError is one
                path = getattr(error, "path", "")
                name = name_of(collection, document)
                raise EncodingError(f"{name} cannot be stored: {error}", path=path) from error
            if planned is not None:
                freed = not self._move.keep_reservations and set_free(collection, document)
                planned.trials += collection == TRIALS
                planned.interrupted += freed and collection == TRIALS
                planned.unlocked += freed and collection == ALGO

    async def _hash(self, experiments: Mapping[Any, PlannedExperimentMove]) -> None:
        """Read these experiments again, and hash their content."""
        if not experiments:
            return
        async for collection, documents in self._move.source.pages():
            named = "_id" if collection == EXPERIMENTS else "experiment"
            planned = experiments.get(documents[0].get(named))
            if planned is not None and collection != BENCHMARKS:
                add = partial(self._add, planned.content, collection, documents)
                await anyio.to_thread.run_sync(add)

    def _add(self, content: Checksum, collection: str, documents: list[Document]) -> None:
        for document in documents:
            if not self._move.keep_reservations:
                set_free(collection, document)
            content.add(collection, [content_of(collection, document)])

    # ------------------------------------------------------------------------- experiments

    async def _place(
        self,
        planned: PlannedExperimentMove,
        stored: Iterable[Document],
        versions: dict[Any, set[int]],
        taken: set[Any],
    ) -> None:
        """Decide what will happen to an experiment."""
        name, version = planned.key
        planned.version = planned.config.get("version")
        same_name = [config for config in stored if config.get("name") == name]
        found = [config for config in same_name if version_of(config) == version]
        bumped: list[Document] = []
        if self._move.resolve == "bump":  # an earlier call may have done so
            bumped = [c for c in same_name if c["_id"] == self._uid_as(planned, version_of(c))]
        for config in (*found, *bumped):
            is_bumped = config in bumped and config not in found
            if is_bumped or await self._has_content(planned, config["_id"]):
                planned.outcome, planned.uid = "present", config["_id"]
                planned.version = version_of(config)
                return
        if found:
            match self._move.resolve:
                case "ignore":
                    planned.outcome, planned.uid = "ignored", found[0]["_id"]
                    return
                case "overwrite":
                    planned.outcome, planned.replaces = "overwritten", found[0]["_id"]
                    taken.discard(planned.replaces)
                case "bump":
                    planned.outcome, planned.version = "bumped", max(versions[name]) + 1
                    versions[name].add(planned.version)
                case _:
                    self._conflicts.append(f"experiment {name!r} v{version}")
        planned.uid = planned.config["_id"]
        if planned.uid in taken or planned.outcome == "bumped":
            planned.uid = self._uid_as(planned, planned.version or FIRST_VERSION)
        taken.add(planned.uid)

    @staticmethod
    def _uid_as(planned: PlannedExperimentMove, version: int) -> str:
        return derived_id(planned.content.text, planned.config["_id"], planned.key, version)

    async def _has_content(self, planned: PlannedExperimentMove, uid: Any) -> bool:
        """Return whether an experiment in the destination has the same content."""
        owned = {"experiment": uid}
        if await self._collections.count(TRIALS, owned) != planned.trials:
            return False
        content = Checksum(self._move.resolution)
        async for collection, documents in StoreSource(self._move.destination).of_experiment(uid):
            content.add(collection, [content_of(collection, one) for one in documents])
        return content == planned.content

    # -------------------------------------------------------------------------- benchmarks

    async def _place_benchmarks(self, plan: MovePlan, benchmarks: list[Document]) -> None:
        if not benchmarks:
            return
        stored: dict[Any, Document] = {}
        async for page in self._collections.pages(BENCHMARKS, {}, PAGE_SIZE):
            readable(BENCHMARKS, page, self._move.destination.location)
            stored |= {found.get("name"): found for found in page}
        taken = {found["_id"] for found in stored.values()}
        for benchmark in benchmarks:
            found = stored.get(benchmark["name"])
            if found is not None and self._same_benchmark(benchmark, found):
                plan.present_benchmarks += 1
            elif found is None:
                uid = benchmark["_id"]
                if uid in taken:
                    uid = derived_id(BENCHMARKS, uid, benchmark["name"])
                taken.add(uid)
                plan.benchmarks.append(({**benchmark, "_id": uid}, None))
            elif self._move.resolve == "ignore":
                plan.present_benchmarks += 1
            elif self._move.resolve == "overwrite":
                plan.benchmarks.append(({**benchmark, "_id": found["_id"]}, found["_id"]))
            else:
                self._conflicts.append(f"benchmark {benchmark['name']!r}")

    def _same_benchmark(self, one: Document, other: Document) -> bool:
        checksums = []
        for benchmark in (one, other):
            checksum = Checksum(self._move.resolution)
            checksum.add(BENCHMARKS, [content_of(BENCHMARKS, benchmark)])
            checksums.append(checksum)
        return checksums[0] == checksums[1]

    def _refusal(self) -> DuplicateKeyError:
        source, destination = self._move.source.location, self._move.destination.location
        named = ", ".join(self._conflicts[:5])
        more = f" and {len(self._conflicts) - 5} more" if len(self._conflicts) > 5 else ""
        if self._move.resolve == "bump":
            return DuplicateKeyError(
                f"{named}{more} of {source}: {destination} has "
                "another one, and a benchmark has no version to bump; nothing was written. "
                "Choose ignore (keep what is there) or overwrite"
            )
        choices = "ignore (keep what is there) or overwrite"
        if self._move.has_versions:
            choices = "ignore (keep what is there), overwrite, or bump (the next version)"
        return DuplicateKeyError(
            f"{named}{more} of {source}: {destination} has another "
            "one of that name and version; nothing was written. Choose what to do about it: "
            f"{choices}"
        )
