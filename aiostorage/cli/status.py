"""``aiostorage status``: how the experiments of a storage stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aiostorage import Storage
from aiostorage.cli.options import Stdout, debug_option
from aiostorage.cli.summary import LockView, Survey, open_existing, survey
from aiostorage.cli.text import number
from aiostorage.trial import TrialStatus

__all__ = ["status"]

ALWAYS = ("new", "reserved", "completed")
"""Statuses that the table shows even if no trial has them."""


@click.command
@click.argument("url", envvar="AIOSTORAGE_URL")
@click.option("--experiment", metavar="NAME", help="Show only this experiment, in all versions.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@debug_option
def status(url: str, experiment: str | None, as_json: bool) -> None:
    """Show the experiments of a storage.

    For each experiment: how many trials there are in which status, the smallest objective of the
    completed ones, and who holds its algorithm lock since when. Nothing is changed, and no file or
    database is created; other processes may go on working there.

    URL is for example sqlite:///tune.db (a relative path), sqlite:////home/me/tune.db or
    mongodb://localhost/tune, which may be a database of Oríon's own. Without one it is that of the
    environment's AIOSTORAGE_URL, where a password is not for all to see.
    """
    storage = open_existing(url)
    location, found = storage.location, anyio.run(_look, storage, experiment)
    console = Stdout()
    if as_json:
        document = {"location": location, "experiments": [one.to_dict() for one in found]}
        click.echo(json.dumps(document, indent=2))
    elif console.is_terminal:
        _print_table(console, location, found)
    else:
        _print_plain(found)


async def _look(storage: Storage, experiment: str | None) -> list[Survey]:
    async with storage:
        return await survey(storage, experiment)


def _print_table(console: Console, location: str, found: Sequence[Survey]) -> None:
    statuses = [s.value for s in TrialStatus if s in ALWAYS or any(one.trials[s] for one in found)]
    table = Table(title=location, title_justify="left", title_style="dim", header_style="bold")
    table.add_column("experiment", overflow="fold")
    for name in [*statuses, "total", "best"]:
        table.add_column(name, justify="right")
    table.add_column("lock")
    for one in found:
        table.add_row(
            Text(f"{one.name} v{one.version}\n").append(str(one.uid), style="dim"),
            *(str(one.trials[s]) if one.trials[s] else "[dim]0[/]" for s in statuses),
            str(one.trials.total()),
            number(one.best),
            _word(one.lock),
        )
    if found:
        console.print(table)
    else:
        console.print(f"{location}: no experiments yet")
    for one in found:
        if one.lock is not None and one.lock.locked:
            holder = f"lock of {one.name} v{one.version}: {_held(one.lock)}"
            console.print(holder, markup=False, soft_wrap=True)


def _print_plain(found: Sequence[Survey]) -> None:
    """Print a line for each experiment, in columns that tabs separate."""
    names = [status.value for status in TrialStatus]
    click.echo("\t".join(["experiment", "version", "id", *names, "total", "best", "lock"]))
    for one in found:
        counts = [str(one.trials[name]) for name in names]
        total, best = str(one.trials.total()), _exactly(one.best)
        lock = _held(one.lock) if one.lock is not None and one.lock.locked else _word(one.lock)
        name = " ".join(one.name.split())
        click.echo("\t".join([name, str(one.version), str(one.uid), *counts, total, best, lock]))


def _exactly(value: float | None) -> str:
    return "-" if value is None else repr(value)


def _word(lock: LockView | None) -> str:
    if lock is None:
        return "none"
    return "held" if lock.locked else "free"


def _held(lock: LockView) -> str:
    """Say who holds a lock, since when, and whether it seems to live."""
    text = f"held by {lock.owner or 'somebody unknown'}"
    if lock.since is not None:
        text += f" since {lock.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if lock.heartbeat is not None:
        age = (datetime.now(UTC) - lock.heartbeat).total_seconds()
        text += f" (last heard of {max(age, 0):.0f} s ago)"
    return text
