"""The options of plots."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiostorage.errors import InvalidArgument
from aiostorage.plot.plot_axes import axis_label, is_log_scale
from aiostorage.plot.plot_rows import PlotRows
from aiostorage.summary import Direction

__all__ = ["OBJECTIVE", "PlotOptions"]

OBJECTIVE: Final = "objective"
"""The name of the objective among those of logarithmic and linear scales."""


@dataclass(frozen=True)
class PlotOptions:
    """How trials are plotted.

    Parameters
    ----------
    direction
        Whether smaller or greater objectives are better.
    params
        The parameters to plot, in this order; empty for all that differ between trials.
    log, linear
        Parameters, or ``objective``, that get a scale of this kind. Any other gets a logarithmic
        one if its prior in the experiment's space is logarithmic, or if its values are all positive
        and most of them span two powers of ten or more.
    label
        The name of the objective on axes, such as ``loss (nats)``; by default as in the store.
    by_number
        Place trials by their number, not by the time when they ended.
    """

    direction: Direction = "minimize"
    params: tuple[str, ...] = ()
    log: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()
    label: str | None = None
    by_number: bool = False

    def check(self, rows: PlotRows) -> None:
        """Check that each name is the name of a parameter.

        Raises
        ------
        InvalidArgument
            There is no such parameter, or it is to have both scales.
        """
        both = sorted(self.log & self.linear)
        if both:
            raise InvalidArgument(f"{both[0]!r} cannot have both a logarithmic and a linear scale")
        if not rows.rows:
            return
        for name in (*self.params, *sorted((self.log | self.linear) - {OBJECTIVE})):
            if name not in rows.params:
                known = ", ".join(rows.params) or "none"
                raise InvalidArgument(
                    f"no completed trial has a parameter {name!r}; there are: {known}"
                )

    def experiment_label(self, rows: PlotRows) -> str:
        """Return the name of the experiment in titles."""
        return axis_label(rows.experiment, 60)

    def objective_label(self, rows: PlotRows) -> str:
        """Return the name of the objective on axes."""
        return axis_label(rows.objective if self.label is None else self.label, 60)

    def objective_is_log(self, numbers: Collection[float]) -> bool:
        """Return whether the objective gets a logarithmic scale."""
        if OBJECTIVE in self.linear:
            return False
        return OBJECTIVE in self.log or is_log_scale(numbers)

    def chosen_params(self, rows: PlotRows, limit: int) -> tuple[list[str], list[str]]:
        """Return the parameters to plot, and notes on those that are left out."""
        if self.params:
            return list(dict.fromkeys(self.params)), []
        varying = [name for name in rows.params if _varies(rows, name)]
        chosen = varying or list(rows.params)
        notes = []
        if len(chosen) < len(rows.params):
            notes.append(f"{len(rows.params) - len(chosen)} constant not shown")
        if len(chosen) > limit:
            notes.append(f"the first {limit} of {len(chosen)} parameters")
        return chosen[:limit], notes


def _varies(rows: PlotRows, name: str) -> bool:
    """Return whether two trials differ in a parameter; one without it differs from one with it."""
    texts = {repr(row.params[name]) if name in row.params else None for row in rows.rows[:1]}
    first = next(iter(texts), None)
    return any(
        (repr(row.params[name]) if name in row.params else None) != first for row in rows.rows
    )
