"""Reading what is plotted from a storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiostorage.plot.rows import PlotRows, PlotRowsBuilder
from aiostorage.protocols import AsyncStorageProtocol

__all__ = ["read_plot_rows"]


async def read_plot_rows(
    storage: AsyncStorageProtocol, config: Mapping[str, Any], *, batch_size: int = 1000
) -> PlotRows:
    """Return the trials of an experiment that can be plotted.

    Trials are read page by page, and only the fields that a plot shows.

    Parameters
    ----------
    config
        A config from `fetch_experiments`, with its ``name``, ``version`` and ``space``.
    """
    name = f"{config.get('name', config['_id'])} v{config.get('version', 1)}"
    builder = PlotRowsBuilder(name, config.get("space"))
    async for document in storage.iter_trials(
        config, selection=PlotRowsBuilder.FIELDS, batch_size=batch_size
    ):
        builder.add(document)
    return builder.build()
