"""The records of algorithm locks: written, read, and opened by an operator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from aiostorage._core.documents import document_of, equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import get_uid
from aiostorage._core.layout import ALGO
from aiostorage._core.normalise import to_utc, type_name
from aiostorage._core.state import StateCodec, unwrapped_size
from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.errors import DuplicateKeyError, EncodingError
from aiostorage.operations import Delete, Document, Find, Insert, StoreTime, Update

__all__ = ["LockRecords", "unlocked"]

NOW: Final = StoreTime()

MAX_INLINE_STATE: Final = 64 * 1024
"""Bytes of state that are coded in the event loop, at most; a larger state goes to a thread."""

MAX_INLINE_INFLATED: Final = 1024 * 1024
"""Bytes that a compressed state of that size may become there, at most."""


class LockRecords:
    """What `Storage` does with lock records; the contract is `AsyncStorageProtocol`.

    Parameters
    ----------
    lease
        Seconds after which the lock of a holder that does not renew it is free.
    """

    def __init__(self, gateway: Gateway, codec: StateCodec, lease: float) -> None:
        self._gateway = gateway
        self._codec = codec
        self._lease = lease

    async def document(
        self,
        uid: Any,
        configuration: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> Document:
        """Return the document of a lock record."""
        document = document_of(
            ALGO,
            {
                "experiment": uid,
                "configuration": configuration,
                "locked": int(bool(locked)),
                "state": await self.encode(state, None),
                "owner": None,
                "since": None,
            },
        )
        document["heartbeat"] = NOW if heartbeat is None else to_utc(heartbeat)
        # no holder renews it, so it must not stay locked for ever
        document["expires"] = StoreTime(self._lease) if locked else None
        return document

    async def write(
        self,
        uid: Any,
        configuration: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        document = await self.document(uid, configuration, locked, state, heartbeat)
        await self._gateway.execute(Insert(ALGO, (document,)))
        return 1

    async def replace(
        self,
        uid: Any,
        configuration: Mapping[str, Any],
        locked: int = 0,
        state: Any = None,
        heartbeat: datetime | None = None,
    ) -> int:
        """Write the record, over the one that is there; its state stays unless one is given."""
        document = await self.document(uid, configuration, locked, state, heartbeat)
        kept = {"_id", "experiment", "state"} if state is None else {"_id", "experiment"}
        changes = {name: value for name, value in document.items() if name not in kept}
        update = Update(ALGO, equal(experiment=uid), changes)
        if not await self._gateway.execute_once(update):
            try:
                await self._gateway.execute(Insert(ALGO, (document,)))
            except DuplicateKeyError:  # another worker has inserted one meanwhile
                await self._gateway.execute_once(update)
        return 1

    async def info(self, experiment: Any, uid: Any) -> LockedAlgorithmState | None:
        record = await self.find(get_uid(experiment, uid))
        return None if record is None else await self.decode(record)

    async def delete(self, experiment: Any, uid: Any) -> int:
        delete = Delete(ALGO, equal(experiment=get_uid(experiment, uid)))
        return await self._gateway.execute_once(delete)

    async def override(self, experiment: Any, uid: Any, new_state: Any) -> int:
        uid = get_uid(experiment, uid)
        changes = unlocked()
        if new_state is not None:
            changes["state"] = await self.encode(new_state, None)
        update = Update(ALGO, equal(experiment=uid, locked=1), changes)
        return await self._gateway.execute_once(update)

    async def find(self, uid: Any, selection: Mapping[str, bool] | None = None) -> Document | None:
        """Return the record of an experiment, or the selected fields of it; None without one."""
        found = await self._gateway.execute(Find(ALGO, equal(experiment=uid), selection, limit=1))
        return found[0] if found else None

    async def decode(self, record: Document) -> LockedAlgorithmState:
        """Return the state in a record, with what callers may know of the lock."""
        data = record.get("state")
        if data is None:
            state = None
        elif not isinstance(data, bytes):
            raise EncodingError(f"the state is not bytes, but {type_name(data)}", path="state")
        elif len(data) <= MAX_INLINE_STATE and unwrapped_size(data) <= MAX_INLINE_INFLATED:
            state = self._codec.decode(data)
        else:
            state = await asyncio.to_thread(self._codec.decode, data)
        return LockedAlgorithmState(
            state,
            record.get("configuration"),
            bool(record.get("locked")),
            heartbeat=record.get("heartbeat"),
            owner=record.get("owner"),
            since=record.get("since"),
            restore=lambda: None if data is None else self._codec.decode(data),
        )

    async def encode(self, state: Any, before: bytes | None) -> bytes | None:
        """Encode a state, whose size is probably near that of the one before."""
        if state is None:
            return None
        if before is not None and len(before) <= MAX_INLINE_STATE:
            return self._codec.encode(state)
        return await asyncio.to_thread(self._codec.encode, state)


def unlocked() -> dict[str, Any]:
    """Return the changes that open the lock.

    Of our fields only the receipts stay. Oríon's own storage, which may work on the same database,
    takes the lock without touching fields that it does not know. An `owner` left there would seem
    to hold the lock and could write by its token; an expired lease would make the lock free.
    """
    return {"locked": 0, "owner": None, "since": None, "heartbeat": NOW, "expires": None}
