"""The objective over time, with the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiostorage.plot.figure_options import PlotOptions
from aiostorage.plot.points import drawn_points, placed_points
from aiostorage.plot.rows import PlotRow, PlotRows, best_so_far
from aiostorage.plot.theme import (
    BEST_COLOUR,
    POINT_COLOUR,
    empty_figure,
    goal_text,
    graph_objects,
    hover_texts,
    left_out_text,
    styled,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["history_figure"]

_TITLE = "Objective over time"
_MAX_POINTS = 10_000
_MIN_WEBGL_POINTS = 2_000


def history_figure(rows: PlotRows, options: PlotOptions | None = None) -> Figure:
    """Return a figure with each trial's objective, and the best one so far as a line.

    Raises
    ------
    ConfigurationError
        plotly is not installed.
    InvalidArgument
        An option names a parameter that no trial has.
    """
    options = options or PlotOptions()
    options.check(rows)
    go = graph_objects()
    label = options.objective_label(rows)
    notes = [goal_text(label, options.direction), left_out_text(rows)]
    placed, log = placed_points(rows, options, notes)
    if not placed:
        return empty_figure(_TITLE, notes, "No completed trial with an objective to plot yet")
    drawn, view = drawn_points(placed, _MAX_POINTS, options, notes, log=log)
    by_time = rows.has_times and not options.by_number
    point_kind = go.Scattergl if len(drawn) > _MIN_WEBGL_POINTS else go.Scatter
    figure = go.Figure()
    figure.add_trace(
        point_kind(
            x=_places(drawn, by_time=by_time),
            y=[row.objective for row in drawn],
            mode="markers",
            name="a trial",
            text=hover_texts(rows, drawn),
            hoverinfo="text",
            marker={"color": POINT_COLOUR, "size": _size(len(drawn)), "opacity": 0.55},
        )
    )
    steps, bests = _best_steps(placed, options)
    figure.add_trace(
        go.Scatter(
            x=_places(steps, by_time=by_time),
            y=bests,
            mode="lines+markers" if len(steps) == 1 else "lines",
            line={"shape": "hv", "color": BEST_COLOUR, "width": 2.5},
            name=f"best so far: {bests[-1]:.6g}",
            hovertemplate="best so far: %{y:.6g}<extra></extra>",
        )
    )
    styled(figure, f"{_TITLE}: {options.experiment_label(rows)}", notes)
    figure.update_xaxes(title_text="end of the trial (UTC)" if by_time else "trial")
    figure.update_yaxes(title_text=f"{label} (log scale)" if log else label, range=view)
    if log:
        figure.update_yaxes(type="log", dtick=1, exponentformat="power")
    return figure


def _places(rows: Sequence[PlotRow], *, by_time: bool) -> list[object]:
    return [row.ended if by_time else row.number for row in rows]


def _best_steps(rows: Sequence[PlotRow], options: PlotOptions) -> tuple[list[PlotRow], list[float]]:
    """Return the rows where the best changes, and the last one, with the best after each."""
    ordered = sorted(rows, key=lambda row: row.number) if options.by_number else list(rows)
    bests = list(best_so_far((row.objective for row in ordered), options.direction))
    last = len(bests) - 1
    kept = [i for i in range(len(bests)) if i in (0, last) or bests[i] != bests[i - 1]]
    return [ordered[i] for i in kept], [bests[i] for i in kept]


def _size(count: int) -> float:
    """Return the size of a marker: smaller, the more there are."""
    return 8 if count <= 200 else 6 if count <= 2_000 else 4
