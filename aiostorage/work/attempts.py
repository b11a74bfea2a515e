"""How often a trial was begun, and when a worker gives it up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiostorage.errors import TrialLost
from aiostorage.protocols import AsyncStorageProtocol
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["attempts_in", "earlier_ends", "gave_up"]


async def gave_up(storage: AsyncStorageProtocol, trial: Trial, most: int) -> str | None:
    """Make a reserved trial broken if this is more than its last attempt; return why."""
    history: list[Any] = await storage.trial_history(trial)
    attempts = attempts_in(history)
    if attempts <= most:
        return None
    ends = "; ".join(earlier_ends(history)[-most:])
    reason = f"given up after {attempts - 1} attempts" + (f": {ends}" if ends else "")
    ours = {"status": TrialStatus.RESERVED.value, "worker": trial.worker}
    if not await storage.update_trial(trial, where=ours, end_time=datetime.now(UTC)):
        raise TrialLost(uid=trial.id, token=trial.worker)
    await storage.set_trial_status(trial, TrialStatus.BROKEN.value, reason=reason)
    return reason


def attempts_in(history: Sequence[Any]) -> int:
    """Return how often a trial was reserved, up to now."""
    return max((change.attempt for change in history), default=0)


def earlier_ends(history: Sequence[Any]) -> list[str]:
    """Return why its reservations have ended, as far as that is known."""
    return [
        change.reason
        for change in history
        if change.before == TrialStatus.RESERVED.value and change.reason
    ]
