"""The points of a plot whose axis is the objective: which are drawn, and notes on the others."""

from __future__ import annotations

from collections.abc import Sequence

from aiostorage.plot.plot_options import PlotOptions
from aiostorage.plot.plot_rows import PlotRow, PlotRows, thin_rows
from aiostorage.plot.plot_theme import objective_range

__all__ = ["drawn_points", "placed_points"]


def placed_points(
    rows: PlotRows, options: PlotOptions, notes: list[str]
) -> tuple[list[PlotRow], bool]:
    """Return the trials that have a place on the axis, and whether that is logarithmic.

    `notes` gets how many have none.
    """
    log = options.objective_is_log([row.objective for row in rows.rows])
    placed = [row for row in rows.rows if not log or row.objective > 0]
    if len(placed) < len(rows.rows):
        notes.append(f"{len(rows.rows) - len(placed):,} ≤ 0 not on this scale")
    return placed, log


def drawn_points(
    placed: Sequence[PlotRow], most: int, options: PlotOptions, notes: list[str], *, log: bool
) -> tuple[list[PlotRow], list[float] | None]:
    """Return the trials that are drawn, at most so many, and the range of a linear axis.

    `notes` gets how many are drawn, if not all are, and what the range leaves out.
    """
    drawn = thin_rows(placed, most, options.direction)
    if len(drawn) < len(placed):
        notes.append(f"{len(drawn):,} of {len(placed):,} points drawn")
    if log:
        return drawn, None
    view, more = objective_range([row.objective for row in placed], options)
    notes += more
    return drawn, view
