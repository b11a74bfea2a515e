"""The state of an experiment's algorithm, as its lock hands it out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiostorage._core.holders import named_holder

__all__ = ["LockedAlgorithmState"]

_RESET = object()


class LockedAlgorithmState:
    """The state of an algorithm that `acquire_algorithm_lock` hands to its holder.

    Parameters
    ----------
    state The algorithm's state; None before the first one was saved. configuration
        The configuration of the algorithm.
    locked
        Whether the algorithm is locked.
    heartbeat
        When the lock was last acquired, renewed or released.
    owner
        The token of the holder of the lock. It is not in ``repr()``.
    since
        When that owner got it.
    restore
        Makes the original state anew, for `reset`; without it `reset` goes back to the object that
        was passed, in-place changes included.
    """

    __slots__ = (
        "_original",
        "_restore",
        "_state",
        "configuration",
        "heartbeat",
        "locked",
        "owner",
        "since",
    )

    def __init__(
        self,
        state: Any,
        configuration: Any,
        locked: bool = True,
        *,
        heartbeat: datetime | None = None,
        owner: str | None = None,
        since: datetime | None = None,
        restore: Callable[[], Any] | None = None,
    ) -> None:
        self._original = self._state = state
        self._restore = restore
        self.configuration: Any = configuration
        self.locked: bool = locked
        self.heartbeat: datetime | None = heartbeat
        self.owner: str | None = owner
        self.since: datetime | None = since

    @property
    def state(self) -> Any:
        """State of the algorithm."""
        if self._state is _RESET:
            self._state = self._original if self._restore is None else self._restore()
        return self._state

    def set_state(self, state: Any) -> None:
        """Set the state that is saved when the lock is released."""
        self._state = state

    def reset(self) -> None:
        """Go back to the state that was found in the storage."""
        self._state = _RESET

    def __repr__(self) -> str:
        name = type(self).__name__
        owner = None if self.owner is None else f"<{named_holder(self.owner)}>"
        return f"{name}(locked={self.locked!r}, owner={owner}, since={self.since})"
