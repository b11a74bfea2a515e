"""``aiostorage plot``: pages and pictures of an experiment's trials."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from aiostorage import Storage
from aiostorage.cli.directions import direction_of
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import find_experiment
from aiostorage.cli.options import (
    debug_option,
    direction_option,
    json_option,
    storage_option,
    timeout_option,
)
from aiostorage.cli.terminal import echo, echo_json
from aiostorage.cli.text import plural
from aiostorage.errors import ConfigurationError
from aiostorage.plot import (
    PlotOptions,
    PlotRows,
    history_figure,
    parallel_figure,
    read_plot_rows,
    slice_figure,
    write_page,
    write_picture,
)
from aiostorage.plot.figure_files import PICTURES, check_pictures
from aiostorage.plot.theme import graph_objects
from aiostorage.summary import Direction

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["plot"]

FIGURES: Final[dict[str, Callable[[PlotRows, PlotOptions], Any]]] = {
    "history": history_figure,
    "parallel": parallel_figure,
    "slice": slice_figure,
}

SIZE: Final = re.compile(r"(\d{3,4})x(\d{3,4})", re.ASCII)
"""The size of a picture; smaller ones cannot be read, and no screen has larger ones."""

EPILOG = """\b
Examples:
  aiostorage plot tune -o tune.html
  aiostorage plot tune -o tune.png --kind history --direction maximize
  aiostorage plot tune -o slices.svg --kind slice --param lr --param net.width --log lr
"""


def _size(
    _: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Return the width and the height in WIDTHxHEIGHT."""
    if value is None:
        return None
    found = SIZE.fullmatch(value)
    if found is None:
        raise click.BadParameter(
            f"{value!r} is not WIDTHxHEIGHT in pixels, such as 1200x700", param=parameter
        )
    return int(found[1]), int(found[2])


@click.command(epilog=EPILOG)
@click.argument("experiment")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="What to write; the suffix says what it is: .html, .png, .svg, .pdf, .jpg or .webp. A "
    "file that exists is replaced.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(list(FIGURES)),
    help="What to plot; may be given several times. Default: all of them.",
)
@direction_option
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME",
    help="Plot this parameter; may be given several times. Default: all that differ.",
)
@click.option(
    "--log",
    multiple=True,
    metavar="NAME",
    help="A logarithmic scale for this parameter, or for the `objective`. Default: where the prior "
    "is logarithmic, or values are positive and most of them span two powers of ten.",
)
@click.option("--linear", multiple=True, metavar="NAME", help="No logarithmic scale for this one.")
@click.option(
    "--label",
    metavar="TEXT",
    help="What the objective is called on axes, such as 'loss (nats)'. Default: as in the storage.",
)
@click.option(
    "--by-number",
    is_flag=True,
    help="Place trials by their number in the history, not by the time when they ended.",
)
@click.option(
    "--size",
    callback=_size,
    metavar="WIDTHxHEIGHT",
    help="The size of pictures. A page is as wide as its window.",
)
@storage_option
@timeout_option
@json_option
@debug_option
def plot(
    *,
    experiment: str,
    output: Path,
    kinds: tuple[str, ...],
    direction: Direction | None,
    params: tuple[str, ...],
    log: tuple[str, ...],
    linear: tuple[str, ...],
    label: str | None,
    by_number: bool,
    size: tuple[int, int] | None,
    url: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Plot the completed trials of an experiment.

    The history has the objective over time and the best so far, the parallel coordinates a line for
    each trial, the slices the objective over each parameter. A page (.html) has all of them, can be
    zoomed, and needs no network. A picture has one: of several, each gets a file of its own, with
    the kind in its name, as in tune-history.png. Objectives that are NaN or infinite are left out,
    and counted.

    EXPERIMENT is a name (the newest version is meant), NAME@VERSION, an id, or the beginning of an
    id.

    It needs plotly, and for pictures kaleido and Chromium or Chrome:
    pip install 'aiostorage-orion[plot]'.
    """
    options = PlotOptions(
        params=params,
        log=frozenset(log),
        linear=frozenset(linear),
        label=label,
        by_number=by_number,
    )
    kinds = tuple(dict.fromkeys(kinds)) or tuple(FIGURES)
    files = _files(output, kinds)
    graph_objects()
    if output.suffix.lower() in PICTURES:
        check_pictures(output)
    rows, best = anyio.run(_read, open_named(url, timeout), experiment, direction)
    options = replace(options, direction=best)
    figures = {kind: FIGURES[kind](rows, options) for kind in kinds}
    _write(files, figures, rows, size)
    if as_json:
        names = [str(file) for file in files]
        left_out = dict(rows.left_out)
        echo_json({"files": names, "trials": len(rows.rows), "left_out": left_out})
        return
    for file in files:
        echo(str(file))
    said = f"{rows.experiment}: {plural(len(rows.rows), 'trial')} plotted"
    for reason, count in sorted(rows.left_out.items()):
        said += f", {count:,} {reason} left out"
    echo(said, err=True)


async def _read(
    opening: AbstractAsyncContextManager[Storage], experiment: str, direction: Direction | None
) -> tuple[PlotRows, Direction]:
    async with opening as storage:
        config = await find_experiment(storage, experiment)
        return await read_plot_rows(storage, config), direction_of(config, direction)


def _files(output: Path, kinds: tuple[str, ...]) -> dict[Path, tuple[str, ...]]:
    """Return the files to write, with the kinds of plots in each."""
    suffix = output.suffix.lower()
    if suffix != ".html" and suffix not in PICTURES:
        known = ", ".join([".html", *PICTURES])
        raise click.BadParameter(f"{output}: the suffix must be one of {known}", param_hint="'-o'")
    if not output.parent.is_dir():
        raise ConfigurationError(f"{output}: there is no directory {output.parent}")
    if suffix == ".html" or len(kinds) == 1:
        return {output: kinds}
    return {output.with_name(f"{output.stem}-{kind}{output.suffix}"): (kind,) for kind in kinds}


def _write(
    files: dict[Path, tuple[str, ...]],
    figures: dict[str, Figure],
    rows: PlotRows,
    size: tuple[int, int] | None,
) -> None:
    for file, kinds in files.items():
        if file.suffix.lower() == ".html":
            write_page(file, rows.experiment, {kind: figures[kind] for kind in kinds})
        elif size is None:
            write_picture(file, figures[kinds[0]])
        else:
            write_picture(file, figures[kinds[0]], width=size[0], height=size[1])
