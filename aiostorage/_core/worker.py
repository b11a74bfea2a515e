"""A worker's turn with one trial: reserved, kept alive, and handed back whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiostorage._core.cancellation import clean_up
from aiostorage._core.heartbeat import repeating
from aiostorage._core.trials import Trials
from aiostorage.errors import FailedUpdate, TrialLost
from aiostorage.trial import Trial

__all__ = ["reserved_trial"]


@asynccontextmanager
async def reserved_trial(
    trials: Trials, experiment: Any, heartbeat: float, patience: float, wait: float
) -> AsyncIterator[Trial | None]:
    """Reserve a trial for the body; the contract is `AsyncStorageProtocol.reserved_trial`.

    Parameters
    ----------
    heartbeat
        Seconds between two beats.
    patience
        Seconds that handing the trial back may take.
    wait
        Seconds to wait for a pending trial.
    """
    reserved = await trials.reserve(experiment, 1, wait)
    if not reserved:
        yield None
        return
    trial = reserved[0]

    async def hand_back(status: str) -> None:
        if trial.status == "reserved":
            await clean_up(
                patience, lambda: trials.hand_back(trial, status), f"marking a trial {status}"
            )

    try:
        async with repeating(lambda: _beat(trials, trial), heartbeat):
            yield trial
    except TrialLost:
        await hand_back("interrupted")  # if it is ours after all: the body spoke of another trial
        raise
    except Exception:
        await hand_back("broken")
        raise
    except BaseException:
        await hand_back("interrupted")
        raise
    await hand_back("interrupted")


async def _beat(trials: Trials, trial: Trial) -> None:
    """Renew the reservation; raise `TrialLost` if it is gone, unless the body ended it itself."""
    try:
        await trials.beat(trial)
    except FailedUpdate as error:
        if trial.status != "reserved":
            return
        if isinstance(error, TrialLost):  # somebody else has it, or has even done it by now
            raise
        if error.status in ("completed", "broken"):  # the body may, through another copy of it
            return
        raise TrialLost(
            str(error), uid=error.uid, status=error.status, holder=error.holder
        ) from error
