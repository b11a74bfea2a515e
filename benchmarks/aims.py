"""What aiostorage aims at, as comparisons of sides; and whether a run has reached it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from benchmarks.definitions import BEFORE, Key
from benchmarks.samples import Run, Spread, spread_of
from benchmarks.workloads.cycles import NO_HISTORY, QUEUE, STUDY
from benchmarks.workloads.making import OPTUNA, ORION, OURS
from benchmarks.workloads.startup import AIOSTORAGE

__all__ = [
    "AIMS",
    "Aim",
    "Comparison",
    "Difference",
    "Failures",
    "Quantity",
    "Speed",
    "Time",
    "Verdict",
    "verdict",
]

Field = Literal["each", "stall", "processor", "memory_above"]
"""Of a sample: seconds of one operation, of the longest stall, of processor time; bytes."""


class Comparison(Protocol):
    """Something that a run has found, as a number a round."""

    @property
    def one(self) -> Key:
        """The side that it says something about."""
        ...

    @property
    def unit(self) -> str:
        """``x`` for a ratio, ``s`` for seconds, ``B`` for bytes; empty for a number."""
        ...

    def of(self, run: Run) -> Spread | None:
        """Return what the run has found; None if a side was left out."""
        ...


@dataclass(frozen=True)
class Pairs:
    """What two sides have needed for an operation, in rounds of the same number."""

    one: Key
    other: Key
    unit: ClassVar[str] = "x"

    @staticmethod
    def compared(mine: float, theirs: float) -> float:
        """Return what the comparison of two times is."""
        raise NotImplementedError

    def of(self, run: Run) -> Spread | None:
        """Return what was found in all rounds that both have had."""
        pairs = run.pairs(self.one, self.other)
        return spread_of([self.compared(mine.each, theirs.each) for mine, theirs in pairs])


class Speed(Pairs):
    """How many times as fast as another side one side is."""

    @staticmethod
    def compared(mine: float, theirs: float) -> float:
        """Return the ratio of the rates."""
        return theirs / mine


class Time(Pairs):
    """How many times as long as another side one side takes."""

    @staticmethod
    def compared(mine: float, theirs: float) -> float:
        """Return the ratio of the times."""
        return mine / theirs


class Difference(Pairs):
    """By how many seconds an operation of one side takes longer than one of another."""

    unit = "s"

    @staticmethod
    def compared(mine: float, theirs: float) -> float:
        """Return the difference of the times."""
        return mine - theirs


@dataclass(frozen=True)
class Quantity:
    """One figure of one side; of stalls the longest one of all rounds."""

    one: Key
    field: Field

    @property
    def unit(self) -> str:
        """``s`` or ``B``."""
        return "B" if self.field == "memory_above" else "s"

    def of(self, run: Run) -> Spread | None:
        """Return the figure."""
        found = [getattr(sample, self.field) for sample in run.of(self.one)]
        return spread_of([max(found)] if found and self.field == "stall" else found)


@dataclass(frozen=True)
class Failures:
    """How often a side ended with an error: 0 or 1."""

    one: Key
    unit: str = ""

    def of(self, run: Run) -> Spread | None:
        """Return the number; None if the side was not tried."""
        failed = sum(left.key == self.one and left.failed for left in run.left_out)
        return spread_of([float(failed)]) if failed or run.of(self.one) else None


@dataclass(frozen=True)
class Aim:
    """One aim.

    Attributes
    ----------
    what
        The work.
    beside
        What it is compared with; empty for an absolute figure.
    at_least, at_most
        The bounds: one of them.
    limit
        What stands in the way where it is not reached, for the report.
    """

    what: str
    beside: str
    comparison: Comparison
    at_least: float | None = None
    at_most: float | None = None
    limit: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a run says about an aim; `reached` is None if it was not measured."""

    aim: Aim
    found: Spread | None
    reached: bool | None


def verdict(aim: Aim, run: Run) -> Verdict:
    """Return what a run says about an aim; the median of the rounds counts."""
    found = aim.comparison.of(run)
    if found is None:
        return Verdict(aim, None, None)
    if aim.at_least is not None:
        return Verdict(aim, found, found.median >= aim.at_least)
    return Verdict(aim, found, aim.at_most is not None and found.median <= aim.at_most)


# ------------------------------------------------------------------------------ the aims

