"""The history of the trials in a store: how long it is kept, and the deletion of old rows.

The limit is a setting of the store and applies to all its users. A storage that was opened before
the setting was changed applies the old one until it is opened again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from aiostorage._core.change_rows import break_row
from aiostorage._core.documents import equal
from aiostorage._core.event_log import EventLog
from aiostorage._core.history_limit import DEFAULT_HISTORY, HistoryLimit
from aiostorage._core.ids import new_id
from aiostorage._core.layout import CHANGES, SETTINGS
from aiostorage._core.telemetry import driver_within
from aiostorage.errors import ConfigurationError, DuplicateKeyError, EncodingError
from aiostorage.operations import (
    EVERYTHING,
    Compare,
    Count,
    Delete,
    Document,
    Find,
    Insert,
    Operation,
    Update,
)
from aiostorage.protocols import Driver, LoggingDriver

__all__ = ["REMEDY", "History", "stored_limit"]

T = TypeVar("T")

MAX_DELETED: Final = 1000
"""Rows that are deleted at a time, at most."""

REMEDY: Final = 'open the storage once with history="30d", then open the others again'
"""What to do where there is no history."""

_SETTING: Final = equal(_id="history")

events: Final = EventLog("records")

Execute = Callable[[Operation[Any]], Awaitable[Any]]


class History:
    """The limit of the history, and the deletion of rows beyond it.

    Parameters
    ----------
    wanted
        The limit to set in the store; None keeps the one that it has.
    """

    def __init__(self, wanted: HistoryLimit | None) -> None:
        self.wanted = wanted
        self.limit: HistoryLimit | None = None
        """The limit in force; None before the store is open, and where there is none."""
        self._fault: str | None = None

    async def begin(self, driver: Driver, execute: Execute) -> None:
        """Read or set the limit of a store that has just been opened, and pass it to the engine.

        Parameters
        ----------
        execute
            Carries out an operation on it.

        Raises
        ------
        ConfigurationError
            A limit is to be set, and the engine keeps no history.
        """
        self.limit = self._fault = None
        engine = driver_within(driver)
        if not isinstance(engine, LoggingDriver):
            if self.wanted is not None and not self.wanted.is_off:
                raise ConfigurationError(f"the engine {driver.name} keeps no history of trials")
            return
        limit, fault = await stored_limit(execute)
        if fault is not None:
            await self._begin_anew(driver, execute, fault)
        elif limit is None:
            limit = HistoryLimit.of(getattr(engine, "default_history", DEFAULT_HISTORY))
        if self.wanted is not None and (limit is None or self.wanted.text != limit.text):
            await _set(execute, self.wanted.text)
            if self.wanted.is_off or (limit is not None and limit.is_off):
                await _clear(execute)
            limit = self.wanted
        # where the limit cannot be read, all of it is kept
        engine.logs = limit is None or not limit.is_off
        self.limit = limit

    async def _begin_anew(self, driver: Driver, execute: Execute, fault: str) -> None:
        """Forget a setting that cannot be read if another one is wanted; else say so."""
        if self.wanted is not None:
            await execute(Delete(SETTINGS, _SETTING))
            return
        self._fault = f"{driver.location}: {fault}; {REMEDY}"
        events.warning("setting_unreadable", "%(error)s", store=driver.location, error=self._fault)

    def check(self, location: str) -> None:
        """Raise `ConfigurationError` if there is no history."""
        if self._fault is not None:
            raise ConfigurationError(self._fault)
        if self.limit is None:
            raise ConfigurationError(f"the engine of {location} keeps no history of trials")
        if self.limit.is_off:
            raise ConfigurationError(f"the history of {location} is off: {REMEDY}")

    async def trim(self, driver: Driver, execute: Execute) -> bool:
        """Delete rows that are too old, or too many; return whether there are more of them.

        The last row stays: a cursor behind it is valid as long as the row exists.
        """
        limit = self.limit
        if limit is None or limit.is_off:
            return False
        size = MAX_DELETED
        if limit.rows is not None:
            size = min(await execute(Count(CHANGES)) - limit.rows, MAX_DELETED)
            if size <= 0:
                return False
        age, now = limit.age, None
        if age is not None:
            now = await driver.now()
            if any(_is_recent(row, age, now) for row in await execute(_first(1))):
                return False  # as mostly: the others need not be read
        found = await execute(_first(size + 1))
        doomed = found[: min(size, len(found) - 1)]
        if age is not None and now is not None:
            doomed = _first_old_ones(doomed, age, now)
        if doomed:
            ids = tuple(row["_id"] for row in doomed)
            await execute(Delete(CHANGES, Compare("_id", "in", ids)))
        return len(doomed) == MAX_DELETED


def _first(number: int) -> Find:
    return Find(CHANGES, EVERYTHING, {"time": True}, limit=number)


def _is_recent(row: Document, age: timedelta, now: datetime) -> bool:
    """Return whether a row is too young to be deleted, and was not written in the future."""
    time = dict.get(row, "time")
    return isinstance(time, datetime) and now - age <= time <= now


def _first_old_ones(rows: list[Document], age: timedelta, now: datetime) -> list[Document]:
    """Return the first rows, up to the last one that is too old.

    Rows are deleted from the beginning, so that no reader misses one between two that are there.
    The clock may have been set back: a row that is not old enough keeps those behind it, unless it
    was written in what is the future now.
    """
    end = 0
    for number, row in enumerate(rows, 1):
        if _is_recent(row, age, now):
            break
        time = dict.get(row, "time")
        if not isinstance(time, datetime) or time < now - age:
            end = number
    return rows[:end]


async def stored_limit(execute: Execute) -> tuple[HistoryLimit | None, str | None]:
    """Return the limit that a store has, and what is wrong with its setting, if there is one."""
    found = await execute(Find(SETTINGS, _SETTING, limit=1))
    try:
        stored = found[0].get("limit") if found else None
        return None if stored is None else HistoryLimit.of(stored), None
    except (ConfigurationError, EncodingError) as error:
        return None, f"the setting `history` in the collection {SETTINGS} cannot be read: {error}"


async def _clear(execute: Execute) -> None:
    """Delete all rows; then no cursor from before holds, also that of a log without rows.

    The first row of all would be one that a cursor from before them may go on with, so it is
    another one that stays.
    """
    rows = tuple(break_row(new_id()) for _ in range(2))
    await execute(Delete(CHANGES, EVERYTHING))
    with suppress(DuplicateKeyError):  # an attempt whose answer was lost
        await execute(Insert(CHANGES, rows))
    await execute(Delete(CHANGES, equal(_id=rows[0]["_id"])))


async def _set(execute: Execute, text: str) -> None:
    update = Update(SETTINGS, _SETTING, {"limit": text})
    if await execute(update):
        return
    try:
        await execute(Insert(SETTINGS, ({"_id": "history", "limit": text},)))
    except DuplicateKeyError:  # another process was first
        await execute(update)
