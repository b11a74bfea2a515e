"""The samples of a run, and what is computed of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.definitions import Figures, Key
from benchmarks.tables import Table

__all__ = ["LeftOut", "Run", "Sample", "Spread", "combined", "handovers", "spread_of"]


@dataclass(frozen=True)
class Sample:
    """What all processes of a side measured in one round.

    Attributes
    ----------
    count
        Operations of all processes together.
    seconds
        How long they took: the longest time of a process at the mean rate.
    processor
        Seconds of processor time of all processes.
    stall
        The longest stall of an event loop, in seconds; None if there is none.
    memory
        The greatest size of a process in bytes, and by how much it exceeds that before the work.
    """

    workload: str
    who: str
    case: str
    round: int
    count: int
    seconds: float
    processor: float
    stall: float | None
    memory: int
    memory_above: int

    @property
    def key(self) -> Key:
        """The workload, who carried it out, and in which case."""
        return self.workload, self.who, self.case

    @property
    def each(self) -> float:
        """Seconds of one operation."""
        return self.seconds / self.count


@dataclass(frozen=True)
class LeftOut:
    """A side that was not measured, or not to its end.

    Attributes
    ----------
    failed
        Whether it was tried.
    """

    workload: str
    who: str
    case: str
    reason: str
    failed: bool = False

    @property
    def key(self) -> Key:
        """The workload, who should have carried it out, and in which case."""
        return self.workload, self.who, self.case


@dataclass(frozen=True)
class Run:
    """All that a run has found.

    Attributes
    ----------
    machine
        What the machine and the software are: names and values, in the order of the report.
    quick
        Whether only a tenth of the work was done.
    samples
        Those of the counted rounds.
    left_out
        What was not measured, and why.
    details
        Tables of what is measured in other ways, by name.
    """

    machine: dict[str, str]
    quick: bool
    samples: tuple[Sample, ...]
    left_out: tuple[LeftOut, ...] = ()
    details: Mapping[str, Sequence[Table]] = field(default_factory=dict)

    def of(self, key: Key) -> list[Sample]:
        """Return the samples of a side, by round."""
        return sorted((one for one in self.samples if one.key == key), key=lambda one: one.round)

    def pairs(self, one: Key, other: Key) -> list[tuple[Sample, Sample]]:
        """Return the samples of two sides of the same rounds."""
        others = {sample.round: sample for sample in self.of(other)}
        return [(mine, others[mine.round]) for mine in self.of(one) if mine.round in others]

    def to_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Return the run that `to_json` wrote."""
        found: dict[str, Any] = json.loads(text)
        return cls(
            found["machine"],
            found["quick"],
            tuple(Sample(**one) for one in found["samples"]),
            tuple(LeftOut(**one) for one in found["left_out"]),
            {name: [Table(**one) for one in tables] for name, tables in found["details"].items()},
        )


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles below and above it."""

    low: float
    median: float
    high: float


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return the spread of some values; None if there are none."""
    if not values:
        return None
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def combined(figures: Sequence[Figures]) -> Figures:
    """Return what processes that worked at the same time did together."""
    spans = tuple(span for one in figures for span in one.spans)
    count = sum(one.count for one in figures)
    seconds = count / sum(one.count / one.seconds for one in figures)
    if spans:
        waited = handovers(spans)
        count, seconds = len(waited), statistics.median(waited) * len(waited)
    stalls = [one.stall for one in figures if one.stall is not None]
    processor = sum(one.processor for one in figures)
    return Figures(count, seconds, processor, max(stalls, default=None), spans)


def handovers(spans: Sequence[Sequence[Any]]) -> list[float]:
    """Return the seconds from each release of a lock to the moment when another holder had it.

    Every holder but the present one waits for the lock all the time.
    """
    by_time = sorted(spans, key=lambda span: span[1])
    return [after[1] - before[2] for before, after in pairwise(by_time) if before[0] != after[0]]
