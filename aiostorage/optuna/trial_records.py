"""The trials of studies in the store: inserted, claimed, written and read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, cast

from aiostorage._core.documents import both, equal, truncated
from aiostorage._core.driver_calls.gateway import Gateway
from aiostorage._core.ids import new_id
from aiostorage._core.layout import EXPERIMENTS, TRIALS
from aiostorage._core.normalise import normalise
from aiostorage.errors import DuplicateKeyError
from aiostorage.operations import (
    And,
    Compare,
    Condition,
    Count,
    Document,
    Find,
    InsertNext,
    StoreTime,
    Take,
    UnreadableDocument,
    Update,
)
from aiostorage.optuna.study_document import FIELD
from aiostorage.optuna.study_ids import trial_uid_of
from aiostorage.optuna.trial_document import local_now, moment_changes
from aiostorage.values import TrialStatus

__all__ = ["TrialRecords", "is_held"]

NOW: Final = StoreTime()

NEW: Final = TrialStatus.NEW.value
RESERVED: Final = TrialStatus.RESERVED.value
INTERRUPTED: Final = TrialStatus.INTERRUPTED.value

HANDED_BACK: Final = (TrialStatus.SUSPENDED.value, INTERRUPTED)
"""Statuses of trials that wait, and were begun before."""

UNFINISHED: Final = (NEW, RESERVED, *HANDED_BACK)

PAGE_SIZE: Final = 500
"""Trials that are read at a time."""

MIN_TRIED_NUMBERS: Final = 8
"""Numbers that one insertion tries, at least: other processes may have taken the first of them."""

MAX_TRIED_NUMBERS: Final = 1024
"""Numbers that one insertion tries, at most: twice as many as others took since the last one."""

TAKEN_DECAY: Final = 0.9
"""The part that is kept, with each insertion, of how many numbers others took before."""

_NOTHING: Final[Mapping[str, Any]] = {}

_CLEAN: Final = {
    "results": [],
    **moment_changes("end_time", None),
    f"{FIELD}.values": None,
    f"{FIELD}.pruned": False,
}
"""What a claim writes over the traces of an earlier evaluation."""

_RESTARTED: Final[Mapping[str, Any]] = {f"{FIELD}.intermediate": {}}
"""What it writes, too, where a trial was handed back: its objective begins again."""


class TrialRecords:
    """Trials in the store, by the ``_id`` of their experiment and by their number.

    Parameters
    ----------
    gateway
        The way to the store.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._taken = 0.0
        """Numbers that others have taken before an insertion, the most of lately."""

    # ------------------------------------------------------------------------------ writing

    async def insert(
        self, uid: Any, document: Document, first: int, count: int = 1
    ) -> list[Document]:
        """Insert trials of an experiment under the next free numbers; return them with these.

        The numbers are taken by the insertion and by nothing before it. So they have no gap,
        whoever is killed.

        Parameters
        ----------
        document
            A trial, whatever its number.
        first
            A number of which all lower ones are taken.
        count
            How many trials like this one, each with an ``_id`` of its own.

        Raises
        ------
        EncodingError
            Something in it cannot be stored.
        """
        one = self._stored(document)
        stored = (one, *({**one, "_id": new_id()} for _ in range(count - 1)))
        known, among = first, MIN_TRIED_NUMBERS
        while among < 2 * self._taken and among < MAX_TRIED_NUMBERS:
            among *= 2
        while True:
            places = [_place(number) for number in range(first, first + among + len(stored))]
            ids = Compare("id", "in", tuple(place["id"] for place in places))
            taken = Find(TRIALS, both(equal(experiment=uid), ids), {"id": True})
            try:
                inserted = await self._gateway.insert_next(
                    taken, InsertNext(TRIALS, stored, "id", tuple(places))
                )
            except DuplicateKeyError as error:
                if "id" not in error.fields:
                    raise
                # the engine has no transactions, and another process was first
            else:
                if inserted:
                    taken = inserted[0][FIELD]["number"] - known
                    self._taken = max(float(taken), TAKEN_DECAY * self._taken)
                    return inserted
                first, among = first + among, min(2 * among, MAX_TRIED_NUMBERS)

    def _stored(self, document: Document) -> Document:
        """Return a document as the engine stores it, which takes it as it is."""
        times = {name: v for name, v in document.items() if v.__class__ is StoreTime}
        plain = {name: value for name, value in document.items() if name not in times}
        stored = truncated(cast(Document, normalise(plain)), self._gateway.driver.resolution)
        stored.update(times)
        return stored

    async def claim(
        self, uid: Any, number: int, token: str, more: Mapping[str, Any] = _NOTHING
    ) -> Document | None:
        """Reserve a trial that waits, for one worker alone; return it as it is then.

        None if it does not wait. `more` is written, too.
        """
        there = _trial(uid, number)
        changes = {
            "status": RESERVED,
            "worker": token,
            "heartbeat": NOW,
            f"{FIELD}.watched": False,
            **moment_changes("start_time", local_now()),
            **_CLEAN,
            **more,
        }
        ours = And((*there.conditions, *equal(status=RESERVED, worker=token).conditions))
        for waits, traces in (
            (Compare("status", "eq", NEW), _NOTHING),
            (Compare("status", "in", HANDED_BACK), _RESTARTED),
        ):
            take = Take(TRIALS, both(there, waits), {**changes, **traces}, applied=ours)
            if taken := await self._gateway.execute(take):
                return taken[0]
        return None

    async def write(
        self,
        uid: Any,
        number: int,
        changes: Mapping[str, Any],
        token: str | None,
        where: Sequence[Condition] = (),
        *,
        reason: str | None = None,
    ) -> bool:
        """Change a trial that is not finished; return whether there was such a one.

        Parameters
        ----------
        token
            That of the reservation, if it is the caller's: then no other worker may have the trial.
        where
            Further conditions.
        reason
            For the history, why.
        """
        there = _trial(uid, number)
        condition = And((*there.conditions, *_writable(token), *where))
        status = changes.get("status")
        if status is None:  # a repetition finds the trial as before
            update = Update(TRIALS, condition, changes, reason=reason)
            return bool(await self._gateway.execute(update))
        if token is None or status == INTERRUPTED:  # another worker may have it at once
            update = Update(TRIALS, condition, changes, reason=reason)
            return bool(await self._gateway.execute_once(update))
        applied = both(there, equal(status=status, worker=token))
        update = Update(TRIALS, condition, changes, applied, reason)
        return bool(await self._gateway.execute(update))

    async def change(
        self,
        uid: Any,
        number: int,
        changes: Mapping[str, Any],
        token: str | None,
        where: Sequence[Condition] = (),
    ) -> Document | None:
        """Change a trial as `write` does, but not its state; return it as it is then."""
        condition = And((*_trial(uid, number).conditions, *_writable(token), *where))
        changed = await self._gateway.execute(Take(TRIALS, condition, changes))
        return changed[0] if changed else None

    async def beat(self, uid: Any, number: int, token: str | None, *, watched: bool = True) -> bool:
        """Record that the worker of a trial is alive; return whether the trial is still its own.

        Parameters
        ----------
        watched
            Whether the trial becomes stale without a further heartbeat.
        """
        changes: dict[str, Any] = {"heartbeat": NOW}
        if watched:
            changes[f"{FIELD}.watched"] = True
        held = equal(status=RESERVED, **({} if token is None else {"worker": token}))
        return bool(
            await self._gateway.execute(Update(TRIALS, both(_trial(uid, number), held), changes))
        )

    # ------------------------------------------------------------------------------ reading

    async def read(self, uid: Any, number: int) -> Document | None:
        """Return a trial; None if there is none."""
        found = await self._gateway.execute(Find(TRIALS, _trial(uid, number), limit=1))
        return found[0] if found else None

    async def read_by_uid(self, uid: Any, ids: Collection[str]) -> tuple[bool, list[Document]]:
        """Return whether there is an experiment, and the trials of it that have these ids."""
        exists = Count(EXPERIMENTS, equal(_id=uid))
        if not ids:
            return bool(await self._gateway.execute(exists)), []
        chosen = both(equal(experiment=uid), Compare("id", "in", tuple(ids)))
        count, found = await self._gateway.transact((exists, Find(TRIALS, chosen)))
        return bool(count), [one for one in found if not isinstance(one, UnreadableDocument)]

    async def pages(self, uid: Any) -> AsyncIterator[list[Document]]:
        """Yield all trials of an experiment, some at a time."""
        async for page in self._gateway.pages(Find(TRIALS, equal(experiment=uid)), PAGE_SIZE):
            yield [one for one in page if not isinstance(one, UnreadableDocument)]

    async def stale(self, uid: Any, grace: float) -> list[Document]:
        """Return the running trials whose heartbeat is older than `grace` seconds.

        A trial of which no heartbeat was ever recorded is none of them.
        """
        where = equal(experiment=uid, status=RESERVED, **{f"{FIELD}.watched": True})
        silent = Compare("heartbeat", "lt", StoreTime(-grace))
        return await self._gateway.execute(Find(TRIALS, both(where, silent)))


def is_held(document: Document, token: str) -> bool:
    """Return whether a trial runs under a reservation."""
    return document.get("status") == RESERVED and document.get("worker") == token


def _place(number: int) -> dict[str, Any]:
    """Return what a trial gets with its number."""
    return {"id": trial_uid_of(number), f"{FIELD}.number": number}


def _writable(token: str | None) -> tuple[Condition, ...]:
    """Return the conditions under which a trial may be written to."""
    if token is None:
        return (Compare("status", "in", UNFINISHED),)
    return equal(status=RESERVED, worker=token).conditions


def _trial(uid: Any, number: int) -> And:
    """Return the condition that names a trial."""
    return equal(experiment=uid, id=trial_uid_of(number))
