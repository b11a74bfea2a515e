"""Checks of algorithm locks: their records, leases, states and waiters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import anyio.to_thread

from aiostorage._core.documents import equal
from aiostorage._core.holders import named_holder
from aiostorage._core.layout import ALGO, WAITERS
from aiostorage._core.normalise import type_name
from aiostorage.doctor.stored_records import StoredRecords
from aiostorage.errors import AioStorageError, TemporaryBackendError
from aiostorage.findings import REPAIR_COMMAND, Finding
from aiostorage.operations import (
    EVERYTHING,
    And,
    Compare,
    Condition,
    Count,
    Document,
    Find,
    Or,
    StoreTime,
    UnreadableDocument,
)

__all__ = [
    "EXPIRED_LEASE",
    "EXPIRED_LEASES",
    "NO_LOCK",
    "OLD_LOCKS",
    "ORPHAN_LOCK",
    "STALE_WAITER",
    "STALE_WAITERS",
    "is_taken_over",
    "lock_findings",
]

ORPHAN_LOCK: Final = "orphan-lock"
NO_LOCK: Final = "experiment-without-lock"
EXPIRED_LEASE: Final = "expired-lease"
STALE_WAITER: Final = "stale-waiter"

MIN_AGE: Final = 60.0
"""Seconds for which a record may be incomplete, or about to be renewed."""

MIN_LEASELESS: Final = 600.0
"""Seconds for which a lock without a lease may be held, as Oríon's own storage holds it."""

OLD_LOCKS: Final = Or(
    (Compare("heartbeat", "lte", StoreTime(-MIN_AGE)), Compare("heartbeat", "eq", None))
)
"""Lock records that have not been touched for a while."""

EXPIRED_LEASES: Final = And(
    (Compare("locked", "eq", 1), Compare("expires", "lte", StoreTime(-MIN_AGE)))
)
"""Locks whose holders have not renewed their lease."""

STALE_WAITERS: Final = Compare("expires", "lte", StoreTime(-MIN_AGE))
"""Tickets of processes that have not renewed them."""

PICKLE: Final = b"\x80"
"""The first byte of every pickle."""


async def lock_findings(records: StoredRecords) -> list[Finding]:
    """Return the findings about the locks of a store."""
    execute = records.gateway.execute
    locks = await execute(Find(ALGO, EVERYTHING, {"state": False}))
    findings = [_unreadable(records, one) for one in locks if isinstance(one, UnreadableDocument)]
    owners = {dict.get(one, "experiment") for one in locks}
    findings += _missing(records, owners)
    old = await _ids(records, OLD_LOCKS)
    findings += [
        Finding(
            ORPHAN_LOCK,
            "warning",
            f"there is a lock record of the experiment {one['experiment']}, which does not exist",
            str(one["_id"]),
            REPAIR_COMMAND,
            repairable=True,
        )
        for one in locks
        if dict.get(one, "experiment") not in records.labels and one["_id"] in old
    ]
    held = [one for one in locks if dict.get(one, "experiment") in records.labels]
    findings += await _held(records, held)
    for one in held:
        findings += await _state(records, one)
    if stale := await execute(Count(WAITERS, STALE_WAITERS)):
        what = f"{stale} tickets in the queue for a lock are of processes that are gone"
        findings.append(
            Finding(STALE_WAITER, "warning", what, WAITERS, REPAIR_COMMAND, repairable=True)
        )
    return findings


def _unreadable(records: StoredRecords, lock: UnreadableDocument) -> Finding:
    label = records.label(dict.get(lock, "experiment"))
    what = f"the lock record of {label} cannot be read: {lock.reason}"
    command = "aiostorage list{storage}"
    return Finding("unreadable-lock", "error", what, str(dict.get(lock, "_id")), command)


def _missing(records: StoredRecords, owners: set[Any]) -> Iterator[Finding]:
    for uid in records.configs.keys() - owners:
        what = f"the experiment {records.label(uid)} has no lock record, so that no lock is given"
        where = records.label(uid)
        yield Finding(NO_LOCK, "error", what, where, REPAIR_COMMAND, repairable=True)


async def _ids(records: StoredRecords, where: Condition) -> set[Any]:
    found = await records.gateway.execute(Find(ALGO, where, {"_id": True}))
    return {one["_id"] for one in found}


async def _held(records: StoredRecords, locks: list[Document]) -> list[Finding]:
    expired = await _ids(records, EXPIRED_LEASES)
    locked = Compare("locked", "eq", 1)
    long = Compare("heartbeat", "lte", StoreTime(-MIN_LEASELESS))
    leaseless = await _ids(records, And((locked, Compare("expires", "eq", None), long)))
    findings = []
    for one in locks:
        label = records.label(one["experiment"])
        owner, since = dict.get(one, "owner"), dict.get(one, "since")
        command = records.command("release", one["experiment"])
        if one["_id"] in expired and not is_taken_over(one):
            what = (
                f"the lock of {label} was held by {named_holder(owner)} since {since}, and its "
                f"lease expired at {one['expires']}; the next who wants the lock takes it"
            )
            findings.append(
                Finding(EXPIRED_LEASE, "warning", what, label, command, repairable=True)
            )
        elif one["_id"] in leaseless or (one["_id"] in expired and is_taken_over(one)):
            what = (
                f"the lock of {label} is held without a lease, as Oríon's own storage does, since "
                f"{dict.get(one, 'heartbeat')}; if its holder is dead, it stays held"
            )
            findings.append(Finding("lock-without-lease", "warning", what, label, command))
    return findings


def is_taken_over(lock: Document) -> bool:
    """Return whether Oríon's own storage has taken a lock that has the lease of a dead holder."""
    heartbeat, expires = dict.get(lock, "heartbeat"), dict.get(lock, "expires")
    try:
        return heartbeat is not None and expires is not None and heartbeat >= expires
    except TypeError:  # another program has stored something else
        return False


async def _state(records: StoredRecords, lock: Document) -> list[Finding]:
    label = records.label(lock["experiment"])
    command = records.command("show", lock["experiment"])
    try:
        data = await _stored_state(records, equal(_id=lock["_id"]))
        if data is None:
            return []
        if not isinstance(data, bytes):
            return [_damaged(label, f"it is not bytes, but {type_name(data)}", command)]
        if data[:1] == PICKLE:
            what = f"the state of {label} is a pickle; it was not looked into, since that runs code"
            return [Finding("pickled-state", "note", what, label, command)]
        await anyio.to_thread.run_sync(records.codec.decode, data)
    except AioStorageError as error:
        return [_damaged(label, str(error), command)]
    return []


async def _stored_state(records: StoredRecords, where: Condition) -> Any:
    """Return the bytes of a state; raise what the engine raises, if that is not an outage."""
    find = Find(ALGO, where, {"state": True})
    try:
        # no retry: an error that looks temporary may mean that a part of the state is gone
        found = await records.gateway.driver.execute(find)
    except TemporaryBackendError:
        await records.gateway.execute(Count(ALGO, where))
        found = await records.gateway.driver.execute(find)
    return found[0].get("state") if found else None


def _damaged(label: str, reason: str, command: str) -> Finding:
    what = f"the state of the algorithm of {label} cannot be read: {reason}"
    return Finding("unreadable-state", "error", what, label, command)
