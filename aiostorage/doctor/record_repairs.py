"""The repair of records, where it is certain what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from aiostorage._core.documents import equal
from aiostorage._core.driver_calls.gateway import EXPIRED_RECEIPTS, Gateway
from aiostorage._core.holders import named_holder
from aiostorage._core.layout import ALGO, EXPERIMENTS, RECEIPTS, TRIALS, WAITERS
from aiostorage._core.lock_records import unlocked
from aiostorage._core.storage import Storage
from aiostorage.doctor.lock_checks import (
    EXPIRED_LEASE,
    EXPIRED_LEASES,
    NO_LOCK,
    OLD_LOCKS,
    ORPHAN_LOCK,
    STALE_WAITER,
    STALE_WAITERS,
    is_taken_over,
)
from aiostorage.doctor.stored_records import StoredRecords
from aiostorage.doctor.trial_checks import LOST, NO_HEARTBEAT, ORPHAN_TRIAL
from aiostorage.doctor.upkeep_checks import EXPIRED_RECEIPT
from aiostorage.errors import DuplicateKeyError
from aiostorage.experiment import Experiment
from aiostorage.findings import Repair
from aiostorage.operations import And, Compare, Count, Delete, Find, Or, Update

__all__ = ["RECORD_REPAIRS", "repair_records"]


async def repair_records(
    storage: Storage, records: StoredRecords, codes: Collection[str]
) -> list[Repair]:
    """Repair the records that findings with these codes are about, in their present state.

    Parameters
    ----------
    storage
        Writes to the store, and to its tracker if it has one.
    records
        The experiments of the store.
    """
    done: list[Repair] = []
    for code, repair in RECORD_REPAIRS.items():
        if code in codes:
            done += await repair(storage, records)
    return done


async def _recover(storage: Storage, records: StoredRecords) -> list[Repair]:
    done = []
    for uid in records.configs:
        trials = await storage.recover_lost_trials({"_id": uid})
        if trials:
            count = len(trials)
            what = f"{count} {'trial is' if count == 1 else 'trials are'} to be tried again"
            done.append(Repair(LOST, what, records.label(uid)))
    return done


async def _delete_orphan_locks(storage: Storage, records: StoredRecords) -> list[Repair]:
    gateway, done = storage._gateway, []  # noqa: SLF001  as an adapter of this package
    for lock in await gateway.execute(Find(ALGO, OLD_LOCKS, {"state": False})):
        uid = dict.get(lock, "experiment")
        if uid in records.labels or await _exists(gateway, uid):
            continue
        where = And((Compare("_id", "eq", lock["_id"]), OLD_LOCKS))
        if await gateway.execute(Delete(ALGO, where)):
            what = f"the lock record of the experiment {uid} was deleted"
            done.append(Repair(ORPHAN_LOCK, what, str(lock["_id"])))
    return done


async def _make_locks(storage: Storage, records: StoredRecords) -> list[Repair]:
    gateway, done = storage._gateway, []  # noqa: SLF001  as above
    for uid, config in records.configs.items():
        if await gateway.execute(Count(ALGO, equal(experiment=uid))):
            continue
        if not await _exists(gateway, uid):  # it was deleted meanwhile
            continue
        algorithm = Experiment.from_config(config).algorithm
        try:
            await storage.initialize_algorithm_lock(uid, algorithm)
        except DuplicateKeyError:  # another process has made one meanwhile
            continue
        done.append(Repair(NO_LOCK, "a lock without a state was made", records.label(uid)))
    return done


async def _open_locks(storage: Storage, records: StoredRecords) -> list[Repair]:
    gateway, done = storage._gateway, []  # noqa: SLF001  as above
    for lock in await gateway.execute(Find(ALGO, EXPIRED_LEASES, {"state": False})):
        uid, owner = dict.get(lock, "experiment"), dict.get(lock, "owner")
        if uid not in records.labels or is_taken_over(lock):
            continue
        same = (*equal(_id=lock["_id"], owner=owner).conditions, EXPIRED_LEASES)
        if await gateway.execute(Update(ALGO, And(same), unlocked())):
            what = f"the lock that {named_holder(owner)} held was opened; the state stays"
            done.append(Repair(EXPIRED_LEASE, what, records.label(uid)))
    return done


async def _delete_waiters(storage: Storage, _: StoredRecords) -> list[Repair]:
    gateway = storage._gateway  # noqa: SLF001  as above
    count = await gateway.execute(Delete(WAITERS, STALE_WAITERS))
    return [Repair(STALE_WAITER, f"{count} tickets were deleted", WAITERS)] if count else []


async def _delete_receipts(storage: Storage, _: StoredRecords) -> list[Repair]:
    gateway, count = storage._gateway, 0  # noqa: SLF001  as above
    while found := await gateway.execute(EXPIRED_RECEIPTS):
        ids = tuple(one["_id"] for one in found)
        count += await gateway.execute(Delete(RECEIPTS, Compare("_id", "in", ids)))
    return [Repair(EXPIRED_RECEIPT, f"{count} were deleted", RECEIPTS)] if count else []


async def _delete_orphan_trials(storage: Storage, records: StoredRecords) -> list[Repair]:
    gateway, done = storage._gateway, []  # noqa: SLF001  as above
    known = Compare("experiment", "nin", tuple(records.labels))
    orphans = await gateway.execute(Find(TRIALS, known, {"experiment": True}))
    for uid in {dict.get(one, "experiment") for one in orphans}:
        if await _exists(gateway, uid):
            continue
        count = await gateway.execute(Delete(TRIALS, Or((equal(experiment=uid),))))
        done.append(Repair(ORPHAN_TRIAL, f"{count} trials were deleted", str(uid)))
    return done


async def _exists(gateway: Gateway, uid: object) -> bool:
    return bool(await gateway.execute(Count(EXPERIMENTS, equal(_id=uid))))


RECORD_REPAIRS: Final[Mapping[str, Callable[[Storage, StoredRecords], Awaitable[list[Repair]]]]] = {
    LOST: _recover,
    NO_HEARTBEAT: _recover,
    ORPHAN_LOCK: _delete_orphan_locks,
    NO_LOCK: _make_locks,
    EXPIRED_LEASE: _open_locks,
    STALE_WAITER: _delete_waiters,
    EXPIRED_RECEIPT: _delete_receipts,
    ORPHAN_TRIAL: _delete_orphan_trials,
}
"""The function that repairs each kind of finding about records."""
