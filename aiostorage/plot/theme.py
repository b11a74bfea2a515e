"""The look of all plots: dark text on white, colours that colour-blind people can distinguish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiostorage.errors import ConfigurationError
from aiostorage.plot.axes import axis_label, outlier_limit
from aiostorage.plot.figure_options import PlotOptions
from aiostorage.plot.rows import PlotRows
from aiostorage.summary import Direction

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = [
    "BEST_COLOUR",
    "COLOUR_SCALE",
    "POINT_COLOUR",
    "TEXT_COLOUR",
    "empty_figure",
    "goal_text",
    "graph_objects",
    "hover_texts",
    "left_out_text",
    "objective_range",
    "styled",
]

TEXT_COLOUR: Final = "#1f2328"
POINT_COLOUR: Final = "#0072b2"
"""Blue of the palette of Okabe and Ito."""

BEST_COLOUR: Final = "#d55e00"
"""Vermilion of the same palette."""

COLOUR_SCALE: Final = "Viridis"
"""Its order can also be seen in grey."""

_GRID_COLOUR: Final = "#e3e6ea"
_MAX_HOVER_PARAMS: Final = 12
_MAX_LINE_LENGTH: Final = 120


def graph_objects() -> Any:
    """Return plotly's module of that name.

    Raises
    ------
    ConfigurationError
        plotly is not installed.
    """
    try:
        from plotly import graph_objects as module  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigurationError(
            "plots need plotly, which is not installed: pip install 'aiostorage-orion[plot]'"
        ) from error
    return module


def styled(figure: Figure, title: str, notes: Sequence[str], height: int = 560) -> Figure:
    """Give a figure its title, the notes below it, and its style; return it."""
    figure.update_layout(
        template="plotly_white",
        width=None,
        height=height,
        title={
            "text": f"<b>{title}</b>",
            "subtitle": {
                "text": "<br>".join(_lines(notes)),
                "font": {"size": 13, "color": "#4a525a"},
            },
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 18},
            "font": {"size": 19},
        },
        font={
            "family": "system-ui, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif",
            "size": 13,
            "color": TEXT_COLOUR,
        },
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 80, "r": 40, "t": 75 + 18 * len(_lines(notes)), "b": 70},
        legend={
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "yref": "container",
            "y": 0.98,
            "yanchor": "top",
        },
        hoverlabel={"font": {"size": 12}, "align": "left"},
    )
    axis = {"gridcolor": _GRID_COLOUR, "linecolor": "#9aa3ab", "showline": True, "ticks": "outside"}
    figure.update_xaxes(**axis, zeroline=False)
    figure.update_yaxes(**axis, zeroline=False)
    return figure


def _lines(notes: Sequence[str]) -> list[str]:
    """Return notes broken into lines that fit into a figure."""
    lines: list[str] = []
    for note in notes:
        if lines and len(lines[-1]) + len(note) <= _MAX_LINE_LENGTH:
            lines[-1] += f" · {note}"
        else:
            lines.append(note)
    return lines


def empty_figure(title: str, notes: Sequence[str], why: str) -> Figure:
    """Return a figure that says why there is nothing in it."""
    figure = styled(graph_objects().Figure(), title, notes)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=why, showarrow=False, font={"size": 17}, xref="paper", yref="paper")
    return figure


def left_out_text(rows: PlotRows) -> str:
    """Return the numbers of trials that are plotted and left out, with the reasons, as text."""
    count = len(rows.rows)
    text = f"{count:,} completed trial{'' if count == 1 else 's'}"
    if rows.left_out:
        parts = [f"{n:,} {axis_label(why)}" for why, n in sorted(rows.left_out.items())]
        text += f", left out: {', '.join(parts)}"
    return text


def goal_text(objective: str, direction: Direction) -> str:
    """Return the goal of the search as text."""
    return f"{direction} {objective}"


def objective_range(
    objectives: Sequence[float], options: PlotOptions
) -> tuple[list[float] | None, list[str]]:
    """Return the range of a linear axis that leaves outliers out of view, and a note on them."""
    minimize = options.direction == "minimize"
    limit = outlier_limit(objectives, above=minimize)
    if limit is None:
        return None, []
    inside = [value for value in objectives if (value <= limit if minimize else value >= limit)]
    margin = (max(inside) - min(inside)) * 0.05 or abs(limit) * 0.05
    side = "above" if minimize else "below"
    note = f"{len(objectives) - len(inside):,} {side} {limit:.3g} not in view"
    return [min(inside) - margin, max(inside) + margin], [note]


def hover_texts(rows: PlotRows, shown: Sequence[Any]) -> list[str]:
    """Return the texts that are shown when the mouse is on a trial."""
    objective = axis_label(rows.objective)
    return [
        f"trial {row.number:,} ({axis_label(row.trial)})<br>{objective}: {row.objective:.6g}"
        + _param_lines(row.params)
        for row in shown
    ]


def _param_lines(params: Mapping[str, Any]) -> str:
    lines = [f"<br>{axis_label(k)}: {axis_label(v)}" for k, v in params.items()]
    more = len(lines) - _MAX_HOVER_PARAMS
    return "".join(lines[:_MAX_HOVER_PARAMS]) + (f"<br>and {more} more" if more > 0 else "")
