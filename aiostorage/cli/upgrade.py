"""``aiostorage upgrade``: brings an older storage to the current layout."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import connecting
from aiostorage.cli.options import debug_option, json_option, one_url, storage_option
from aiostorage.cli.terminal import echo, echo_json, one_line
from aiostorage.factory import upgrade_storage
from aiostorage.upgrades import UpgradeReport

__all__ = ["upgrade"]


@click.command
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@click.option(
    "--backup",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to copy a SQLite file first. Default: beside it, as FILE.layout-VERSION.",
)
@click.option("--no-backup", is_flag=True, help="Do not copy a SQLite file first.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@json_option
@debug_option
def upgrade(
    *,
    place: str | None,
    url: str | None,
    backup: Path | None,
    no_backup: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upgrade a storage that an older aiostorage created.

    End all workers that use it first, on every machine. A SQLite file is copied, and then upgraded
    in one transaction: whatever happens, it has the old layout or the new one. The copy overwrites
    nothing. A MongoDB database is upgraded step by step; after an interruption, run the command
    again, and it continues. No copy is made of a database: use mongodump.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune. Without URL, the storage that
    is configured is meant: the one that the environment variable AIOSTORAGE_URL names, else
    aiostorage.toml in the user's configuration directory, else a SQLite file in the user's data
    directory. A password in the environment or in the file is not visible in the list of processes.
    """
    url = one_url(place, url)
    if backup is not None and no_backup:
        raise click.UsageError("--backup and --no-backup exclude each other")
    wanted = not no_backup if backup is None else backup
    with one_line(sys.stderr) as told:
        call = partial(upgrade_storage, url, backup=wanted, dry_run=dry_run, progress=told)
        report = anyio.run(partial(call, **connecting(named_store(url))))
    if as_json:
        echo_json(report.to_dict())
        return
    for line in _lines(report):
        echo(line)


def _lines(report: UpgradeReport) -> list[str]:
    if report.found is None:
        return [f"{report.location}: nothing to upgrade"]
    if not report.needed:
        return [f"{report.location} is up to date: it has layout {report.version}"]
    lines = [] if report.backup is None else [f"the old state is in {report.backup}"]
    lines += report.notes
    done = "would be upgraded" if report.dry_run else "upgraded"
    return [*lines, f"{report.location}: {done} from layout {report.found} to {report.version}"]
