"""The outbox: the changes that have yet to be sent to a tracker, its records, and the deliverer.

A row says that a trial or an experiment has changed, but not how. `aiostorage._core.noting` writes
it together with the change. The deliverer reads some rows, then the present trial, sends the trial,
and removes the rows that it had read. So many changes of one trial are sent once, and the row of a
change that comes meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, cast

import anyio

from aiostorage._core.documents import equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import new_id
from aiostorage._core.layout import DELIVERERS, MIRRORED, OUTBOX
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    EVERYTHING,
    Compare,
    Condition,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Operation,
    Or,
    StoreTime,
    Update,
)

__all__ = ["Backlog", "Change", "MirrorRecord", "Outbox", "OutboxRow"]

Change: TypeAlias = Literal["inserted", "reserved", "changed", "deleted", "anew"]

POLL_INTERVAL: Final = 0.05
"""Seconds that `Outbox.wait` takes at least, so that a busy store does not wake it all the time."""

MAX_WRITTEN: Final = 500
"""Rows that are written or removed in one operation, at most."""

LEASE: Final = "lease"
NOW: Final = StoreTime()


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A change that has yet to be sent to the tracker.

    Attributes
    ----------
    id
        The ``_id`` of the row.
    experiment
        The id of the experiment.
    trial
        The id of the trial; None if the experiment itself has changed.
    change
        The kind of change; ``anew`` is not a change, but asks to send the record as if the tracker
        did not have it. A record that was ``deleted`` may exist: it may have been registered again,
        for which there is another row.
    worker
        The token of the reservation, if the change was made under one.
    time
        The time of the change, by the store's clock.
    """

    id: Any
    experiment: Any
    trial: str | None
    change: Change
    worker: str | None
    time: datetime


@dataclass(frozen=True, slots=True)
class MirrorRecord:
    """The key of a trial or an experiment in the tracker.

    Attributes
    ----------
    experiment, trial
        As in `OutboxRow`.
    key
        The key in the tracker; None if it is not known.
    uncertain
        Whether it began to be sent without a key, so that the tracker may have it under an unknown
        key.
    attempts
        How often the trial was reserved, according to the rows that were settled.
    worker
        The token of the last reservation that was counted.
    stored
        Whether the store has this record.
    """

    experiment: Any
    trial: str | None
    key: str | None = None
    uncertain: bool = False
    attempts: int = 0
    worker: str | None = None
    stored: bool = False

    def counted(self, rows: Sequence[OutboxRow]) -> MirrorRecord:
        """Return the record with the reservations counted that some of its rows tell of.

        A row that was written twice, since an answer was lost, counts once.
        """
        attempts, worker = self.attempts, self.worker
        for row in rows:
            if row.change == "reserved" and (row.worker is None or row.worker != worker):
                attempts, worker = attempts + 1, row.worker
        return replace(self, attempts=attempts, worker=worker)


@dataclass(frozen=True, slots=True)
class Backlog:
    """The amount of changes that have yet to be sent to the tracker.

    Attributes
    ----------
    length
        The number of rows.
    oldest
        The time of the oldest one, by the store's clock; None without rows.
    age
        Its age in seconds; 0 without rows.
    """

    length: int = 0
    oldest: datetime | None = None
    age: float = 0.0