_SQLITE, _MEMORY = OURS["sqlite"], OURS["memory"]
_JOURNAL, _RDB = OPTUNA["journal"], OPTUNA["rdb"]
_ONE = ("cycle", _SQLITE, "1 task")
_MANY = ("cycle", _SQLITE, "64 tasks")
_CALL = "a call of the facade"
_MIB = 2**20

_ROWS = (
    "A reservation writes a row of the history, and the other side does not. The next two lines "
    "compare like with like."
)
_BEFORE = (
    "Three times the speed of 0.1, which kept no history, is close to that of plain sqlite3 with "
    "the same statements in one transaction, without an event loop and without checks."
)
_ALONE = (
    "A task alone waits three times for the disk. Where that takes a millisecond or more, both "
    "sides wait for nothing else. Where it takes a tenth of that, the rest shows: the switches "
    "between the thread of the loop and that of SQLite, and Python's share of each call."
)
_PROCESSORS = (
    "Two processors serve all processes. Where the disk takes a millisecond, one task alone mostly "
    "waits for it, and the aim is reached; where it takes a tenth of that, one task uses 0.8 of a "
    "processor, and no two of them can do five times as much."
)
_COLLECTED = (
    "It is one full pass of the garbage collector over the trials that were fetched, half a "
    "microsecond for each. `iter_trials` keeps none of them."
)
_FETCHED = "See [what a fetched trial costs](decisions/what-a-fetched-trial-costs.md)."
_IN_MEMORY = (
    "Optuna makes a trial and keeps no history; here a trial is found, copied and read, and its "
    "history written. See [the profile](decisions/quick-calls-in-memory.md)."
)
_MAJORITY = (
    "It is one command, and that waits until a majority has it on disk: "
    "[the limit](decisions/lock-handover.md)."
)
_COMMANDS = (
    "With the history, a change is a transaction of three commands, in place of one; without it, "
    "what is left is our share of the processor time. See "
    "[what one task can reach](decisions/presumed-last-rows.md)."
)
_SWITCHES = (
    "The call crosses to the thread of the event loop and back. The awaited call it is compared "
    "with has become cheaper than these two switches."
)


def _mongodb() -> tuple[Aim, ...]:
    return tuple(
        Aim(
            f"cycle, {case}, MongoDB by {name}{mine}",
            f"the bare {name}{theirs or ', with the history'}",
            Speed(
                ("mongodb-cycle", OURS[library], f"{case}{mine}"),
                ("mongodb-cycle", f"bare {name}", f"{case}{theirs}"),
            ),
            at_least=0.9,
            limit=_COMMANDS,
        )
        for library, name in (("motor", "motor"), ("pymongo", "PyMongo"))
        for case in ("1 task", "8 tasks", "64 tasks", "8 processes of 8 tasks")
        for mine, theirs in (("", ""), ("", NO_HISTORY), (NO_HISTORY, NO_HISTORY))
    )


def _handovers() -> tuple[Aim, ...]:
    return tuple(
        Aim(
            f"lock hand-over, {case}, {name}",
            "",
            Quantity(("lock", OURS[engine], case), "each"),
            at_most=seconds,
            limit=_MAJORITY if engine == "motor" else "",
        )
        for case, seconds in (("1 process", 0.001), ("2 processes", 0.025))
        for engine, name in (("sqlite", "SQLite"), ("motor", "MongoDB"))
    )


