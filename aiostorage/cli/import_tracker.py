"""``aiostorage import-tracker``: imports the runs of an experiment of a tracker as trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import check_lasts, connecting
from aiostorage.cli.options import debug_option
from aiostorage.cli.terminal import Terminal, echo
from aiostorage.cli.text import plural, span
from aiostorage.errors import ConfigurationError
from aiostorage.factory import storage_of
from aiostorage.trackers.factory import tracker_from_url
from aiostorage.trackers.imports import ImportCounts, import_runs

__all__ = ["import_tracker"]

LINE_INTERVAL: Final = 5.0
"""Seconds between two lines about the progress, where there is no terminal."""


@click.command("import-tracker")
@click.argument("source")
@click.argument("experiment")
@click.option(
    "-s",
    "--storage",
    "--to",
    "dest",
    metavar="URL",
    help="The storage, such as sqlite:///tune.db. Default: the one that is configured, as for "
    "`aiostorage status`.",
)
@click.option("--name", help="The name of the experiment in the storage; by default EXPERIMENT.")
@click.option(
    "--objective",
    help="The metric that is the objective; by default `objective`, or else the only metric.",
)
@debug_option
def import_tracker(
    source: str, experiment: str, dest: str | None, name: str | None, objective: str | None
) -> None:
    """Import the runs of an experiment of a tracker into a storage.

    SOURCE is the tracker, such as mlflow+http://127.0.0.1:5000 or mlflow+sqlite:///mlflow.db, and
    EXPERIMENT the name or the id of an experiment there. Finished runs become completed trials,
    failed ones broken trials, and all others interrupted trials, which the next workers take up.
    Run the command again after an interruption, and it continues; run it later, and it imports the
    runs that have been added since. The tracker is not changed.
    """
    there = named_store(dest).without_tracker()
    check_lasts(there)
    tracker = tracker_from_url(source)
    _check_there(source)
    storage = storage_of(there, **connecting(there))
    started = time.monotonic()

    async def copy(report: Callable[[ImportCounts], None]) -> ImportCounts:
        async with aclosing(storage):
            try:
                return await import_runs(
                    tracker, experiment, storage, name=name, objective=objective, progress=report
                )
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(tracker.close)

    console = Terminal()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console) as bars:
            task = bars.add_task(f"runs of {tracker.location}")
            counts = anyio.run(
                copy, lambda now: bars.update(task, description=f"{now.read:,} runs")
            )
    else:
        counts = anyio.run(copy, _Lines().report)
    seconds = span(time.monotonic() - started)
    echo(f"{_summary(counts)}; from {tracker.location} to {storage.location} in {seconds}")


def _check_there(source: str) -> None:
    """Refuse a database in a file that does not exist: opening would create it."""
    scheme, _, path = source.partition(":///")
    if scheme.lower().endswith("+sqlite") and not Path(path).exists():
        raise ConfigurationError(f"there is no file {path}")


class _Lines:
    """The progress as lines, for a log."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def report(self, counts: ImportCounts) -> None:
        now = time.monotonic()
        if now - self._last >= LINE_INTERVAL:
            self._last = now
            echo(f"{counts.read:,} runs")


def _summary(counts: ImportCounts) -> str:
    parts = [f"imported {plural(counts.imported, 'trial')}"]
    if counts.resumed:
        parts[0] += " more"
    if counts.present:
        parts.append(f"already there: {plural(counts.present, 'trial')}")
    if counts.same_params:
        parts.append(f"left out {plural(counts.same_params, 'run')} with params of another run")
    if counts.unfinished:
        parts.append(f"{plural(counts.unfinished, 'unfinished run')} interrupted")
    if counts.without_objective:
        parts.append(f"{plural(counts.without_objective, 'run')} without objective broken")
    return "; ".join(parts)
