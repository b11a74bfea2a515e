"""The clock of a file: the time of day, and the machine's own measure of time beside it.

The time of day may be set, and it goes on while the machine is suspended. So it is kept for people
to read, while ticks decide who is alive: whole milliseconds that the machine has run, by
``CLOCK_MONOTONIC``, which all its processes share. The machine counts anew after each boot. So the
file numbers the boots, and the number stands before the milliseconds: whatever was written before
the last boot is older than anything since.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple

from aiostorage._core.process.boot import boot_id

if TYPE_CHECKING:
    from aiostorage.drivers.sqlite.connection import Connection

__all__ = ["BOOT_TABLE", "TICK", "Moment", "StoreClock", "boot_id", "utc_now"]

TICK: Final = timedelta(milliseconds=1)

TICK_BITS: Final = 43
"""Bits of a tick that hold milliseconds, for 278 years; the others hold a million boots."""

BOOT_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS aiostorage_boot (number INTEGER NOT NULL, id TEXT NOT NULL)"
)
"""The table with one row: the number of the last boot that the file has seen, and its id."""


utc_now: Final[Callable[[], datetime]] = partial(datetime.now, UTC)
"""Returns the time of day."""


class Moment(NamedTuple):
    """One moment on both clocks."""

    wall: datetime
    ticks: int


class StoreClock:
    """The clock of a store: see `aiostorage.drivers.sqlite.execution.moment`.

    Parameters
    ----------
    wall
        Returns the time of day, in UTC. If it is another function than `utc_now`, ticks follow it.

    Attributes
    ----------
    earlier
        Ticks that are before all those of this boot.
    zero
        The time of day that has no ticks of this boot, if ticks follow the time of day.
    """

    wall: Callable[[], datetime] = staticmethod(utc_now)

    def __init__(self, wall: Callable[[], datetime] = utc_now) -> None:
        self._follows = wall is not utc_now
        if self._follows:
            self.wall = wall
        self.earlier: int = 0
        self.zero: datetime | None = None

    def begin(self, connection: Connection) -> None:
        """Find the number of this boot in a file, which gives it the next one if it is new.

        That is written in the transaction that is open, or else in one of its own.
        """
        name = boot_id()
        found = _last_boot(connection)
        if found is not None and found[1] == name:
            number = found[0]
        elif connection.in_transaction:
            number = _number_of(connection, name)
        else:
            connection.begin_transaction()
            try:
                number = _number_of(connection, name)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        self._follow(name, number)

    def read(self, connection: sqlite3.Connection) -> None:
        """Find the number that this boot has in a file, or would get, without writing it there."""
        name = boot_id()
        try:
            number, last = _last_boot(connection) or (0, None)
        except sqlite3.OperationalError:  # the table is missing
            number, last = 0, None
        self._follow(name, number if name == last else number + 1)

    def _follow(self, name: str, number: int) -> None:
        self.earlier = number << TICK_BITS
        if not name:
            self.zero = datetime(1970, 1, 1, tzinfo=UTC)
        elif self._follows:
            self.zero = _begin_of_boot()


def _number_of(connection: sqlite3.Connection, name: str) -> int:
    """Return the number of a boot; one that is not the last one in the file gets the next."""
    number, last = _last_boot(connection) or (0, None)
    if name != last:
        number += 1
        connection.execute("DELETE FROM aiostorage_boot")
        connection.execute("INSERT INTO aiostorage_boot VALUES (?, ?)", (number, name))
    return number


def _last_boot(connection: sqlite3.Connection) -> tuple[int, str] | None:
    found: tuple[int, str] | None = connection.execute(
        "SELECT number, id FROM aiostorage_boot"
    ).fetchone()
    return found


@cache  # one for all clocks of a process: between two looks, the time of day may have been set
def _begin_of_boot() -> datetime:
    begin = utc_now() - timedelta(milliseconds=time.monotonic_ns() // 1_000_000)
    return begin.replace(microsecond=begin.microsecond // 1000 * 1000)
