"""Values as the columns of a table hold them. Pure functions, no connection."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from aiostorage.drivers.sqlite.clock import TICK, Moment
from aiostorage.errors import EncodingError
from aiostorage.operations import StoreTime

__all__ = ["bound_value", "column_value", "meant_time", "ticks_of", "to_text"]


@lru_cache(maxsize=64)  # one transaction has one time, which goes into many columns
def to_text(value: datetime) -> str:
    """Return an aware UTC datetime as text that sorts as time does."""
    return value.isoformat("T", "microseconds")[:26] + "Z"


def meant_time(value: StoreTime, now: Moment) -> datetime:
    """Return the time of day that is meant at a moment."""
    return now.wall + timedelta(seconds=value.offset) if value.offset else now.wall


def ticks_of(value: Any, now: Moment) -> int:
    """Return the ticks of a time; that of another one than now, as far from now as it is."""
    if value.__class__ is StoreTime:
        return now.ticks + round(value.offset * 1000) if value.offset else now.ticks
    distance: int = (value - now.wall) // TICK
    return now.ticks + distance


def bound_value(kind: str, value: Any, now: Moment) -> Any:
    """Return the stored form of a value in such a column; None if the column cannot hold it."""
    if kind == "key":
        if value.__class__ is str or value.__class__ is int:
            return value
        # 1.0 is equal to 1; a NaN is equal to no key
        return value if isinstance(value, float) and value == value else None  # noqa: PLR0124
    if kind == "ticks":
        return ticks_of(value, now)
    if kind == "time":
        if value.__class__ is StoreTime:
            value = meant_time(value, now)
        return to_text(value) if isinstance(value, datetime) else None
    return value if isinstance(value, bytes) else None


def column_value(table: str, name: str, kind: str, value: Any, now: Moment) -> Any:
    """Return the stored form of a value that is to be written into a column.

    Raises
    ------
    EncodingError
        The column cannot hold it.
    """
    if value.__class__ is StoreTime and kind == "time":  # in every write of the hot path
        return to_text(meant_time(value, now) if value.offset else now.wall)
    bound = bound_value(kind, value, now)
    if bound is None or (kind == "key" and type(value) is float):
        raise EncodingError(f"{table}.{name} holds a {kind}, not {type(value).__name__}", path=name)
    return bound
