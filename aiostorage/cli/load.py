"""``aiostorage load``: loads a dump into a storage."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.move_display import echo_report, progress_shown
from aiostorage.cli.move_options import destination_of, move_options, opened
from aiostorage.cli.options import debug_option, one_url, storage_option
from aiostorage.transfer import MoveReport, Resolve, load_storage

__all__ = ["load"]


@click.command
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@move_options
@debug_option
def load(
    *,
    file: Path,
    place: str | None,
    url: str | None,
    resolve: Resolve | None,
    keep_reservations: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Load a file that `aiostorage dump` has written.

    FILE may be compressed, and it may be - for standard input, which is kept in a temporary file
    meanwhile: all of it is checked before anything is written. Run the command again after an
    interruption, and it continues; records that are already there stay. An experiment appears when
    it is complete. Trials that workers had reserved are interrupted, so that the next worker takes
    them up, and locks are free.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune; without URL, it is the
    configured storage, as for `aiostorage status`. A tracker does not get the trials until you run
    `aiostorage tracker-sync --all`.
    """
    destination, location = destination_of(named_store(one_url(place, url)), dry_run=dry_run)

    async def move(dump: Path) -> MoveReport:
        async with aclosing(await opened(destination, dry_run=dry_run)) as storage:
            report = await load_storage(
                dump,
                storage,
                resolve=resolve,
                keep_reservations=keep_reservations,
                dry_run=dry_run,
                progress=show,
            )
        source = "standard input" if dump != file else report.source
        return replace(report, source=source, destination=location)

    with _as_file(file) as dump, progress_shown() as show:
        report = anyio.run(move, dump)
    echo_report(report, as_json=as_json)


@contextmanager
def _as_file(file: Path) -> Iterator[Path]:
    """Give the file, or what standard input has as a file: it is read more than once.

    Raises
    ------
    click.UsageError
        Standard input is closed, or a terminal.
    """
    if str(file) != "-":
        yield file
        return
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise click.UsageError("standard input is closed or a terminal: there is no dump to read")
    with tempfile.TemporaryDirectory(prefix="aiostorage-load-") as folder:
        spooled = Path(folder, "standard-input")
        with spooled.open("wb") as target:
            shutil.copyfileobj(sys.stdin.buffer, target)
        yield spooled
