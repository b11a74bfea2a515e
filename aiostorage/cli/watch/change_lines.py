"""Changes as lines, for files, pipes and programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from aiostorage import Storage
from aiostorage._core.holders import named_holder
from aiostorage.cli.naming import NothingFound, experiment_label, find_experiment
from aiostorage.cli.watch.feed import MAX_RETRY_DELAY, OpenStorage, store_is_away
from aiostorage.trial_change import TrialChange

__all__ = ["COLUMNS", "follow_lines", "json_line", "plain_line"]

T = TypeVar("T")

COLUMNS: Final = ("time", "kind", "trial", "before", "after", "attempt", "worker", "reason")

EXPERIMENT_CHECK_INTERVAL: Final = 2.0
"""Seconds between two checks of whether the experiment exists."""


def plain_line(change: TrialChange) -> str:
    """Return a change as columns separated by tabs."""
    cells = _cells(change)
    return "\t".join("-" if cells[name] is None else str(cells[name]) for name in COLUMNS)


def json_line(change: TrialChange) -> str:
    """Return a change as a line of JSON, which includes the cursor behind it."""
    document = {**_cells(change), "experiment": change.experiment, "cursor": change.cursor}
    return json.dumps(document).replace("\x7f", "\\u007f")


def _cells(change: TrialChange) -> dict[str, str | int | None]:
    return {
        "time": change.time.astimezone(UTC).isoformat(),
        "kind": change.kind,
        "trial": change.trial,
        "before": change.before,
        "after": change.after,
        "attempt": change.attempt,
        "worker": None if change.worker is None else named_holder(change.worker),
        "reason": change.reason,
    }


async def follow_lines(
    opening: OpenStorage,
    wanted: str,
    show: Callable[[TrialChange], None],
    say: Callable[[str], None],
    *,
    since: str | None = None,
    heartbeats: bool = False,
) -> None:
    """Show each change of an experiment once, endlessly, whatever happens to the store.

    Parameters
    ----------
    say
        Gets a message when the store is away or back, and when the experiment is missing.

    Raises
    ------
    AioStorageError, OSError
        The store could not be opened at first, or keeps no history, or the cursor is too old; or
        the output cannot be written.
    """
    say = _with_output_errors(say)
    follower = _Follower(wanted, _with_output_errors(show), say, since=since, heartbeats=heartbeats)
    opened, pause = False, 0.5
    while True:
        try:
            storage = await anyio.to_thread.run_sync(opening)
            async with storage as there:
                opened = True
                if pause > 0.5:
                    say("the store is back")
                    pause = 0.5
                await follower.follow(there)
        except* Exception as group:  # noqa: BLE001  those that do not pass are raised again
            error = _only(group)
            if isinstance(error, _NotWrittenError):
                raise error.error from None
            if not opened or not store_is_away(error):
                raise error from None
            if pause <= 0.5:
                say(f"the store is away: {error}")
        await anyio.sleep(pause)
        pause = min(pause * 2, MAX_RETRY_DELAY)


class _NotWrittenError(Exception):
    """The output cannot be written: no error of the store."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _with_output_errors(write: Callable[[T], None]) -> Callable[[T], None]:
    """Return a function that raises the errors of another one as those of the output."""

    def write_or_tell(what: T) -> None:
        try:
            write(what)
        except OSError as error:
            raise _NotWrittenError(error) from error

    return write_or_tell


class _Follower:
    """Continues behind the last change that was shown."""

    def __init__(
        self,
        wanted: str,
        show: Callable[[TrialChange], None],
        say: Callable[[str], None],
        *,
        since: str | None,
        heartbeats: bool,
    ) -> None:
        self._wanted = wanted
        self._show = show
        self._say = say
        self._cursor = since
        self._heartbeats = heartbeats
        self._config: dict[str, Any] = {}
        self._missing = False

    async def follow(self, storage: Storage) -> None:
        while True:
            try:
                config = await find_experiment(storage, self._wanted)
            except NothingFound as error:
                if not self._missing:
                    self._say(f"waiting: {error}")
                self._missing = True
                await anyio.sleep(EXPERIMENT_CHECK_INTERVAL)
                continue
            if self._missing:
                self._say(f"{experiment_label(config)} is there now")
            if self._config.get("_id", config["_id"]) != config["_id"] or self._missing:
                self._cursor = "oldest"  # of a new experiment, nothing was seen
            self._missing, self._config = False, config
            if self._cursor is None:
                _, self._cursor = await storage.changes_since(self._config)
            await self._until_deleted(storage)

    async def _until_deleted(self, storage: Storage) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._show_changes, storage)
            while await storage.fetch_experiments({"_id": self._config["_id"]}, {"_id": 1}):  # noqa: ASYNC110
                await anyio.sleep(EXPERIMENT_CHECK_INTERVAL)
            tasks.cancel_scope.cancel()
        self._say(f"the experiment {self._wanted!r} was deleted")

    async def _show_changes(self, storage: Storage) -> None:
        changes = storage.watch_trials(
            self._config, since=self._cursor, heartbeats=self._heartbeats
        )
        async for change in changes:
            self._show(change)
            self._cursor = change.cursor


def _only(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return the exception in a group, which task groups put there."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, Exception) else group  # type: ignore[return-value]
