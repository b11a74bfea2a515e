"""``aiostorage dump``: writes a storage into a file."""

from __future__ import annotations

import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import IO

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.existing import connecting, open_existing
from aiostorage.cli.move_display import echo_report, progress_shown
from aiostorage.cli.options import debug_option, json_option, one_url, storage_option
from aiostorage.transfer import DumpReport, TableReport, dump_storage, dump_trials

__all__ = ["dump"]


@click.command
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    default="-",
    metavar="FILE",
    help="The file; compressed if its name ends with .gz or .zst. Default: standard output.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jsonl", "csv", "parquet"]),
    default="jsonl",
    show_default=True,
    help="jsonl is everything, for `aiostorage load`; csv and parquet are tables of the trials.",
)
@click.option(
    "-e",
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME[@VERSION]",
    help="Only this experiment, with all its versions unless one is named; several are possible.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
@debug_option
def dump(
    *,
    place: str | None,
    url: str | None,
    output: Path,
    kind: str,
    experiments: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a storage into a file.

    The file has one record per line, in JSON, with every value as it is stored: experiments, their
    trials and algorithm locks with the states, and benchmarks. Nothing is unpickled. FILE gets its
    name when it is complete. Workers may keep running.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune; without URL, it is the
    configured storage, as for `aiostorage status`. With standard output as FILE, the report goes to
    standard error.
    """
    to_stdout = str(output) == "-"
    if to_stdout and sys.stdout is None:
        raise click.UsageError("standard output is closed; name a file with --output")
    named = named_store(one_url(place, url))
    storage = open_existing(named, **connecting(named))
    target: Path | IO[bytes] = sys.stdout.buffer if to_stdout else output
    names = experiments or None

    async def write() -> DumpReport | TableReport:
        async with aclosing(storage):
            if kind in ("csv", "parquet"):
                make = partial(dump_trials, format="csv" if kind == "csv" else "parquet")
                return await make(
                    storage, target, experiments=names, overwrite=overwrite, progress=show
                )
            return await dump_storage(
                storage, target, experiments=names, overwrite=overwrite, progress=show
            )

    with progress_shown() as show:
        report = anyio.run(write)
    echo_report(report, as_json=as_json, err=to_stdout)
