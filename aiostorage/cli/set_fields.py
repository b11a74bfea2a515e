"""``aiostorage set``: changes fields of an experiment or a trial."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final

import anyio
import click

from aiostorage import Storage, Trial, TrialStatus
from aiostorage._core.holders import named_holder
from aiostorage.cli.assignments import (
    parsed_assignments,
    refused_in_experiment,
    refused_in_trial,
)
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
from aiostorage.cli.plain import plain
from aiostorage.cli.terminal import echo
from aiostorage.cli.text import ago
from aiostorage.errors import FailedUpdate
from aiostorage.values import FINAL_STATUSES, as_results

__all__ = ["set_fields"]

RESERVED: Final = TrialStatus.RESERVED.value


@click.command("set")
@click.argument("named", metavar="EXPERIMENT[:TRIAL]", type=EXPERIMENT_OR_TRIAL)
@click.argument("assignments", metavar="FIELD=VALUE…", nargs=-1, required=True)
@storage_option
@yes_option
@lost_after_option
@timeout_option
@debug_option
def set_fields(
    *,
    named: str,
    assignments: tuple[str, ...],
    url: str | None,
    yes: bool,
    lost_after: float | None,
    timeout: float | None,
) -> None:
    """Change fields of an experiment, or the status and fields of a trial.

    VALUE is JSON; anything else is taken as text. Examples:

    \b
      aiostorage set tune max_trials=200 metadata.note='"second run"'
      aiostorage set tune:1a2b status=interrupted
      aiostorage set tune:1a2b status=completed objective=0.25

    A trial that leaves the status reserved is taken from its worker, whose next write is refused
    with TrialLost. The command says which worker that is, and asks first if it is alive. Nothing is
    written if the trial has another status or holder by then. Ids cannot be changed, nor the
    experiment and the params of a trial, which determine its id, nor its worker; and no trial can
    be set to reserved, or to completed without an objective.

    EXPERIMENT is a name, NAME@VERSION if it has several versions, an id, or the beginning of an id.
    A trial is EXPERIMENT:TRIAL, with the id of the trial or the beginning of it.
    """  # noqa: D301  click knows a paragraph of lines by this character
    changes = parsed_assignments(assignments)
    opened = open_named(url, timeout, lost_after=lost_after)
    config, trial, asked, now = anyio.run(_look, opened, named, changes)
    if asked and not confirmed(asked, yes):
        echo("nothing was changed", err=True)
        return
    writable = open_named(url, timeout, writing=True)
    if trial is None:
        anyio.run(_set_experiment, writable, config, changes)
        before: Mapping[str, Any] = config
    else:
        anyio.run(_set_trial, writable, trial, changes, now)
        objective = trial.objective
        before = trial.to_dict() | {"objective": None if objective is None else objective.value}
    for name, value in changes.items():
        echo(f"{name}: {_shown(_value_at(before, name))} -> {_shown(value)}")


async def _look(
    opened: AbstractAsyncContextManager[Storage], named: str, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], Trial | None, str, datetime]:
    """Return the record to change, the question to ask, if any, and the store's time.

    Raises
    ------
    click.UsageError
        The changes cannot be made.
    """
    async with opened as storage:
        config, trial = await find_named(storage, named, changing=True)
        reason = (
            refused_in_experiment(changes) if trial is None else refused_in_trial(trial, changes)
        )
        if reason:
            raise click.UsageError(reason)
        summary = await storage.summary(config)
        if summary is None:
            raise NothingFound(f"{experiment_label(config)} has just been deleted")
        asked = ""
        if trial is not None and trial.status == RESERVED:
            lost = {one.id for one in await storage.fetch_lost_trials(config)}
            if trial.id not in lost:
                sign = trial.heartbeat or trial.start_time or trial.submit_time
                heard = f" (last heartbeat {ago(sign, summary.time)})" if sign else ""
                asked = (
                    f"{named_holder(trial.worker)} works on trial {trial.id}{heard}; change it all "
                    "the same"
                )
        return config, trial, asked, summary.time


async def _set_experiment(
    opened: AbstractAsyncContextManager[Storage],
    config: dict[str, Any],
    changes: Mapping[str, Any],
) -> None:
    async with opened as storage:
        if not await storage.update_experiment(uid=config["_id"], **changes):
            raise NothingFound(f"{experiment_label(config)} has just been deleted")


async def _set_trial(
    opened: AbstractAsyncContextManager[Storage],
    trial: Trial,
    changes: Mapping[str, Any],
    now: datetime,
) -> None:
    """Write the changes if the trial is as it was shown."""
    written = {name: value for name, value in changes.items() if name != "objective"}
    if "objective" in changes:
        others = [result for result in trial.results if result.type != "objective"]
        made = as_results({"objective": changes["objective"]})
        written["results"] = [result.to_dict() for result in [*made, *others]]
    status = changes.get("status", trial.status)
    if trial.status == RESERVED != status:  # its token must not be valid any more
        written["worker"] = None
    if status in FINAL_STATUSES and "status" in changes and trial.end_time is None:
        written.setdefault("end_time", now)
    async with opened as storage:
        as_shown = {"status": trial.status, "worker": trial.worker}
        if not await storage.update_trial(
            uid=trial.id, experiment_uid=trial.experiment, where=as_shown, **written
        ):
            raise FailedUpdate(
                f"trial {trial.id} has another status or another holder by now, or is deleted; "
                "nothing was changed: look at it with `aiostorage show`",
                uid=trial.id,
            )


def _value_at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    return "-" if value is None else str(plain(value))
