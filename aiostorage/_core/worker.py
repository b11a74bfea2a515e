"""A worker's turn with one trial: reserved, kept alive, and handed back whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiostorage._core.cancellation import clean_up
from aiostorage._core.heartbeat import repeating
from aiostorage._core.reservations import Reservations
from aiostorage.errors import FailedUpdate, TrialLost
from aiostorage.trial import Trial
from aiostorage.values import TrialStatus

__all__ = ["reserved_trial"]

RESERVED: Final = TrialStatus.RESERVED.value
COMPLETED: Final = TrialStatus.COMPLETED.value
INTERRUPTED: Final = TrialStatus.INTERRUPTED.value
BROKEN: Final = TrialStatus.BROKEN.value


@asynccontextmanager
async def reserved_trial(
    reservations: Reservations,
    experiment: Any,
    heartbeat: float,
    hand_back_timeout: float,
    *,
    wait: float,
    recover: bool,
) -> AsyncIterator[Trial | None]:
    """Reserve a trial for the body; the contract is `AsyncStorageProtocol.reserved_trial`.

    Parameters
    ----------
    heartbeat
        Seconds between two heartbeats.
    hand_back_timeout
        Seconds that handing the trial back may take.
    wait
        Seconds to wait for a pending trial.
    recover
        Whether a lost trial will do where none is pending.
    """
    reserved = await reservations.reserve(experiment, 1, wait, recover)
    if not reserved:
        yield None
        return
    trial = reserved[0]

    async def hand_back(status: str) -> None:
        if trial.status == RESERVED:
            await clean_up(
                hand_back_timeout,
                lambda: reservations.hand_back(trial, status),
                f"marking a trial {status}",
            )

    try:
        async with repeating(lambda: _beat(reservations, trial), heartbeat):
            yield trial
    except TrialLost:
        await hand_back(INTERRUPTED)  # it is still ours if the body's error named another trial
        raise
    except Exception:
        await hand_back(BROKEN)
        raise
    except BaseException:
        await hand_back(INTERRUPTED)
        raise
    await hand_back(INTERRUPTED)


async def _beat(reservations: Reservations, trial: Trial) -> None:
    """Renew the reservation; raise `TrialLost` if it is gone, unless the body ended it itself."""
    try:
        await reservations.beat(trial)
    except FailedUpdate as error:
        if trial.status != RESERVED:
            return
        if isinstance(error, TrialLost):  # another worker has it, or has even completed it
            raise
        if error.status in (COMPLETED, BROKEN):  # the body may end it through another copy
            return
        raise TrialLost(
            str(error), uid=error.uid, status=error.status, holder=error.holder
        ) from error
