"""Unwanted runs that a deliverer has created after another one had taken over.

A process that is suspended for longer than its lease, in the middle of a call, goes on with the
call when it wakes up. Meanwhile another process may have created the run of the same trial.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiostorage._core.delivery.outbox import Outbox
from aiostorage.trackers.protocol import TrackedTrial, Tracker

__all__ = ["MadeRuns"]

Name: TypeAlias = "tuple[Any, str | None]"


class MadeRuns:
    """The runs that this process has created, and that the store does not have yet.

    Parameters
    ----------
    outbox
        Where the keys of the wanted runs are.
    tracker
        The tracker.
    """

    def __init__(self, outbox: Outbox, tracker: Tracker) -> None:
        self._outbox = outbox
        self._tracker = tracker
        self._keys: dict[Name, str] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def making(self, name: Name) -> Callable[[TrackedTrial], str | None]:
        """Return `Tracker.send_trial`, whose key is noted even if its caller has gone."""

        def send_trial(tracked: TrackedTrial) -> str | None:
            key = self._tracker.send_trial(tracked)
            if isinstance(key, str):
                self._keys[name] = key
            return key

        return send_trial

    def confirmed(self, name: Name) -> None:
        """Discard the key of a run: the store has it."""
        self._keys.pop(name, None)

    async def delete_unwanted(self, delete: Callable[[Name, str], Awaitable[object]]) -> None:
        """Delete the runs of trials that have another run by now, or no longer exist.

        Parameters
        ----------
        delete
            Deletes the run of a trial in the tracker.
        """
        for name, key in list(self._keys.items()):
            record = await self._outbox.record(*name)
            if record.stored and record.key is None:
                continue  # the other process is about to find it, or to make one
            if record.key != key:
                await delete(name, key)
            self._keys.pop(name, None)
