"""Keeps a `WatchState` up to date from the store, whatever happens to the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final

import anyio
import anyio.to_thread

from aiostorage import Storage
from aiostorage._core.holders import named_holder
from aiostorage.cli.directions import direction_of
from aiostorage.cli.naming import NothingFound, find_experiment
from aiostorage.cli.results import objective_of
from aiostorage.cli.watch.shown_state import WatchState, WorkerRow
from aiostorage.errors import (
    AioStorageError,
    BackendError,
    ConfigurationError,
    CursorExpired,
)
from aiostorage.trial import TrialStatus
from aiostorage.trial_change import TrialChange

__all__ = ["OpenStorage", "WatchFeed", "store_is_away"]

OpenStorage = Callable[[], AbstractAsyncContextManager[Storage]]
"""Returns the storage that is watched, closed; it looks at files."""

PAGE_SIZE: Final = 1000
"""Changes per read."""

MAX_WORKERS: Final = 500
"""Maximum number of workers that are read."""

MAX_EARLIER_TRIALS: Final = 500
"""How many trials that were completed before are read for the first screen."""

MAX_RETRY_DELAY: Final = 8.0
"""Seconds between two attempts to reach a store that is away, at most."""

SUMMARY_INTERVAL: Final = 5.0
"""Seconds after which the counts are read again even without a change."""

_RESERVED: Final = {"status": TrialStatus.RESERVED.value}
_COMPLETED: Final = {"status": TrialStatus.COMPLETED.value}


class WatchFeed:
    """Keeps a `WatchState` up to date by reading changes, counts and reserved trials.

    Parameters
    ----------
    interval
        Seconds between two reads of the changes.
    direction_of_study
        Whether a study of Optuna says which objective is the best one, and not the `state`.
    """

    def __init__(
        self,
        opening: OpenStorage,
        state: WatchState,
        *,
        interval: float = 0.5,
        direction_of_study: bool = False,
    ) -> None:
        self._opening = opening
        self._interval = interval
        self._direction_of_study = direction_of_study
        self.state = state
        self._config: dict[str, Any] = {}
        self._cursor: str | None = None
        self._has_history = True

    async def run(self) -> None:
        """Follow the experiment endlessly.

        Raises
        ------
        AioStorageError, OSError
            The store could not be opened at first. Later it is opened again and again.
        """
        pause = self._interval
        while True:
            try:
                storage = await anyio.to_thread.run_sync(self._opening)
                async with storage as opened:
                    while True:
                        if await self._resolve(opened):
                            await self._follow(opened)
                        pause = self._interval
                        await anyio.sleep(max(self._interval, 0.2))
            except Exception as error:
                if self.state.phase == "opening" or not store_is_away(error):
                    raise
                self._note_absence(error)
            await anyio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_DELAY)

    def _note_absence(self, error: BaseException) -> None:
        state = self.state
        if state.phase != "away":
            state.phase, state.away_since = "away", time.monotonic()
        leaf = error
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        state.note = " ".join(str(leaf).split()) or type(leaf).__name__

    async def _resolve(self, storage: Storage) -> bool:
        """Look up the experiment; return whether it exists."""
        state = self.state
        try:
            config = await find_experiment(storage, state.wanted)
        except NothingFound as error:
            state.begin()
            self._config, self._cursor = {}, None
            state.phase, state.note = "missing", str(error)
            return False
        if self._direction_of_study:
            state.direction = direction_of(config)
        if config["_id"] != self._config.get("_id"):
            state.begin()
            self._config, self._cursor = config, None
        return True

    async def _follow(self, storage: Storage) -> None:
        """Follow the experiment until it is deleted."""
        if self._cursor is None:
            self._cursor = await self._present(storage)
            await self._read_earlier(storage)
        next_summary, cost = 0.0, 0.0
        while True:
            changed = await self._read_changes(storage)
            started = time.monotonic()
            if started >= next_summary or (
                changed and started >= next_summary - SUMMARY_INTERVAL + 1
            ):
                if not await self._read_summary(storage):
                    return
                cost = time.monotonic() - started
                next_summary = started + max(SUMMARY_INTERVAL, 20 * cost)
            self.state.phase, self.state.away_since = "live", None
            if self._has_history:
                self.state.note = ""
            await anyio.sleep(self._interval)

    async def _present(self, storage: Storage) -> str:
        """Return the present cursor; an empty text for a store without a history."""
        try:
            _, cursor = await storage.changes_since(self._config)
        except ConfigurationError as error:
            self._has_history = False
            self.state.note = str(error)
            return ""
        self._has_history = True
        return cursor

    async def _read_earlier(self, storage: Storage) -> None:
        """Read the trials that were completed last, and the best one before them."""
        state = self.state
        last = await storage.fetch_trials(
            self._config, where=_COMPLETED, order="-end_time", limit=MAX_EARLIER_TRIALS
        )
        ended = [trial for trial in reversed(last or []) if trial.end_time is not None]
        if len(last or []) == MAX_EARLIER_TRIALS and ended:
            before = {**_COMPLETED, "end_time": {"$lt": ended[0].end_time}}
            order = "objective" if state.direction == "minimize" else "-objective"
            best = await storage.fetch_trials(self._config, where=before, order=order, limit=1)
            ended = [*(best or []), *ended]
        for trial in ended:
            if trial.end_time is not None:
                state.ends.append(trial.end_time)
                if trial.objective is not None:
                    state.take_objective(trial.end_time, trial.objective.value)

    async def _read_changes(self, storage: Storage) -> bool:
        """Read the changes since the last call; return whether there are any."""
        if not self._has_history:
            return False
        changed = False
        while True:
            try:
                found = await storage.changes_since(self._config, self._cursor, limit=PAGE_SIZE)
            except CursorExpired as error:
                self.state.begin()
                self.state.note = f"changes were missed: {error}"
                self._cursor = await self._present(storage)
                await self._read_earlier(storage)
                return True
            self.state.take_changes(found.changes)
            await self._read_objectives(storage, found.changes)
            self._cursor = found.cursor
            changed = changed or bool(found.changes)
            if len(found.changes) < PAGE_SIZE:
                return changed

    async def _read_objectives(self, storage: Storage, changes: Sequence[TrialChange]) -> None:
        """Read the objectives of the trials that were completed by these changes."""
        ends = {one.trial: one.time for one in changes if one.after == TrialStatus.COMPLETED}
        if not ends:
            return
        where = {"id": {"$in": list(ends)}}
        found = storage.iter_trials(
            self._config, where=where, selection={"id": 1, "results": 1}, batch_size=PAGE_SIZE
        )
        objectives = {str(one.get("id")): objective_of(one) async for one in found}
        for trial, moment in ends.items():
            self.state.take_objective(moment, objectives.get(trial))

    async def _read_summary(self, storage: Storage) -> bool:
        """Read the counts and the workers; return whether the experiment still exists."""
        state = self.state
        summary = await storage.summary(self._config, direction=state.direction)
        there = await storage.fetch_experiments({"_id": self._config["_id"]}, {"_id": 1})
        if summary is None or not there:
            return False
        state.take_summary(summary)
        reserved = summary.counts.get(TrialStatus.RESERVED.value, 0)
        rows: list[WorkerRow] = []
        if reserved:
            fields = {"id": 1, "worker": 1, "start_time": 1, "heartbeat": 1}
            found = storage.iter_trials(
                self._config, where=_RESERVED, selection=fields, batch_size=MAX_WORKERS
            )
            async for document in found:
                rows.append(_worker_row(document))
                if len(rows) == MAX_WORKERS:
                    break
        state.workers = rows
        state.more_workers = max(reserved - MAX_WORKERS, 0) if len(rows) == MAX_WORKERS else 0
        return True


def store_is_away(error: BaseException) -> bool:
    """Return whether an error may be temporary: the store, the network, a file that was moved."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(store_is_away, error.exceptions))
    if isinstance(error, AioStorageError):
        return isinstance(error, BackendError | ConfigurationError)
    return isinstance(error, OSError)


def _worker_row(document: Mapping[str, Any]) -> WorkerRow:
    return WorkerRow(
        worker=named_holder(document.get("worker")),
        trial=str(document.get("id")),
        since=_moment(document.get("start_time")),
        heartbeat=_moment(document.get("heartbeat")),
    )


def _moment(value: object) -> datetime | None:
    """Return a time; None for any other value, which another program may have written."""
    return value if isinstance(value, datetime) else None
