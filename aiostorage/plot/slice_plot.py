"""Slices: the objective over each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiostorage.plot.axes import MISSING, PlotAxis, axis_label, make_axis
from aiostorage.plot.figure_options import PlotOptions
from aiostorage.plot.points import drawn_points, placed_points
from aiostorage.plot.rows import PlotRow, PlotRows
from aiostorage.plot.theme import (
    BEST_COLOUR,
    COLOUR_SCALE,
    empty_figure,
    goal_text,
    graph_objects,
    hover_texts,
    left_out_text,
    styled,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["slice_figure"]

_TITLE = "Objective over each parameter"
_MAX_PLOTS = 18
_MAX_POINTS = 20_000
_MIN_WEBGL_POINTS = 4_000
_COLUMNS = 3


def slice_figure(rows: PlotRows, options: PlotOptions | None = None) -> Figure:
    """Return a figure with a plot for each parameter; the colour of a point is its trial's number.

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
    names, more = options.chosen_params(rows, _MAX_PLOTS)
    notes += more
    placed, log = placed_points(rows, options, notes)
    title = f"{_TITLE}: {options.experiment_label(rows)}"
    if not placed or not names:
        why = "The trials have no parameters" if placed else "No completed trial to plot yet"
        return empty_figure(title, notes, why)
    most = max(500, _MAX_POINTS // len(names))
    drawn, view = drawn_points(placed, most, options, notes, log=log)

    from plotly.subplots import make_subplots  # noqa: PLC0415  an extra

    columns = min(_COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    height = 230 + 270 * lines
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=min(0.16, 75 / (height - 165)) if lines > 1 else 0,
    )
    webgl = len(drawn) * len(names) > _MIN_WEBGL_POINTS
    best = (min if options.direction == "minimize" else max)(placed, key=lambda r: r.objective)
    lost: list[str] = []
    for index, name in enumerate(names):
        having = [row for row in drawn if name in row.params]
        axis = make_axis(
            name,
            [row.params.get(name, MISSING) for row in having],
            log=name in options.log or name in rows.log_params,
            linear=name in options.linear,
        )
        if axis.lost:
            lost.append(f"{axis_label(name)}: {axis.lost:,} not on its scale")
        place = {"row": index // columns + 1, "col": index % columns + 1}
        kind = go.Scattergl if webgl else go.Scatter
        figure.add_trace(kind(**_points(rows, having, axis)), **place)
        if star := _star(axis, having, best):
            figure.add_trace(go.Scatter(**star), **place)
        figure.update_xaxes(**_axis_layout(axis, name), **place)
        if index % columns == 0:
            figure.update_yaxes(title_text=f"{label} (log scale)" if log else label, **place)
    styled(figure, title, [*notes, *lost[:3]], height)
    if view:
        figure.update_yaxes(range=view)
    if log:
        figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    figure.update_layout(
        showlegend=False,
        coloraxis={
            "colorscale": COLOUR_SCALE,
            "reversescale": True,
            "colorbar": {"title": {"text": "trial"}, "thickness": 14, "outlinewidth": 0},
        },
    )
    return figure


def _points(rows: PlotRows, having: Sequence[PlotRow], axis: PlotAxis) -> dict[str, Any]:
    """Return the points of one parameter."""
    pairs = zip(axis.places, having, strict=True)
    placed = [(_x(axis, place, row), row) for place, row in pairs if place is not None]
    shown = [row for _, row in placed]
    return {
        "x": [x for x, _ in placed],
        "y": [row.objective for row in shown],
        "mode": "markers",
        "text": hover_texts(rows, shown),
        "hoverinfo": "text",
        "marker": {
            "color": [row.number for row in shown],
            "coloraxis": "coloraxis",
            "size": 6,
            "opacity": 0.8,
            "line": {"color": "white", "width": 0.5},
        },
    }


def _star(axis: PlotAxis, having: Sequence[PlotRow], best: PlotRow) -> dict[str, Any] | None:
    """Return the mark around the best trial; None if it cannot be placed."""
    for place, row in zip(axis.places, having, strict=True):
        if row is best and place is not None:
            return {
                "x": [_x(axis, place, row)],
                "y": [row.objective],
                "mode": "markers",
                "hoverinfo": "skip",
                "marker": {
                    "symbol": "star-open",
                    "size": 15,
                    "color": BEST_COLOUR,
                    "line": {"width": 2},
                },
            }
    return None


def _x(axis: PlotAxis, place: float, row: PlotRow) -> float:
    """Return the position of a point on plotly's axis."""
    if axis.kind == "category":
        return place + _shift(row.number)
    return 10.0**place if axis.kind == "log" else place


def _shift(number: int) -> float:
    """Return the offset of a point from its category, so that points overlap less."""
    return (number * 0.6180339887 % 1 - 0.5) * 0.5


def _axis_layout(axis: PlotAxis, name: str) -> dict[str, Any]:
    label = axis_label(name)
    if axis.kind == "log":
        return {
            "type": "log",
            "title_text": f"{label} (log scale)",
            "exponentformat": "power",
            "dtick": max(1, math.ceil((axis.high - axis.low) / 6))
            if axis.high - axis.low >= 2
            else None,
        }
    if axis.kind == "category":
        return {
            "title_text": label,
            "tickvals": [place for place, _ in axis.ticks],
            "ticktext": [axis_label(text, 14) for _, text in axis.ticks],
            "range": [axis.low, axis.high],
        }
    layout: dict[str, Any] = {"title_text": label, "type": "linear"}
    if axis.ticks:
        layout["tickvals"] = [place for place, _ in axis.ticks]
        layout["ticktext"] = [text for _, text in axis.ticks]
    return layout
