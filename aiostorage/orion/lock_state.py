"""The state of a locked algorithm, as one of Oríon's objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orion.storage.base as orion_base

from aiostorage.algorithm import LockedAlgorithmState
from aiostorage.orion.conversion import naive_utc

__all__ = ["OrionLockState"]

if TYPE_CHECKING:

    class OrionLockedAlgorithmState:
        """Oríon's base class."""

        _state: Any
        configuration: Any
        locked: bool

        def __init__(self, state: Any, configuration: Any, locked: bool) -> None: ...

        @property
        def state(self) -> Any: ...

else:
    OrionLockedAlgorithmState = orion_base.LockedAlgorithmState


class OrionLockState(OrionLockedAlgorithmState):
    """Oríon's `LockedAlgorithmState`, whose state is that of one of ours.

    Parameters
    ----------
    ours
        The state that the storage returned, and saves if it holds the lock.

    Attributes
    ----------
    heartbeat, since
        When the lock was last written, and when its holder got it; naive UTC.
    owner
        The token of the holder; None for a holder that works with Oríon's own storage.
    """

    def __init__(self, ours: LockedAlgorithmState) -> None:
        super().__init__(ours.state, naive_utc(ours.configuration), ours.locked)
        self._ours = ours
        self.heartbeat: datetime | None = naive_utc(ours.heartbeat)
        self.owner: str | None = ours.owner
        self.since: datetime | None = naive_utc(ours.since)

    def set_state(self, state: Any) -> None:
        """Set the state that is saved when the lock is released."""
        self._state = state
        self._ours.set_state(state)

    def reset(self) -> None:
        """Go back to the state that was found in the storage; changes in place are undone."""
        self._ours.reset()
        self._state = self._ours.state

    def is_new(self, encode: Callable[[Any], bytes]) -> bool:
        """Return whether the state is not the one that was found in the storage.

        Call it when the lock has ended: it resets the state that the storage would save.
        """
        if self._state is None:  # which no release saves
            return False
        self._ours.reset()
        return encode(self._state) != encode(self._ours.state)
