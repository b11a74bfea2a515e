"""The algorithm lock: an owner token, a lease, a queue, and a state that is saved or left alone.

The lock is a field of the algorithm's record, so whoever may write the record may write the state,
in one atomic step. A holder renews its lease at a third of its length; when it dies, the lease runs
out and the lock is free. Safety rests on the token alone: nothing is written unless the record
still names us. Fairness rests on a queue of tickets in the store: only the oldest live one may try.
Tickets lapse soon unless their process refreshes them, so a dead waiter holds nobody up for long.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import anyio

from aiostorage._core.cancellation import shielded
from aiostorage._core.documents import document_of, equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.heartbeat import repeating
from aiostorage._core.ids import experiment_uid, get_uid, new_token
from aiostorage._core.layout import ALGO, WAITERS
from aiostorage._core.normalise import to_utc
from aiostorage._core.state import StateCodec
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import (
    LockAcquisitionTimeout,
    LockError,
    LockLost,
    TemporaryBackendError,
)
from aiostorage.operations import (
    And,
    Compare,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Or,
    StoreTime,
    Take,
    Update,
)

__all__ = ["Locks"]

NOW: Final = StoreTime()

TICKET: Final = 5.0
"""Seconds that a ticket is good for without being refreshed, at most; else a third of a lease."""

TURN: Final = 0.002
"""Seconds that one holding takes about, at least: the time to sleep for each waiter before us."""

FAR: Final = 50
"""Waiters that are counted, at most."""

RECEIPTS: Final = 32
"""Holders that the record remembers to have released the lock in good order."""

INLINE: Final = 64 * 1024
"""Bytes of state that are coded in the event loop, at most; what is larger goes to a thread."""


class Locks:
    """What `Storage` does with algorithm locks; the contract is `AsyncStorageProtocol`.

    Parameters
    ----------
    lease
        Seconds after which the lock of a holder that does not renew it is free.
    """

    def __init__(self, gateway: Gateway, codec: StateCodec, lease: float) -> None:
        self._gateway = gateway
        self._codec = codec
        self._lease = lease
        self._ticket = min(TICKET, lease / 3)
        self._turns: dict[tuple[int, Any], _Turn] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"gateway": self._gateway, "codec": self._codec, "lease": self._lease}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    # ----------------------------------------------------------------------------- records

    async def record(
        self,
        uid: Any,
        configuration: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> Document:
        """Make the record of a lock."""
        document = document_of(
            ALGO,
            {
                "experiment": uid,
                "configuration": configuration,
                "locked": int(bool(locked)),
                "state": await self._encoded(state, None),
                "owner": None,
                "since": None,
            },
        )
        document["heartbeat"] = NOW if heartbeat is None else to_utc(heartbeat)
        # nobody renews it, so it must not stay locked for ever
        document["expires"] = StoreTime(self._lease) if locked else None
        return document

    async def write(self, *record: Any) -> int:
        await self._gateway.execute(Insert(ALGO, (await self.record(*record),)))
        return 1

    async def info(self, experiment: Any, uid: Any) -> LockedAlgorithmState | None:
        found = await self._find(get_uid(experiment, uid))
        return None if found is None else await self._opened(found)

    async def delete(self, experiment: Any, uid: Any) -> int:
        return await self._gateway.execute(Delete(ALGO, equal(experiment=get_uid(experiment, uid))))

    async def override(self, experiment: Any, uid: Any, new_state: Any) -> int:
        uid = get_uid(experiment, uid)
        changes = _open()
        if new_state is not None:
            changes["state"] = await self._encoded(new_state, None)
        return await self._gateway.execute(Update(ALGO, equal(experiment=uid, locked=1), changes))

    # ---------------------------------------------------------------------------- the lock

    @asynccontextmanager
    async def hold(
        self,
        experiment: Any,
        timeout: float,
        retry_interval: float,
    ) -> AsyncIterator[LockedAlgorithmState]:
        uid, token = experiment_uid(experiment), new_token()
        if retry_interval <= 0:
            raise ValueError(
                f"retry_interval is a positive number of seconds, not {retry_interval!r}"
            )
        start = anyio.current_time()
        turn = self._turns.setdefault((os.getpid(), uid), _Turn())
        turn.users += 1
        try:
            async with self._in_turn(turn, uid, start, timeout):
                record, queued = await self._acquire(uid, token, start, timeout, retry_interval)
                async with self._released(uid, token, record, queued=queued) as state:
                    yield state
        finally:
            turn.users -= 1
            if not turn.users:
                self._turns.pop((os.getpid(), uid), None)

    @asynccontextmanager
    async def _in_turn(
        self,
        turn: _Turn,
        uid: Any,
        start: float,
        timeout: float,
    ) -> AsyncIterator[None]:
        """Wait for those of this process who came before."""
        try:
            turn.gate.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(timeout) as scope:
                await turn.gate.acquire()
            if scope.cancelled_caught:
                raise await self._timed_out(uid, start) from None
        try:
            yield
        finally:
            turn.gate.release()

    async def _acquire(
        self,
        uid: Any,
        token: str,
        start: float,
        timeout: float,
        retry_interval: float,
    ) -> tuple[Document, bool]:
        """Get the lock: at once if nobody waits for it, else by a ticket; tell which it was."""
        mark: object | None = None
        refresh = 0.0  # when the ticket has to be refreshed; 0 without one
        try:
            while True:
                ahead = await self._ahead(uid, token)
                if not ahead:
                    record = await self._take(uid, token, waited=refresh > 0)
                    if record is not None:
                        return record, refresh > 0
                now = anyio.current_time()
                left = start + timeout - now
                if left <= 0:
                    raise await self._timed_out(uid, start)  # noqa: TRY301  tidied up below
                if now >= refresh:
                    await self._queue_up(uid, token, renew=refresh > 0)
                    refresh = now + self._ticket / 3
                limit = min(left, refresh - now, retry_interval)
                # not every change matters to those at the back: looking costs more than holding
                pause = min(ahead * TURN, limit)
                await anyio.sleep(pause)
                # without a mark this answers at once: what came before it is looked at once more
                mark = await self._gateway.wait_for_change(ALGO, mark, limit - pause)
        except BaseException as error:
            # the lock may be ours by now, if its answer did not reach us
            give_up = (self._leave(token), Update(ALGO, _owned(uid, token), _open()))
            await self._gateway.undo(give_up, error, self._lease, "leaving the lock's queue")
            raise

    async def _ahead(self, uid: Any, token: str) -> int:
        """Count those alive who came before."""
        alive = And((Compare("experiment", "eq", uid), Compare("expires", "gt", NOW)))
        queue = await self._gateway.execute(Find(WAITERS, alive, {"_id": True}, ("since",), FAR))
        tokens = [ticket["_id"] for ticket in queue]
        return tokens.index(token) if token in tokens else len(tokens)

    async def _take(self, uid: Any, token: str, *, waited: bool) -> Document | None:
        """Take the lock if it is free or its holder's lease has run out."""
        # having waited, look first: a vain attempt to write would keep others from writing
        free = equal(experiment=uid, locked=0)
        if not waited and (taken := await self._take_if(free, uid, token)):
            return taken
        fields = dict.fromkeys(("locked", "heartbeat", "expires"), True)
        found = await self._find(uid, fields)
        if found is None:
            raise LockError(
                f"experiment {uid!r} has no algorithm record; create_experiment makes one, and so "
                "does initialize_algorithm_lock"
            )
        if not found.get("locked"):
            return await self._take_if(free, uid, token)
        heartbeat, expires = found.get("heartbeat"), found.get("expires")
        # When Oríon's own storage opens the lock of a dead holder and takes it, that one's lease
        # stays, but the heartbeat is the new holder's, who is not to be robbed for it.
        if expires is None or (heartbeat is not None and heartbeat >= expires):
            return None
        same = equal(experiment=uid, locked=1, heartbeat=heartbeat, expires=expires)
        lapsed = And((*same.conditions, Compare("expires", "lte", NOW)))
        if not await self._gateway.execute(Count(ALGO, lapsed)):
            return None
        return await self._take_if(lapsed, uid, token)

    async def _take_if(self, where: And, uid: Any, token: str) -> Document | None:
        changes = {
            "locked": 1,
            "owner": token,
            "since": NOW,
            "heartbeat": NOW,
            "expires": StoreTime(self._lease),
        }
        take = Take(ALGO, where, changes, applied=_owned(uid, token))
        taken = await self._gateway.execute(take)
        return taken[0] if taken else None

    async def _queue_up(self, uid: Any, token: str, *, renew: bool) -> None:
        good = StoreTime(self._ticket)
        if renew:
            renewal = Update(WAITERS, equal(_id=token), {"expires": good})
            if await self._gateway.execute(renewal):
                return
        ticket = {"_id": token, "experiment": uid, "since": NOW, "expires": good}
        await self._gateway.execute(Insert(WAITERS, (ticket,)))

    def _leave(self, token: str) -> Delete:
        """Take our ticket out of the queue, and those that lapsed."""
        return Delete(WAITERS, Or((Compare("_id", "eq", token), Compare("expires", "lte", NOW))))

    @asynccontextmanager
    async def _released(
        self, uid: Any, token: str, record: Document, *, queued: bool
    ) -> AsyncIterator[LockedAlgorithmState]:
        """Hand the state to the body; save it afterwards, or leave the old one."""
        state: LockedAlgorithmState | None = None
        give_up: list[Update | Delete] = [Update(ALGO, _owned(uid, token), _open())]
        if queued:
            give_up.append(self._leave(token))
        try:
            state = await self._opened(record)

            async def renew() -> None:
                changes = {"heartbeat": NOW, "expires": StoreTime(self._lease)}
                if not await self._gateway.execute(Update(ALGO, _owned(uid, token), changes)):
                    raise await self._lost(uid, token)  # noqa: TRY301  ends the body

            async with repeating(renew, self._lease / 3):
                yield state
            data = await self._encoded(state.state, record["state"])
        except BaseException as error:
            if state is not None:
                state.reset()
            await self._gateway.undo(give_up, error, self._lease, "releasing the algorithm lock")
            raise
        # a receipt, by which we know that we released it even if others have had it since
        receipts = [token, *(record.get("released") or ())][:RECEIPTS]
        changes = {**_open(), "released": receipts}
        if data is not None and data != record["state"]:
            changes["state"] = data
        try:
            released = await shielded(
                self._lease, lambda: self._release(uid, token, changes, queued=queued)
            )
        except TemporaryBackendError as error:
            await self._gateway.undo(give_up, error, self._lease, "releasing the algorithm lock")
            raise
        except TimeoutError as error:
            raise LockLost(
                "the lock could not be released within its lease", holder=token
            ) from error
        if not released:
            raise await self._lost(uid, token)

    async def _release(
        self, uid: Any, token: str, changes: Mapping[str, Any], *, queued: bool
    ) -> bool:
        applied = equal(experiment=uid, released=token)
        update = Update(ALGO, _owned(uid, token), changes, applied)
        if not queued:  # then there is no ticket, and no need for a transaction
            return bool(await self._gateway.execute(update))
        results = await self._gateway.transact((update, self._leave(token)))
        return bool(results[0])

    # ------------------------------------------------------------------------------ errors

    async def _timed_out(self, uid: Any, start: float) -> LockAcquisitionTimeout:
        waited = anyio.current_time() - start
        record = await self._find(uid, {"state": False}) or {}
        owner, since = record.get("owner"), record.get("since")
        whose = "others were before us in the queue"
        if record.get("locked"):
            whose = f"{owner or 'somebody unknown'} holds it since {since or 'an unknown time'}"
        return LockAcquisitionTimeout(
            f"no algorithm lock for experiment {uid!r} in {waited:.3g} s: {whose}",
            waited=waited,
            holder=owner,
            since=since,
        )

    async def _lost(self, uid: Any, token: str) -> LockLost:
        record = await self._find(uid, {"state": False}) or {}
        owner, since = record.get("owner"), record.get("since")
        if record.get("locked") and owner != token:
            whose = f"{owner or 'somebody unknown'} holds it since {since}"
        elif record:
            whose = "it was released by somebody else"
        else:
            whose = "its record was deleted"
        return LockLost(
            f"the algorithm lock of experiment {uid!r} is no longer held by {token}: {whose}; "
            "the state was not saved",
            holder=owner,
            since=since,
        )

    # ------------------------------------------------------------------------------- state

    async def _find(self, uid: Any, selection: Mapping[str, bool] | None = None) -> Document | None:
        found = await self._gateway.execute(Find(ALGO, equal(experiment=uid), selection, limit=1))
        return found[0] if found else None

    async def _opened(self, record: Document) -> LockedAlgorithmState:
        data = record.get("state")
        return LockedAlgorithmState(
            await self._decoded(data),
            record.get("configuration"),
            bool(record.get("locked")),
            heartbeat=record.get("heartbeat"),
            owner=record.get("owner"),
            since=record.get("since"),
            restore=lambda: None if data is None else self._codec.decode(data),
        )

    async def _decoded(self, data: bytes | None) -> Any:
        if data is None:
            return None
        if len(data) <= INLINE:
            return self._codec.decode(data)
        return await anyio.to_thread.run_sync(self._codec.decode, data)

    async def _encoded(self, state: Any, before: bytes | None) -> bytes | None:
        """Encode a state that is probably about as large as it was before."""
        if state is None:
            return None
        if before is not None and len(before) <= INLINE:
            return self._codec.encode(state)
        return await anyio.to_thread.run_sync(self._codec.encode, state)


class _Turn:
    """Where the waiters of one process stand, for one experiment."""

    __slots__ = ("gate", "users")

    def __init__(self) -> None:
        self.gate = anyio.Semaphore(1)
        self.users = 0


def _owned(uid: Any, token: str) -> And:
    return equal(experiment=uid, owner=token, locked=1)


def _open() -> dict[str, Any]:
    """Return the changes that open the lock.

    Nothing of ours stays but the receipts. Oríon's own storage, which may work on the same
    database, takes the lock without touching what it does not know: an `owner` would seem to hold
    it, and could write by its token; a lease that has run out would make it free.
    """
    return {"locked": 0, "owner": None, "since": None, "heartbeat": NOW, "expires": None}
