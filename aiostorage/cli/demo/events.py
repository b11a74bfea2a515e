"""What worker processes report to the supervising process: one line of JSON per event."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

__all__ = ["Event", "EventKind"]


class EventKind(StrEnum):
    """What happened."""

    READY = "ready"  # the process begins to work
    EVALUATING = "evaluating"  # a worker has reserved a trial
    COMPLETED = "completed"
    BROKEN = "broken"  # the objective raised, or returned an invalid result
    LOST = "lost"  # the trial was given to another worker
    SUGGESTING = "suggesting"  # a worker waits for the algorithm lock, or has it
    IDLE = "idle"  # no trial is pending, and all have been suggested
    RECOVERED = "recovered"  # trials of dead workers are pending again
    ENDED = "ended"  # the worker has nothing more to do
    FAILED = "failed"  # the process cannot go on


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a worker process.

    Parameters
    ----------
    kind
        What happened.
    worker
        The number of the worker that it happened to; 0 for the process itself.
    trial, token
        The id of the trial, and the token of its reservation.
    objective, params
        Those of the trial, once it is completed.
    trials
        The ids of several trials.
    error
        What went wrong, for people to read.
    spent
        Seconds that the worker has spent so far, by the names of `timed_storage.TimeSpent`.
    """

    kind: EventKind
    worker: int = 0
    trial: str = ""
    token: str = ""
    objective: float | None = None
    params: dict[str, Any] | None = None
    trials: tuple[str, ...] = ()
    error: str = ""
    spent: dict[str, float] | None = None

    def to_line(self) -> bytes:
        """Return the event as a line, without the fields that have their default."""
        plain = Event(self.kind)
        changed = {
            name: value
            for name, value in asdict(self).items()
            if name == "kind" or value != getattr(plain, name)
        }
        return json.dumps(changed, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """Read a line; return None for one that a killed process could not complete."""
        try:
            found = json.loads(line)
            known = {f.name: found[f.name] for f in fields(cls) if f.name in found}
            known["kind"] = EventKind(known["kind"])
        except (ValueError, KeyError, TypeError):
            return None
        known["trials"] = tuple(known.get("trials", ()))
        return cls(**known)
