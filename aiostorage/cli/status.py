"""``aiostorage status``: the state of the experiments in a storage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import anyio
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiostorage import Storage
from aiostorage._core.named_store import named_store
from aiostorage.cli.escapes import printable
from aiostorage.cli.existing import open_existing
from aiostorage.cli.options import debug_option
from aiostorage.cli.summary import (
    ExperimentSummary,
    LockSummary,
    OutboxSummary,
    summarise,
    summarise_outbox,
)
from aiostorage.cli.terminal import Terminal, echo, echo_json
from aiostorage.cli.text import number, plural, span
from aiostorage.trial import TrialStatus

__all__ = ["status"]

ALWAYS_SHOWN = (TrialStatus.NEW, TrialStatus.RESERVED, TrialStatus.COMPLETED)
"""Statuses that have a column in the table even if no trial has them."""

LOST = "lost"
"""What the number of lost trials is called, which is no status."""


@click.command
@click.argument("url", required=False)
@click.option("--experiment", metavar="NAME", help="Show only this experiment, in all versions.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.option(
    "--lost-after",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help=(
        "Time without a heartbeat after which a reserved trial is lost, as the workers have it. "
        "Default: 120."
    ),
)
@debug_option
def status(
    url: str | None, experiment: str | None, as_json: bool, lost_after: float | None
) -> None:
    """Show the experiments of a storage.

    For each experiment: the number of trials in each status, how many of the reserved ones are
    lost, the smallest objective of the completed ones (NaN is left out), and who holds its
    algorithm lock since when. If a tracker has still to be told of changes: how many, and how long
    ago the oldest was. Nothing is changed, and no file or database is created; other
    processes may keep working there.

    URL is for example sqlite:///tune.db (a relative path), sqlite:////home/me/tune.db or
    mongodb://localhost/tune, which may be a database that Oríon made. Without URL, the storage that
    is configured is meant: the one that the environment variable AIOSTORAGE_URL names, else
    aiostorage.toml in the user's configuration directory, else a SQLite file in the user's data
    directory. A password in the environment or in the file is not visible in the list of processes.
    """
    settings = {} if lost_after is None else {"lost_after": lost_after}
    storage = open_existing(named_store(url), **settings)
    location = storage.location
    found, outbox = anyio.run(_summarise, storage, experiment)
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
    storage: Storage, experiment: str | None
) -> tuple[list[ExperimentSummary], OutboxSummary]:
    async with storage:
        return await summarise(storage, experiment), await summarise_outbox(storage)


def _untold(outbox: OutboxSummary) -> str:
    """Return what the tracker has still to be told, and who does that."""
    sender = outbox.deliverer or "no process"
    return (
        f"tracker: {plural(outbox.length, 'change')} not sent yet, the oldest "
        f"{span(outbox.age)} old; {sender} sends them"
    )


def _print_table(console: Console, location: str, found: Sequence[ExperimentSummary]) -> None:
    shown = [s for s in TrialStatus if s in ALWAYS_SHOWN or any(one.trials[s] for one in found)]
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
                printable(one.uid), style="dim"
            ),
            *(_count(one, s) for s in shown),
            str(one.trials.total()),
            number(one.best),
            _lock_word(one.lock),
        )
    if found:
        console.print(table)
    else:
        console.print(f"{location}: no experiments yet", markup=False)
    for one in found:
        if one.lock is not None and one.lock.locked:
            name = f"{printable(one.name)} v{printable(one.version)}"
            line = f"lock of {name}: {printable(_holder(one.lock))}"
            console.print(line, markup=False, soft_wrap=True)


def _print_plain(found: Sequence[ExperimentSummary]) -> None:
    """Print one line per experiment, in columns separated by tabs."""
    names = [status.value for status in TrialStatus]
    names.insert(names.index(TrialStatus.RESERVED) + 1, LOST)
    echo("\t".join(["experiment", "version", "id", *names, "total", "best", "lock"]))
    for one in found:
        counts = [str(one.lost if name == LOST else one.trials[name]) for name in names]
        total, best = str(one.trials.total()), _exact(one.best)
        lock = _holder(one.lock) if one.lock and one.lock.locked else _lock_word(one.lock)
        cells = [one.name, one.version, one.uid, *counts, total, best, lock]
        echo("\t".join(map(printable, cells)))


def _count(one: ExperimentSummary, status: TrialStatus) -> str:
    """Return the number of trials in a status, with markup; of the reserved ones, how many lost."""
    count = one.trials[status]
    if status == TrialStatus.RESERVED and one.lost:
        return f"{count} [red]({LOST} {one.lost})[/]"
    return str(count) if count else "[dim]0[/]"


def _exact(value: float | None) -> str:
    return "-" if value is None else repr(value)


def _lock_word(lock: LockSummary | None) -> str:
    if lock is None:
        return "none"
    return "held" if lock.locked else "free"


def _holder(lock: LockSummary) -> str:
    """Return who holds a lock, since when, and when the holder was last active."""
    text = f"held by {lock.owner or 'an unknown owner'}"
    if lock.since is not None:
        text += f" since {lock.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if lock.heartbeat is not None:
        age = (datetime.now(UTC) - lock.heartbeat).total_seconds()
        text += f" (last heartbeat {max(age, 0):.0f} s ago)"
    return text
