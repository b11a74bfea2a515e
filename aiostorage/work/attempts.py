"""How often a trial was begun, and when a worker gives up on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from aiostorage._core.limits import ONE_TOO_MANY
from aiostorage.errors import ConfigurationError, TrialLost
from aiostorage.protocols import AsyncStorageProtocol, Uid
from aiostorage.trial import Trial
from aiostorage.trial_change import TrialChange
from aiostorage.values import TrialStatus

__all__ = ["attempts_in", "check_history", "earlier_ends", "gave_up"]

RESERVED = TrialStatus.RESERVED.value


async def check_history(storage: AsyncStorageProtocol, experiment: Uid) -> None:
    """Raise ConfigurationError if the store has no history to count attempts in."""
    try:
        await storage.trial_history(Trial(experiment=experiment, params={"none": 0}))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"max_attempts counts attempts in the history of each trial: {error}; open the storage "
            "with history='30d', or leave max_attempts out"
        ) from error


async def gave_up(storage: AsyncStorageProtocol, trial: Trial, most: int) -> str | None:
    """Make a reserved trial broken if it has used up its attempts; return why.

    Raises
    ------
    TrialLost
        It is not reserved by this worker any more.
    """
    history = await storage.trial_history(trial)
    earlier = attempts_in(history) - 1
    if earlier < most:
        return None
    ends = "; ".join(earlier_ends(history)[-most:])
    reason = f"given up after {earlier} attempts" + (f": {ends}" if ends else "")
    ours = {"status": RESERVED, "worker": trial.worker}
    if not await storage.update_trial(trial, where=ours, end_time=datetime.now(UTC)):
        raise TrialLost(uid=trial.id, token=trial.worker)
    await storage.set_trial_status(trial, TrialStatus.BROKEN.value, reason=reason)
    return reason


def attempts_in(history: Sequence[TrialChange]) -> int:
    """Return how often a trial was reserved, except when it was handed back at once."""
    released = sum(change.reason == ONE_TOO_MANY for change in history)
    return max((change.attempt for change in history), default=0) - released


def earlier_ends(history: Sequence[TrialChange]) -> list[str]:
    """Return why its reservations have ended, as far as that is known."""
    return [
        change.reason
        for change in history
        if change.before == RESERVED and change.reason and change.reason != ONE_TOO_MANY
    ]
