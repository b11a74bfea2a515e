"""One change of a trial, as the store has logged it."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        ``inserted``: registered. ``reserved``: given to a worker. ``status``: its status changed;
        if that is ``completed`` now, the same change wrote its results. ``results``: its results
        were written, and its status did not change. ``deleted``. ``heartbeat``: its worker was
        alive; see `AsyncStorageProtocol.watch_trials`.
    experiment
        The id of the experiment.
    trial
        The id of the trial.
    before, after
        The status before and after the change; None if the trial did not exist, or no longer does.
    worker
        The token of the reservation under which the change was made, or which it ended. It is a
        secret: whoever has it can write in the worker's place.
    attempt
        The number of the current or last reservation of the trial: 1 for the first, 0 before it.
        It is also 0 for a ``heartbeat``.
    time
        The time of the change, by the store's clock.
    reason
        The reason, if it is known: the type and the first line of the error that made the trial
        ``broken``; ``lost``, ``cancelled`` and the like.
    cursor
        The place behind this change, from which to continue; a short text.
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
    cursor: str = field(compare=False)


class TrialChanges(NamedTuple):
    """Some changes, and the cursor behind them.

    Attributes
    ----------
    changes : list of TrialChange
        In the order in which they took effect.
    cursor : str
        The cursor from which to continue.
    """

    changes: list[TrialChange]
    cursor: str
