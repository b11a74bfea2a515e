"""``aiostorage doctor``: examines a storage and repairs it."""

from __future__ import annotations

from functools import partial

import anyio
import click

from aiostorage._core.named_store import named_store
from aiostorage.cli.escapes import printable
from aiostorage.cli.existing import connecting
from aiostorage.cli.options import (
    debug_option,
    json_option,
    lost_after_option,
    one_url,
    storage_option,
)
from aiostorage.cli.terminal import echo, echo_json
from aiostorage.cli.text import plural
from aiostorage.doctor import examine, repair
from aiostorage.findings import Examination

__all__ = ["doctor"]


@click.command
@click.argument("place", metavar="[URL]", required=False)
@storage_option
@click.option("--repair", "repairs", is_flag=True, help="Repair what needs no guess.")
@click.option(
    "--delete-orphans",
    is_flag=True,
    help="With --repair: delete the trials of experiments that do not exist.",
)
@lost_after_option
@json_option
@debug_option
def doctor(
    *,
    place: str | None,
    url: str | None,
    repairs: bool,
    delete_orphans: bool,
    lost_after: float | None,
    as_json: bool,
) -> None:
    """Report what is wrong with a storage, and what to do about it.

    It examines the file and its file system, or the server and its clock; tables and indexes;
    locks and their waiters; trials that are lost, belong to no experiment or cannot be read; and
    records that pile up. Each finding names the command to run next. Nothing is changed, and no
    file is created; workers may keep running.

    With --repair, it makes the repairs that need no guess, and leaves everything else alone: it
    creates missing indexes, hands out lost trials again, and deletes lock records without an
    experiment. Trials without an experiment are deleted only with --delete-orphans.

    The exit code is 0 when all is well, 1 when something is wrong, 3 when the storage cannot be
    reached.

    URL is for example sqlite:///tune.db or mongodb://localhost/tune. Without URL, the storage that
    is configured is meant: the one that the environment variable AIOSTORAGE_URL names, else
    aiostorage.toml in the user's configuration directory, else a SQLite file in the user's data
    directory. A password in the environment or in the file is not visible in the list of processes.
    """
    url = one_url(place, url)
    if delete_orphans and not repairs:
        raise click.UsageError("--delete-orphans is for --repair; without it nothing is changed")
    settings = connecting(named_store(url))
    if lost_after is not None:
        settings["lost_after"] = lost_after
    if repairs:
        call = partial(repair, url, delete_orphans=delete_orphans, **settings)
    else:
        call = partial(examine, url, **settings)
    found: Examination = anyio.run(call)
    if as_json:
        echo_json(found.to_dict())
    else:
        _print(found)
    if not found.healthy:
        click.get_current_context().exit(1)


def _print(found: Examination) -> None:
    facts = ", ".join(f"{name} {value}" for name, value in found.facts.items() if value is not None)
    echo(f"{found.location}: {facts}")
    for done in found.repairs:
        verb = "repaired" if done.done else "not repaired"
        echo(f"{verb}: {done.code}: {done.where}: {done.what}")
    for one in found.findings:
        echo(f"{one.severity}: {one.code}: {printable(one.what)}")
        echo(f"\tnext: {one.command}")
    wrong = sum(one.severity != "note" for one in found.findings)
    echo("all is well" if not wrong else f"{plural(wrong, 'thing')} to look at")
