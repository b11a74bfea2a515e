"""The clock of a store in memory: the time of day, and a steady one beside it.

The time of day may be set, and it goes on while the machine is suspended. So it is kept for people
to read, while a steady time decides who is alive. It is that of ``time.monotonic``, and stands in
microseconds in a field of its own beside each clocked field of a stored document.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, assert_never

from aiostorage.operations import (
    And,
    Collection,
    Compare,
    Condition,
    ElementMatch,
    Or,
    StoreTime,
)

__all__ = [
    "EPOCH",
    "BootClock",
    "ClockedFields",
    "SteadyClock",
    "SteadyMoment",
    "micros",
    "utc_now",
]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
BOOT_BITS: Final = 51
"""Bits of a steady time that hold the microseconds since a boot, for 71 years."""


utc_now: Final[Callable[[], datetime]] = partial(datetime.now, UTC)
"""Returns the time of day."""


class SteadyMoment(NamedTuple):
    """A moment by the time of day, and by the steady time in microseconds."""

    wall: datetime
    steady: int

    @property
    def ahead(self) -> int:
        """How many microseconds the steady time is ahead of the time of day."""
        return self.steady - micros(self.wall)


class SteadyClock:
    """A clock whose steady time cannot be set.

    Parameters
    ----------
    wall
        Returns the time of day, in UTC. If it is another function than `utc_now`, the steady time
        follows it.
    ahead
        The microseconds that the steady time is ahead at first.
    """

    wall: Callable[[], datetime] = staticmethod(utc_now)

    def __init__(self, wall: Callable[[], datetime] = utc_now, ahead: int = 0) -> None:
        self._follows = wall is not utc_now
        if self._follows:
            self.wall = wall
        self._begin = 0 if self._follows else micros(self.wall()) + ahead - _uptime()

    def __call__(self) -> SteadyMoment:
        """Return the present moment."""
        wall = self.wall()
        steady = micros(wall) if self._follows else self._begin + _uptime()
        return SteadyMoment(wall, steady)


class BootClock(SteadyClock):
    """A clock for several processes that counts the boots of the machine.

    The steady time is the number of the boot, followed by the microseconds since that boot: a time
    that was written before the last boot is older than any since.

    Attributes
    ----------
    boot
        The number of this boot; None if the system has no id for it. Then, and if `wall` is another
        function than `utc_now`, the steady time is the time of day.
    """

    boot: int | None = None

    def __call__(self) -> SteadyMoment:
        """Return the present moment."""
        wall = self.wall()
        if self._follows or self.boot is None:
            return SteadyMoment(wall, micros(wall))
        return SteadyMoment(wall, (self.boot << BOOT_BITS) + _uptime())


class ClockedFields:
    """The clocked fields of a collection, and the fields with the steady time beside them."""

    def __init__(self, collection: Collection) -> None:
        self.steady: dict[str, str] = {
            f.name: f"{f.name} (steady)" for f in collection.fields if f.clocked
        }

    def at(self, values: Mapping[str, Any], now: SteadyMoment) -> dict[str, Any]:
        """Return fields with the time in place of the store's clock, and the steady ones added."""
        fields = dict(values)
        for name, value in values.items():
            if value.__class__ is StoreTime:
                fields[name] = value.at(now.wall)
        for name, steady in self.steady.items():
            if name in values:
                fields[steady] = _steady(values[name], now)
        return fields

    def resolved(self, condition: Condition, now: SteadyMoment) -> Condition:
        """Return a condition with the time in place of the store's clock."""
        match condition:
            case Compare(path, op, StoreTime() as moment):
                if path in self.steady:
                    return Compare(self.steady[path], op, _steady(moment, now))
                return Compare(path, op, moment.at(now.wall))
            case Compare() | ElementMatch():  # no time of the store is inside of the latter
                return condition
            case And(conditions):
                for one in conditions:  # most conditions have no time in them
                    if one.__class__ is not Compare or one.value.__class__ is StoreTime:
                        return And(tuple(self.resolved(c, now) for c in conditions))
                return condition
            case Or(conditions):
                return Or(tuple(self.resolved(c, now) for c in conditions))
            case _:
                assert_never(condition)

    def sorted_by(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the fields that a sort by these goes by."""
        return tuple(self.steady.get(name, name) for name in names)

    def hide(self, document: dict[str, Any]) -> dict[str, Any]:
        """Take the steady times out of a copy of a document, and return it."""
        for steady in self.steady.values():
            document.pop(steady, None)
        return document


def _steady(time_: Any, now: SteadyMoment) -> int | None:
    """Return the steady time of a time of day, or of the store's; None for another value."""
    if time_.__class__ is StoreTime:
        offset = time_.offset
        return now.steady + (timedelta(seconds=offset) // MICROSECOND if offset else 0)
    return micros(time_) + now.ahead if isinstance(time_, datetime) else None


def _uptime() -> int:
    return time.monotonic_ns() // 1000


def micros(time_: datetime) -> int:
    """Return the microseconds of a time of day since 1970."""
    return (time_ - EPOCH) // MICROSECOND
