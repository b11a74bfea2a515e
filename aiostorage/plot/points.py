"""The points that are drawn in a plot of the objective, and notes on those that are not."""

from __future__ import annotations

from collections.abc import Sequence

from aiostorage.plot.figure_options import PlotOptions
from aiostorage.plot.rows import PlotRow, PlotRows, thin_rows
from aiostorage.plot.theme import objective_range

__all__ = ["drawn_points", "placed_points"]


def placed_points(
    rows: PlotRows, options: PlotOptions, notes: list[str]
) -> tuple[list[PlotRow], bool]:
    """Return the trials that have a place on the axis, and whether the axis is logarithmic.

    A note on the number of trials without a place is added to `notes`.
    """
    log = options.objective_is_log([row.objective for row in rows.rows])
    placed = [row for row in rows.rows if not log or row.objective > 0]
    if len(placed) < len(rows.rows):
        notes.append(f"{len(rows.rows) - len(placed):,} ≤ 0 not on this scale")
    return placed, log


def drawn_points(
    placed: Sequence[PlotRow], most: int, options: PlotOptions, notes: list[str], *, log: bool
) -> tuple[list[PlotRow], list[float] | None]:
    """Return the trials to draw, up to a limit, and the range of a linear axis.

    Notes on the number of drawn trials, if not all are, and on those out of range go to `notes`.
    """
    drawn = thin_rows(placed, most, options.direction)
    if len(drawn) < len(placed):
        notes.append(f"{len(drawn):,} of {len(placed):,} points drawn")
    if log:
        return drawn, None
    view, more = objective_range([row.objective for row in placed], options)
    notes += more
    return drawn, view
