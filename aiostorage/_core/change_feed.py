"""The log of a store as changes of trials: to be read, followed and waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any, Final

import anyio

from aiostorage._core.arguments import check_arguments
from aiostorage._core.change_rows import change_of
from aiostorage._core.documents import equal
from aiostorage._core.gateway import Gateway
from aiostorage._core.ids import experiment_uid
from aiostorage._core.layout import CHANGES, TRIALS
from aiostorage._core.record_reader import TrialReader, missing_trial, warn_left_out
from aiostorage.errors import CursorExpired, EncodingError
from aiostorage.operations import Document, Find
from aiostorage.trial import Trial, validate_status
from aiostorage.trial_change import OLDEST, TrialChange, TrialChanges
from aiostorage.values import TrialStatus

__all__ = ["ChangeFeed"]

PAGE: Final = 500
"""Changes per read."""

MIN_INTERVAL: Final = 0.02
"""Seconds between two reads, at least: a busy store must not wake its followers all the time."""

MAX_INTERVAL: Final = 5.0
"""Seconds between two reads, at most, even if the engine reports no change."""

BEAT_INTERVAL: Final = 0.5
"""Seconds between two reads of the heartbeats, at least."""

_BEATS: Final = {"id": True, "worker": True, "heartbeat": True}


class ChangeFeed:
    """The methods of `Storage` on changes; the contract is `AsyncStorageProtocol`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._reader = TrialReader(gateway)

    async def since(self, experiment: Any, cursor: str | None, limit: int) -> TrialChanges:
        return await self._read(experiment_uid(experiment), cursor, limit)

    async def changed_ids(self, uid: Any, cursor: str) -> list[str]:
        """Return the ids of the trials that have changed, each once."""
        ids: dict[str, None] = {}
        while True:
            changes, cursor = await self._read(uid, cursor, PAGE)
            ids |= {change.trial: None for change in changes}
            if len(changes) < PAGE:
                return list(ids)

    async def watch(
        self, experiment: Any, since: str | None, heartbeats: bool
    ) -> AsyncIterator[TrialChange]:
        check_arguments("watch_trials", experiment, since, heartbeats)
        uid = experiment_uid(experiment)
        _, cursor = await self._read(uid, since, PAGE) if since is None else ((), since)
        beats = _Beats(self._gateway, uid) if heartbeats else None
        version: object | None = None
        while True:
            changes, cursor = await self._read(uid, cursor, PAGE)
            for change in changes:
                yield change
            if beats is not None:
                for change in await beats.look(cursor):
                    yield change
            if len(changes) < PAGE:
                await anyio.sleep(MIN_INTERVAL if beats is None else BEAT_INTERVAL)
                collection = CHANGES if beats is None else TRIALS
                version = await self._gateway.wait_for_change(collection, version, MAX_INTERVAL)

    async def wait_for(
        self, trial: Trial, status: str | Collection[str], timeout: float | None
    ) -> Trial:
        wanted = {validate_status(one) for one in ([status] if isinstance(status, str) else status)}
        there = equal(experiment=trial.experiment, id=trial.id)
        version: object | None = None
        status_now: object = None
        with anyio.move_on_after(timeout or None):
            while True:
                found = await self._gateway.execute(Find(TRIALS, there, limit=1))
                if not found:
                    raise missing_trial(trial.experiment, trial.id)
                status_now = found[0].get("status")
                if status_now in wanted:
                    return self._reader.read(found[0])
                if timeout == 0:  # it was looked at, however long that took
                    break
                await anyio.sleep(MIN_INTERVAL)
                version = await self._gateway.wait_for_change(TRIALS, version, MAX_INTERVAL)
        raise TimeoutError(f"trial {trial.id} is {status_now!r} after {timeout:g} s")

    async def history(self, trial: Trial) -> list[TrialChange]:
        await self._gateway.check_history()
        where = equal(owner=trial.experiment, name=trial.id)
        found = await self._gateway.execute(Find(CHANGES, where))
        return [change for row in found if (change := self._change(row, "")) is not None]

    async def _read(self, uid: Any, cursor: str | None, limit: int) -> TrialChanges:
        await self._gateway.check_history()
        if cursor == "":
            raise CursorExpired(f"an empty text is not a cursor; {OLDEST!r} is the first one")
        after = "" if cursor == OLDEST else cursor
        changes: list[TrialChange] = []
        while True:
            wanted = limit - len(changes)
            page = await self._gateway.read_log(CHANGES, uid, after, wanted)
            found = [self._change(row, place) for place, row in page.rows]
            changes += [change for change in found if change is not None]
            # a page that is not full means that there are no more rows: damaged ones must not
            if len(page.rows) < wanted or len(changes) == limit:
                return TrialChanges(changes, page.cursor)
            after = page.cursor

    def _change(self, row: Document, cursor: str) -> TrialChange | None:
        """Return the change of a row; None if it tells of none, of which the first call warns."""
        try:
            return change_of(row, cursor)
        except EncodingError as error:
            warn_left_out(self._gateway, row, error)
            return None


class _Beats:
    """The heartbeats of an experiment, read from time to time."""

    def __init__(self, gateway: Gateway, uid: Any) -> None:
        self._gateway = gateway
        where = equal(experiment=uid, status=TrialStatus.RESERVED.value)
        self._find = Find(TRIALS, where, _BEATS)
        self._uid = uid
        self._seen: dict[Any, tuple[Any, Any]] | None = None

    async def look(self, cursor: str) -> list[TrialChange]:
        """Return a change for each trial whose heartbeat has changed since the last call."""
        found = await self._gateway.execute(self._find)
        seen = {row["id"]: (row.get("worker"), row.get("heartbeat")) for row in found}
        before, self._seen = self._seen, seen
        return [
            TrialChange(
                kind="heartbeat",
                experiment=self._uid,
                trial=uid,
                before=TrialStatus.RESERVED.value,
                after=TrialStatus.RESERVED.value,
                worker=worker,
                attempt=0,
                time=time,
                reason=None,
                cursor=cursor,
            )
            for uid, (worker, time) in seen.items()
            if before is not None
            and time is not None
            and uid in before
            and before[uid][0] == worker
            and before[uid][1] != time
        ]
