"""Pictures of workloads: bars with a logarithmic axis, as SVG by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.definitions import Workload
from benchmarks.samples import Run, Spread, spread_of

__all__ = ["draw"]

OURS, THEIRS = "#1f6feb", "#9aa4b2"
SETTINGS: Final[dict[Any, Any]] = {  # newer versions of matplotlib list the names
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "aiostorage",  # the same samples make the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(run: Run, workload: Workload, file: Path) -> bool:
    """Draw the rates of a workload's sides, or the times; return whether there was anything.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    import matplotlib as mpl  # noqa: PLC0415  it may not be installed, and takes its time
    from matplotlib.figure import Figure  # noqa: PLC0415

    bars = _bars(run, workload)
    if not bars:
        return False
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7.5, 0.7 + 0.27 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(
            [label for label, _ in bars],
            [spread.median for _, spread in bars],
            xerr=_errors([spread for _, spread in bars]),
            color=[OURS if label.startswith("aiostorage") else THEIRS for label, _ in bars],
            error_kw={"elinewidth": 1, "ecolor": "#30363d"},
        )
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel(
            f"{workload.unit} a second: longer is faster"
            if workload.per_second
            else "seconds: shorter is faster"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return True


def _bars(run: Run, workload: Workload) -> list[tuple[str, Spread]]:
    bars = []
    for side in workload.sides:
        samples = run.of((workload.name, side.who, side.case))
        spread = spread_of([1 / one.each if workload.per_second else one.each for one in samples])
        if spread is not None:
            bars.append((f"{side.who}, {side.case}", spread))
    return bars


def _errors(spreads: Sequence[Spread]) -> list[list[float]]:
    return [
        [spread.median - spread.low for spread in spreads],
        [spread.high - spread.median for spread in spreads],
    ]
