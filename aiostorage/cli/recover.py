"""``aiostorage recover``: makes lost trials available again."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import click

from aiostorage import Storage
from aiostorage._core.holders import named_holder
from aiostorage.cli.completion import EXPERIMENT
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import experiment_label, find_experiment
from aiostorage.cli.options import (
    debug_option,
    json_option,
    lost_after_option,
    storage_option,
    timeout_option,
)
from aiostorage.cli.plain import plain
from aiostorage.cli.terminal import echo, echo_json
from aiostorage.cli.text import plural

__all__ = ["recover"]


@click.command
@click.argument("named", metavar="[EXPERIMENT]", required=False, type=EXPERIMENT)
@storage_option
@lost_after_option
@click.option("--dry-run", is_flag=True, help="Say which trials are lost, and change nothing.")
@json_option
@timeout_option
@debug_option
def recover(
    *,
    named: str | None,
    url: str | None,
    lost_after: float | None,
    dry_run: bool,
    as_json: bool,
    timeout: float | None,
) -> None:
    """Hand out the lost trials of an experiment again, or those of all experiments.

    A trial is lost when its worker has given no sign of life for --lost-after seconds. It becomes
    interrupted, and the next worker that asks gets it. Workers do this on their own; the command
    is for those that do not. If a worker comes back, its next write is refused with TrialLost.

    EXPERIMENT is a name, NAME@VERSION if it has several versions, an id, or the beginning of an id.
    """
    opened = open_named(url, timeout, writing=not dry_run, lost_after=lost_after)
    found = anyio.run(_recover, opened, named, dry_run)
    if as_json:
        echo_json({"recovered": not dry_run, "trials": found})
        return
    done = "lost" if dry_run else "recovered"
    for one in found:
        echo(f"{done}: {one['experiment']}:{one['id']}, held by {one['holder']}")
    echo(f"{plural(len(found), 'trial')} {done}", err=True)


async def _recover(
    opened: AbstractAsyncContextManager[Storage], named: str | None, dry_run: bool
) -> list[dict[str, Any]]:
    async with opened as storage:
        if named is None:
            configs = await storage.fetch_experiments({}, {"name": 1, "version": 1})
        else:
            configs = [await find_experiment(storage, named, changing=True)]
        found: list[dict[str, Any]] = []
        for config in configs:
            lost = await storage.fetch_lost_trials(config)
            holders = {trial.id: named_holder(trial.worker) for trial in lost}
            if not dry_run and lost:
                lost = await storage.recover_lost_trials(config)
            found += [
                {
                    "experiment": experiment_label(config),
                    "id": trial.id,
                    "holder": holders.get(trial.id, named_holder(None)),
                    "heartbeat": plain(trial.heartbeat),
                }
                for trial in lost
            ]
        return found
