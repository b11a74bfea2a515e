"""``aiostorage bench``: the speed of a storage on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import anyio
import click
from rich.table import Table
from rich.text import Text

from aiostorage._core.named_store import named_by, named_store
from aiostorage.cli.escapes import printable
from aiostorage.cli.existing import connecting
from aiostorage.cli.measuring import Measure, measure, scratch_of
from aiostorage.cli.options import debug_option, json_option, one_url, storage_option
from aiostorage.cli.terminal import Terminal, echo, echo_json, one_line
from aiostorage.errors import ConfigurationError

__all__ = ["bench"]

MEANINGS = {
    "fsync": "the disk keeps a page of 4 KiB; a commit of SQLite takes one or two",
    "read": "a question is answered: for a server, the way there and back",
    "register": "one task registers trials, one by one",
    "reserve": "one task reserves trials that are there",
    "cycle, 1 task": "register, reserve and complete a trial",
    "cycle, 8 tasks": "the same, in 8 tasks of one process",
    "cycle, 64 tasks": "the same, in 64 tasks of one process",
    "lock hand-over": "two storages get and release the algorithm lock in turn",
}
"""The description of each measurement."""


@click.command
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=5.0,
    show_default=True,
    help="How long to measure, about.",
)
@json_option
@debug_option
def bench(*, place: str | None, url: str | None, seconds: float, as_json: bool) -> None:
    """Measure what a storage does on this machine.

    Nothing that is in the storage is touched. Beside a file, a new one is made and deleted
    afterwards: it is on the same disk, and the storage does not grow. On a MongoDB server, it is a
    new database, whose name begins with "aiostorage_bench"; if the user may make none, an
    experiment of its own in the database. Both are deleted afterwards, also after Ctrl-C. Workers
    that are busy there meanwhile make the result worse, and are slowed down themselves.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune. Without URL, the storage that
    is configured is meant: the one that the environment variable AIOSTORAGE_URL names, else
    aiostorage.toml in the user's configuration directory, else a SQLite file in the user's data
    directory. A password in the environment or in the file is not visible in the list of processes.
    """
    url = one_url(place, url)
    named = named_store(url)
    if named.engine == "memory" and url is None:
        raise named_by(ConfigurationError("a storage in memory has no disk"), named.origin)
    options = {**named.options, **connecting(named)}
    scratch = scratch_of(replace(named, options=options))
    with one_line(sys.stderr) as told:
        why, found = anyio.run(measure, scratch, seconds, told)
    if as_json:
        echo_json(
            {
                "location": scratch.location,
                "measured": why,
                "measures": [{**asdict(one), "what": MEANINGS.get(one.name, "")} for one in found],
            }
        )
        return
    console = Terminal()
    if console.is_terminal:
        _print_table(console, scratch.location, found)
        console.print(f"Measured {why}.", markup=False, soft_wrap=True)
    else:
        for one in found:
            echo(f"{one.name}\t{one.value:.4g}\t{one.unit}\t{one.count}")


def _print_table(console: Terminal, location: str, found: list[Measure]) -> None:
    table = Table(
        title=Text(printable(location)),
        title_justify="left",
        title_style="dim",
        header_style="bold",
    )
    table.add_column("what")
    table.add_column("result", justify="right")
    table.add_column("")
    for one in found:
        table.add_row(one.name, f"{one.value:,.4g} {one.unit}", MEANINGS.get(one.name, ""))
    console.print(table)