AIMS: tuple[Aim, ...] = (
    Aim(
        "reserve, 64 tasks",
        "plain sqlite3, one transaction, no history",
        Speed(
            ("reserve", _SQLITE, "64 tasks"),
            ("reserve", "plain sqlite3", "one transaction, no history"),
        ),
        at_least=0.4,
        limit=_ROWS,
    ),
    Aim(
        "reserve, 64 tasks, no history",
        "plain sqlite3, one transaction, no history",
        Speed(
            ("reserve", _SQLITE, "64 tasks, no history"),
            ("reserve", "plain sqlite3", "one transaction, no history"),
        ),
        at_least=0.4,
    ),
    Aim(
        "reserve, 64 tasks",
        "plain sqlite3, one transaction, with the history",
        Speed(("reserve", _SQLITE, "64 tasks"), ("reserve", "plain sqlite3", "one transaction")),
        at_least=0.4,
    ),
    Aim(
        "cycle, 64 tasks",
        "the code before",
        Speed(_MANY, ("cycle", BEFORE, "64 tasks")),
        at_least=3.0,
        limit=_BEFORE,
    ),
    Aim(
        "cycle, 64 tasks",
        "Optuna's journal, a study's trial",
        Speed(_MANY, ("cycle", _JOURNAL, STUDY)),
        at_least=5.0,
    ),
    Aim(
        "cycle, 64 tasks",
        "Optuna's RDB on SQLite, trials enqueued",
        Speed(_MANY, ("cycle", _RDB, QUEUE)),
        at_least=1000.0,
    ),
    Aim(
        "cycle, 64 tasks",
        "Oríon's PickledDB",
        Speed(_MANY, ("cycle", ORION["pickleddb"], "1 caller")),
        at_least=1000.0,
    ),
    Aim(
        "cycle, 1 task",
        "plain sqlite3, a commit each",
        Speed(_ONE, ("cycle", "plain sqlite3", "a commit each")),
        at_least=0.75,
        limit=_ALONE,
    ),
    Aim(
        "cycle, 1 task",
        "Optuna's journal, a study's trial",
        Speed(_ONE, ("cycle", _JOURNAL, STUDY)),
        at_least=1.0,
    ),
    Aim(
        "cycle by the facade, 1 thread",
        "Optuna's journal, a study's trial",
        Speed(("facade", _SQLITE, "facade, 1 thread"), ("facade", _JOURNAL, STUDY)),
        at_least=1.0,
    ),
    Aim(
        "cycle, 8 processes of 8 tasks",
        "1 process of 1 task",
        Speed(
            ("processes", _SQLITE, "8 processes of 8 tasks"),
            ("processes", _SQLITE, "1 process of 1 task"),
        ),
        at_least=5.0,
        limit=_PROCESSORS,
    ),
    Aim(
        "errors that reach a caller, 8 processes of 8 tasks",
        "",
        Failures(("processes", _SQLITE, "8 processes of 8 tasks")),
        at_most=0.0,
    ),
    Aim(
        "time of a reservation, 1,000,000 trials",
        "1,000 trials",
        Time(("growth", _SQLITE, "1,000,000 trials"), ("growth", _SQLITE, "1,000 trials")),
        at_most=1.2,
    ),
    Aim(
        "fetch_trials, 100,000 trials",
        "Oríon's EphemeralDB",
        Speed(("fetch", _SQLITE, "fetch_trials"), ("fetch", ORION["ephemeraldb"], "fetch_trials")),
        at_least=3.0,
        limit=_FETCHED,
    ),
    Aim(
        "longest stall of the event loop meanwhile",
        "",
        Quantity(("fetch", _SQLITE, "fetch_trials"), "stall"),
        at_most=0.020,
        limit=_COLLECTED,
    ),
    *(
        Aim(
            f"memory of iter_trials, 1,000,000 trials, {name}",
            "",
            Quantity(("iterate", OURS[engine], "iter_trials"), "memory_above"),
            at_most=100.0 * _MIB,
        )
        for engine, name in (("sqlite", "SQLite"), ("motor", "MongoDB"))
    ),
    Aim(
        "cycle in memory, 1 task",
        "Optuna in memory, a study's trial",
        Speed(("memory", _MEMORY, "1 task"), ("memory", OPTUNA["memory"], STUDY)),
        at_least=1.0,
        limit=_IN_MEMORY,
    ),
    Aim(
        "cycle in memory, 64 tasks",
        "Optuna in memory, a study's trial",
        Speed(("memory", _MEMORY, "64 tasks"), ("memory", OPTUNA["memory"], STUDY)),
        at_least=1.0,
        limit=_IN_MEMORY,
    ),
    *_handovers(),
    *_mongodb(),
    *(
        Aim(
            f"{_CALL}, {name}",
            "the async call, which it exceeds by",
            Difference(("call", OURS[engine], "facade"), ("call", OURS[engine], "awaited")),
            at_most=60e-6,
            limit=_SWITCHES,
        )
        for engine, name in (("sqlite", "SQLite"), ("memory", "memory"))
    ),
    Aim(
        "processor time of import aiostorage",
        "",
        Quantity(("import", AIOSTORAGE, "import"), "processor"),
        at_most=0.080,
    ),
)
