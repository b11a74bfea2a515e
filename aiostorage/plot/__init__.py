"""Plots of an experiment's trials, with plotly (extra ``plot``).

>>> config, = await storage.fetch_experiments({"name": "tune"})
>>> rows = await read_plot_rows(storage, config)
>>> history_figure(rows, PlotOptions(direction="maximize")).show()
"""

from aiostorage.plot.figure_files import plot_page, write_page, write_picture
from aiostorage.plot.figure_options import PlotOptions
from aiostorage.plot.history_plot import history_figure
from aiostorage.plot.parallel_plot import parallel_figure
from aiostorage.plot.read_rows import read_plot_rows
from aiostorage.plot.rows import PlotRow, PlotRows, PlotRowsBuilder
from aiostorage.plot.slice_plot import slice_figure

__all__ = [
    "PlotOptions",
    "PlotRow",
    "PlotRows",
    "PlotRowsBuilder",
    "history_figure",
    "parallel_figure",
    "plot_page",
    "read_plot_rows",
    "slice_figure",
    "write_page",
    "write_picture",
]
