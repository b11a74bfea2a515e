"""``aiostorage copy``: copies a storage into another one, of any engine."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import connecting, open_existing
from aiostorage.cli.move_display import echo_report, progress_shown
from aiostorage.cli.move_options import destination_of, move_options, opened
from aiostorage.cli.options import debug_option
from aiostorage.transfer import MoveReport, Resolve, copy_storage

__all__ = ["copy_command"]


@click.command("copy")
@click.argument("source")
@click.argument("dest")
@click.option(
    "-e",
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME[@VERSION]",
    help="Only this experiment, with all its versions unless one is named; several are possible.",
)
@move_options
@debug_option
def copy_command(
    source: str,
    dest: str,
    *,
    experiments: tuple[str, ...],
    resolve: Resolve | None,
    keep_reservations: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy a storage into another one, of any engine.

    SOURCE and DEST are for example sqlite:///tune.db and mongodb://localhost/tune. SOURCE is not
    changed; stop its workers first. Records are read and written a page at a time. Run the command
    again after an interruption, and it continues; records that are already there stay. An
    experiment appears when it is complete. At the end, the counts and hashes of all records are
    compared. Trials that workers had reserved are interrupted in DEST, so that the next worker
    takes them up, and locks are free. A tracker of DEST does not get the trials until you run
    `aiostorage tracker-sync --all`.
    """
    named = named_store(source)
    origin = open_existing(named, **connecting(named))
    destination, location = destination_of(named_store(dest), dry_run=dry_run)

    async def move() -> MoveReport:
        async with aclosing(origin):
            await origin.open()  # first: if it is not there, DEST is not made
            async with aclosing(await opened(destination, dry_run=dry_run)) as storage:
                report = await copy_storage(
                    origin,
                    storage,
                    experiments=experiments or None,
                    resolve=resolve,
                    keep_reservations=keep_reservations,
                    dry_run=dry_run,
                    progress=show,
                )
        return replace(report, destination=location)

    with progress_shown() as show:
        report = anyio.run(move)
    echo_report(report, as_json=as_json)
