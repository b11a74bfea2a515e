"""The algorithm lock: an owner token, a lease, and a state that is saved or left as it was.

The lock is a field of the algorithm's record, so whoever may write the record may write the state,
in one atomic step. A holder renews its lease at a third of its length; when it dies, the lease
expires and the lock is free. Safety rests on the token alone: nothing is written unless the record
still has it. Fairness rests on the queue in `lock_queue`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio

from aiostorage._core.cancellation import had_no_effect, shielded
from aiostorage._core.documents import equal
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.heartbeat import repeating
from aiostorage._core.holders import named_holder
from aiostorage._core.ids import experiment_uid, new_token
from aiostorage._core.layout import ALGO
from aiostorage._core.lock_queue import Place, ProcessQueues, Tickets
from aiostorage._core.lock_records import LockRecords, unlocked
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import LockAcquisitionTimeout, LockError, LockLost, TemporaryBackendError
from aiostorage.operations import And, Compare, Count, Delete, Document, StoreTime, Take, Update

__all__ = ["AlgorithmLocks"]

NOW: Final = StoreTime()

HOLD_ESTIMATE: Final = 0.002
"""Seconds that the lock is held, about and at least: how long to sleep for each waiter ahead."""

MAX_RECEIPTS: Final = 32
"""How many of the last holders the record remembers to have released the lock in good order."""

MAX_HANDED_STATE: Final = 2**20
"""Bytes of a state that is saved while the lock is handed over, at most."""

LAST_ATTEMPT_TIMEOUT: Final = 1.0
"""Seconds for leaving the queue when the engine does not answer."""

RELEASING: Final = "releasing the algorithm lock"


@dataclass(slots=True)
class _Claim:
    """One caller's claim to a lock.

    Attributes
    ----------
    uid
        The experiment.
    token
        Names the caller in the record, and its ticket.
    owned
        The condition that the caller holds the lock.
    place
        The caller's place in the queue of this process.
    start
        When it began to wait, by the clock of the event loop.
    timeout
        Seconds to wait.
    queued
        Whether it may have a ticket.
    taking
        Whether it may have taken the lock.
    """

    uid: Any
    token: str
    owned: And
    place: Place
    start: float
    timeout: float
    queued: bool = False
    taking: bool = False


class AlgorithmLocks:
    """The locks of all experiments; the contract is `AsyncStorageProtocol.acquire_algorithm_lock`.

    Parameters
    ----------
    lease
        Seconds after which the lock of a holder that does not renew it is free.
    """

    def __init__(self, gateway: Gateway, records: LockRecords, lease: float) -> None:
        self._gateway = gateway
        self._records = records
        self._lease = lease
        self._queues = ProcessQueues()
        self._tickets = Tickets(gateway, lease)

    def __getstate__(self) -> dict[str, Any]:
        return {"gateway": self._gateway, "records": self._records, "lease": self._lease}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # no waiter of this process is in the copy

    @asynccontextmanager
    async def hold(
        self, experiment: Any, timeout: float, retry_interval: float
    ) -> AsyncIterator[LockedAlgorithmState]:
        uid, token = experiment_uid(experiment), new_token()
        owned = equal(experiment=uid, owner=token, locked=1)
        with self._queues.place(uid) as place:
            claim = _Claim(uid, token, owned, place, anyio.current_time(), timeout)
            record = await self._turn(claim, retry_interval)
            place.hold(claim.token if claim.queued else None)
            async with self._held(claim, record) as state:
                yield state

    # ------------------------------------------------------------------------------- acquire

    async def _turn(self, claim: _Claim, retry_interval: float) -> Document:
        """Wait for the turn in this process, get the lock, and return its record."""
        place = claim.place
        if place.has_turn:
            return await self._acquire(claim, retry_interval)
        try:
            await place.wait(claim.timeout, partial(self._tickets.others, claim.uid))
        except BaseException as error:
            if place.record is not None:  # the lock was handed over to a caller who is gone
                release = _opening(claim.uid, place.record["owner"])
                await self._gateway.compensate((release,), error, self._lease, RELEASING)
            raise
        if place.record is not None:
            claim.token = place.record["owner"]
            claim.owned = equal(experiment=claim.uid, owner=claim.token, locked=1)
            return place.record
        if not place.has_turn:
            raise await self._timed_out(claim)
        return await self._acquire(claim, retry_interval)

    async def _acquire(self, claim: _Claim, retry_interval: float) -> Document:
        """Take the lock at once if no process waits for it, else by a ticket; return its record."""
        uid, token = claim.uid, claim.token
        version: object | None = None
        renew_at = 0.0  # when the ticket has to be renewed
        known_first = claim.place.unopposed
        try:
            while True:
                ahead = 0 if known_first else await self._tickets.ahead(uid, token)
                known_first = False
                if not ahead and (record := await self._take(claim)) is not None:
                    return record
                now = anyio.current_time()
                left = claim.start + claim.timeout - now
                if left <= 0:
                    raise await self._timed_out(claim)  # noqa: TRY301  cleaned up below
                if now >= renew_at:
                    get_ticket = self._tickets.renew if claim.queued else self._tickets.draw
                    claim.queued = True
                    await get_ticket(uid, token)
                    renew_at = now + self._tickets.renewal_interval
                limit = min(left, renew_at - now, retry_interval)
                # those at the back need not see every change: to look costs more than to hold
                pause = min(ahead * HOLD_ESTIMATE, limit)
                await anyio.sleep(pause)
                # the first time it returns at once: a change may have come before the version
                version = await self._gateway.wait_for_change(ALGO, version, limit - pause)
        except BaseException as error:
            await self._give_up(claim, error)
            raise

    async def _give_up(self, claim: _Claim, error: BaseException) -> None:
        """Leave the queue; the lock may be ours by now, although its answer did not arrive."""
        give_up: list[Update | Delete] = []
        seconds = LAST_ATTEMPT_TIMEOUT  # a ticket that cannot be deleted expires soon
        if claim.taking and not had_no_effect(error):
            give_up.append(_opening(claim.uid, claim.token))
            seconds = self._lease
        if claim.queued:
            give_up.append(self._tickets.leave(claim.token))
        if give_up:
            await self._gateway.compensate(
                give_up, error, seconds, "leaving the queue of the algorithm lock"
            )

    async def _take(self, claim: _Claim) -> Document | None:
        """Take the lock if it is free or its holder's lease has expired."""
        # after waiting, look first: a vain attempt to write would keep others from writing
        free = equal(experiment=claim.uid, locked=0)
        if not claim.queued and (taken := await self._take_if(free, claim)):
            return taken
        uid, fields = claim.uid, dict.fromkeys(("locked", "heartbeat", "expires"), True)
        found = await self._records.find(uid, fields)
        if found is None:
            raise LockError(
                f"experiment {uid!r} has no algorithm record; create_experiment makes one, and so "
                "does initialize_algorithm_lock"
            )
        if not found.get("locked"):
            return await self._take_if(free, claim)
        heartbeat, expires = found.get("heartbeat"), found.get("expires")
        # When Oríon's own storage opens the lock of a dead holder and takes it, the dead holder's
        # lease stays there. The later heartbeat shows that the lock has a new holder since.
        if expires is None or (heartbeat is not None and heartbeat >= expires):
            return None
        same = equal(experiment=uid, locked=1, heartbeat=heartbeat, expires=expires)
        expired = And((*same.conditions, Compare("expires", "lte", NOW)))
        if not await self._gateway.execute(Count(ALGO, expired)):
            return None
        return await self._take_if(expired, claim)

    async def _take_if(self, where: And, claim: _Claim) -> Document | None:
        claim.taking = True
        take = Take(ALGO, where, self._locked(claim.token), applied=claim.owned)
        taken = await self._gateway.execute(take)
        claim.taking = bool(taken)
        return taken[0] if taken else None

    def _locked(self, token: str) -> dict[str, Any]:
        """Return the changes by which a caller gets the lock."""
        expires = StoreTime(self._lease)
        return {"locked": 1, "owner": token, "since": NOW, "heartbeat": NOW, "expires": expires}

    # ------------------------------------------------------------------------------- release

    @asynccontextmanager
    async def _held(self, claim: _Claim, record: Document) -> AsyncIterator[LockedAlgorithmState]:
        """Give the state to the body; afterwards save it, or keep the old one."""
        state: LockedAlgorithmState | None = None

        async def renew() -> None:
            changes = {"heartbeat": NOW, "expires": StoreTime(self._lease)}
            if not await self._gateway.execute(Update(ALGO, claim.owned, changes)):
                raise await self._lost(claim)

        try:
            state = await self._records.decode(record)
            async with repeating(renew, self._lease / 3, self._gateway.telemetry):
                yield state
            data = await self._records.encode(state.state, record["state"])
        except BaseException as error:
            if state is not None:
                state.reset()
            give_up = self._giving_up(claim)
            await self._gateway.compensate(give_up, error, self._lease, RELEASING)
            raise
        # a receipt: it tells that we released the lock, even if others have held it since
        receipts = [claim.token, *(record.get("released") or ())][:MAX_RECEIPTS]
        changes: dict[str, Any] = {"released": receipts}
        if data is not None and data != record["state"]:
            changes["state"] = data
        heir = claim.place.heir()
        if "state" in changes and not (_is_small(data) and _is_small(record["state"])):
            heir = None
        if not await self._released(claim, heir, changes):
            raise await self._lost(claim)

    async def _released(
        self, claim: _Claim, heir: Place | None, changes: Mapping[str, Any]
    ) -> bool:
        """Save and release, or hand over to an heir; return whether the lock was still ours."""
        ours = Compare("experiment", "eq", claim.uid)
        applied = And((ours, Compare("released", "eq", claim.token)))
        end: Update | Take
        if heir is None:
            token = None
            end = Update(ALGO, claim.owned, {**unlocked(), **changes}, applied)
        else:
            token = new_token()
            end = Take(ALGO, claim.owned, {**self._locked(token), **changes}, applied=applied)
            heir.promise()

        async def release() -> bool:
            result = (await self._gateway.transact((end, *self._leaving(claim))))[0]
            # if its answer was lost, others may have held the lock since
            if heir is not None and result and result[0].get("owner") == token:
                heir.resolve(result[0])
            return bool(result)

        try:
            return await shielded(self._lease, release)
        except TemporaryBackendError as error:
            give_up = self._giving_up(claim, token)
            await self._gateway.compensate(give_up, error, self._lease, RELEASING)
            raise
        except TimeoutError as error:
            if heir is not None:  # it may have got the lock, and will not learn of it
                give_up = self._giving_up(claim, token)
                await self._gateway.compensate(give_up, error, LAST_ATTEMPT_TIMEOUT, RELEASING)
            raise LockLost(
                "the lock could not be released within its lease", holder=claim.token
            ) from error
        finally:
            if heir is not None:
                heir.resolve(None)

    def _giving_up(self, claim: _Claim, heir: str | None = None) -> list[Update | Delete]:
        """Return the operations that open the lock of a caller, and give its ticket back.

        If it may be that of an heir by now, whose token is given, they open it all the same.
        """
        tokens = [claim.token] if heir is None else [claim.token, heir]
        return [*(_opening(claim.uid, token) for token in tokens), *self._leaving(claim)]

    def _leaving(self, claim: _Claim) -> list[Delete]:
        """Return the operation that gives the ticket of a caller back, if it has one."""
        return [self._tickets.leave(claim.token)] if claim.queued else []

    # -------------------------------------------------------------------------------- errors

    async def _timed_out(self, claim: _Claim) -> LockAcquisitionTimeout:
        waited = anyio.current_time() - claim.start
        record = await self._records.find(claim.uid, {"state": False}) or {}
        owner, since = record.get("owner"), record.get("since")
        reason = "others were before us in the queue"
        if record.get("locked"):
            reason = f"{named_holder(owner)} has held it since {since or 'an unknown time'}"
        return LockAcquisitionTimeout(
            f"no algorithm lock for experiment {claim.uid!r} in {waited:.3g} s: {reason}",
            waited=waited,
            holder=owner,
            since=since,
        )

    async def _lost(self, claim: _Claim) -> LockLost:
        record = await self._records.find(claim.uid, {"state": False}) or {}
        owner, since = record.get("owner"), record.get("since")
        if record.get("locked") and owner != claim.token:
            reason = f"{named_holder(owner)} has held it since {since}"
        elif record:
            reason = "it was released from outside"
        else:
            reason = "its record was deleted"
        return LockLost(
            f"the algorithm lock of experiment {claim.uid!r} is no longer held by "
            f"{named_holder(claim.token)}: {reason}; the state was not saved",
            holder=owner,
            since=since,
        )


def _is_small(state: bytes | None) -> bool:
    """Return whether an engine keeps a state in its record, so that a `Take` can replace it."""
    return state is None or len(state) <= MAX_HANDED_STATE


def _opening(uid: Any, token: str) -> Update:
    """Return the operation that opens a lock if the caller with this token holds it."""
    return Update(ALGO, equal(experiment=uid, owner=token, locked=1), unlocked())
