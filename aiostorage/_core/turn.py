"""A worker's turn with one trial: what is known of its reservation, and how an error ends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiostorage._core.reasons import leaves_of
from aiostorage.errors import (
    BackendError,
    DuplicateKeyError,
    FailedUpdate,
    LockError,
    StorageClosedError,
    TrackerError,
    TrialLost,
)
from aiostorage.operations import Update
from aiostorage.trial import Trial
from aiostorage.values import Result, TrialStatus

__all__ = ["Held", "Turn", "lost_by", "status_after"]

STORE_FAILURES: Final = (
    BackendError,
    DuplicateKeyError,
    FailedUpdate,
    LockError,
    StorageClosedError,
    TrackerError,
)
"""Errors that say nothing about the evaluation of the trial, which may go well the next time."""


class Held(Protocol):
    """What names a reserved trial: a `Trial`, a `Turn`, or the ids and the token alone."""

    @property
    def experiment(self) -> Any:
        """The id of the experiment."""

    @property
    def id(self) -> str:
        """The id of the trial."""

    @property
    def worker(self) -> str | None:
        """The token of the reservation."""


@dataclass(slots=True)
class Turn:
    """What is known of a reservation while the block of `reserved_trial` runs.

    Attributes
    ----------
    trial
        What the block was given; it may have changed it.
    experiment, id, worker
        The reservation: the two ids of the trial, and the token.
    beaten
        When the store last had a sign of life, by the clock of the event loop.
    ended
        Whether the store has confirmed a write of the block that ended the reservation.
    writing
        How many writes of the block are under way.
    unwritten
        The last write that was to end the reservation and did not get through, and the results
        in it.
    lost
        The error by which a heartbeat found that the reservation is gone.
    """

    trial: Trial
    experiment: Any
    id: str
    worker: str | None
    beaten: float
    ended: bool = False
    writing: int = 0
    unwritten: tuple[Update, list[Result]] | None = None
    lost: TrialLost | None = None


def status_after(error: BaseException, *, unwritten: bool = False) -> TrialStatus:
    """Return the status of a trial whose evaluation was ended by an error.

    `BROKEN` if the objective itself failed, or was programmed in a way that fails each time: for
    every exception but those below, among them `EncodingError` and `InvalidResult`. An exception
    raised ``from`` an error of the store is the objective's own. Of a group, one such exception
    is enough.

    `INTERRUPTED` if the store failed (`BackendError`, `LockError`, `DuplicateKeyError`,
    `FailedUpdate`, `StorageClosedError`) or the tracker (`TrackerError`), and for anything
    that is not an `Exception`, such as a cancellation.

    Parameters
    ----------
    unwritten
        Whether the trial was to be completed, but the store has not confirmed that. Then a
        `TimeoutError` means that the store was too slow, and not the objective.
    """
    for leaf in leaves_of(error):
        failed = isinstance(leaf, STORE_FAILURES) or (unwritten and isinstance(leaf, TimeoutError))
        if isinstance(leaf, Exception) and not failed:
            return TrialStatus.BROKEN
    return TrialStatus.INTERRUPTED


def lost_by(error: BaseException | None, token: str | None) -> TrialLost | None:
    """Return the `TrialLost` of this very reservation, if `error` says nothing else."""
    found: TrialLost | None = None
    for leaf in leaves_of(error) if error is not None else ():
        if not isinstance(leaf, TrialLost) or leaf.token is None or leaf.token != token:
            return None
        found = leaf
    return found
