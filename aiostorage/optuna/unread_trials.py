"""The trials of a study that have changed and were not read since."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["UnreadTrials"]


class UnreadTrials:
    """Ids of trials, found by their statuses without a look at each of them.

    A process that never asks for finished trials has thousands of them here.

    Attributes
    ----------
    known : set of str
        Those of which the process knows how they were before.
    """

    def __init__(self) -> None:
        self.known: set[str] = set()
        self._statuses: dict[str, str | None] = {}
        self._by_status: dict[str | None, set[str]] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._statuses

    def add(self, uid: str, status: str | None, *, known: bool = False) -> None:
        """Take a trial that has this status now."""
        self.discard(uid)
        self._statuses[uid] = status
        self._by_status.setdefault(status, set()).add(uid)
        if known:
            self.known.add(uid)

    def discard(self, uid: str) -> None:
        """Forget a trial, which was read or deleted."""
        if uid in self._statuses:
            self._by_status[self._statuses.pop(uid)].discard(uid)
            self.known.discard(uid)

    def clear(self) -> None:
        """Forget all."""
        self.known.clear()
        self._statuses.clear()
        self._by_status.clear()

    def all(self) -> set[str]:
        """Return all of them."""
        return set(self._statuses)

    def in_statuses(self, statuses: Collection[str]) -> set[str]:
        """Return those that have one of these statuses."""
        return {uid for status in statuses for uid in self._by_status.get(status, ())}
