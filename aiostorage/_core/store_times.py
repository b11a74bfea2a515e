"""The time of the store's clock in the place of each `StoreTime`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_never

from aiostorage.operations import And, Compare, Condition, ElementMatch, Or, StoreTime

__all__ = ["condition_at", "fields_at"]


def fields_at(fields: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return an inserted document, or changes, with times in place of `StoreTime`.

    It is a new dict; the other values are the same objects.
    """
    return {
        name: value.at(now) if isinstance(value, StoreTime) else value
        for name, value in fields.items()
    }


def condition_at(condition: Condition, now: datetime) -> Condition:
    """Return a condition with times in place of `StoreTime`."""
    match condition:
        case Compare(path, op, StoreTime() as moment):
            return Compare(path, op, moment.at(now))
        case Compare() | ElementMatch():  # no time of the store is inside of the latter
            return condition
        case And(conditions):
            return And(tuple(condition_at(part, now) for part in conditions))
        case Or(conditions):
            return Or(tuple(condition_at(part, now) for part in conditions))
        case _:
            assert_never(condition)
