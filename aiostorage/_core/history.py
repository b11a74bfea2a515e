"""The history of the trials in a store: how long it is kept, and the deletion of old rows.

The limit is a setting of the store and applies to all its users. A storage that was opened before
the setting was changed applies the old one until it is opened again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from aiostorage._core.documents import equal
from aiostorage._core.history_limit import DEFAULT_HISTORY, HistoryLimit
from aiostorage._core.layout import CHANGES, SETTINGS
from aiostorage._core.telemetry import driver_within
from aiostorage.errors import ConfigurationError, DuplicateKeyError
from aiostorage.operations import (
    EVERYTHING,
    Compare,
    Count,
    Delete,
    Find,
    Insert,
    Operation,
    Update,
)
from aiostorage.protocols import Driver, LoggingDriver

__all__ = ["History"]

T = TypeVar("T")

MAX_DELETED: Final = 1000
"""Rows that are deleted at a time, at most."""

_SETTING: Final = equal(_id="history")

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
        """The limit in force; None before the store is open, and where it keeps no history."""

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
        self.limit = None
        engine = driver_within(driver)
        if not isinstance(engine, LoggingDriver):
            if self.wanted is not None and not self.wanted.is_off:
                raise ConfigurationError(f"the engine {driver.name} keeps no history of trials")
            return
        found = await execute(Find(SETTINGS, _SETTING, limit=1))
        stored = found[0].get("limit") if found else None
        default = getattr(engine, "default_history", DEFAULT_HISTORY)
        limit = HistoryLimit.of(default if stored is None else stored)
        if self.wanted is not None and self.wanted.text != limit.text:
            await _set(execute, self.wanted.text)
            if self.wanted.is_off:
                await execute(Delete(CHANGES, EVERYTHING))
            limit = self.wanted
        engine.logs = not limit.is_off
        self.limit = limit

    def check(self, location: str) -> None:
        """Raise `ConfigurationError` if there is no history."""
        if self.limit is None:
            raise ConfigurationError(f"the engine of {location} keeps no history of trials")
        if self.limit.is_off:
            raise ConfigurationError(
                f'the history of {location} is off: open the storage once with history="30d", then '
                "the others anew"
            )

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
        found = await execute(Find(CHANGES, EVERYTHING, {"time": True}, limit=size + 1))
        doomed = found[: min(size, len(found) - 1)]
        if limit.age is not None:
            oldest = await driver.now() - limit.age
            doomed = [row for row in doomed if "time" not in row or row["time"] < oldest]
        if doomed:
            ids = tuple(row["_id"] for row in doomed)
            await execute(Delete(CHANGES, Compare("_id", "in", ids)))
        return len(doomed) == MAX_DELETED


async def _set(execute: Execute, text: str) -> None:
    update = Update(SETTINGS, _SETTING, {"limit": text})
    if await execute(update):
        return
    try:
        await execute(Insert(SETTINGS, ({"_id": "history", "limit": text},)))
    except DuplicateKeyError:  # another process was first
        await execute(update)
