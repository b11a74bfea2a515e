"""Upgrading a store of an older layout: the steps of an upgrade, and the report on it.

The tables, columns and indexes that a layout adds are an engine's own business: it compares what a
store has with the `aiostorage.operations.Layout`. What a layout changes in the documents is written
once for all engines, as an `UpgradeStep`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from aiostorage._core.frozen_records import FrozenRecord, frozen_record
from aiostorage.operations import Document, Find, Operation

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StepPlan", "UpgradeProgress", "UpgradeReport", "UpgradeStep", "silent", "steps_from"]

UpgradeProgress: TypeAlias = Callable[[str], object]
"""Called before each step of an upgrade with a short description; from any thread."""


def silent(_: str) -> None:
    """Ignore a line of progress."""


@frozen_record
class StepPlan(FrozenRecord):
    """What a step does to one store.

    Attributes
    ----------
    operations
        What has to be carried out, in order. After an interruption, a new plan made from the
        documents as they are then does the rest.
    notes
        What the user should know of it, a sentence each.
    """

    operations: tuple[Operation[Any], ...] = ()
    notes: tuple[str, ...] = ()


@frozen_record
class UpgradeStep(FrozenRecord):
    """A change of the documents from one version of the layout to the next.

    Attributes
    ----------
    version
        The version to which it leads.
    find
        Finds the documents that `plan` needs to see.
    plan
        Makes the plan of these documents. It is a pure function, and plans nothing where the step
        has been carried out.
    """

    version: int
    find: Find
    plan: Callable[[Sequence[Document]], StepPlan]


@frozen_record
class UpgradeReport(FrozenRecord):
    """What an upgrade has done, or would do.

    Attributes
    ----------
    location
        Where the store is; without secrets.
    found
        The version of the layout that the store had; None if it had none, like a database that
        Oríon has made and aiostorage has not opened yet.
    version
        The version of the layout that this aiostorage has.
    notes
        What the user should know of the changes, a sentence each.
    backup
        The copy of the store as it was, if one was made.
    dry_run
        Whether nothing was changed.
    """

    location: str
    found: int | None
    version: int
    notes: tuple[str, ...] = ()
    backup: Path | None = None
    dry_run: bool = False

    @property
    def needed(self) -> bool:
        """Whether the store had an older layout."""
        return self.found is not None and self.found < self.version

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that JSON can hold."""
        return {
            "location": self.location,
            "found": self.found,
            "version": self.version,
            "needed": self.needed,
            "notes": list(self.notes),
            "backup": None if self.backup is None else str(self.backup),
            "dry_run": self.dry_run,
        }


def steps_from(steps: Sequence[UpgradeStep], found: int, version: int) -> list[UpgradeStep]:
    """Return the steps that lead from one version of the layout to another, in order."""
    needed = (step for step in steps if found < step.version <= version)
    return sorted(needed, key=lambda step: step.version)
