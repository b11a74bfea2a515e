"""One change of a trial, as the store has logged it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["OLDEST", "TrialChange", "TrialChangeKind", "TrialChanges"]

TrialChangeKind: TypeAlias = Literal[
    "inserted", "reserved", "heartbeat", "status", "results", "deleted"
]

OLDEST: Final = "oldest"
"""The cursor in front of the oldest change that is kept."""


@dataclass(frozen=True, slots=True)
class TrialChange:
    """One change of a trial.

    Attributes
    ----------
    kind
        ``inserted``: registered. ``reserved``: given to a worker. ``status``: it got another
        status; if that is ``completed``, its results were written by the same change.
        ``results``: they were written, and the status stayed. ``deleted``. ``heartbeat``: its
        worker was alive; see `AsyncStorageProtocol.watch_trials`.
    experiment
        The id of the experiment.
    trial
        The id of the trial.
    before, after
        The status before and after the change; None where there was no trial, or is none any more.
    worker
        The token of the reservation under which the change was made; or of that which it ended. It
        is a secret: whoever has it can write in the worker's place.
    attempt
        Which reservation of the trial this is, or was the last one: 1 for the first, 0 before it.
        0, too, for a ``heartbeat``.
    time
        When, by the store's clock.
    reason
        Why, if that is known: the type and the first line of the error by which the trial is
        ``broken``; ``lost``, ``cancelled`` and the like.
    cursor
        The place behind this change, to go on from there; a short text.
    """

    kind: TrialChangeKind
    experiment: str | int
    trial: str
    before: str | None
    after: str | None
    worker: str | None
    attempt: int
    time: datetime
    reason: str | None
    cursor: str


class TrialChanges(NamedTuple):
    """Some changes, and the cursor behind them.

    Attributes
    ----------
    changes : list of TrialChange
        In the order in which they took effect.
    cursor : str
        Where to go on.
    """

    changes: list[TrialChange]
    cursor: str
