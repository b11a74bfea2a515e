"""Lost trials: reserved, and their workers have given no sign of life for too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiostorage.operations import And, Compare, Comparison, Condition, Or, StoreTime
from aiostorage.values import TrialStatus

__all__ = ["LostTrials"]

SIGNS_OF_LIFE: Final = ("heartbeat", "start_time", "submit_time")
"""The times of a reserved trial that count, the first one that is there."""

MISSING: Final = tuple(Compare(field, "eq", None) for field in SIGNS_OF_LIFE)

MAX_SECONDS: Final = 1e10
"""Three centuries: a time that is still further in the past cannot be computed."""

MIN_SEARCH_INTERVAL: Final = 0.05
"""Seconds between two searches for lost trials while waiting for one, at least."""


class LostTrials:
    """Decides which trials are lost.

    Parameters
    ----------
    after
        Seconds without a sign of life; or a function that returns them, which is called each time.
    """

    def __init__(self, after: float | Callable[[], float]) -> None:
        self._after = after

    @property
    def after(self) -> float:
        """Seconds without a sign of life after which a reserved trial is lost."""
        return self._after() if callable(self._after) else self._after

    @property
    def look_interval(self) -> float:
        """Seconds between two searches for lost trials while a caller waits for a trial."""
        return max(self.after / 10, MIN_SEARCH_INTERVAL)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions that all hold for a lost trial, and for no other.

        The last sign of life is the heartbeat, or else the start, or else the submission. A
        reserved trial without any of them is lost, too: nothing else would ever end it.
        """
        silent = self._last_signs("lte")
        return (
            Compare("status", "eq", TrialStatus.RESERVED.value),
            Or((*silent, And(MISSING))),
        )

    @property
    def alive_conditions(self) -> tuple[Condition, ...]:
        """The conditions that all hold for a reserved trial that is not lost, and for no other."""
        return (
            Compare("status", "eq", TrialStatus.RESERVED.value),
            Or(self._last_signs("gt")),
        )

    def _last_signs(self, op: Comparison) -> tuple[Condition, ...]:
        """Return the conditions, of which one can hold, on the last sign of life."""
        moment = StoreTime(-min(self.after, MAX_SECONDS))
        return tuple(
            And((*MISSING[:number], Compare(field, op, moment)))
            for number, field in enumerate(SIGNS_OF_LIFE)
        )
