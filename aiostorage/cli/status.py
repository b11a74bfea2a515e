"""``aiostorage status``: shows the state of the experiments in a storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import anyio
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiostorage import ExperimentSummary, LockSummary, Storage
from aiostorage.cli.escapes import printable
from aiostorage.cli.existing import open_named
from aiostorage.cli.options import (
    debug_option,
    direction_option,
    json_option,
    lost_after_option,
    one_url,
    storage_option,
    timeout_option,
)
from aiostorage.cli.store_summary import OutboxSummary, summarise, summarise_outbox
from aiostorage.cli.terminal import Terminal, echo, echo_json
from aiostorage.cli.text import holder_line, number, plural, span
from aiostorage.summary import Direction
from aiostorage.trial import TrialStatus

__all__ = ["status"]

ALWAYS_SHOWN = (TrialStatus.NEW, TrialStatus.RESERVED, TrialStatus.COMPLETED)
"""Statuses that have a column in the table even if no trial has them."""

LOST = "lost"
"""The name of the number of lost trials, which is not a status."""


@click.command
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@click.option("--experiment", metavar="NAME", help="Show only this experiment, in all versions.")
@direction_option
@click.option(
    "--window",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True, max=1e9),
    default=600.0,
    show_default=True,
    help="Compute the rate from the trials completed in this time.",
)
@lost_after_option
@json_option
@timeout_option
@debug_option
def status(
    *,
    place: str | None,
    url: str | None,
    experiment: str | None,
    direction: Direction | None,
    window: float,
    lost_after: float | None,
    as_json: bool,
    timeout: float | None,
) -> None:
    """Show the experiments of a storage.

    For each experiment: the number of trials in each status, how many of the reserved ones are
    lost, how many processes work, how many trials are completed per minute and how long the rest
    takes at that rate, the best objective of the completed ones (NaN is left out), and who has held
    its algorithm lock since when. The engine counts; only the best trial is fetched. If changes
    have yet to be sent to a tracker: how many, and how long ago the oldest was made. Nothing is
    changed, and no file or database is created; other processes may keep working there.

    URL is for example sqlite:///tune.db (a relative path), sqlite:////home/me/tune.db or
    mongodb://localhost/tune, also a database that Oríon created. Without URL, the storage that
    is configured is meant: the one that the environment variable AIOSTORAGE_URL names, else
    aiostorage.toml in the user's configuration directory, else a SQLite file in the user's data
    directory. A password in the environment or in the file is not visible in the list of processes.
    """
    opened = open_named(one_url(place, url), timeout, lost_after=lost_after)
    location, found, outbox = anyio.run(_summarise, opened, experiment, direction, window)
    console = Terminal()
    if as_json:
        document = {
            "location": location,
            "experiments": [one.to_dict() for one in found],
            "outbox": outbox.to_dict(),
        }
        echo_json(document)
    elif console.is_terminal:
        _print_table(console, location, found)
        if outbox.length:
            console.print(_untold(outbox), markup=False, soft_wrap=True)
    else:
        _print_plain(found)
        if outbox.length:  # no line of the table
            echo(_untold(outbox), err=True)


async def _summarise(
    opened: AbstractAsyncContextManager[Storage],
    experiment: str | None,
    direction: Direction | None,
    window: float,
) -> tuple[str, list[ExperimentSummary], OutboxSummary]:
    async with opened as storage:
        found = await summarise(storage, experiment, direction=direction, window=window)
        return storage.location, found, await summarise_outbox(storage)


def _untold(outbox: OutboxSummary) -> str:
    """Return how much has yet to be sent to the tracker, and who sends it, as text."""
    sender = outbox.deliverer or "no process"
    return (
        f"tracker: {plural(outbox.length, 'change')} not sent yet, the oldest "
        f"{span(outbox.age)} old; {sender} sends them"
    )


def _print_table(console: Console, location: str, found: Sequence[ExperimentSummary]) -> None:
    shown = [s for s in TrialStatus if s in ALWAYS_SHOWN or any(one.counts.get(s) for one in found)]
    table = Table(
        title=Text(printable(location)),
        title_justify="left",
        title_style="dim",
        header_style="bold",
    )
    table.add_column("experiment", overflow="fold")
    for name in [*shown, "total", "best"]:
        table.add_column(name, justify="right")
    table.add_column("lock")
    for one in found:
        table.add_row(
            Text(f"{printable(one.name)} v{printable(one.version)}\n").append(
                printable(one.id), style="dim"
            ),
            *(_count(one, s) for s in shown),
            str(one.total),
            number(_best(one)),
            _lock_word(one.lock),
        )
    if found:
        console.print(table)
    else:
        console.print(f"{location}: no experiments yet", markup=False)
    for one in found:
        name = f"{printable(one.name)} v{printable(one.version)}"
        if pace := _pace(one):
            console.print(f"pace of {name}: {pace}", markup=False, soft_wrap=True)
        if one.lock is not None and one.lock.locked:
            line = f"lock of {name}: {printable(holder_line(one.lock, one.time))}"
            console.print(line, markup=False, soft_wrap=True)


def _pace(one: ExperimentSummary) -> str:
    """Return how many work, how fast, and for how long; empty if none does and nothing ended."""
    parts = [plural(one.workers, "process") + " at work"] if one.workers else []
    if one.rate:
        parts.append(f"{one.rate:.3g} trials completed per minute")
    if one.eta:
        parts.append(f"{one.remaining:,} left, which takes {span(one.eta.total_seconds())}")
    return ", ".join(parts)


def _print_plain(found: Sequence[ExperimentSummary]) -> None:
    """Print one line per experiment, in columns separated by tabs."""
    names = [status.value for status in TrialStatus]
    names.insert(names.index(TrialStatus.RESERVED) + 1, LOST)
    more = ["total", "best", "lock", "workers", "rate", "eta"]
    echo("\t".join(["experiment", "version", "id", *names, *more]))
    for one in found:
        counts = [str(one.lost if name == LOST else one.counts.get(name, 0)) for name in names]
        eta = "-" if one.eta is None else f"{one.eta.total_seconds():.0f}"
        lock = holder_line(one.lock, one.time) if one.lock and one.lock.locked else None
        cells = [one.name, one.version, one.id, *counts, one.total, _exact(_best(one))]
        cells += [lock or _lock_word(one.lock), one.workers, f"{one.rate:.6g}", eta]
        echo("\t".join(map(printable, cells)))


def _best(one: ExperimentSummary) -> float | None:
    objective = None if one.best is None else one.best.objective
    return None if objective is None else objective.value


def _count(one: ExperimentSummary, status: TrialStatus) -> str:
    """Return the number of trials in a status, with markup; for reserved ones, how many lost."""
    count = one.counts.get(status, 0)
    if status == TrialStatus.RESERVED and one.lost:
        return f"{count} [red]({LOST} {one.lost})[/]"
    return str(count) if count else "[dim]0[/]"


def _exact(value: float | None) -> str:
    return "-" if value is None else repr(value)


def _lock_word(lock: LockSummary | None) -> str:
    if lock is None:
        return "none"
    return "held" if lock.locked else "free"
