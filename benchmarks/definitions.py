"""What a benchmark is made of: a workload, and the sides that carry it out in turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

__all__ = [
    "BEFORE",
    "Begin",
    "Block",
    "Figures",
    "Key",
    "Need",
    "Setting",
    "Side",
    "Span",
    "Workload",
]

Need = Literal["optuna", "orion", "mongodb", "before"]
"""What a side cannot do without: a package, a server, or a checkout of earlier code."""

BEFORE = "aiostorage before"

Key = tuple[str, str, str]
"""A workload, who carries it out, and in which case."""

Span = tuple[str, float, float]
"""A holder of a lock, and when it got and released it, in seconds of the machine's clock."""


@dataclass(frozen=True)
class Setting:
    """What one process of a side is told.

    Attributes
    ----------
    directory
        Where the files of the run are.
    store
        The name of the side's file or database. A store that is not there is made and filled.
    tasks
        Tasks or threads that work at the same time in this process.
    size
        Trials that the store has in the beginning.
    count
        Operations of one block.
    mongodb
        The URL of a server, if there is one.
    """

    directory: Path
    store: str
    tasks: int
    size: int
    count: int
    mongodb: str | None = None


@dataclass(frozen=True)
class Figures:
    """What one process measured in one block.

    Attributes
    ----------
    count
        Operations that were done.
    seconds
        How long they took together.
    processor
        Seconds of processor time that the process took for them.
    stall
        The longest time that the event loop was blocked, in seconds; None without an event loop.
    spans
        Who held a lock from when to when.
    """

    count: int
    seconds: float
    processor: float
    stall: float | None = None
    spans: tuple[Span, ...] = ()


Block = Callable[[], Figures]
"""Does some operations and measures them."""

Begin = Callable[[Setting], AbstractContextManager[Block]]
"""Opens a store, fills it if there is none, and yields what is then called once a round."""


@dataclass(frozen=True)
class Side:
    """One way of carrying out a workload.

    Attributes
    ----------
    who
        What is measured, such as ``aiostorage, SQLite``.
    case
        Under which circumstances, such as ``64 tasks``.
    count
        Operations of one block of each process; with `quick`, a tenth of them.
    size
        Trials in the store in the beginning, at the least; with `quick`, a tenth of them.
    apart
        Fill the store in another process, so that this one's memory tells what the work needs.
    store
        A name that is shared by sides which use the same store one after another.
    """

    who: str
    case: str
    begin: Begin
    count: int
    tasks: int = 1
    processes: int = 1
    size: int = 0
    needs: tuple[Need, ...] = ()
    apart: bool = False
    store: str | None = None

    def quick(self) -> Side:
        """Return the same with a tenth of the work."""
        least = min(self.count, 2 * self.tasks)
        return replace(self, count=max(self.count // 10, least), size=self.size // 10)


@dataclass(frozen=True)
class Workload:
    """Sides that do the same, and are measured in turns.

    Attributes
    ----------
    name
        By which ``--only`` chooses it.
    what
        What is done, as a sentence for the report.
    unit
        What is counted, such as ``cycles``.
    reference
        Who and which case of `sides` the others are compared with.
    per_second
        Whether the report gives operations a second, or the time of one.
    rounds
        Counted rounds.
    warm_up
        Whether another round comes first, which is not counted.
    """

    name: str
    title: str
    what: str
    unit: str
    sides: tuple[Side, ...]
    reference: tuple[str, str]
    per_second: bool = True
    rounds: int = 6
    warm_up: bool = True

    @property
    def numbers(self) -> range:
        """The numbers of the rounds; 0 is that which is not counted."""
        return range(0 if self.warm_up else 1, self.rounds + 1)

    def quick(self) -> Workload:
        """Return the same with a tenth of the work."""
        return replace(
            self, sides=tuple(side.quick() for side in self.sides), rounds=min(self.rounds, 2)
        )
