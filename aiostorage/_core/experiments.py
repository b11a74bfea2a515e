"""Experiments in the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiostorage._core.documents import both, document_of, equal, query_of, truncated, update_of
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.ids import get_uid
from aiostorage._core.layout import ALGO, EXPERIMENTS, TRIALS, WAITERS
from aiostorage._core.lock_records import LockRecords
from aiostorage._core.record_reader import whole_documents
from aiostorage._core.versions import (
    FIRST_VERSION,
    selects_version,
    version_as_read,
    with_version,
)
from aiostorage.errors import DuplicateKeyError
from aiostorage.experiment import Experiment
from aiostorage.operations import (
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Operation,
    Update,
)

__all__ = ["Experiments"]


class Experiments:
    """What `Storage` does with experiments; the contract is `AsyncStorageProtocol`.

    Parameters
    ----------
    fill_version
        Whether an experiment without a version is stored, found and returned as version 1.
    """

    def __init__(
        self, gateway: Gateway, lock_records: LockRecords, *, fill_version: bool = True
    ) -> None:
        self._gateway = gateway
        self._lock_records = lock_records
        self._fill_version = fill_version

    async def create(
        self,
        config: dict[str, Any],
        algo_locked: int | None,
        algo_state: Any,
        algo_heartbeat: datetime | None,
    ) -> Experiment:
        document = truncated(document_of(EXPERIMENTS, config), self._gateway.driver.resolution)
        if self._fill_version:
            await self._check_first(with_version(document))
        experiment = Experiment.from_config(document)
        lock = await self._lock_records.document(
            experiment.id, experiment.algorithm, algo_locked or 0, algo_state, algo_heartbeat
        )
        insert = Insert(EXPERIMENTS, (document,))
        fresh = config.get("_id") is None  # a new id is found again, a caller's may be another's
        transact = self._gateway.transact if fresh else self._gateway.transact_once
        try:
            await transact((insert, Insert(ALGO, (lock,))))
        except DuplicateKeyError as error:
            if error.collection != ALGO:
                raise
            # left behind by a creation that was cut short, or by a deletion without cascade
            changes = {k: v for k, v in lock.items() if k not in ("_id", "experiment")}
            renewal = Update(ALGO, equal(experiment=experiment.id), changes)
            await transact((insert, renewal))
        config["_id"] = experiment.id
        return experiment

    async def get_or_create(self, config: Mapping[str, Any]) -> Experiment:
        document = document_of(EXPERIMENTS, dict(config))
        if self._fill_version:
            with_version(document)
        named = {"name": document["name"], "version": document.get("version")}
        while True:
            if found := await self.fetch(named, None):
                return Experiment.from_config(found[0])
            try:
                return await self.create(dict(config), None, None, None)
            except DuplicateKeyError as error:
                if "_id" in error.fields:  # another name has this id
                    raise
                # another process was first; if its record is deleted meanwhile, try once more

    async def delete(self, experiment: Any, uid: Any, cascade: bool) -> int:
        uid = get_uid(experiment, uid)
        operations: list[Operation[Any]] = [Delete(EXPERIMENTS, equal(_id=uid))]
        if cascade:
            operations += [Delete(name, equal(experiment=uid)) for name in (TRIALS, ALGO, WAITERS)]
        results = await self._gateway.transact_once(operations)
        return int(results[0])

    async def update(
        self, experiment: Any, uid: Any, where: Mapping[str, Any] | None, changes: Mapping[str, Any]
    ) -> bool:
        condition = both(equal(_id=get_uid(experiment, uid)), self._condition(query_of(where)[0]))
        if self._fill_version and "version" in changes:
            changes = with_version(dict(changes))
        return bool(await self._gateway.execute_once(update_of(EXPERIMENTS, condition, changes)))

    async def fetch(
        self, query: Mapping[str, Any] | None, selection: Mapping[str, Any] | None
    ) -> list[Document]:
        condition, selected = query_of(query, selection)
        find = Find(EXPERIMENTS, self._condition(condition), selected)
        found = whole_documents(self._gateway, EXPERIMENTS, await self._gateway.execute(find))
        if self._fill_version and selects_version(selected):
            found = list(map(with_version, found))
        return found

    async def exists(self, uid: Any) -> bool:
        return await self._gateway.execute(Count(EXPERIMENTS, equal(_id=uid))) > 0

    def _condition(self, condition: Condition) -> Condition:
        return version_as_read(condition) if self._fill_version else condition

    async def _check_first(self, document: Document) -> None:
        """Refuse a version 1 beside an experiment of the name that Oríon stored without one."""
        if document["version"] != FIRST_VERSION:
            return
        twins = Count(EXPERIMENTS, equal(name=document["name"], version=None))
        if await self._gateway.execute(twins):
            raise DuplicateKeyError(
                collection=EXPERIMENTS,
                fields=("name", "version"),
                values=(document["name"], FIRST_VERSION),
            )