class Outbox:
    """The rows, the records and the lease in one store.

    Parameters
    ----------
    gateway
        The gateway to the store.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._version: object | None = None

    # ---------------------------------------------------------------------------------- rows

    async def rows(
        self, limit: int, experiment: Any = None, trial: str | None = None
    ) -> list[OutboxRow]:
        """Return the oldest rows, oldest first.

        Parameters
        ----------
        limit
            The maximum number of rows.
        experiment, trial
            Only those of this experiment, or of this trial.
        """
        where = _of(experiment, trial) if experiment is not None else EVERYTHING
        found = await self._gateway.execute(Find(OUTBOX, where, limit=limit))
        return list(map(_row, found))

    async def backlog(self) -> Backlog:
        """Return the number of rows, and the age of the oldest; the engine counts them."""
        length = await self._gateway.execute(Count(OUTBOX))
        found = await self._gateway.execute(Find(OUTBOX, EVERYTHING, {"time": True}, limit=1))
        if not found:
            return Backlog(length)
        oldest: datetime = found[0]["time"]
        now = await self._gateway.now()
        return Backlog(max(length, 1), oldest, max((now - oldest).total_seconds(), 0.0))

    async def add(
        self,
        experiment: Any,
        trials: Sequence[str | None] = (None,),
        change: Change = "changed",
    ) -> None:
        """Write rows by hand, so that trials are sent again; None is the experiment itself."""
        for start in range(0, len(trials), MAX_WRITTEN):
            documents = tuple(
                {
                    "_id": new_id(),
                    "experiment": experiment,
                    "trial": trial,
                    "change": change,
                    "worker": None,
                    "time": NOW,
                }
                for trial in trials[start : start + MAX_WRITTEN]
            )
            await self._gateway.execute(Insert(OUTBOX, documents))

    async def wait(self, timeout: float) -> None:
        """Return when there may be new rows, or after some seconds at the latest.

        The first call returns soon, since rows may have come before it. At least 0.05 s pass in
        each call, as long as the timeout is not shorter.
        """
        end = anyio.current_time() + timeout
        await anyio.sleep(min(POLL_INTERVAL, timeout))
        left = max(end - anyio.current_time(), 0.0)
        self._version = await self._gateway.wait_for_change(OUTBOX, self._version, left)

    # ------------------------------------------------------------------------------- records

    async def record(self, experiment: Any, trial: str | None) -> MirrorRecord:
        """Return the record of a trial, or of an experiment; a blank one if there is none."""
        find = Find(MIRRORED, Compare("_id", "eq", _record_id(experiment, trial)), limit=1)
        found = await self._gateway.execute(find)
        return _record(found[0]) if found else MirrorRecord(experiment, trial)

    async def records(self, experiment: Any, limit: int | None = None) -> list[MirrorRecord]:
        """Return the records of an experiment and of its trials, in the order they were made."""
        where = equal(experiment=experiment)
        found = await self._gateway.execute(Find(MIRRORED, where, limit=limit))
        return list(map(_record, found))

    async def begin(self, record: MirrorRecord) -> MirrorRecord:
        """Note that a sending without a key begins; return the record as it is stored then.

        If it is never settled, the next reader of the record finds it `uncertain`. The returned
        record has the `uncertain` of the given one, which says whether an *earlier* attempt to send
        may have created a run.
        """
        changes = {**_content(record), "uncertain": True}
        await self._gateway.transact(self._write(record, changes))
        return replace(record, stored=True)

    async def settle(
        self, rows: Sequence[OutboxRow], record: MirrorRecord, *, forget: bool = False
    ) -> None:
        """Remove rows and write the record that results from them, both or neither.

        A record with a key is not `uncertain` any more.

        Parameters
        ----------
        rows
            The rows, all of the trial, or of the experiment and its trials.
        record
            The record to write.
        forget
            Whether to remove the record instead, and with that of an experiment those of all its
            trials.
        """
        operations: list[Operation[Any]] = []
        if forget:
            where = Compare("_id", "eq", _record_id(record.experiment, record.trial))
            own: Condition = where if record.trial is not None else _of(record.experiment, None)
            operations.append(Delete(MIRRORED, own))
        else:
            content = _content(record)
            content["uncertain"] = record.uncertain and record.key is None
            operations += self._write(record, content)
        if rows:
            ids = tuple(row.id for row in rows)
            operations.append(Delete(OUTBOX, Compare("_id", "in", ids)))
        await self._gateway.transact(operations)

    async def settle_together(
        self, settled: Sequence[tuple[Sequence[OutboxRow], MirrorRecord]]
    ) -> None:
        """Remove the rows of several trials and write their records, all or none; see `settle`."""
        changes: list[Operation[Any]] = []
        additions: list[Operation[Any]] = []
        for _, record in settled:
            content = _content(record)
            content["uncertain"] = record.uncertain and record.key is None
            (changes if record.stored else additions).extend(self._write(record, content))
        ids = tuple(row.id for rows, _ in settled for row in rows)
        removal = (Delete(OUTBOX, Compare("_id", "in", ids)),) if ids else ()
        await self._gateway.transact((*changes, *additions, *removal))

    async def remove(self, rows: Sequence[OutboxRow]) -> None:
        """Remove rows that need no record, such as those of a trial that cannot be sent."""
        for start in range(0, len(rows), MAX_WRITTEN):
            ids = tuple(row.id for row in rows[start : start + MAX_WRITTEN])
            await self._gateway.execute(Delete(OUTBOX, Compare("_id", "in", ids)))

    def _write(self, record: MirrorRecord, content: dict[str, Any]) -> list[Operation[Any]]:
        uid = _record_id(record.experiment, record.trial)
        if record.stored:
            return [Update(MIRRORED, equal(_id=uid), content)]
        named = {"_id": uid, "experiment": record.experiment, "trial": record.trial}
        return [Insert(MIRRORED, ({**named, **content},))]

    # --------------------------------------------------------------------------------- lease

    async def acquire_lease(self, owner: str, seconds: float) -> bool:
        """Become the deliverer of this store unless a living process is; return whether it did.

        Parameters
        ----------
        owner
            A token of the caller, such as `aiostorage._core.ids.new_token` makes.
        seconds
            How long the lease lasts, by the store's clock, unless it is renewed.
        """
        free = Or(
            (
                Compare("owner", "eq", owner),
                Compare("expires", "lte", NOW),
                Compare("expires", "eq", None),
            )
        )
        changes = {"owner": owner, "expires": StoreTime(seconds)}
        mine = equal(_id=LEASE, owner=owner)
        where = equal(_id=LEASE)
        take = Update(DELIVERERS, type(where)((*where.conditions, free)), changes, applied=mine)
        if await self._gateway.execute(take):
            return True
        if await self._gateway.execute(Count(DELIVERERS, where)):
            return False
        try:
            await self._gateway.execute(Insert(DELIVERERS, ({"_id": LEASE, **changes},)))
        except DuplicateKeyError:  # another one was faster
            return False
        return True

    async def renew_lease(self, owner: str, seconds: float) -> bool:
        """Renew the lease; return False, and do nothing, if it is not the owner's any more."""
        update = Update(DELIVERERS, equal(_id=LEASE, owner=owner), {"expires": StoreTime(seconds)})
        return bool(await self._gateway.execute(update))

    async def release_lease(self, owner: str) -> None:
        """Give up the lease, if it is the owner's, so that others need not wait for its end."""
        changes = {"owner": None, "expires": None}
        await self._gateway.execute(Update(DELIVERERS, equal(_id=LEASE, owner=owner), changes))

    async def lease_holder(self) -> str | None:
        """Return the deliverer that holds the lease; None if there is none, or none alive."""
        alive = Compare("expires", "gt", NOW)
        where = type(equal())((*equal(_id=LEASE).conditions, alive))
        found = await self._gateway.execute(Find(DELIVERERS, where, limit=1))
        return cast("str | None", found[0].get("owner")) if found else None


def _of(experiment: Any, trial: str | None) -> Condition:
    return equal(experiment=experiment, **({} if trial is None else {"trial": trial}))


def _record_id(experiment: Any, trial: str | None) -> str:
    """Return the ``_id`` of a record, in which the literal of the first id shows its end."""
    return f"{experiment!r}" if trial is None else f"{experiment!r}:{trial}"


def _content(record: MirrorRecord) -> dict[str, Any]:
    return {
        "key": record.key,
        "uncertain": record.uncertain,
        "attempts": record.attempts,
        "worker": record.worker,
    }


def _record(document: Document) -> MirrorRecord:
    return MirrorRecord(
        document["experiment"],
        document.get("trial"),
        document.get("key"),
        bool(document.get("uncertain")),
        document.get("attempts") or 0,
        document.get("worker"),
        stored=True,
    )


def _row(document: Document) -> OutboxRow:
    return OutboxRow(
        document["_id"],
        document["experiment"],
        document.get("trial"),
        document["change"],
        document.get("worker"),
        document["time"],
    )
