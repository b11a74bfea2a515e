"""Parallel coordinates: one axis for each parameter, one line for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiostorage.plot.axes import (
    MISSING,
    PlotAxis,
    axis_label,
    inner_ticks,
    make_axis,
    outlier_limit,
)
from aiostorage.plot.figure_options import PlotOptions
from aiostorage.plot.rows import PlotRow, PlotRows, thin_rows
from aiostorage.plot.theme import (
    COLOUR_SCALE,
    TEXT_COLOUR,
    empty_figure,
    goal_text,
    graph_objects,
    left_out_text,
    styled,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["parallel_figure"]

_TITLE = "Parallel coordinates"
_MAX_LINES = 1_000
_MAX_AXES = 12


def parallel_figure(rows: PlotRows, options: PlotOptions | None = None) -> Figure:
    """Return a figure with an axis for each parameter and a line for each trial.

    The colour of a line is its objective. Ranges of each axis can be selected with the mouse.

    Raises
    ------
    ConfigurationError
        plotly is not installed.
    InvalidArgument
        An option names a parameter that no trial has.
    """
    options = options or PlotOptions()
    options.check(rows)
    label = options.objective_label(rows)
    notes = [goal_text(label, options.direction), left_out_text(rows)]
    names, more = options.chosen_params(rows, _MAX_AXES)
    notes += more
    drawn = thin_rows(rows.rows, _MAX_LINES, options.direction)
    if len(drawn) < len(rows.rows):
        notes.append(f"{len(drawn):,} of {len(rows.rows):,} lines drawn")
    axes, placed = _axes(drawn, names, rows, options)
    if len(placed) < len(drawn):
        notes.append(f"{len(drawn) - len(placed):,} not on these scales")
    title = f"{_TITLE}: {options.experiment_label(rows)}"
    if not placed:
        return empty_figure(title, notes, "No completed trial with an objective to plot yet")
    figure = graph_objects().Figure(
        graph_objects().Parcoords(
            line=_line(axes[-1], label, options),
            dimensions=[_dimension(axis) for axis in axes],
            labelangle=-18 if len(axes) > 7 else 0,
            labelfont={"size": 14, "color": TEXT_COLOUR},
            tickfont={"size": 12, "color": TEXT_COLOUR},
            rangefont={"size": 11, "color": "rgba(0,0,0,0)"},
        )
    )
    styled(figure, title, notes)
    top = figure.layout.margin.t + (80 if len(axes) > 7 else 50)
    figure.update_layout(margin={"l": 90, "r": 60, "t": top, "b": 40})
    return figure


def _axes(
    drawn: Sequence[PlotRow], names: Sequence[str], rows: PlotRows, options: PlotOptions
) -> tuple[list[PlotAxis], list[PlotRow]]:
    """Return an axis for each parameter and for the objective, and the rows with a place on all."""
    kept = list(drawn)
    while True:
        axes = [_param_axis(name, kept, rows, options) for name in names]
        axes.append(_objective_axis(options.objective_label(rows), kept, options))
        lost = {i for axis in axes for i, place in enumerate(axis.places) if place is None}
        if not lost:
            return axes, kept
        kept = [row for i, row in enumerate(kept) if i not in lost]


def _param_axis(
    name: str, kept: Sequence[PlotRow], rows: PlotRows, options: PlotOptions
) -> PlotAxis:
    return make_axis(
        name,
        [row.params.get(name, MISSING) for row in kept],
        log=name in options.log or name in rows.log_params,
        linear=name in options.linear,
    )


def _dimension(axis: PlotAxis) -> dict[str, Any]:
    dimension: dict[str, Any] = {
        "label": axis_label(axis.name, 22),
        "values": list(axis.places),
        "range": [axis.low, axis.high],
    }
    if axis.ticks:
        dimension["tickvals"] = [place for place, _ in axis.ticks]
        dimension["ticktext"] = [text for _, text in axis.ticks]
    return dimension


def _objective_axis(label: str, kept: Sequence[PlotRow], options: PlotOptions) -> PlotAxis:
    """Return the axis of the objective, with outliers on the bad side drawn at its end."""
    objectives = [row.objective for row in kept]
    if options.objective_is_log(objectives):
        return make_axis(label, objectives, log=True)
    minimize = options.direction == "minimize"
    limit = outlier_limit(objectives, above=minimize)
    if limit is None:
        return make_axis(label, objectives, linear=True)
    clamp, sign = (min, "≥") if minimize else (max, "≤")
    axis = make_axis(label, [clamp(value, limit) for value in objectives], linear=True)
    return replace(axis, ticks=[*inner_ticks(axis), (limit, f"{sign} {limit:.3g}")])


def _line(objective: PlotAxis, label: str, options: PlotOptions) -> dict[str, Any]:
    """Return the colours of the lines: better trials are darker, and above the others.

    plotly draws a line over those with a smaller number for its colour.
    """
    sign = -1 if options.direction == "minimize" else 1
    ends = sorted((sign * objective.low, sign * objective.high))
    ticks = objective.ticks or inner_ticks(objective)
    return {
        "color": [sign * place for place in objective.places if place is not None],
        "colorscale": COLOUR_SCALE,
        "reversescale": True,
        "cmin": ends[0],
        "cmax": ends[1],
        "showscale": True,
        "colorbar": {
            "title": {"text": label},
            "thickness": 16,
            "outlinewidth": 0,
            "tickvals": [sign * place for place, _ in ticks],
            "ticktext": [text for _, text in ticks],
        },
    }
