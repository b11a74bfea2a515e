"""``aiostorage rm``: deletes an experiment or a trial."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio
import click

from aiostorage import ExperimentSummary, Storage, Trial, TrialStatus
from aiostorage._core.holders import named_holder
from aiostorage.cli.completion import EXPERIMENT_OR_TRIAL
from aiostorage.cli.existing import open_named
from aiostorage.cli.naming import NothingFound, experiment_label, find_named
from aiostorage.cli.options import (
    confirmed,
    debug_option,
    lost_after_option,
    storage_option,
    timeout_option,
    yes_option,
)
from aiostorage.cli.terminal import echo
from aiostorage.cli.text import plural

__all__ = ["rm"]

RESERVED: Final = TrialStatus.RESERVED.value


@click.command
@click.argument("named", metavar="EXPERIMENT[:TRIAL]", type=EXPERIMENT_OR_TRIAL)
@storage_option
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and change nothing.")
@yes_option
@lost_after_option
@timeout_option
@debug_option
def rm(
    *,
    named: str,
    url: str | None,
    dry_run: bool,
    yes: bool,
    lost_after: float | None,
    timeout: float | None,
) -> None:
    """Delete an experiment with its trials and its algorithm lock, or one trial.

    It shows what would be deleted, and which of the trials a worker still has, and asks first. A
    worker whose trial is gone gets TrialLost. A deletion cannot be undone: use `aiostorage dump`
    before.

    EXPERIMENT is a name, NAME@VERSION if it has several versions, an id, or the beginning of an id.
    A trial is EXPERIMENT:TRIAL, with the id of the trial or the beginning of it.
    """
    config, trial, what = anyio.run(_look, open_named(url, timeout, lost_after=lost_after), named)
    if dry_run:
        echo(f"would delete {what}")
    elif not confirmed(f"delete {what}", yes):
        echo("nothing was changed", err=True)
    elif anyio.run(_remove, open_named(url, timeout, writing=True), config, trial):
        echo(f"deleted {what}")
    else:
        raise NothingFound(f"{named} has just been deleted by another process")


async def _look(
    opened: AbstractAsyncContextManager[Storage], named: str
) -> tuple[dict[str, Any], Trial | None, str]:
    """Return the records to delete, and a description of them."""
    async with opened as storage:
        config, trial = await find_named(storage, named, changing=True)
        label = experiment_label(config)
        if trial is not None:
            held = f", which {named_holder(trial.worker)} has" if trial.status == RESERVED else ""
            return config, trial, f"the {trial.status} trial {trial.id} of {label}{held}"
        summary = await storage.summary(config)
        if summary is None:
            raise NothingFound(f"{label} has just been deleted")
        return config, None, _contents(label, summary)


async def _remove(
    opened: AbstractAsyncContextManager[Storage], config: dict[str, Any], trial: Trial | None
) -> int:
    async with opened as storage:
        if trial is None:
            return await storage.delete_experiment(config)
        return await storage.delete_trials(config, where={"id": trial.id})


def _contents(label: str, summary: ExperimentSummary) -> str:
    """Return a description of the records that are deleted with an experiment."""
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts.items())
    trials = plural(summary.total, "trial") + (f" ({counts})" if counts else "")
    text = f"{label} with {trials}"
    held = summary.counts.get(RESERVED, 0) - summary.lost
    if held:
        text += f", of which workers have {held} now"
    if summary.lock is not None and summary.lock.locked:
        text += f"; its lock is held by {summary.lock.owner or 'an unknown owner'}"
    return text
